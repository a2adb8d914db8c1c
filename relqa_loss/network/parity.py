"""Parity blocks: what may be done to an odd stream so that it flips sign when the images swap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def odd_softsign(odd: Tensor) -> Tensor:
    """A smooth odd activation with values in (−1, 1)."""
    return odd / (1 + odd.abs())


class ParityBlock(nn.Module):
    """Turns a feature difference into odd features, gated by even ones.

    odd × even = odd: the difference passes bias-free linear maps and an odd activation only, and
    the gate sees the sum and the magnitude of the difference, neither of which changes when the
    images swap.
    """

    def __init__(self, features: int, width: int, coarser: int = 0) -> None:
        super().__init__()
        self.project = nn.Conv2d(features, width, 1, bias=False)
        self.gate = nn.Conv2d(2 * features, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.lift = nn.Conv2d(coarser, 4 * width, 1, bias=False) if coarser else None
        for linear in (self.project, self.mix, self.lift):
            if linear is not None:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="linear")

    def forward(self, difference: Tensor, total: Tensor, coarser: Tensor | None) -> Tensor:
        """Odd features at this scale, joined by those of the next coarser one."""
        gate = torch.sigmoid(self.gate(torch.cat([total, difference.abs()], 1)))
        odd = self.project(difference) * gate
        if self.lift is not None and coarser is not None:
            odd = odd + F.pixel_shuffle(self.lift(coarser), 2)
        return odd + odd_softsign(self.mix(odd))
