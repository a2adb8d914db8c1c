"""Contracts that every registered operator keeps, third parties' ones included."""

from __future__ import annotations

import itertools
import math

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import Curve, Operator, get_operator, list_operators

OPERATORS = list_operators()
SIGNED = ("sharpness", "noise", "luminance", "contrast", "saturation", "temperature", "tint")
every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda op: op.name)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _crop(top: int, left: int, height: int, width: int) -> Tensor:
    photograph = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    return photograph[..., top : top + height, left : left + width].contiguous()


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A face, hair, cloth and a flag: flat, textured, coloured and dark parts."""
    return _crop(60, 160, 96, 96)


def _mse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())


def _check_valid(result: Tensor, image: Tensor) -> None:
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


class TestBank:
    def test_at_least_forty(self) -> None:
        assert len(OPERATORS) >= 40

    @pytest.mark.parametrize("channel", CHANNELS)
    def test_every_channel_is_covered(self, channel: str) -> None:
        assert list_operators(channel)

    @pytest.mark.parametrize("channel", SIGNED)
    def test_both_directions(self, channel: str) -> None:
        assert {op.sign for op in list_operators(channel)} == {-1, 1}

    def test_names_are_unique(self) -> None:
        assert len({op.name for op in OPERATORS}) == len(OPERATORS)

    def test_what_real_pictures_suffer_from_is_there(self) -> None:
        wanted = {
            *("gaussian_blur", "lens_blur", "motion_blur", "plateau_blur", "anisotropic_blur"),
            *("jpeg", "jpeg_444", "jpeg_double", "jpeg2000", "webp", "avif"),
            *("white_noise", "poisson_gaussian", "correlated_noise", "speckle"),
            *("bilateral", "non_local_means", "median", "sinc_ringing", "resize_chain"),
        }
        assert wanted <= {op.name for op in OPERATORS}


@every_operator
class TestEveryOperator:
    def test_is_described(self, operator: Operator) -> None:
        assert operator.name == operator.name.lower()
        assert " " not in operator.name
        assert len(operator.about) > 15
        assert operator.family
        assert set(operator.direction()) <= set(CHANNELS)
        assert all(0 < abs(share) < 1 for share in operator.side.values())

    def test_severity_zero(self, operator: Operator, image: Tensor) -> None:
        result = operator(image, 0.0, _seeded())
        if operator.mildest:
            assert _mse(result, image) < 1e-3
        else:
            assert torch.equal(result, image)
            assert result.data_ptr() != image.data_ptr()

    def test_starts_near_the_threshold(self, operator: Operator, image: Tensor) -> None:
        mildest = _mse(operator(image, 0.02, _seeded()), image)
        worst = _mse(operator(image, 1.0, _seeded()), image)
        # Codecs start at their mildest setting, which is not nothing.
        assert mildest < (0.2 if operator.mildest else 0.1) * worst
        assert mildest < 1e-3

    @pytest.mark.parametrize("severity", [0.02, 0.5, 1.0])
    def test_valid_and_repeatable(self, operator: Operator, image: Tensor, severity: float) -> None:
        before = image.clone()
        state = torch.get_rng_state()
        result = operator(image, severity, _seeded(3))
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert torch.equal(image, before), "the input was changed in place"
        _check_valid(result, image)
        assert torch.equal(operator(image, severity, _seeded(3)), result)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_stronger_is_further_away(self, operator: Operator, image: Tensor, seed: int) -> None:
        ladder = [_mse(operator(image, s, _seeded(seed)), image) for s in (0.1, 0.3, 0.6, 1.0)]
        assert all(near < far for near, far in itertools.pairwise(ladder)), ladder

    def test_odd_sizes_and_batches(self, operator: Operator) -> None:
        images = torch.cat([_crop(60, 160, 67, 101), _crop(200, 200, 67, 101)])
        result = operator(images, 0.6, _seeded())
        _check_valid(result, images)
        assert all(_mse(after, before) > 0 for after, before in zip(result, images, strict=True))

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
    def test_constant_images(self, operator: Operator, level: float) -> None:
        image = torch.full((1, 3, 32, 32), level)
        _check_valid(operator(image, 0.7, _seeded()), image)

    def test_double_precision_is_kept(self, operator: Operator, image: Tensor) -> None:
        result = operator(image.double(), 0.5, _seeded())
        _check_valid(result, image.double())
        if operator.differentiable and not operator.hard_mask:
            assert _mse(result, operator(image, 0.5, _seeded()).double()) < 1e-5

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_rounds_and_does_nothing_else(
        self, operator: Operator, dtype: torch.dtype
    ) -> None:
        images = _crop(60, 160, 67, 101).to(dtype)
        result = operator(images, 0.5, _seeded())
        _check_valid(result, images)
        assert torch.equal(result, operator(images.float(), 0.5, _seeded()).to(dtype))

    def test_autocast_changes_nothing(self, operator: Operator) -> None:
        images = _crop(60, 160, 40, 48)
        plain = operator(images, 0.5, _seeded())
        with torch.autocast("cpu", torch.bfloat16):
            result = operator(images, 0.5, _seeded())
        assert result.dtype == images.dtype
        assert torch.equal(result, plain)

    def test_the_default_device_does_not_matter(self, operator: Operator) -> None:
        images = _crop(60, 160, 40, 48)
        plain = operator(images, 0.5, _seeded())
        with torch.device("meta"):  # stands for a GPU, whose tensors the generator cannot fill
            result = operator(images, 0.5, _seeded())
        assert torch.equal(result, plain)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_the_default_dtype_does_not_matter(
        self, operator: Operator, dtype: torch.dtype
    ) -> None:
        images = _crop(60, 160, 40, 48)
        plain = operator(images, 0.5, _seeded())
        torch.set_default_dtype(dtype)
        try:
            result = operator(images, 0.5, _seeded())
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(result, plain)

    def test_gradients_flow(self, operator: Operator, image: Tensor) -> None:
        if not operator.differentiable:
            pytest.skip("not differentiable")
        leaf = image.clone().requires_grad_()
        weights = torch.randn(image.shape, generator=_seeded())
        (operator(leaf, 0.4, _seeded()) * weights).sum().backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert (leaf.grad != 0).float().mean() > 0.1

    @pytest.mark.parametrize("severity", [-0.1, 1.1, math.nan])
    def test_severity_out_of_range(
        self, operator: Operator, image: Tensor, severity: float
    ) -> None:
        with pytest.raises(ValueError, match="severity must be in"):
            operator(image, severity, _seeded())


def _detail(images: Tensor) -> float:
    down = images[..., 1:, :] - images[..., :-1, :]
    right = images[..., :, 1:] - images[..., :, :-1]
    return float(down.square().mean() + right.square().mean())


def _grey(images: Tensor) -> Tensor:
    return (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)


def _colourfulness(images: Tensor) -> float:
    return float((images.amax(1) - images.amin(1)).mean())


def _warmth(images: Tensor) -> float:
    return float((images[:, 0] - images[:, 2]).mean())


def _magenta(images: Tensor) -> float:
    return float(((images[:, 0] + images[:, 2]) / 2 - images[:, 1]).mean())


MEASURES = {
    "sharpness": _detail,
    "noise": _detail,
    "luminance": lambda images: float(_grey(images).mean()),
    "contrast": lambda images: float(_grey(images).std()),
    "saturation": _colourfulness,
    "temperature": _warmth,
    "tint": _magenta,
}


@pytest.mark.parametrize(
    "operator", [op for op in OPERATORS if op.channel in MEASURES], ids=lambda op: op.name
)
@pytest.mark.parametrize("severity", [0.4, 0.8])
def test_signs_agree_with_a_plain_measure(
    operator: Operator, severity: float, image: Tensor
) -> None:
    measure = MEASURES[operator.channel]
    change = measure(operator(image, severity, _seeded())) - measure(image)
    assert change * operator.sign > 0


@pytest.mark.parametrize(
    "name",
    ["jpeg", "jpeg_444", "dct_quantisation", "block_average"],
)
def test_block_codecs_raise_the_steps_on_the_block_grid(name: str, image: Tensor) -> None:
    def excess(images: Tensor) -> float:
        steps = (images[..., 1:] - images[..., :-1]).abs().mean((0, 1, 2))
        on_grid = steps[7::8].mean()
        return float(on_grid / steps.mean())

    assert excess(get_operator(name)(image, 0.9, _seeded())) > 1.25 * excess(image)


@pytest.mark.parametrize("name", ["sinc_ringing", "gibbs_truncation", "edge_echo"])
def test_ringing_overshoots_a_step(name: str) -> None:
    step = torch.full((1, 3, 64, 64), 0.25)
    step[..., 32:] = 0.75
    result = get_operator(name)(step, 0.8, _seeded())
    assert result.max() > 0.77
    assert result.min() < 0.23


@pytest.mark.parametrize("name", ["gaussian_blur", "mean_blur", "bilinear_resize", "median"])
def test_smoothing_does_not_overshoot_a_step(name: str) -> None:
    step = torch.full((1, 3, 64, 64), 0.25)
    step[..., 32:] = 0.75
    result = get_operator(name)(step, 0.8, _seeded())
    assert result.max() < 0.75 + 1e-5
    assert result.min() > 0.25 - 1e-5


@pytest.mark.parametrize("operator", [op for op in OPERATORS if op.family == "noise"])
def test_noise_patterns_follow_the_seed_and_not_the_strength(operator: Operator) -> None:
    # Small strengths on mid-grey, where nothing is clipped: the patterns must be proportional.
    grey = torch.full((1, 3, 48, 48), 0.5, dtype=torch.float64)
    weak = operator(grey, 0.05, _seeded(5)) - grey
    strong = operator(grey, 0.2, _seeded(5)) - grey
    other = operator(grey, 0.2, _seeded(6)) - grey

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    assert cosine(weak, strong) > 0.999
    assert abs(cosine(strong, other)) < 0.2


class TestOperatorValidation:
    def test_images_must_be_colour_batches(self) -> None:
        operator = get_operator("gaussian_blur")
        for shape in ((3, 32, 32), (1, 1, 32, 32)):
            with pytest.raises(ValueError, match="N×3×H×W"):
                operator(torch.rand(shape), 0.5, _seeded())

    @every_operator
    def test_images_of_integers_are_refused_and_not_misread(self, operator: Operator) -> None:
        levels = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
        with pytest.raises(TypeError, match=r"got torch\.uint8: pass images / 255"):
            operator(levels, 0.5, _seeded())

    def test_a_result_of_another_shape_is_refused(self) -> None:
        grey = self._build(apply=lambda images, strength, generator: images.mean(1, keepdim=True))
        with pytest.raises(ValueError, match=r"'test' made \(2, 1, 8, 8\) of images .*3, 8, 8\)"):
            grey(torch.rand(2, 3, 8, 8), 0.5, _seeded())

    def test_a_result_of_another_precision_is_taken_in_that_of_the_images(self) -> None:
        # NumPy works in double precision: a batch of such and other images could not be stacked.
        by_numpy = self._build(apply=lambda images, strength, generator: images.double())
        assert by_numpy(torch.rand(2, 3, 8, 8), 0.5, _seeded()).dtype == torch.float32

    @staticmethod
    def _build(**changes: object) -> Operator:
        settings: dict[str, object] = {
            "name": "test",
            "family": "test",
            "channel": "noise",
            "sign": 1,
            "curve": Curve(0.1, 1),
            "apply": lambda images, strength, generator: images,
        }
        return Operator(**(settings | changes))  # type: ignore[arg-type]

    def test_a_valid_one(self) -> None:
        built = self._build(side={"sharpness": -0.5})
        assert built.direction() == {"noise": 1.0, "sharpness": -0.5}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"channel": "smell"}, "unknown channel 'smell'"),
            ({"side": {"smell": 0.5}}, "unknown channel 'smell'"),
            ({"sign": 0}, "sign must be"),
            ({"side": {"noise": 0.5}}, "dominant and in side"),
        ],
    )
    def test_invalid_ones(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self._build(**changes)

    def test_values_are_clamped(self) -> None:
        loud = self._build(apply=lambda images, strength, generator: images * 40 - 20)
        assert loud(torch.rand(1, 3, 8, 8), 0.5, _seeded()).aminmax() == (0.0, 1.0)


class TestCurve:
    def test_geometric(self) -> None:
        curve = Curve(0.01, 1.0)
        assert [curve(s) for s in (0, 0.5, 1)] == pytest.approx([0.01, 0.1, 1.0])

    def test_linear_may_fall_and_cross_zero(self) -> None:
        curve = Curve(2.0, -2.0, spacing="linear")
        assert [curve(s) for s in (0, 0.25, 1)] == pytest.approx([2.0, 1.0, -2.0])

    @pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
    def test_geometric_needs_positive_ends(self, ends: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="positive"):
            Curve(*ends)

    def test_other_spacings_are_refused_and_not_taken_for_linear(self) -> None:
        with pytest.raises(ValueError, match="'geometric' or 'linear', got 'log'"):
            Curve(0.01, 1.0, spacing="log")  # type: ignore[arg-type]
