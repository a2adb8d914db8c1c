"""What a ranked set holds, and that its certain order is one."""

from __future__ import annotations

from functools import partial

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import DistortionEngine, Recipe, Step, get_operator
from relqa_loss.training import sets as sets_module
from relqa_loss.training.panel import PANEL
from relqa_loss.training.sets import (
    IMAGES_PER_SET,
    MARGIN,
    NO_ORDER,
    STORED,
    PipelineSetMaker,
    RankedSet,
    SetMaker,
    SingleSetMaker,
)

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


def test_recipes_are_a_ladder_more_of_it_a_pair_of_masks_and_two_composites() -> None:
    engine = DistortionEngine()
    seeds, lengths, tops = [], set(), []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        low, middle, high, extended, whole, masked, *free = SetMaker._recipes(
            engine, seed, generator
        )
        (ladder,) = middle.steps
        rungs = [recipe.steps[0].severity for recipe in (low, middle, high)]
        assert 0.02 <= rungs[0] < rungs[1] < rungs[2] <= 1
        assert [low, high] == [middle.at(rungs[0]), middle.at(rungs[2])]
        first, *further = extended.steps
        assert (first, extended.seed) == (ladder, middle.seed)
        channels = {get_operator(step.operator).channel for step in further}
        assert get_operator(ladder.operator).channel not in channels
        (over_all,), (through,) = whole.steps, masked.steps
        assert over_all.mask == "whole" != through.mask
        assert over_all == Step(through.operator, through.severity, "whole")
        assert over_all.severity >= 0.1
        assert whole.seed == masked.seed
        assert not {*further} & {*free[0].steps, *free[1].steps}
        seeds += [each.seed for each in (middle, whole, *free)]
        lengths |= {len(further), *(len(each.steps) for each in free)}
        tops.append(rungs[2])
    assert len({*seeds}) == len(seeds)  # no noise pattern is met twice
    assert lengths >= {1, 2, 3, 4}
    assert 0.35 < sum(top < 0.45 for top in tops) / len(tops) < 0.75


@pytest.mark.parametrize(
    ("maker", "draw"), [(PipelineSetMaker, "draw_pipeline"), (SingleSetMaker, "draw_single")]
)
def test_no_two_recipes_share_a_noise_pattern(
    maker: type[PipelineSetMaker | SingleSetMaker], draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    plain = getattr(sets_module, draw)

    def drawn(operators: tuple[str, ...], seed: int, generator: torch.Generator) -> Recipe:
        seeds.append(seed)
        recipe: Recipe = plain(operators, seed, generator)
        return recipe

    monkeypatch.setattr(sets_module, draw, drawn)
    for seed in range(3):
        maker(("gaussian_blur", "white_noise"))(_crop(), seed)
    assert len({*seeds}) == len(seeds) >= 12


LADDER = [(1, 0), (2, 1), (2, 0)]


@pytest.mark.parametrize(
    ("ladder", "further", "local", "known"),
    [
        ("gaussian_blur", ("jpeg",), "white_noise", [*LADDER, (3, 1), (4, 5)]),
        ("gaussian_blur", ("contrast_up", "jpeg"), "unsharp_mask", [*LADDER, (3, 1)]),
        ("gaussian_blur", ("contrast_up",), "white_noise", [*LADDER, (4, 5)]),
        ("gaussian_blur", (), "unsharp_mask", LADDER),
        ("unsharp_mask", ("jpeg",), "unsharp_mask", [(3, 1)]),
    ],
)
def test_order_is_certain_where_more_of_it_is_worse(
    ladder: str, further: tuple[str, ...], local: str, known: list[tuple[int, int]]
) -> None:
    def recipe(*names: str) -> Recipe:
        return Recipe(tuple(Step(name, 0.5) for name in names), 0)

    recipes = [recipe(ladder)] * 3 + [recipe(ladder, *further)] + [recipe(local)] * 2
    panel = torch.zeros(IMAGES_PER_SET, 2)
    for less, more in ((0.0, 0.1), (-0.1, 0.1), (0.1, 0.1)):
        panel[3] = torch.tensor([less, more])
        assert sets_module._certain_order(recipes, panel) == known
    # A further distortion that no member of the panel takes for one may have hidden the first.
    for less, more in ((0.0, 0.0), (-0.1, 0.0)):
        panel[3] = torch.tensor([less, more])
        assert sets_module._certain_order(recipes, panel) == [
            each for each in known if 3 not in each
        ]


def test_a_set_is_of_the_nearest_levels_and_orders_only_what_differs() -> None:
    levels = torch.arange(256.0).view(1, 16, 16).expand(3, -1, -1) / 255
    images = levels.flip(1).repeat(IMAGES_PER_SET, 1, 1, 1)
    images[0] = levels
    images[3] = levels.flip(2)
    maps = torch.full((IMAGES_PER_SET, len(CHANNELS), 4, 4), 2 / 3)
    maps[1] *= -1
    shown = sets_module._Shown(levels, images, maps)
    recipes = [Recipe((), 0)] * IMAGES_PER_SET
    pairs = [(1, 0), (2, 1), (0, 3), (3, 2)]  # of the same, and of the photograph itself as worse
    made = sets_module._assemble(shown, recipes, torch.zeros(IMAGES_PER_SET, 0), pairs)
    assert made.order.tolist() == [[1, 0], [3, 2], *[[NO_ORDER, NO_ORDER]] * 6]
    assert torch.equal(made.reference, torch.arange(256).view(1, 16, 16).expand(3, -1, -1))
    assert torch.equal(made.images[3], made.reference.flip(2))
    assert made.maps.unique().tolist() == [-85, 85]
    assert bool((made.maps[1] == -85).all())


def test_what_any_step_makes_certainly_worse_is_worse() -> None:
    def worse(*names: str) -> bool:
        return sets_module._certainly_worse(Recipe(tuple(Step(name, 0.5) for name in names), 0))

    assert worse("contrast_up", "jpeg")
    assert worse("jpeg", "contrast_up")
    assert not worse("contrast_up", "unsharp_mask")
    assert not worse()


def test_maps_show_where_the_images_were_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rectangles have no soft border, and every pixel within them becomes lighter.
    engine = partial(DistortionEngine, mask_kinds=("whole", "rectangles"))
    monkeypatch.setattr(sets_module, "DistortionEngine", engine)
    crop = 0.2 + 0.6 * _crop().mul(255).round().div(255)
    for seed in range(8):
        made = SetMaker(("mean_shift_up",), members=())(crop, seed)
        changed = (made.images[5] != made.reference).any(0).float()
        shown = made.maps[5].float().abs().amax(0)
        assert 0 < changed.mean() < 1
        # Of a cell of 4×4 pixels, one row or column more or less would be a quarter.
        torch.testing.assert_close(
            F.avg_pool2d(changed[None], 4)[0], shown / shown.max(), rtol=0, atol=0.1
        )
