"""Pipelines of capture, restoration and storage, and the sets made of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import Recipe, Step, get_operator, operator_names
from relqa_loss.training.pipelines import draw_pipeline, spoils
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER, STORED, PipelineSetMaker

OPERATORS = ("gaussian_blur", "motion_blur", "white_noise", "median", "unsharp_mask", "jpeg")
STAGES = (("sharpness", -1), ("noise", 1), ("noise", -1), ("sharpness", 1), ("blocking", 1))


def _draw(seed: int, operators: tuple[str, ...] = OPERATORS) -> Recipe:
    return draw_pipeline(operators, seed, torch.Generator().manual_seed(seed))


def test_steps_follow_the_life_of_an_image() -> None:
    for seed in range(60):
        kinds = [
            (get_operator(step.operator).channel, get_operator(step.operator).sign)
            for step in _draw(seed).steps
        ]
        places = [STAGES.index(kind) for kind in kinds]
        assert places == sorted(places)
        assert len(kinds) >= 2


def test_steps_are_visible_and_most_act_everywhere() -> None:
    recipes = [_draw(seed) for seed in range(200)]
    assert [recipe.seed for recipe in recipes] == list(range(200))
    steps = [step for recipe in recipes for step in recipe.steps]
    severities = [step.severity for step in steps]
    assert min(severities) >= 0.05
    assert max(severities) > 0.9
    # Of the others, one in seven has the mask of everything.
    whole = sum(step.mask == "whole" for step in steps) / len(steps)
    assert whole == pytest.approx(0.85 + 0.15 / 7, abs=0.05)


def test_cleaning_is_as_frequent_as_in_real_pipelines() -> None:
    # Two operators of each kind: cleaning counts twice against sharpening.
    operators = (*OPERATORS, "bilateral", "high_boost")
    names = [step.operator for seed in range(400) for step in _draw(seed, operators).steps]
    cleaned, sharpened = (
        sum(names.count(name) for name in kind)
        for kind in (("median", "bilateral"), ("unsharp_mask", "high_boost"))
    )
    assert cleaned / (cleaned + sharpened) == pytest.approx(2 / 3, abs=0.1)


def test_every_stage_is_drawn() -> None:
    drawn = {step.operator for seed in range(200) for step in _draw(seed).steps}
    assert drawn == set(OPERATORS)
    whole = {step.operator for seed in range(300) for step in _draw(seed, operator_names()).steps}
    assert len(whole) > 40


def test_a_poor_bank_gives_shorter_pipelines() -> None:
    assert [step.operator for step in _draw(0, ("jpeg", "warm")).steps] == ["jpeg"]
    assert _draw(0, ("warm",)).steps == ()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("gaussian_blur", "white_noise"), True),
        (("gaussian_blur", "jpeg"), True),
        (("white_noise", "jpeg"), False),
        (("white_noise", "median"), False),
        (("median", "jpeg"), True),  # what was cleaned is not noisy
        (("gaussian_blur", "unsharp_mask"), False),
    ],
)
def test_only_what_certainly_spoils_is_said_to(names: tuple[str, ...], expected: bool) -> None:
    recipe = Recipe(tuple(Step(name, 0.5) for name in names), 0)
    assert spoils(recipe) is expected


def test_sets_hold_each_pipeline_and_its_prefix(crop: Tensor) -> None:
    ordered = 0
    for seed in range(8):
        made = PipelineSetMaker(OPERATORS)(crop, seed)
        assert made.images.shape == (IMAGES_PER_SET, 3, 64, 64)
        assert made.maps.shape == (IMAGES_PER_SET, len(CHANNELS), 16, 16)
        assert made.panel.shape == (IMAGES_PER_SET, 0)
        # The last step shows in maps and pixels alike.
        for full, prefix in zip(range(0, 8, 2), range(1, 8, 2), strict=True):
            assert not torch.equal(made.maps[full], made.maps[prefix])
        known = made.order[(made.order != NO_ORDER).all(1)]
        ordered += len(known)
        reference = made.reference.float()
        for worse, better in known.tolist():
            assert (worse % 2, better) == (0, worse + 1)
            error = (made.images[[worse, better]].float() - reference).square().mean((1, 2, 3))
            assert error[0] > error[1]
    assert ordered > 5


def test_seed_decides_the_set(crop: Tensor) -> None:
    maker = PipelineSetMaker(OPERATORS)
    first, again, other = (maker(crop, seed) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, field), getattr(again, field)) for field in STORED)
    assert not torch.equal(first.images, other.images)
