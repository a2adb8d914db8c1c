"""The encoder: features of the reference at strides 2, 4, 8 and so on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network._lean import BlockKernel, block_conv
from relqa_loss.network._settled import Settling


class _Stage(nn.Module):
    """Halves the resolution without discarding anything, then mixes a 3×3 neighbourhood.

    Windows of 2×2 without overlap see every pixel that enters, unlike a strided 3×3
    convolution or a max-pool; patterns that a stride cannot see are what an optimiser exploits.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 2, stride=2)
        self.mix = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        reduced = silu(self.reduce(features))
        return silu(self.mix(reduced)).add_(reduced)


CONTRAST = 4.0
"""Brings pixel values around mid-grey to unit variance, where the activations bend."""


class _Stem(Settling):
    """A 3×3 convolution over blocks of 2×2 pixels."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, 12, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))

    def functions(self) -> tuple[Tensor, ...]:
        # A power of two: exact, and shorter on the weights than on the pixels.
        return BlockKernel.of(CONTRAST * self.weight)

    def forward(self, image: Tensor) -> Tensor:
        return silu(block_conv(image, BlockKernel(*self.settled()), self.bias))


class Encoder(nn.Module):
    """Features of an image, centred on mid-grey, at strides 2, 4, 8 and so on.

    Args:
        widths: Of the features, one for each stride.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = _Stem(widths[0])
        self.stages = nn.ModuleList(_Stage(inputs, outputs) for inputs, outputs in pairwise(widths))
        for module in self.modules():
            if isinstance(module, (_Stem, nn.Conv2d)):
                # PyTorch's default shrinks the features at every stage: at stride 16 a visible
                # blur would move them by 0.0003, and the maps would take an epoch to wake up.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``N×3×H×W`` (sides divisible by 16) → feature maps."""
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return tuple(features)


def silu(values: Tensor) -> Tensor:
    """``x · sigmoid(x)``, in place where nothing will ask for what was there."""
    return F.silu(values, inplace=not (torch.is_grad_enabled() and values.requires_grad))
