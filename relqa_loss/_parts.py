"""Large batches in parts, where memory is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

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
    if not one_by_one_on_a_cpu(images):
        return function(images, *others)
    count, _, height, width = images.shape
    largest = PIXELS // 2 if maps else PIXELS
    parts = -(-count // max(1, largest // (height * width)))
    if parts == 1:
        return function(images, *others)
    split = [
        [each] * parts if each is None or each.shape[0] != count else each.tensor_split(parts)
        for each in (images, *others)
    ]
    results = [function(*part) for part in zip(*split, strict=True)]
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    joined = map(torch.cat, zip(*results, strict=True))
    if isinstance(results[0], Relation):
        return Relation(*joined)
    one, other = joined
    return one, other
