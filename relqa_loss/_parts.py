"""Large batches in parts, where memory is slow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from relqa_loss._gradients import Part, WithGradients, backpropagated
from relqa_loss._inputs import keepable
from relqa_loss.network._layout import one_by_one_on_a_cpu
from relqa_loss.network.model import Relation

PIXELS = 2**20
"""Of a part at most; half as many where maps are worked out. No tensor of it then reaches 32 MiB.
From there on glibc takes each from the system and gives it back once it is free, and the system
clears memory before it lends it again: that takes longer than the arithmetic."""

_Result = TypeVar("_Result", Tensor, Relation, tuple[Tensor, Tensor])


def in_parts(
    function: Callable[..., _Result], images: Tensor, *others: Tensor | None, maps: bool
) -> _Result:
    """``function(images, *others)``; on a CPU, a few images at a time if there are many pixels.

    Args:
        function: Gives N values, or several such, none of which depends on another's image.
        images: N×C×H×W.
        others: Of as many images, or of one for all of them; or None.
        maps: Whether ``function`` works maps out, which takes twice the memory.
    """
    parts = _parts(images, maps)
    if parts == 1:
        return function(images, *others)
    results = [function(*part) for part in _divided(parts, images, *others)]
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    joined = map(torch.cat, zip(*results, strict=True))
    if isinstance(results[0], Relation):
        return Relation(*joined)
    one, other = joined
    return one, other


def values_in_parts(
    function: Callable[..., Tensor], images: Tensor, *others: Tensor | None, maps: bool
) -> Tensor:
    """:func:`in_parts` of a function that gives one value for each image.

    A gradient is worked out part by part, too, and at once: what one part keeps for it still is at
    hand then, and the batch keeps little more than the gradient.

    Args:
        function: Gives N values. Nothing but what it is given gets a gradient.
        images: As for :func:`in_parts`.
        others: The same.
        maps: The same.
    """
    parts = _parts(images, maps)
    if parts == 1 or not backpropagated(images, *others) or _shared_gradient(images, *others):
        return in_parts(function, images, *others, maps=maps)
    kept = (None if each is None else keepable(each) for each in (images, *others))
    values: Tensor = WithGradients.apply(function, partial(_divided, parts), *kept)
    return values


def _parts(images: Tensor, maps: bool) -> int:
    """How many there are, so that each has few enough pixels, or is one image."""
    if not one_by_one_on_a_cpu(images):
        return 1
    count, _, height, width = images.shape
    largest = PIXELS // 2 if maps else PIXELS
    return -(-count // max(1, largest // (height * width)))


def _shared_gradient(images: Tensor, *others: Tensor | None) -> bool:
    """Whether one for all images is to get a gradient: then it is not of one value alone."""
    return any(
        each is not None and each.requires_grad and each.shape[0] != images.shape[0]
        for each in others
    )


def _divided(parts: int, images: Tensor, *others: Tensor | None) -> list[Part]:
    count = images.shape[0]
    split = [
        [each] * parts if each is None or each.shape[0] != count else each.tensor_split(parts)
        for each in (images, *others)
    ]
    return [list(part) for part in zip(*split, strict=True)]
