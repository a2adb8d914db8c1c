"""Parity blocks: what may be done to an odd stream so that it flips sign when the images swap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def odd_softsign(odd: Tensor, knee: float = 1.0) -> Tensor:
    """A smooth odd activation with values in (−1, 1), half-way at ``±knee``."""
    return odd / (knee + odd.abs())


def odd_conv(inputs: int, outputs: int, size: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that an odd stream may pass: linear, hence without a bias."""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    with torch.no_grad():
        conv.weight.mul_(gain)
    return conv


def even_conv(inputs: int, outputs: int, size: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A convolution of an even stream, initialised to keep its variance through activations."""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    with torch.no_grad():
        conv.weight.mul_(gain)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class ParityBlock(nn.Module):
    """A residual step of two streams at one scale: an odd one, and an even one that gates it.

    odd × even = odd: the odd stream passes bias-free linear maps and odd activations only, and the
    even one, which steers it, sees no more of it than its magnitude.

    Args:
        odd: Width of the odd stream.
        even: Width of the even stream.
    """

    def __init__(self, odd: int, even: int) -> None:
        super().__init__()
        self.even_mix = even_conv(even, even, 3, gain=0.7)
        self.magnitude = even_conv(odd, even)
        self.gates = even_conv(even, 2 * odd, gain=0.5)
        self.odd_mix = odd_conv(odd, odd, 3, gain=0.5)

    def forward(self, odd: Tensor, even: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams, of the same shapes."""
        even = even + F.silu(self.even_mix(even) + self.magnitude(odd.abs()))
        first, second = (2 * torch.sigmoid(self.gates(even))).chunk(2, 1)
        odd = odd * first
        return odd + second * odd_softsign(self.odd_mix(odd)), even
