"""What counts as a move, a blur or a gain of contrast, and what each does to the distance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss.network import load_pretrained
from relqa_loss.network.derivatives import (
    Derivatives,
    Shares,
    Structure,
    explained,
    weighed,
)
from relqa_loss.network.pyramid import PixelPyramid


def smooth_error(error: Tensor) -> Tensor:
    return PixelPyramid().double()(error)[-1]


def scene(seed: int, side: int = 96) -> Tensor:
    """1×3×side×side in [0, 1], with detail at every scale, as photographs have it."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(1, 3, side, side, dtype=torch.float64)
    for scale in (1, 2, 4, 8, 16):
        layer = torch.rand(1, 3, side // scale, side // scale, generator=generator).double()
        found += scale * F.interpolate(layer, (side, side), mode="bicubic", align_corners=False)
    return (found - found.min()) / (found.max() - found.min())


def structure(reference: Tensor) -> Structure:
    return Derivatives(contrast=True).double()(reference)


def shares(image: Tensor, reference: Tensor) -> Shares:
    return explained(smooth_error(image - reference), structure(reference))


def blur(image: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)


def slanted(image: Tensor, slant: int) -> Tensor:
    """``image`` with lines that run aslant, so that what it does across it does down as well."""
    across = image[..., 48:49, :].expand_as(image)
    lines = torch.stack([across[..., row, :].roll(slant * row, -1) for row in range(96)], -2)
    return lines + 0.3 * (image - lines) if slant else image


def contrasted(image: Tensor, factor: float) -> Tensor:
    return image.mean() + factor * (image - image.mean())


def noise(seed: int, scale: float, side: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(1, 3, side, side, generator=generator).double()


def changed(reference: Tensor, seed: int) -> dict[str, Tensor]:
    return {
        "moved": reference.roll(1, -1),
        "blurred": blur(blur(blur(reference))),
        "noisy": (reference + noise(seed, 0.05, reference.shape[-1])).clamp(0, 1),
        "stronger": contrasted(reference, 1.2),
        "weaker": contrasted(reference, 1 / 1.2),
        "sharpened": 2 * reference - blur(blur(blur(reference))),
    }


INSIDE = (..., slice(2, -2), slice(2, -2))
"""Without the border, where pixels come in from elsewhere."""


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (-1, 1)])
def test_a_moved_copy_is_told_from_other_errors(offset: tuple[int, int]) -> None:
    reference = scene(1)
    moved, blurred, _ = shares(reference.roll(offset, (-2, -1)), reference)
    assert moved[INSIDE].min() > 0.8
    assert blurred[INSIDE].abs().max() < 0.5
    for other in (reference + noise(2, 0.1), blur(reference), reference + 0.05):
        assert shares(other, reference).moved[INSIDE].mean() < 0.3


def test_a_blur_is_told_from_other_errors_and_from_its_opposite() -> None:
    reference = scene(1)
    soft = blur(reference)
    assert shares(soft, reference).blurred[INSIDE].min() > 0.6
    assert shares(2 * reference - soft, reference).blurred[INSIDE].max() < -0.6
    for other in (reference + noise(2, 0.1), reference + 0.05):
        assert shares(other, reference).blurred[INSIDE].abs().mean() < 0.4


def test_a_gain_of_contrast_is_told_from_a_loss_and_from_other_errors() -> None:
    reference = scene(1)

    def gained(image: Tensor) -> Tensor:
        found = shares(image, reference).gained
        assert found is not None
        return found[INSIDE]

    assert gained(contrasted(reference, 1.3)).min() > 0.99
    assert gained(contrasted(reference, 1 / 1.3)).max() < -0.99
    for other in (reference + noise(2, 0.1), reference.roll(1, -1), reference + 0.05):
        assert gained(other).abs().max() < 0.5
    darker = gained(contrasted(reference, 1.3) - 0.1)
    assert darker.min() > 0.95  # whatever else happens to the mean


def test_fringes_of_one_colour_are_no_displacement() -> None:
    reference = scene(3).mean(1, keepdim=True).expand(1, 3, 96, 96)
    fringed = torch.cat([reference[:, :1].roll(1, -1), reference[:, 1:]], 1)
    assert shares(fringed, reference).moved.mean() < 0.4
    assert shares(reference.roll(1, -1), reference).moved.mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    factor=st.floats(1e-6, 1),
    kind=st.sampled_from(["moved", "noisy", "stronger"]),
)
def test_shares_do_not_depend_on_the_size_of_the_error(seed: int, factor: float, kind: str) -> None:
    reference = scene(seed)
    image = changed(reference, seed)[kind]
    whole = shares(image, reference)
    part = shares(reference + factor * (image - reference), reference)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-8)
    assert whole.moved.min() >= 0
    assert whole.moved.max() <= 1
    assert whole.blurred.abs().max() <= 1
    assert whole.gained is not None
    assert whole.gained.abs().max() <= 1


