"""Steps on patches of pixels, with channels last: N×h×w×C.

With the channels of a cell beside one another a layer is one product of matrices, which costs less
to call than a convolution; where images are small, calls are what a loss costs. As in
:mod:`~relqa_loss.network._lean`, what is kept for the backward pass is as little as possible, and
everything can be differentiated twice and goes through ``torch.func``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.network._function import QuickFunction, SteeredFunction
from relqa_loss.network._layout import (
    depth_to_space,
    first,
    last,
    plus,
    space_to_depth,
    sum_blocks,
    times,
)
from relqa_loss.network._lean import saturate, saturation_slope, slope
from relqa_loss.network._precision import full_precision

SIDE = 4
"""Pixels along a side of a patch."""


def to_patches(image: Tensor) -> Tensor:
    """N×C×H×W → N×H/4×W/4×16·C: by colour, then row, then column of the patch."""
    count, colours, height, width = image.shape
    rows, columns = height // SIDE, width // SIDE
    apart = image.reshape(count, colours, rows, SIDE, columns, SIDE)
    return apart.permute(0, 2, 4, 1, 3, 5).reshape(count, rows, columns, colours * SIDE * SIDE)


def from_patches(patches: Tensor, colours: int = 3) -> Tensor:
    """Inverse of :func:`to_patches`."""
    count, rows, columns, _ = patches.shape
    apart = patches.view(count, rows, columns, colours, SIDE, SIDE)
    return apart.permute(0, 3, 1, 4, 2, 5).reshape(count, colours, SIDE * rows, SIDE * columns)


def merge(cells: Tensor) -> Tensor:
    """2×2 cells to one, nothing discarded: N×h×w×C → N×h/2×w/2×4·C."""
    return last(space_to_depth(first(cells)))


def patch_kernel(weight: Tensor) -> Tensor:
    """A layer on patches, C×48, as a convolution of pixels with stride 4: C×3×4×4."""
    kernel = weight.reshape(len(weight), -1, SIDE, SIDE)
    return kernel.contiguous(memory_format=torch.channels_last)


def filtered(error: Tensor, filters: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Linear filters of each patch, and the mean magnitude of each of its colours.

    Forth, a convolution spares the patches; back, a product of matrices takes a fifth of the time.

    Args:
        error: N×3×H×W.
        filters: 48×C.
        kernel: By :func:`patch_kernel` of the transposed filters.

    Returns:
        N×H/4×W/4×C and N×H/4×W/4×3.
    """
    if filters.requires_grad:
        patches = to_patches(error)
        return patches @ filters, patches.abs().view(*patches.shape[:-1], -1, SIDE**2).mean(-1)
    responses, plain, _ = _Filtered.apply(error, filters, kernel)
    return last(responses), last(plain)


def product(cells: Tensor, weight: Tensor) -> Tensor:
    """``cells @ weight``, a linear layer; keeps its input only if the weights are being learned."""
    if weight.requires_grad:
        return cells @ weight
    result: Tensor = _Product.apply(cells, weight)
    return result


def mixed(cells: Tensor, weight: Tensor) -> Tensor:
    """Convolution over 3×3 cells; keeps its input only if the weights are being learned."""
    if weight.requires_grad:
        return _convolved(cells, weight)
    result: Tensor = _Mixed.apply(cells, weight)
    return result


def stepped(cells: Tensor, weight: Tensor, gate: Tensor, kernel: Tensor) -> Tensor:
    """One step of an error to half the resolution: N×h×w×C → N×h/2×w/2×D.

    What :func:`product` makes of merged cells, times ``gate``, and what :func:`mixed` adds to it.

    Args:
        cells: The error.
        weight: 4·C×D.
        gate: N×h/2×w/2×D.
        kernel: D×D×3×3.
    """
    if any(each.requires_grad for each in (weight, gate, kernel)):
        gated = product(merge(cells), weight) * gate
        return gated + mixed(gated, kernel)
    result: Tensor = _Stepped.apply(cells, weight, gate, kernel)
    return result


def magnitudes(error: Tensor, plain: Tensor | None = None) -> Tensor:
    """``cat([onset(error), |onset(error)|, plain])`` along the channels.

    The onset is that of :func:`~relqa_loss.network._lean.mean_magnitude`.
    """
    result: Tensor = _Magnitudes.apply(error, plain)
    return result


def blended(error: Tensor, plain: Tensor | None, weight: Tensor) -> Tensor:
    """``product(magnitudes(error, plain), weight)``, whose wide middle is not put together unless
    the weights are being learned."""
    if weight.requires_grad:
        return product(magnitudes(error, plain), weight)
    result: Tensor = _Blended.apply(error, plain, weight)
    return result


