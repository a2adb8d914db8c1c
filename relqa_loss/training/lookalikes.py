"""Distortions that are taken for one another, each by itself and plain to see.

Blocks, ringing and smoothing take detail away as a blur does, and coarse blocks or bands are read
as noise. Random composites show each of them rarely, most often near the threshold, where nobody
can tell; maps that learn from those alone call all of them a blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from relqa_loss.distortions import Recipe, get_operator
from relqa_loss.training.pipelines import draw_step

_KINDS = frozenset(
    {
        ("sharpness", -1),
        ("noise", -1),
        ("noise", 1),
        ("blocking", 1),
        ("ringing", 1),
        ("banding", 1),
        ("geometry", 1),
    }
)
_WHOLE = 0.5
_LEAST = 0.15


def draw_lookalike(operators: Sequence[str], seed: int, generator: torch.Generator) -> Recipe:
    """A recipe of one operator, of a kind that others are taken for.

    All operators of these kinds are drawn alike. Where kinds that are mistaken were drawn more
    often than blurs, a quarter of all blurs came to be taken for them.

    Args:
        operators: Names to draw from.
        seed: Of the recipe: decides masks and noise patterns.
        generator: Decides the operator, its severity and the kind of mask.

    Raises:
        ValueError: If none of ``operators`` is of such a kind.
    """
    bank = [get_operator(name) for name in operators]
    offered = [op for op in bank if (op.channel, op.sign) in _KINDS]
    if not offered:
        raise ValueError(f"no operator is taken for another one among {tuple(operators)}")
    step = draw_step(offered, _WHOLE, generator)
    return Recipe((replace(step, severity=_LEAST + (1 - _LEAST) * step.severity),), seed)
