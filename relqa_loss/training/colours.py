"""Distortions of the luma alone, and pictures without colours: what photographs do not show.

Super-resolvers and denoisers that work on luma leave the colours as they were. Where colours keep
detail that luma has lost, maps that never saw such a thing take the clean image for the one whose
colours are the worse. Grey pictures are what scans, X-rays and many test images are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.channels import CHANNELS
from relqa_loss.distortions.colour import from_opponent, luma, to_opponent

_OF_COLOUR = tuple(
    CHANNELS.index(name) for name in ("saturation", "temperature", "tint", "chroma_bleed")
)
_MOVES = CHANNELS.index("geometry")
_LEAST = 0.3
"""Share of the error that must be of luma: of what only colours its copy would be clean."""


def keep_colours(reference: Tensor, images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """``images`` with the colours of ``reference``, and their maps; others are left as they are.

    Left are images whose error is of colour for the most part, and those that have moved, since
    colours that stay behind are a distortion of another kind.

    Args:
        reference: N×3×H×W in [0, 1].
        images: Of the same shape.
        maps: Their maps, N×K×h×w.
    """
    chosen = _of_luma(reference, images) & (maps[:, _MOVES].abs().amax((1, 2)) == 0)
    chosen = chosen[:, None, None, None]
    kept = with_colours_of(reference, images)
    return torch.where(chosen, kept, images), torch.where(chosen, _colourless(maps), maps)


def with_colours_of(reference: Tensor, images: Tensor) -> Tensor:
    """The luma of ``images`` in the colours of ``reference``, N×3×H×W or 1×3×H×W, with 8 bits."""
    _, colours = to_opponent(reference)
    return eight_bit(from_opponent(luma(images), colours))


def without_colours(
    reference: Tensor, images: Tensor, maps: Tensor, worse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All four for grey pictures. What was of colour for the most part is no distortion of them.

    Args:
        reference: N×3×H×W in [0, 1].
        images: Of the same shape.
        maps: Their maps, N×K×h×w.
        worse: Which images are certainly worse, N.
    """
    seen = _of_luma(reference, images)
    reference, images = (eight_bit(luma(each)).expand_as(each) for each in (reference, images))
    maps = _colourless(maps) * seen[:, None, None, None]
    return reference, images, maps, worse * seen


def _of_luma(reference: Tensor, images: Tensor) -> Tensor:
    """N: whether the error is one of luma for a good part."""
    error = (images - reference).square().mean((1, 2, 3))
    return luma(images - reference).square().mean((1, 2, 3)) >= _LEAST * error


def _colourless(maps: Tensor) -> Tensor:
    maps = maps.clone()
    maps[:, _OF_COLOUR] = 0
    return maps