@pytest.mark.parametrize("slant", [0, -1, 2])
def test_shares_are_those_of_least_squares_fits(slant: int) -> None:
    reference, image = slanted(scene(4), slant), scene(5)
    if slant:  # else of two strangers, of whom an offset explains next to nothing
        image = reference.roll((1, 1), (-2, -1)) + noise(6, 0.02)
    found = shares(image, reference)
    around = F.pad(PixelPyramid().double().smooth(reference), (1, 1, 1, 1), mode="replicate")
    across = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    down = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).double().expand(3, 1, 3, 3)
    laplacian = F.conv2d(around, kernel, groups=3)
    error = smooth_error(image - reference)
    plane = PixelPyramid().double().smooth(reference)
    assert found.gained is not None
    for row, column in ((1, 1), (2, 3), (4, 2)):
        cells = (0, slice(None), *(slice(4 * n - 4, 4 * n + 8) for n in (row, column)))
        equations = torch.stack([across[cells].flatten(), down[cells].flatten()], 1)
        wanted = error[cells].flatten()[:, None]
        offset = torch.linalg.lstsq(equations, wanted).solution
        left = (wanted - equations @ offset).square().sum() / wanted.square().sum()
        cosine = F.cosine_similarity(laplacian[cells].flatten(), error[cells].flatten(), 0)
        # All but equal: flat parts are guarded by a small addend to the derivatives' energy.
        torch.testing.assert_close(found.moved[0, 0, row, column], 1 - left, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.blurred[0, 0, row, column], cosine, rtol=0, atol=1e-3)
        centred = [
            (of[cells].unflatten(1, (3, 4)).unflatten(3, (3, 4))).movedim(2, 3).flatten(3)
            for of in (plane, error)
        ]
        likeness = F.cosine_similarity(
            *((each - each.mean(-1, keepdim=True)).flatten() for each in centred), 0
        )
        torch.testing.assert_close(found.gained[0, 0, row, column], likeness, rtol=0, atol=3e-3)


@pytest.mark.parametrize("texture", [0.0, 1e-4])
def test_what_is_flat_explains_nothing(texture: float) -> None:
    """Neither where nothing varies at all, along a line, nor below what 8 bits can show."""
    flat = 0.5 + texture * (scene(11) - 0.5)
    lined = flat + 0.2 * scene(12)[..., :1, :]
    for reference, kinds in ((flat, ("moved", "blurred", "gained")), (lined, ())):
        image = (reference + noise(13, 0.05)).requires_grad_()
        found = shares(image, reference)
        assert all(bool(getattr(found, kind).abs().max() < 0.05) for kind in kinds)
        sum(share.sum() for share in found).backward()
        assert image.grad is not None
        assert image.grad.isfinite().all()


def test_no_error_is_of_no_kind_and_has_a_gradient() -> None:
    reference = scene(6)
    image = reference.clone().requires_grad_()
    found = shares(image, reference)
    sum(share.sum() for share in found).backward()
    assert all(torch.equal(share, torch.zeros_like(share)) for share in found)
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_shares_weigh_the_cells_that_they_are_of() -> None:
    reference = scene(7)
    still = reference.clone()
    still[..., 48:] = reference.roll(1, -1)[..., 48:]  # the right half has moved
    density = torch.rand(1, 1, 24, 24).double()
    found = weighed(density, smooth_error(still - reference + noise(8, 1e-6)), structure(reference))
    assert (found / density)[..., 16:-4].max() < 0.2
    torch.testing.assert_close(found[..., :8], density[..., :8], rtol=0.01, atol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), kind=st.sampled_from(["moved", "blurred", "noisy", "stronger"]))
def test_more_density_is_more_whatever_the_error(seed: int, kind: str) -> None:
    reference = scene(seed)
    error, measured = smooth_error(changed(reference, seed)[kind] - reference), structure(reference)
    levels = torch.linspace(0, 3, 60).double()
    found = torch.stack([weighed(level.expand(1, 1, 24, 24), error, measured) for level in levels])
    assert bool((found[0] == 0).all())
    assert bool((found.diff(dim=0) > 0).all())


@pytest.mark.parametrize("kind", ["moved", "blurred", "stronger"])
def test_gradients_are_of_both_images(kind: str) -> None:
    """Of a score, either one is the reference of a distance."""
    reference = scene(14, 32)
    image = changed(reference, 0)[kind]

    def value(image: Tensor, reference: Tensor) -> Tensor:
        density = torch.ones(1, 1, 8, 8).double()
        return weighed(density, smooth_error(image - reference), structure(reference)).sum()

    given = image.clone().requires_grad_(), reference.clone().requires_grad_()
    gradients = torch.autograd.grad(value(*given), given)
    for index, gradient in enumerate(gradients):
        step = 1e-6 * noise(15 + index, 1.0, 32)
        there, here = (
            value(*(each + sign * step if at == index else each for at, each in enumerate(given)))
            for sign in (1, -1)
        )
        torch.testing.assert_close((gradient * step).sum(), (there - here) / 2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_move_does_not_hide_what_came_with_it(seed: int) -> None:
    reference = scene(seed)
    density = torch.ones(1, 1, 24, 24).double()

    def counted(image: Tensor) -> float:
        error = smooth_error(image - reference)
        return float(weighed(density, error, structure(reference))[INSIDE].mean())

    assert counted(reference.roll(1, -1)) < 0.3
    for other in (blur(blur(blur(reference))), reference + noise(seed, 0.1)):
        assert counted(other.roll(1, -1)) > 0.8


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_moves_and_gains_take_their_part_of_the_distance_away_and_blurs_add_one(
    weights: str,
) -> None:
    network = load_pretrained(weights).double()
    reference = scene(9)
    ratios = {}
    with torch.no_grad():
        encodings = [network.encode(reference, structure=known) for known in (True, False)]
        for name, image in changed(reference, 10).items():
            plain = network.plain_distance(encodings[0], image)
            learned, other = (network.distance(each, image) - plain for each in encodings)
            assert learned > 0
            ratios[name] = float(learned / other)
    assert ratios["moved"] < 0.6
    assert ratios["blurred"] > 1.1
    assert 0.95 < ratios["noisy"] < 1.05
    assert ratios["stronger"] < 0.85
    assert 0.95 < ratios["weaker"] < 1.05
    assert 0.95 < ratios["sharpened"] < 1.05  # neither a blur nor a mere gain of contrast
