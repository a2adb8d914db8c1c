"""The last steps of both distances: what is judged at each stride becomes one density.

Each step on its own costs a call forth and one back, with hardly any numbers where strides are
coarse. As in :mod:`~relqa_loss.network._lean`, everything can be differentiated twice and goes
through ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from relqa_loss.network._function import QuickFunction
from relqa_loss.network._layout import first, last, plus, repeated, sum_blocks, times
from relqa_loss.network._lean import saturate, saturation_slope
from relqa_loss.network._patches import saturated_cells


def judged_density(
    judged: Sequence[Tensor], seen: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Join what is judged at several strides, each half of the next one.

    What is visible at a stride is what is judged there and what is visible at the coarser one, both
    as far as the reference lets it be seen; the density is the weighted sum of what is visible,
    saturated, over channels and strides.

    Args:
        judged: Blended magnitudes, finest first: N×h×w×C, N×h/2×w/2×C and so on, non-negative.
        seen: How visible they are, of the same shapes, non-negative.
        weights: Of the channels, C×1 for each stride.

    Returns:
        N×h×w×1, non-negative.
    """
    # Dynamo traces no functions of any number of tensors, and a compiler joins calls by itself.
    if torch.compiler.is_compiling() or any(each.requires_grad for each in (*seen, *weights)):
        return _joined(judged, seen, weights, saturated_cells)[0]
    found = _Joined.apply(*judged, *seen, *weights)
    density: Tensor = found[0]
    return density


def _joined(
    judged: Sequence[Tensor],
    seen: Sequence[Tensor],
    weights: Sequence[Tensor],
    contribution: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, ...]:
    """The density, and what is visible, finest first."""
    *finer, coarsest = zip(judged, seen, weights, strict=True)
    visible = [coarsest[0] * coarsest[1]]
    density = contribution(visible[0], coarsest[2])
    for here, sight, weight in reversed(finer):
        visible.insert(0, times(_with_copies(here, visible[0]), sight))
        density = _with_copies(contribution(visible[0], weight), density)
    return density, *visible


def _contribution(visible: Tensor, weights: Tensor) -> Tensor:
    return saturate(visible) @ weights


class _Joined(QuickFunction):
    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        judged, seen, weights = _thirds(tensors)
        return _joined(judged, seen, weights, _contribution)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, seen, weights = _thirds(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*seen, *weights, *output[1:])

    @staticmethod
    def backward(
        ctx: Any, to_density: Tensor | None, *to_visible: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        seen, weights, visible = _thirds(ctx.saved_tensors)
        levels = len(seen)
        grads: list[Tensor | None] = []
        finer: Tensor | None = None
        for level in range(levels):
            grad = to_visible[level]
            if to_density is not None:
                slope = saturation_slope(visible[level])
                own = times(slope, to_density * weights[level][:, 0])
                grad = own if grad is None else own + grad
            if finer is not None:
                grad = finer if grad is None else plus(grad, finer)
            judged = None if grad is None else grad * seen[level]
            grads.append(judged)
            if level < levels - 1:
                finer = None if judged is None else _without_copies(judged)
                to_density = None if to_density is None else _without_copies(to_density)
        return (*grads, *[None] * (2 * levels))


def _thirds(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    levels = len(tensors) // 3
    return tensors[:levels], tensors[levels : 2 * levels], tensors[2 * levels :]


def _with_copies(cells: Tensor, coarse: Tensor) -> Tensor:
    """``cells`` plus 2×2 copies of each cell of ``coarse``; a new tensor."""
    return plus(last(repeated(first(coarse))), cells)


def _without_copies(grad: Tensor) -> Tensor:
    """The transpose, for the coarse cells."""
    return last(sum_blocks(first(grad)))
