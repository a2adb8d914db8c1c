"""Conversions between tensors and Pillow images, importing Pillow only when they are called."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image as PilImage

_MISSING = (
    "this distortion goes through Pillow, which is not installed: pip install 'relqa-loss[demo]'"
)


def pillow() -> ModuleType:
    """The module ``PIL.Image``.

    Raises:
        ImportError: If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return Image


def to_pillow(image: Tensor) -> PilImage.Image:
    """An RGB Pillow image, rounded to 8 bits, of a 3×H×W tensor in [0, 1].

    Raises:
        ImportError: If Pillow is not installed.
        ValueError: If ``image`` is not 3×H×W.
    """
    module = pillow()
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"the image must be 3×H×W, got shape {tuple(image.shape)}")
    levels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    made: PilImage.Image = module.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
    return made


def from_pillow(image: PilImage.Image, like: Tensor) -> Tensor:
    """A 3×H×W tensor in [0, 1] of a Pillow image, on the device and in the dtype of ``like``."""
    levels = torch.from_numpy(np.array(image.convert("RGB")))
    return levels.permute(2, 0, 1).contiguous().to(like) / 255
