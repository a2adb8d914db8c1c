"""The levels of 8-bit images, which files and screens have."""

from __future__ import annotations

from torch import Tensor


def eight_bit(images: Tensor) -> Tensor:
    """Values as an 8-bit file would keep them: clamped to [0, 1], in steps of 1/255."""
    return images.clamp(0, 1).mul(255).round().div(255)
