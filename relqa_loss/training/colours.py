"""Distortions of the luma alone, which single distortions of all three colours do not show.

Super-resolvers and denoisers that work on luma leave the colours as they were. Where colours keep
detail that luma has lost, maps that never saw such a thing take the clean image for the one whose
colours are the worse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions.colour import from_opponent, to_opponent

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
    luma, _ = to_opponent(images)
    clean, colours = to_opponent(reference)
    error = (images - reference).square().mean((1, 2, 3))
    fits = (luma - clean).square().mean((1, 2, 3)) >= _LEAST * error
    fits &= maps[:, _MOVES].abs().amax((1, 2)) == 0
    chosen = fits[:, None, None, None]
    kept = from_opponent(luma, colours).clamp(0, 1).mul(255).round().div(255)
    colourless = maps.clone()
    colourless[:, _OF_COLOUR] = 0
    return torch.where(chosen, kept, images), torch.where(chosen, colourless, maps)
