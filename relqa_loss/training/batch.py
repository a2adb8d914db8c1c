"""What a step of training sees."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Windows of pairs, for the maps: ``PAIRS_PER_SET`` rows for each of some sets.

    In the rows of a set, a photograph is compared with four distorted images of it, then the first
    of these with the second.
    """

    reference: Tensor  # N×3×S×S
    image: Tensor  # N×3×S×S
    maps: Tensor  # N×K×h×w
    worse: Tensor  # N: 1 where the image is certainly the worse one, −1 where it is the better one


PAIRS_PER_SET = 5


class Facts(NamedTuple):
    """F sets of M images whose order is known in part."""

    reference: Tensor  # F×3×S×S
    images: Tensor  # F×M×3×S×S
    order: Tensor  # F×Q×2
    taught: Tensor | None = None  # F×M


class Lessons(NamedTuple):
    """L sets of M images of which nothing is known but a teacher's distances."""

    reference: Tensor  # L×3×S×S
    images: Tensor  # L×M×3×S×S
    taught: Tensor  # L×M


class Batch(NamedTuple):
    """B ranked sets with M images each, on the training device, images in [0, 1]."""

    reference: Tensor  # B×3×S×S
    images: Tensor  # B×M×3×S×S
    maps: Tensor  # B×M×K×h×w
    ranks: Tensor  # B×M×P: each panel member's badness as its quantile in the pool
    order: Tensor  # B×Q×2
    worse: Tensor  # B×M
    partner: Tensor  # B×M: the image that each one is compared with as a distorted pair
    pairs: Pairs
    facts: Facts | None = None
    taught: Tensor | None = None  # B×M: a teacher's distances
    lessons: Lessons | None = None

    def to(self, device: torch.device) -> Batch:
        """A copy on ``device``."""
        return _moved(self, device)


T = TypeVar("T")


def _moved(value: T, device: torch.device) -> T:
    if isinstance(value, Tensor):
        return value.to(device)  # type: ignore[return-value]
    if isinstance(value, tuple):  # all that there are have names
        return type(value)(*(_moved(each, device) for each in value))
    return value
