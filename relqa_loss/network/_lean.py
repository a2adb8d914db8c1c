"""Element-wise steps of the distance that keep little for their backward pass.

Autograd keeps an intermediate result for nearly every operation, and at full resolution reading and
writing those is most of the time. Each function here keeps its input, or less, and works its
derivative out anew. The formulas are those of the plain versions in the tests. They can be
differentiated twice, and ``torch.func`` transforms them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from relqa_loss.network._precision import full_precision

ONSET = 0.1
"""Learned magnitudes below this grow quadratically."""
LEAK = 0.1
"""Slope of a saturated magnitude, relative to a fresh one."""
UNSEEN = -20.0
"""Least logit of a visibility: 2e-9 is as good as nothing. With less, gradients would be denormal
numbers, which some processors take a hundred times as long to multiply."""


def onset(error: Tensor) -> Tensor:
    """Odd and increasing; quadratic where the magnitude is below :data:`ONSET`, linear above.

    Without it the learned magnitudes have a kink wherever one of them is zero. They are more than
    there are pixels, and an optimiser that sits in the valleys of some feels little of the others.
    """
    result: Tensor = _Onset.apply(error)
    return result


def mean_magnitude(error: Tensor) -> Tensor:
    """``avg_pool2d(onset(error).abs(), 2)``."""
    result: Tensor = _MeanMagnitude.apply(error)
    return result


def saturated_sum(visible: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over channels of saturated magnitudes: N×C×h×w, 1×C×1×1 → N×1×h×w.

    A magnitude v ≥ 0 saturates as v / (1 + v) + 0.1 v: increasing and concave, with slope 1.1 at
    zero and never below 0.1.
    """
    result: Tensor = _SaturatedSum.apply(visible, weights)
    return result


def frozen_conv(image: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """``conv2d`` without a bias, which keeps its input only if the weights are being learned."""
    if weight.requires_grad:
        return F.conv2d(image, weight, stride=stride, padding=padding)
    result: Tensor = _FrozenConv.apply(image, weight, stride, padding)
    return result


def channel_error(preds: Tensor, target: Tensor) -> Tensor:
    """``(preds - target).abs().mean(1, keepdim=True)``, which keeps the images and nothing else."""
    result: Tensor = _MeanError.apply(preds, target, (1,))
    return result


def mean_error(preds: Tensor, target: Tensor) -> Tensor:
    """``(preds - target).abs().mean((1, 2, 3))``, which keeps the images and nothing else."""
    result: Tensor = _MeanError.apply(preds, target, (1, 2, 3))
    return result.flatten()


def saturate(magnitude: Tensor) -> Tensor:
    """v / (1 + v) + 0.1 v."""
    return (magnitude / (1 + magnitude)).add_(magnitude, alpha=LEAK)


def saturation_slope(magnitude: Tensor) -> Tensor:
    """Derivative of :func:`saturate`."""
    fresh = (1 + magnitude).reciprocal_()
    return torch.addcmul(magnitude.new_full((), LEAK), fresh, fresh)


def by_sign(weights: Tensor, signed: int, dim: int) -> Tensor:
    """Weights of gain, loss and plain error, as those of signed values and of magnitudes.

    What is gained with its weight and what is lost with another is the same as magnitudes under
    the mean of both and signed values under half of the difference.

    Args:
        weights: Along ``dim``, ``signed`` of gain, as many of loss, and those of plain error.
        signed: How many features have a sign.
        dim: Along which the features are.
    """
    sizes = [signed, signed, weights.shape[dim] - 2 * signed]
    more, less, plain = torch.split(weights, sizes, dim)
    return torch.cat([(more - less) / 2, (more + less) / 2, plain], dim)


class _FrozenConv(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        return F.conv2d(image, weight, stride=stride, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        _, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        (weight,) = ctx.saved_tensors
        with full_precision(grad):  # a backward pass may be called under autocast
            to_image = F.conv_transpose2d(grad, weight, stride=ctx.stride, padding=ctx.padding)
        return to_image, None, None, None


class _MeanError(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(preds: Tensor, target: Tensor, dims: tuple[int, ...]) -> Tensor:
        return (preds - target).abs_().mean(dims, keepdim=True)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, ...]], output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        preds, target = ctx.saved_tensors
        signed = (preds - target).sign_() * (grad * (grad.numel() / preds.numel()))
        first, second, _ = ctx.needs_input_grad
        return signed if first else None, -signed if second else None, None


class _Onset(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(error: Tensor) -> Tensor:
        magnitude = error.abs()
        return magnitude.div_(magnitude + ONSET).mul_(error)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (error,) = ctx.saved_tensors
        return slope(error) * grad


class _MeanMagnitude(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(error: Tensor) -> Tensor:
        magnitude = error.abs()
        magnitude = (magnitude + ONSET).reciprocal_().mul_(magnitude).mul_(magnitude)
        # ``avg_pool2d`` for a fraction of its time.
        rows = magnitude[..., ::2, :] + magnitude[..., 1::2, :]
        return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (error,) = ctx.saved_tensors
        spread = F.interpolate(0.25 * grad, scale_factor=2.0, mode="nearest")
        return torch.copysign(slope(error), error) * spread


def slope(error: Tensor) -> Tensor:
    """Derivative of :func:`onset`: 1 − (a / (|e| + a))²."""
    # Exactly 0 at 0: the unit is a before anything is rounded.
    one = error.new_ones(())
    rest = torch.add(one, error.abs(), alpha=1 / ONSET).reciprocal_()
    return torch.addcmul(one, rest, rest, value=-1)


class _SaturatedSum(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(visible: Tensor, weights: Tensor) -> Tensor:
        return F.conv2d(saturate(visible), weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        visible, weights = ctx.saved_tensors
        to_visible = to_weights = None
        if ctx.needs_input_grad[0]:
            to_visible = saturation_slope(visible) * (grad * weights)
        if ctx.needs_input_grad[1]:
            each = visible / (1 + visible) + LEAK * visible
            to_weights = (grad * each).sum((0, 2, 3))[None, :, None, None]
        return to_visible, to_weights
