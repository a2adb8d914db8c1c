"""A training step as the tests of losses take it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def images(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pair(count: int = 2, side: tuple[int, int] = (45, 61)) -> tuple[Tensor, Tensor]:
    # Not two halves of one tensor, whose sizes a compiler would relate to those of the images.
    preds, target = (image.clone() for image in images(0, 2, count, 3, *side))
    return preds, target


def gradient(loss: Callable[..., Tensor], preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient for ``preds``."""
    leaf = preds.detach().clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad
