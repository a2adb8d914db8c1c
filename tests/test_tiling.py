"""Pieces add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from relqa_loss import relate
from relqa_loss.network import load_pretrained
from relqa_loss.tiling import measure_in_tiles, relate_in_tiles


def pair(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth and noisy parts, and a distortion that is stronger on one side."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 9, 9, generator=generator)
    target = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    target = target + 0.1 * torch.randn(target.shape, generator=generator)
    ramp = torch.linspace(0, 0.3, width)
    noise = ramp * torch.randn(target.shape, generator=generator)
    return tuple(x.clamp(0, 1) for x in (0.9 * target + noise, target))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [(512, 640, 256), (417, 555, 192), (300, 1000, 304), (64, 64, 1024), (289, 273, 272)],
)
@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_pieces_add_up_to_the_whole(height: int, width: int, tile: int, weights: str) -> None:
    preds, target = pair(height, width)
    whole = relate(preds, target, weights=weights)
    seen: list[tuple[int, int]] = []
    found = measure_in_tiles(
        preds,
        target,
        tile=tile,
        weights=weights,
        progress=lambda done, total: seen.append((done, total)),
    )
    torch.testing.assert_close(found.distance, whole.distance, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.score, whole.score, atol=1e-6, rtol=2e-5)
    pieces = -(-height // tile) * -(-width // tile)
    assert seen == [(done, pieces) for done in range(1, pieces + 1)]


@pytest.mark.parametrize(("height", "width", "tile"), [(417, 555, 192), (300, 1000, 304)])
def test_maps_of_pieces_are_those_of_the_whole(height: int, width: int, tile: int) -> None:
    preds, target = pair(height, width)
    seen: list[tuple[int, int]] = []
    found = relate_in_tiles(
        preds, target, tile=tile, progress=lambda done, total: seen.append((done, total))
    )
    whole = relate(preds, target)
    torch.testing.assert_close(found.maps, whole.maps, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.distance, whole.distance, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.score, whole.score, atol=1e-6, rtol=2e-5)
    network = load_pretrained()
    with torch.no_grad():
        where = network.distance_map(network.encode(target), network.encode(preds))
    torch.testing.assert_close(found.distance_map, where, atol=1e-5, rtol=1e-5)
    assert seen[-1] == (len(seen), -(-height // tile) * -(-width // tile))


def test_without_a_margin_they_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relqa_loss.tiling.MARGIN", 0)
    preds, target = pair(256, 256)
    found = measure_in_tiles(preds, target, tile=64)
    gap = (found.distance / relate(preds, target).distance - 1).abs()
    assert float(gap.max()) > 1e-4


def test_eight_bits_grey_and_identity() -> None:
    preds, target = ((255 * x).to(torch.uint8)[:, :1] for x in pair(256, 300))
    found = measure_in_tiles(preds, target, tile=128, data_range=255)
    whole = relate(preds, target, data_range=255)
    torch.testing.assert_close(found.distance, whole.distance, atol=1e-6, rtol=1e-5)
    related = relate_in_tiles(preds, target, tile=128, data_range=255)
    torch.testing.assert_close(related.maps, whole.maps, atol=1e-5, rtol=1e-5)
    same = measure_in_tiles(target, target, tile=128, data_range=255)
    assert not bool(same.distance.any())
    assert not bool(same.score.any())


def test_values_out_of_range_are_clamped_as_asked() -> None:
    preds, target = pair(64, 96)
    found = measure_in_tiles(preds + 0.5, target, tile=32, on_out_of_range="clamp")
    whole = relate((preds + 0.5).clamp(max=1), target)
    torch.testing.assert_close(found.distance, whole.distance, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.score, whole.score, atol=1e-6, rtol=2e-5)


def test_pieces_are_measured_in_full_precision_and_without_gradient() -> None:
    preds, target = pair(64, 96)
    whole = relate_in_tiles(preds, target, tile=32)
    with torch.autocast("cpu", torch.bfloat16):
        found = relate_in_tiles(preds.requires_grad_(), target, tile=32)
    for one, other in zip(found, whole, strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


def test_float64_stays_float64() -> None:
    preds, target = (image.double() for image in pair(100, 130))
    whole, found = relate(preds, target), relate_in_tiles(preds, target, tile=64)
    for name in ("maps", "distance", "score"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-10, atol=0)


def test_what_cannot_be_measured_is_refused() -> None:
    preds, target = pair(128, 128)
    for tile in (100, 0, -16):
        with pytest.raises(ValueError, match="multiple of 16"):
            measure_in_tiles(preds, target, tile=tile)
    with pytest.raises(ValueError, match="on_out_of_range must be"):
        measure_in_tiles(preds, target, on_out_of_range="cut")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data_range must be"):
        measure_in_tiles(preds, target, data_range=0.0)
    with pytest.raises(ValueError, match=r"shape|size"):
        measure_in_tiles(preds[..., :64], target)
    with pytest.raises(ValueError, match="data_range"):
        measure_in_tiles(2 * preds, target, tile=64)
    with pytest.raises(ValueError, match="multiple of 16"):
        relate_in_tiles(preds, target, tile=8)
    with pytest.raises(TypeError):
        measure_in_tiles(preds.numpy(), target)  # type: ignore[arg-type]
    for wrong in (64.0, "64", None):  # as half of a side is, or a setting
        with pytest.raises(ValueError, match=f"multiple of 16, got {wrong!r}"):
            measure_in_tiles(preds, target, tile=wrong)  # type: ignore[arg-type]
    measure_in_tiles(preds, target, tile=np.int64(64))  # type: ignore[arg-type]


def test_errors_name_the_shape_that_was_given() -> None:
    """They named that of a corner of 32×32, which stood for the whole."""
    for shape, said in (
        ((1, 4, 70, 90), r"got shape \(1, 4, 70, 90\)"),
        ((3, 70, 90), r"got shape \(3, 70, 90\)"),
        ((90,), r"got shape \(90,\)"),
        ((1, 3, 20, 90), "got 20×90"),
        ((0, 3, 70, 90), r"empty batch, of shape \(0, 3, 70, 90\)"),
    ):
        for function in (measure_in_tiles, relate_in_tiles):
            with pytest.raises(ValueError, match=said):
                function(torch.zeros(shape), torch.zeros(shape))
