"""Heads that turn odd features into maps, and magnitudes into the distance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SignedMagnitude(nn.Module):
    """``Σ_j visibility_j(reference) · (a⁺_j · max(u_j, 0) + a⁻_j · max(−u_j, 0))`` per cell.

    The weights are non-negative and differ by direction, because a gain is not as bad as a loss.
    Visibility comes from the reference alone: were it to see the image, an optimiser could hide
    errors by steering it to its floor.

    Args:
        features: Width of the reference features.
        width: Width of the odd features.
        pool: How many times finer the grid of the odd features is than the reference features'.
    """

    def __init__(self, features: int, width: int, pool: int = 1) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.full((width,), -3.0))
        self.negative = nn.Parameter(torch.full((width,), -3.0))
        self.visibility = nn.Conv2d(features, width, 1)
        self.pool = pool

    def per_channel(self, odd: Tensor, reference: Tensor) -> Tensor:
        """``N×width×h×w``, non-negative, zero where ``odd`` is zero."""
        up = F.softplus(self.positive)[:, None, None]
        down = F.softplus(self.negative)[:, None, None]
        # Two rectifiers rather than a selection by sign: their gradient at zero is zero, so the
        # distance of identical images has no gradient.
        magnitude = up * F.relu(odd) + down * F.relu(-odd)
        if self.pool > 1:
            magnitude = F.avg_pool2d(magnitude, self.pool)
        return magnitude * (2 * torch.sigmoid(self.visibility(reference)))

    def forward(self, odd: Tensor, reference: Tensor) -> Tensor:
        """``N×1×h×w``, non-negative."""
        return self.per_channel(odd, reference).sum(1, keepdim=True)


class PixelVisibility(nn.Module):
    """Weights of the pixel pyramid, from reference features alone, never below ``floor``."""

    def __init__(self, features: int, bands: int, floor: float) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(features, bands, 1)
        self.floor = floor

    def forward(self, bands: Tensor, reference: Tensor) -> Tensor:
        """``N×1×h×w``: the weighted sum of non-negative bands; convex in the image."""
        weights = self.floor + F.softplus(self.weigh(reference))
        return (weights * bands).sum(1, keepdim=True)
