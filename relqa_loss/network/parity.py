"""Parity blocks: what may be done to an odd stream so that it flips sign when the images swap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def odd_softsign(odd: Tensor) -> Tensor:
    """A smooth odd activation with values in (−1, 1)."""
    return odd / (1 + odd.abs())


class ParityBlock(nn.Module):
    """One scale of two streams, from coarse to fine: an odd one, and an even one that gates it.

    odd × even = odd: the feature difference passes bias-free linear maps and odd activations only,
    and the gates come from the sum and the magnitude of the difference, neither of which changes
    when the images swap.

    Args:
        features: Width of the encoder's features at this scale.
        width: Width of both streams.
        coarser: Width of both streams at the next coarser scale, 0 where there is none.
    """

    def __init__(self, features: int, width: int, coarser: int = 0) -> None:
        super().__init__()
        self.even = nn.Conv2d(2 * features, width, 1)
        self.even_mix = nn.Conv2d(width, width, 3, padding=1)
        self.gates = nn.Conv2d(width, 2 * width, 1)
        self.odd = nn.Conv2d(features, width, 1, bias=False)
        self.odd_mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.even_lift = nn.Conv2d(coarser, 4 * width, 1) if coarser else None
        self.odd_lift = nn.Conv2d(coarser, 4 * width, 1, bias=False) if coarser else None
        for linear in (self.odd, self.odd_mix, self.odd_lift):
            if linear is not None:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="linear")

    def forward(
        self, difference: Tensor, total: Tensor, coarser: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """``(odd, even)`` at this scale from the features and the streams of the coarser one."""
        even = self.even(torch.cat([total, difference.abs()], 1))
        odd = self.odd(difference)
        if coarser is not None and self.odd_lift is not None and self.even_lift is not None:
            odd = odd + F.pixel_shuffle(self.odd_lift(coarser[0]), 2)
            even = even + F.pixel_shuffle(self.even_lift(coarser[1]), 2)
        even = F.silu(even)
        even = even + F.silu(self.even_mix(even))
        first, second = (2 * torch.sigmoid(self.gates(even))).chunk(2, 1)
        odd = odd * first
        return odd + second * odd_softsign(self.odd_mix(odd)), even
