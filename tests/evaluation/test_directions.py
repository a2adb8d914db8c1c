"""Guards: which way the score of the shipped weights points, not only on plain photographs.

The photographs come with scikit-image and had no part in training. How often the score is right is
measured by ``benchmarks/direction.py`` on many more.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss import relational_score
from relqa_loss.distortions import DistortionEngine, Recipe, Step
from relqa_loss.distortions.colour import from_opponent, luma, to_opponent

OPERATORS = (
    "gaussian_blur",
    "motion_blur",
    "median",
    "bilateral",
    "non_local_means",
    "total_variation",
    "jpeg",
    "jpeg2000",
    "webp",
    "luma_noise",
)
SEVERITY = 0.6
LEAST = 0.95

Kind = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def photograph(reference: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    return reference, images


def luma_alone(reference: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    _, colours = to_opponent(reference)
    return reference, from_opponent(luma(images), colours).clamp(0, 1)


def grey(reference: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    return luma(reference).expand_as(reference), luma(images).expand_as(images)


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """References and images, one pair for each photograph and operator."""
    pixels = (
        skimage.data.astronaut()[0:192, 130:322],
        skimage.data.coffee()[100:292, 200:392],
        skimage.data.chelsea()[20:212, 100:292],
        skimage.data.rocket()[150:342, 200:392],
    )
    engine = DistortionEngine(OPERATORS)
    references, images = [], []
    for number, values in enumerate(pixels):
        photo = torch.from_numpy(values.copy()).permute(2, 0, 1) / 255
        for index, operator in enumerate(OPERATORS):
            recipe = Recipe((Step(operator, SEVERITY, "whole"),), 100 * number + index)
            references.append(photo)
            images.append(engine.apply(photo, recipe).distorted.clamp(0, 1))
    return torch.stack(references), torch.stack(images)


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
@pytest.mark.parametrize("kind", [photograph, luma_alone, grey])
def test_a_worse_image_is_not_taken_for_a_better_one(
    pairs: tuple[Tensor, Tensor], kind: Kind, weights: str
) -> None:
    reference, images = kind(*pairs)
    score = relational_score(images, reference, weights=weights, reduction="none")
    better = [
        f"{OPERATORS[index % len(OPERATORS)]} on photograph {index // len(OPERATORS)}"
        for index, value in enumerate(score.tolist())
        if value > 0
    ]
    assert len(better) <= (1 - LEAST) * len(score), better
