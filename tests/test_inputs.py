"""Validation of what users pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from relqa_loss import CHANNELS, relational_distance
from relqa_loss._inputs import (
    channel_factors,
    check_options,
    prepare_image,
    prepare_pair,
    prepare_weight,
    reduce_batch,
    upsample_maps,
)


def pair(preds: Tensor, target: Tensor | None = None, **options: object) -> tuple[Tensor, Tensor]:
    target = preds.clone() if target is None else target
    return prepare_pair(preds, target, dtype=torch.float32, **options)  # type: ignore[arg-type]


def test_images_are_divided_by_the_data_range() -> None:
    image, reference = pair(
        torch.full((1, 3, 32, 32), 255, dtype=torch.uint8),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        data_range=255,
    )
    assert image.dtype == reference.dtype == torch.float32
    assert image.unique().tolist() == [1.0]
    assert reference.unique().tolist() == [0.0]


@pytest.mark.parametrize(
    ("dtype", "white"), [(torch.uint8, 255), (torch.int16, 32767), (torch.uint16, 65535)]
)
def test_integers_are_taken_with_their_range(dtype: torch.dtype, white: int) -> None:
    image = torch.full((1, 1, 32, 32), white, dtype=torch.int32).to(dtype)
    assert pair(image, data_range=white)[0].max() == 1


class _Photo(Tensor):
    """A tensor that carries something with its values, like torchvision's images."""


@pytest.mark.parametrize("value", [255.0, float("nan")])
def test_subclasses_are_looked_at_like_any_tensor(value: float) -> None:
    image = torch.rand(1, 3, 32, 32)
    wrong = torch.full_like(image, value).as_subclass(_Photo)
    for given in ((wrong, image), (image, wrong)):
        with pytest.raises(ValueError, match=r"must lie in|contains NaN"):
            pair(*given)
    with pytest.raises(ValueError, match="finite and non-negative"):
        prepare_weight(-torch.ones(1, 1, 32, 32).as_subclass(_Photo), image)
    same, _ = pair(image.as_subclass(_Photo))
    assert torch.equal(same, image)


@pytest.mark.parametrize("white", [np.float32(255), np.int64(255), np.float64(255)])
def test_numbers_of_numpy_are_a_range(white: float) -> None:
    check_options(white)
    image = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert pair(image, data_range=white)[0].unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="data_range"):
        check_options(np.float32("nan"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_type_is_taken(dtype: torch.dtype) -> None:
    assert pair(torch.rand(1, 3, 32, 32).to(dtype))[0].dtype == torch.float32


def test_grey_is_repeated() -> None:
    grey = torch.rand(2, 1, 33, 40)
    image, _ = pair(grey)
    assert torch.equal(image, grey.repeat(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), "N×3×H×W"),
        ((1, 4, 32, 32), "N×3×H×W"),
        ((1, 2, 32, 32), "N×3×H×W"),
        ((1, 3, 31, 64), "at least 32×32 pixels, got 31×64"),
        ((1, 3, 64, 31), "at least 32×32 pixels, got 64×31"),
        ((0, 3, 32, 32), "empty batch"),
    ],
)
def test_wrong_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair(torch.rand(shape))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_is_refused_with_what_there_is_instead() -> None:
    with pytest.raises(NotImplementedError, match=r"use relqa_loss\.export, torch\.export"):
        torch.jit.trace(relational_distance, tuple(torch.rand(2, 1, 3, 32, 32)))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        pair(torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 32))


def test_devices_must_agree() -> None:
    with pytest.raises(ValueError, match="same device"):
        pair(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32, device="meta"))


def test_integers_without_a_range_are_refused_with_the_fix() -> None:
    with pytest.raises(TypeError, match="data_range=255"):
        pair(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    # Nothing says how many of a wider integer's levels are in use.
    with pytest.raises(TypeError, match="data_range=the value of white"):
        pair(torch.zeros(1, 3, 32, 32, dtype=torch.int16))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="floating or integer"):
        pair(torch.zeros(1, 3, 32, 32, dtype=dtype))


