"""Single distortions that are plain to see, and the sets made of them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import Recipe, get_operator, operator_names
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER, STORED, SingleSetMaker
from relqa_loss.training.singles import draw_single
from relqa_loss.training.split import HELD_OUT

OPERATORS = ("gaussian_blur", "median", "block_average", "gibbs_truncation", "jpeg", "warm")


def _draw(seed: int, operators: tuple[str, ...] = OPERATORS) -> Recipe:
    return draw_single(operators, seed, torch.Generator().manual_seed(seed))


def test_each_is_one_operator_that_can_be_seen() -> None:
    recipes = [_draw(seed) for seed in range(200)]
    assert [recipe.seed for recipe in recipes] == list(range(200))
    steps = [step for recipe in recipes for step in recipe.steps]
    assert len(steps) == 200
    severities = [step.severity for step in steps]
    assert min(severities) >= 0.15
    assert 0.9 < max(severities) <= 1
    # Half act everywhere, and one in seven of the others.
    assert 0.45 < sum(step.mask == "whole" for step in steps) / 200 < 0.7


def test_all_are_drawn_alike() -> None:
    drawn = Counter(_draw(seed).steps[0].operator for seed in range(700))
    assert set(drawn) == set(OPERATORS)
    assert max(drawn.values()) < 1.5 * min(drawn.values())


def test_all_channels_are_shown_both_ways() -> None:
    drawn = {_draw(seed, operator_names()).steps[0].operator for seed in range(600)}
    shown, offered = (
        {(get_operator(name).channel, get_operator(name).sign) for name in names}
        for names in (drawn, operator_names())
    )
    assert shown == offered


def test_operators_that_are_not_offered_are_never_drawn() -> None:
    offered = tuple(name for name in operator_names() if name not in HELD_OUT)
    for seed in range(200):
        assert _draw(seed, offered).steps[0].operator in offered


def test_sets_show_single_distortions_and_say_which(crop: Tensor) -> None:
    made = SingleSetMaker(OPERATORS)(crop, 0)
    assert made.images.shape == (IMAGES_PER_SET, 3, 64, 64)
    assert made.maps.shape == (IMAGES_PER_SET, len(CHANNELS), 16, 16)
    assert made.panel.shape == (IMAGES_PER_SET, 0)
    assert (made.order == NO_ORDER).all()
    expected = torch.Generator().manual_seed(0)
    for index in range(IMAGES_PER_SET):
        recipe = draw_single(OPERATORS, index, expected)
        operator = get_operator(recipe.steps[0].operator)
        strongest = made.maps[index].float().abs().amax((1, 2)).argmax()
        assert CHANNELS[int(strongest)] == operator.channel
        assert not torch.equal(made.images[index], made.reference)


def test_seed_decides_the_set(crop: Tensor) -> None:
    maker = SingleSetMaker(OPERATORS)
    first, again, other = (maker(crop, seed) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, field), getattr(again, field)) for field in STORED)
    assert not torch.equal(first.images, other.images)
