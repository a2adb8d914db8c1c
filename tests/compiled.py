"""Losses to compile, and what they must give."""

from __future__ import annotations

import torch
from steps import gradient
from torch import Tensor, nn

from relqa_loss import RelationalLoss, SpatialMapWeightedLoss

Loss = RelationalLoss | SpatialMapWeightedLoss


def build(kind: str, weights: str) -> Loss:
    """A loss with channel weights has the mapper in its graph, too."""
    if kind == "spatial":
        return SpatialMapWeightedLoss(channel_weights={"noise": 2.0}, weights=weights)
    return RelationalLoss(
        channel_weights={"noise": 2.0} if kind == "steered" else None, weights=weights
    )


def assert_same(compiled: nn.Module, loss: nn.Module, preds: Tensor, target: Tensor) -> None:
    value, grad = gradient(loss, preds, target)
    fast, fast_grad = gradient(compiled, preds, target)
    torch.testing.assert_close(fast, value)
    # Sums in another order, whose terms may cancel.
    rounding = 1e-6 * float(grad.abs().max())
    torch.testing.assert_close(fast_grad, grad, rtol=1e-4, atol=rounding)
