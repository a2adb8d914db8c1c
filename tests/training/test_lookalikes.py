"""Distortions that are taken for one another, and the sets made of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import Recipe, get_operator, operator_names
from relqa_loss.training.lookalikes import draw_lookalike
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER, STORED, LookalikeSetMaker
from relqa_loss.training.split import HELD_OUT

OPERATORS = ("gaussian_blur", "median", "block_average", "gibbs_truncation", "jpeg", "warm")


def _draw(seed: int, operators: tuple[str, ...] = OPERATORS) -> Recipe:
    return draw_lookalike(operators, seed, torch.Generator().manual_seed(seed))


def test_each_is_one_operator_that_can_be_seen() -> None:
    for seed in range(60):
        (step,) = _draw(seed).steps
        assert 0.15 <= step.severity <= 1


def test_all_of_these_kinds_are_drawn_alike() -> None:
    drawn = Counter(_draw(seed).steps[0].operator for seed in range(700))
    assert set(drawn) == set(OPERATORS) - {"warm"}  # nothing is taken for a warm photograph
    assert max(drawn.values()) < 1.5 * min(drawn.values())


def test_the_whole_bank_offers_many() -> None:
    drawn = {_draw(seed, operator_names()).steps[0].operator for seed in range(500)}
    assert {get_operator(name).channel for name in drawn} == {
        "sharpness",
        "noise",
        "blocking",
        "ringing",
        "banding",
        "geometry",
    }
    assert len(drawn) > 40


def test_operators_that_are_not_offered_are_never_drawn() -> None:
    offered = tuple(name for name in operator_names() if name not in HELD_OUT)
    for seed in range(200):
        assert _draw(seed, offered).steps[0].operator in offered


def test_a_bank_without_any_is_refused() -> None:
    with pytest.raises(ValueError, match="warm"):
        _draw(0, ("warm",))


def test_sets_show_single_distortions_and_say_which(crop: Tensor) -> None:
    made = LookalikeSetMaker(OPERATORS)(crop, 0)
    assert made.images.shape == (IMAGES_PER_SET, 3, 64, 64)
    assert made.maps.shape == (IMAGES_PER_SET, len(CHANNELS), 16, 16)
    assert made.panel.shape == (IMAGES_PER_SET, 0)
    assert (made.order == NO_ORDER).all()
    expected = torch.Generator().manual_seed(0)
    for index in range(IMAGES_PER_SET):
        recipe = draw_lookalike(OPERATORS, index, expected)
        operator = get_operator(recipe.steps[0].operator)
        strongest = made.maps[index].float().abs().amax((1, 2)).argmax()
        assert CHANNELS[int(strongest)] == operator.channel
        assert not torch.equal(made.images[index], made.reference)


def test_seed_decides_the_set(crop: Tensor) -> None:
    maker = LookalikeSetMaker(OPERATORS)
    first, again, other = (maker(crop, seed) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, field), getattr(again, field)) for field in STORED)
    assert not torch.equal(first.images, other.images)
