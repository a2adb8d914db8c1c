"""Memory layout: which one convolutions take."""

from __future__ import annotations

from torch import Tensor


def channels_last(image: Tensor) -> Tensor:
    """``image`` (N×C×H×W) with its channels beside one another in memory.

    Convolutions follow the layout of their input, and this one is the fastest; layouts that meet
    each other in an operation are the slowest. By permutation, since ``torch.vmap`` does not know
    ``contiguous(memory_format=torch.channels_last)``.
    """
    return image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