def test_only_tensors_are_taken() -> None:
    with pytest.raises(TypeError, match="must be a tensor, got list"):
        pair([0.0], torch.rand(1, 3, 32, 32))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "data_range", "advice"),
    [
        (-1.0, 1.0, 1.0, r"from -1 to 1: for images in \[-1, 1\], pass \(image \+ 1\) / 2"),
        (0.0, 255.0, 1.0, "from 0 to 255: .*data_range=255"),
        (0.0, 65535.0, 255.0, "from 0 to 65535: for 16-bit images, pass data_range=65535"),
        (0.0, 1023.0, 1.0, "data_range=1023 / data_range=4095 / data_range=65535"),
        (0.0, 1024.0, 1.0, "for 12 / 16-bit images, pass data_range=4095 / data_range=65535"),
        (0.0, 1.01, 1.0, 'from 0 to 1.01: .*"clamp"'),
        (-0.01, 1.0, 1.0, 'from -0.01 to 1: .*"clamp"'),
        # Neither of images in [-1, 1] nor of images with more levels.
        (-0.4, 1.0, 1.0, 'from -0.4 to 1: pass the right data_range, or .*"ignore" to train'),
        (-1.0, 1.5, 1.0, 'from -1 to 1.5: pass the right data_range, or .*"ignore" to train'),
        (-2.0, 1.0, 1.0, 'from -2 to 1: pass the right data_range, or .*"ignore" to train'),
        (0.0, 2.0, 1.0, 'from 0 to 2: pass the right data_range, or .*"ignore" to train'),
        (-9.0, 255.0, 1.0, 'from -9 to 255: pass the right data_range, or .*"ignore" to train'),
        (0.0, 1e6, 1.0, r'from 0 to 1e\+06: pass the right data_range, or .*"ignore" to train'),
    ],
)
@pytest.mark.parametrize("place", ["preds", "target"])
def test_out_of_range_states_values_and_fix(
    low: float, high: float, data_range: float, advice: str, place: str
) -> None:
    bad = torch.full((1, 3, 32, 32), low)
    bad[0, 0, 0, 0] = high
    good = torch.zeros_like(bad)
    images = (bad, good) if place == "preds" else (good, bad)
    with pytest.raises(ValueError, match=rf"{place} must lie in .*{advice}"):
        pair(*images, data_range=data_range)


def test_rounding_is_no_error() -> None:
    pair(torch.full((1, 3, 32, 32), 1 + 1e-6))
    pair(torch.full((1, 3, 32, 32), -1e-6))


@pytest.mark.parametrize("place", ["preds", "target"])
def test_nan_is_refused(place: str) -> None:
    bad, good = torch.rand(2, 1, 3, 32, 32)
    bad[0, 1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=f"{place} contains NaN"):
        pair(*((bad, good) if place == "preds" else (good, bad)))


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_infinity_is_refused(value: float) -> None:
    bad = torch.rand(1, 3, 32, 32)
    bad[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="contains infinity: the model"):
        pair(bad, torch.rand(1, 3, 32, 32))


def test_clamp_and_ignore() -> None:
    wide = torch.linspace(-1, 2, 32 * 32).reshape(1, 1, 32, 32)
    assert torch.equal(pair(wide, on_out_of_range="clamp")[0][:, :1], wide.clamp(0, 1))
    assert torch.equal(pair(wide, on_out_of_range="ignore")[0][:, :1], wide)


def test_clamp_reaches_a_single_image() -> None:
    wide = torch.full((1, 3, 32, 32), 300.0)
    clamped = prepare_image(
        wide, "target", dtype=torch.float32, data_range=255, on_out_of_range="clamp"
    )
    assert clamped.max() == 1
    with pytest.raises(ValueError, match="target must lie in"):
        prepare_image(wide, "target", dtype=torch.float32, data_range=255)


