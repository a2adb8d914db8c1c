"""Single distortions, plain to see: what each of them looks like by itself.

Blocks, ringing and smoothing take detail away as a blur does, and coarse blocks or bands are read
as noise. Random composites show each of them rarely, most often near the threshold, where nobody
can tell; maps that learn from those alone call all of them a blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from relqa_loss.distortions import Recipe
from relqa_loss.training.pipelines import draw_step

_WHOLE = 0.5
_LEAST = 0.15


def draw_single(operators: Sequence[str], seed: int, generator: torch.Generator) -> Recipe:
    """A recipe of one operator, all of which are drawn alike.

    Where those that are mistaken for one another were drawn more often than others, the others
    came to be taken for them, and where colours and tones were left out, those were known less.

    Args:
        operators: Names to draw from, at least one.
        seed: Of the recipe: decides masks and noise patterns.
        generator: Decides the operator, its severity and the kind of mask.
    """
    step = draw_step(operators, _WHOLE, generator)
    return Recipe((replace(step, severity=_LEAST + (1 - _LEAST) * step.severity),), seed)
