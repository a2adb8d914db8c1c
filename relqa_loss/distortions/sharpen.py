"""Gains of sharpness: from crisp to over-sharpened, with and without halos."""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss.distortions._filters import blur, luma
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


@register(
    "unsharp_mask",
    channel="sharpness",
    sign=1,
    curve=Curve(0.12, 5.5),
    side={"ringing": 0.15},
    one_directional=False,
)
def unsharp_mask(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Sharpens fine detail with an unsharp mask of small radius."""
    return images + strength * (images - blur(images, 1.0))


@register(
    "halo_sharpen",
    channel="sharpness",
    sign=1,
    curve=Curve(0.07, 2.5),
    side={"ringing": 0.4},
    one_directional=False,
)
def halo_sharpen(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Over-sharpens with a large radius, which leaves bright and dark halos along edges."""
    return images + strength * (images - blur(images, 3.0))


@register(
    "high_boost",
    channel="sharpness",
    sign=1,
    curve=Curve(0.25, 12.0),
    side={"noise": 0.2},
    one_directional=False,
)
def high_boost(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Boosts the finest detail of the brightness, grain included."""
    grey = luma(images)
    return images + strength * (grey - blur(grey, 0.55))