def test_inputs_are_not_changed() -> None:
    image = torch.rand(1, 3, 32, 32) * 2
    before = image.clone()
    pair(image, on_out_of_range="clamp", data_range=3)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_range": 0}, "data_range"),
        ({"data_range": -1.0}, "data_range"),
        ({"data_range": float("nan")}, "data_range"),
        ({"data_range": float("inf")}, "data_range"),
        ({"data_range": True}, "data_range"),
        ({"data_range": "255"}, "data_range"),
        ({"data_range": 1, "on_out_of_range": "warn"}, "on_out_of_range"),
        ({"data_range": 1, "reduction": "avg"}, "reduction"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(**options)  # type: ignore[arg-type]


def test_channel_factors() -> None:
    factors = channel_factors({"noise": 2.0, "tint": 0}, CHANNELS)
    assert factors[CHANNELS.index("noise")] == 2
    assert factors[CHANNELS.index("tint")] == 0
    assert sum(factors) == len(CHANNELS)
    assert channel_factors(None, CHANNELS) == [1.0] * len(CHANNELS)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"nosie": 1.0}, r"unknown channels \['nosie'\]"),
        ({"noise": -1.0}, "non-negative.*'noise': -1.0"),
        ({"noise": float("nan")}, "non-negative"),
        ({"noise": float("inf")}, "finite"),
    ],
)
def test_wrong_channel_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel_factors(weights, CHANNELS)


def test_weight_is_averaged_over_cells() -> None:
    like = torch.rand(2, 3, 33, 40)
    weight = torch.rand(2, 1, 33, 40)
    cells = prepare_weight(weight, like)
    assert cells is not None
    assert cells.shape == (2, 1, 9, 10)
    assert torch.allclose(cells[1, 0, 2, 3], weight[1, 0, 8:12, 12:16].mean())
    # The last row of cells holds one row of pixels; what lies beyond must not dilute it.
    assert torch.allclose(cells[0, 0, 8, 1], weight[0, 0, 32:, 4:8].mean())


def test_weight_may_be_boolean_or_shared() -> None:
    like = torch.rand(2, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., :16] = True
    cells = prepare_weight(mask, like)
    assert cells is not None
    assert cells.shape == (2, 1, 8, 8)
    assert cells.sum() == 2 * 8 * 4
    assert prepare_weight(None, like) is None


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.ones(2, 3, 32, 32), ValueError, "shape"),
        (torch.ones(3, 1, 32, 32), ValueError, "shape"),
        (torch.ones(2, 1, 8, 8), ValueError, "shape"),
        (torch.full((2, 1, 32, 32), -1.0), ValueError, "non-negative"),
        (torch.full((2, 1, 32, 32), float("nan")), ValueError, "finite"),
        (torch.full((2, 1, 32, 32), float("inf")), ValueError, "finite"),
        (torch.ones(2, 1, 32, 32, device="meta"), ValueError, "meta"),
        (torch.ones(2, 1, 32, 32, dtype=torch.complex64), TypeError, "real or boolean"),
        (1.0, TypeError, "tensor"),
    ],
)
def test_wrong_weights_are_refused(weight: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare_weight(weight, torch.rand(2, 3, 32, 32))


def test_reductions() -> None:
    values = torch.tensor([1.0, 3.0])
    assert reduce_batch(values, "mean") == 2
    assert reduce_batch(values, "sum") == 4
    assert torch.equal(reduce_batch(values, "none"), values)


def test_maps_are_repeated_to_the_image() -> None:
    maps = torch.rand(1, 2, 9, 10)
    full = upsample_maps(maps, (33, 38))
    assert full.shape == (1, 2, 33, 38)
    rows, columns = torch.arange(33) // 4, torch.arange(38) // 4
    assert torch.equal(full, maps[:, :, rows][..., columns])
