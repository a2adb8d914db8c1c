"""What a ranked set holds, and that its certain order is one."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.training.panel import PANEL
from relqa_loss.training.sets import IMAGES_PER_SET, MARGIN, NO_ORDER, STORED, RankedSet, SetMaker

SIZE = 64


def _crop() -> Tensor:
    side = SIZE + MARGIN
    return (
        torch.from_numpy(skimage.data.astronaut()[20 : 20 + side, 190 : 190 + side])
        .permute(2, 0, 1)
        .float()
        .div(255)
    )


@pytest.fixture(scope="module")
def sets() -> list[RankedSet]:
    operators = ("gaussian_blur", "white_noise", "jpeg", "underexposure")
    return [SetMaker(operators)(_crop(), seed) for seed in range(10)]


def test_every_other_crop_starts_where_blocks_do() -> None:
    # Of a crop whose pixels say where they are.
    rows = torch.arange(SIZE + MARGIN) / 255
    crop = torch.stack([rows[:, None].expand(-1, len(rows)), rows.expand(len(rows), -1)] * 2)[:3]
    maker = SetMaker(("white_noise",), members=())
    corners = [
        tuple(round(float(x)) for x in maker(crop, seed).reference[:2, 0, 0]) for seed in range(40)
    ]
    aligned = [corner for corner in corners if corner == (0, 0)]
    assert 10 < len(aligned) < 30
    assert len({*corners}) > 8
    assert all(0 <= x < MARGIN for corner in corners for x in corner)


def _errors(each: RankedSet) -> list[float]:
    difference = each.images.double() - each.reference.double()
    return [float(value) for value in difference.square().mean((1, 2, 3))]


def test_shapes_and_types(sets: list[RankedSet]) -> None:
    each = sets[0]
    count, cells = IMAGES_PER_SET, SIZE // 4
    assert each.reference.shape == (3, SIZE, SIZE)
    assert each.images.shape == (count, 3, SIZE, SIZE)
    assert each.maps.shape == (count, len(CHANNELS), cells, cells)
    assert each.panel.shape == (count, len(PANEL))
    assert each.order.shape == (8, 2)
    assert each.worse.shape == (count,)
    assert each.reference.dtype == each.images.dtype == torch.uint8
    assert each.maps.dtype == torch.int8


def test_maps_are_in_range_and_say_something(sets: list[RankedSet]) -> None:
    for each in sets:
        assert int(each.maps.min()) >= -127  # −128 would be beyond severity 1
        assert bool(each.maps.flatten(1).any(1).all())


def test_order_points_from_worse_to_better(sets: list[RankedSet]) -> None:
    pairs = 0
    for each in sets:
        errors = _errors(each)
        for worse, better in each.order.tolist():
            assert (worse == NO_ORDER) == (better == NO_ORDER)
            # Image 3 is worse for the eye; its further distortion may lower the squared error.
            if worse not in (NO_ORDER, 3):
                assert errors[worse] > errors[better]
                pairs += 1
    assert pairs >= 30


def test_ladders_rise_in_error_panel_and_maps(sets: list[RankedSet]) -> None:
    for each in sets:
        errors = _errors(each)[:3]
        assert errors == sorted(errors)
        badness = each.panel[:3].mean(1).tolist()
        assert badness == sorted(badness)
        severity = each.maps[:3].abs().flatten(1).int().sum(1).tolist()
        assert severity == sorted(severity)
        assert severity[0] < severity[2]


def test_masked_image_is_changed_in_fewer_places(sets: list[RankedSet]) -> None:
    for each in sets:
        whole, masked = each.maps[4].abs().float().sum(), each.maps[5].abs().float().sum()
        assert float(masked) < float(whole)


def test_seed_decides_everything() -> None:
    maker = SetMaker(("gaussian_blur", "white_noise"))
    first, again, other = (maker(_crop(), seed) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, field), getattr(again, field)) for field in STORED)
    assert not torch.equal(first.images, other.images)


def test_matters_of_taste_have_no_certain_order() -> None:
    each = SetMaker(("unsharp_mask",))(_crop(), 0)
    assert bool((each.order == NO_ORDER).all())
    assert not bool(each.worse.any())


def test_the_crop_is_left_alone() -> None:
    crop = _crop()
    before = crop.clone()
    SetMaker(("jpeg", "white_noise"))(crop, 0)
    assert torch.equal(crop, before)
