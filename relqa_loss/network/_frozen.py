"""Layers of frozen networks.

They are none of the classes that initialisers look for. A loss sits in its user's network, where
``for m in self.modules(): if isinstance(m, nn.Conv2d): nn.init.kaiming_normal_(m.weight)`` or the
same by ``self.apply`` is common, and would write over weights that are to stay as they are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _Frozen(nn.Module):
    """What a layer has learned."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias


class _Filter(_Frozen):
    """What an ``nn.Conv2d`` computes."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.stride, self.padding = layer.stride, layer.padding

    def forward(self, image: Tensor) -> Tensor:
        return F.conv2d(image, self.weight, self.bias, self.stride, self.padding)


class _Product(_Frozen):
    """What an ``nn.Linear`` computes."""

    def forward(self, values: Tensor) -> Tensor:
        return F.linear(values, self.weight, self.bias)


def replace_layers(network: nn.Module) -> None:
    """Put such layers in the place of all convolutions and linear ones, with their weights."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, _Filter(child))
            elif isinstance(child, nn.Linear):
                setattr(parent, name, _Product(child))