def saturated_cells(visible: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over channels of saturated magnitudes: N×h×w×C, C×1 → N×h×w×1.

    A magnitude v ≥ 0 saturates as v / (1 + v) + 0.1 v: increasing and concave, with slope 1.1 at
    zero and never below 0.1.
    """
    result: Tensor = _SaturatedCells.apply(visible, weights)
    return result


def _convolved(cells: Tensor, weight: Tensor) -> Tensor:
    return last(F.conv2d(first(cells), weight, padding=1))


def _convolved_back(grad: Tensor, weight: Tensor) -> Tensor:
    return _convolved(grad, weight.flip(-2, -1).transpose(0, 1))


class _Filtered(QuickFunction):
    @staticmethod
    def forward(error: Tensor, filters: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        responses = F.conv2d(error, kernel, stride=SIDE)
        buffer = error.abs()
        # Not in place, see ``_lean.py``.
        plain = sum_blocks(sum_blocks(buffer)) * (1 / SIDE**2)
        # The same buffer again: new memory costs more than arithmetic.
        return responses, plain, buffer.copy_(error).sign_().to(torch.int8)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        ctx.save_for_backward(inputs[1], output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(
        ctx: Any, responses: Tensor, plain: Tensor, _: Tensor
    ) -> tuple[Tensor, None, None]:
        filters, signs = ctx.saved_tensors
        with full_precision(responses):  # a backward pass may be called under autocast
            grad = from_patches(last(responses) @ filters.T)
        share = (1 / SIDE**2) * plain[:, :, :, None, :, None]
        apart = *plain.shape[:3], SIDE, plain.shape[3], SIDE
        # In place as far as may be: new memory costs more than arithmetic.
        signed = times(signs.to(grad.dtype).view(apart), share)
        return plus(grad.view(apart), signed).view(grad.shape), None, None


class _Product(SteeredFunction):
    @staticmethod
    def forward(cells: Tensor, weight: Tensor) -> Tensor:
        return cells @ weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        with full_precision(grad):  # a backward pass may be called under autocast
            return grad @ weight.T, None


class _Mixed(SteeredFunction):
    @staticmethod
    def forward(cells: Tensor, weight: Tensor) -> Tensor:
        return _convolved(cells, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        with full_precision(grad):
            return _convolved_back(grad, weight), None


class _Stepped(SteeredFunction):
    @staticmethod
    def forward(cells: Tensor, weight: Tensor, gate: Tensor, kernel: Tensor) -> Tensor:
        gated = times(merge(cells) @ weight, gate)
        return plus(_convolved(gated, kernel), gated)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        weight, gate, kernel = ctx.saved_tensors
        with full_precision(grad):  # a backward pass may be called under autocast
            to_gated = plus(_convolved_back(grad, kernel), grad)
            to_merged = times(to_gated, gate) @ weight.T
        return last(depth_to_space(first(to_merged))), None, None, None


class _Magnitudes(QuickFunction):
    @staticmethod
    def forward(error: Tensor, plain: Tensor | None) -> Tensor:
        signed = _onset(error)
        parts = [signed, signed.abs()]
        return torch.cat(parts if plain is None else [*parts, plain], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.plain = inputs[1] is not None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        (error,) = ctx.saved_tensors
        channels = error.shape[-1]
        signed, unsigned = grad[..., :channels], grad[..., channels : 2 * channels]
        to_plain = grad[..., 2 * channels :] if ctx.plain else None
        return _through_onset(error, signed, unsigned), to_plain


class _Blended(QuickFunction):
    @staticmethod
    def forward(error: Tensor, plain: Tensor | None, weight: Tensor) -> Tensor:
        of_signed, of_size, of_plain = _parts(weight, error.shape[-1])
        signed = _onset(error)
        result = signed.flatten(0, -2) @ of_signed
        result = torch.addmm(result, signed.abs_().flatten(0, -2), of_size)
        if plain is not None:
            result = torch.addmm(result, plain.flatten(0, -2), of_plain)
        return result.view(*error.shape[:-1], -1)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor], output: Tensor
    ) -> None:
        error, plain, weight = inputs
        ctx.save_for_backward(error, weight)
        ctx.plain = plain is not None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        error, weight = ctx.saved_tensors
        of_signed, of_size, of_plain = _parts(weight, error.shape[-1])
        with full_precision(grad):
            to_error = _through_onset(error, grad @ of_signed.T, grad @ of_size.T)
            return to_error, grad @ of_plain.T if ctx.plain else None, None


def _parts(weight: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the blend: for signed features, for their magnitudes, and for plain errors."""
    return weight[:channels], weight[channels : 2 * channels], weight[2 * channels :]


def _onset(error: Tensor) -> Tensor:
    magnitude = error.abs()
    return (magnitude + 0.1).reciprocal_().mul_(magnitude).mul_(error)


def _through_onset(error: Tensor, signed: Tensor, size: Tensor) -> Tensor:
    """Gradient for the error, from those for its onset and for the magnitude of that."""
    return times(plus(times(error.sign(), size), signed), slope(error))


class _SaturatedCells(QuickFunction):
    @staticmethod
    def forward(visible: Tensor, weights: Tensor) -> Tensor:
        return saturate(visible) @ weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        visible, weights = ctx.saved_tensors
        to_visible = to_weights = None
        if ctx.needs_input_grad[0]:
            to_visible = saturation_slope(visible) * (grad * weights[:, 0])
        if ctx.needs_input_grad[1]:
            to_weights = (grad * saturate(visible)).sum((0, 1, 2))[:, None]
        return to_visible, to_weights
