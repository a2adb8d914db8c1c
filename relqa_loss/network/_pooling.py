"""From the density of the distance to the distance: a norm over the cells of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relqa_loss.network._function import QuickFunction

_RMS_EPS = 2.0**-10  # its square is exact in float32, so that the root of zero is exactly zero


def norm(mean: Tensor, power: Tensor, confined: float, peak: Tensor) -> Tensor:
    """The distance, from the mean of the density and that of its square, of any shape.

    Args:
        mean: Of the density.
        power: Of its square.
        confined: Share of the root mean square that the mean counts for at least. One strange
            block is seen at once, however large the image that it is in.
        peak: How often the root mean square counts beside the mean.
    """
    rms = _root(power) - _RMS_EPS
    if confined:
        mean = torch.maximum(mean, confined * rms)
    return mean + peak * rms


def norm_of_cells(density: Tensor, share: float, confined: float, peak: Tensor) -> Tensor:
    """:func:`norm` of each image's cells, N×1×h×w → N.

    Args:
        density: Non-negative.
        share: Of cells to those that the mean is over.
        confined: As for :func:`norm`.
        peak: The same.
    """
    if peak.requires_grad or torch.compiler.is_compiling():
        return norm(*_means(density, share), confined, peak)
    values: Tensor = _NormOfCells.apply(density, share, confined, peak)[0]
    return values


def _means(density: Tensor, share: float) -> tuple[Tensor, Tensor]:
    return density.mean((1, 2, 3)) * share, density.square().mean((1, 2, 3)) * share


def _root(power: Tensor) -> Tensor:
    return torch.sqrt(power + _RMS_EPS**2)


class _NormOfCells(QuickFunction):
    """Back, two fifths of the calls that its steps take one by one: on small images, and on a GPU,
    calls are what takes the time."""

    @staticmethod
    def forward(
        density: Tensor, share: float, confined: float, peak: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, power = _means(density, share)
        root = _root(power)
        rms = root - _RMS_EPS
        least = confined * rms
        return torch.maximum(mean, least) + peak * rms, root, mean < least

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, float, float, Tensor], output: tuple[Tensor, ...]
    ) -> None:
        density, ctx.share, ctx.confined, peak = inputs
        _, root, below = output
        ctx.mark_non_differentiable(root, below)
        ctx.save_for_backward(density, peak, root, below)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        density, peak, root, below = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated in turn
            root = _root(_means(density, ctx.share)[1])
        each = grad * (ctx.share / density[0].numel())
        of_rms = each / root * (peak + ctx.confined * below)
        of_mean = each * ~below
        shape = (-1, 1, 1, 1)
        return torch.addcmul(of_mean.view(shape), of_rms.view(shape), density), None, None, None
