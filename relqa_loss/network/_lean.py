"""Element-wise steps of the distance that keep little for their backward pass.

Autograd keeps an intermediate result for nearly every operation, and at full resolution reading and
writing those is most of the time. Each function here keeps its input, or less, and works its
derivative out anew. The formulas are those of the plain versions in the tests. They can be
differentiated twice, and ``torch.func`` transforms them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.network._function import QuickFunction, SteeredFunction
from relqa_loss.network._layout import (
    by_position,
    depth_to_space,
    in_pairs,
    on_pixels,
    one_by_one_on_a_cpu,
    overwritable,
    pairs_pay,
    plus,
    repeated,
    single,
    space_to_depth,
    times,
)
from relqa_loss.network._precision import full_precision

# Within the functions the first two are literals: by name they would be inputs of a graph compiled
# with ``dynamic=True``, and functions of autograd cannot have such.
ONSET = 0.1
"""Learned magnitudes below this grow quadratically."""
LEAK = 0.1
"""Slope of a saturated magnitude, relative to a fresh one."""
UNSEEN = -20.0
"""Least logit of a visibility: 2e-9 is as good as nothing. With less, gradients would be denormal
numbers, which some processors take a hundred times as long to multiply."""
GLARING = 80.0
"""Most logit of a visibility, whose exponential is still a number."""


def mean_magnitude(error: Tensor) -> Tensor:
    """``avg_pool2d(onset(error).abs(), 2)``.

    The onset of an error e is e · |e| / (|e| + :data:`ONSET`): odd and increasing, quadratic where
    the magnitude is small and linear above. Without it the learned magnitudes have a kink wherever
    one of them is zero. They are more than there are pixels, and an optimiser that sits in the
    valleys of some feels little of the others.
    """
    result: Tensor = _MeanMagnitude.apply(error)
    return result


def frozen_conv(image: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """``conv2d`` without a bias, which keeps its input only if the weights are being learned."""
    if weight.requires_grad:
        return F.conv2d(image, weight, stride=stride, padding=padding)
    result: Tensor = _FrozenConv.apply(image, weight, stride, padding)
    return result


def gated_step(image: Tensor, reduce: Tensor, gate: Tensor, mix: Tensor) -> Tensor:
    """One step of an error to half the resolution: N×C×H×W → N×D×H/2×W/2.

    A convolution of stride 2, times ``gate``, and what a convolution of stride 1 adds to it.

    Args:
        image: The error.
        reduce: D×C×2×2.
        gate: N×D×H/2×W/2.
        mix: D×D×3×3.
    """
    if any(each.requires_grad for each in (reduce, gate, mix)):
        gated = frozen_conv(image, reduce, stride=2) * gate
        return frozen_conv(gated, mix, padding=1) + gated
    result: Tensor = _GatedStep.apply(image, reduce, gate, mix)
    return result


class BlockKernel(NamedTuple):
    """One kernel over blocks of 2×2 pixels in the three forms of :func:`block_conv`."""

    pixels: Tensor
    """By :func:`~relqa_loss.network._layout.on_pixels`."""
    pairs: Tensor
    """Of these, by :func:`~relqa_loss.network._layout.in_pairs`."""
    blocks: Tensor
    """By :func:`~relqa_loss.network._layout.by_position`."""

    @classmethod
    def of(cls, weight: Tensor) -> BlockKernel:
        """All forms of weights over channels of ``pixel_unshuffle``, O×4·C×3×3."""
        pixels = on_pixels(weight)
        pairs = in_pairs(pixels, 2).contiguous(memory_format=torch.channels_last)
        return cls(pixels, pairs, by_position(weight))


def block_conv(image: Tensor, kernel: BlockKernel, bias: Tensor | None = None) -> Tensor:
    """A 3×3 convolution over blocks of 2×2 pixels, N×C×H×W → N×O×H/2×W/2.

    Forth, one over pixels spares the blocks; back, one over blocks takes a third of the time.
    """
    if kernel.blocks.requires_grad:
        return F.conv2d(space_to_depth(image), kernel.blocks, bias, padding=1)
    result: Tensor = _BlockConv.apply(image, *kernel, bias)
    return result


def block_conv_forth(
    image: Tensor, pixels: Tensor, pairs: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The values of :func:`block_conv`."""
    padding = pixels.shape[-1] // 2 - 1
    if not pairs_pay(len(pixels), image):
        return F.conv2d(image, pixels, bias, stride=2, padding=padding)
    twice = None if bias is None else bias.repeat(2)
    return single(F.conv2d(image, pairs, twice, stride=(2, 4), padding=padding))


def block_conv_back(grad: Tensor, blocks: Tensor) -> Tensor:
    """The gradient of :func:`block_conv` for its image."""
    with full_precision(grad):  # a backward pass may be called under autocast
        return depth_to_space(F.conv_transpose2d(grad, blocks, padding=blocks.shape[-1] // 2))


def softplus(logits: Tensor) -> Tensor:
    """``F.softplus`` of what lies in [:data:`UNSEEN`, :data:`GLARING`], up to 1e-7.

    Overwrites ``logits`` if no gradient is asked for; a CPU then takes a quarter of the time.
    """
    if logits.requires_grad or not one_by_one_on_a_cpu(logits):
        return F.softplus(logits)
    return logits.exp_().add_(1).log_()


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
    whole = 1 + magnitude
    if overwritable(whole, magnitude):
        return torch.div(magnitude, whole, out=whole).add_(magnitude, alpha=0.1)
    return (magnitude / whole).add_(magnitude, alpha=0.1)


def saturation_slope(magnitude: Tensor) -> Tensor:
    """Derivative of :func:`saturate`."""
    fresh = (1 + magnitude).reciprocal_()
    return (fresh * fresh).add_(0.1)


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


class _FrozenConv(QuickFunction):
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


class _GatedStep(SteeredFunction):
    @staticmethod
    def forward(image: Tensor, reduce: Tensor, gate: Tensor, mix: Tensor) -> Tensor:
        gated = times(F.conv2d(image, reduce, stride=2), gate)
        return plus(F.conv2d(gated, mix, padding=1), gated)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        reduce, gate, mix = ctx.saved_tensors
        with full_precision(grad):  # a backward pass may be called under autocast
            to_gated = plus(F.conv_transpose2d(grad, mix, padding=1), grad)
            to_image = F.conv_transpose2d(times(to_gated, gate), reduce, stride=2)
        return to_image, None, None, None


class _BlockConv(QuickFunction):
    @staticmethod
    def forward(
        image: Tensor, pixels: Tensor, pairs: Tensor, blocks: Tensor, bias: Tensor | None
    ) -> Tensor:
        return block_conv_forth(image, pixels, pairs, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (blocks,) = ctx.saved_tensors
        return block_conv_back(grad, blocks), None, None, None, None


class _MeanError(QuickFunction):
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


class _MeanMagnitude(QuickFunction):
    @staticmethod
    def forward(error: Tensor) -> Tensor:
        magnitude = error.abs()
        magnitude = (magnitude + 0.1).reciprocal_().mul_(magnitude).mul_(magnitude)
        # ``avg_pool2d`` for a fraction of its time.
        rows = magnitude[..., ::2, :] + magnitude[..., 1::2, :]
        # Not in place: compiled by PyTorch 2.11, such an output has no gradient.
        return 0.25 * (rows[..., ::2] + rows[..., 1::2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (error,) = ctx.saved_tensors
        signed = torch.copysign(slope(error), error)  # where the error has no sign this is zero
        return times(signed, repeated(0.25 * grad))


def slope(error: Tensor) -> Tensor:
    """Derivative of the onset: 1 − (a / (|e| + a))²; a new tensor."""
    # Exactly 0 at 0: the unit is a before anything is rounded.
    one, rest = error.new_ones(()), error.abs()
    if overwritable(rest):
        torch.add(one, rest, alpha=10.0, out=rest).reciprocal_()
        return torch.addcmul(one, rest, rest, value=-1, out=rest)
    rest = torch.add(one, rest, alpha=10.0).reciprocal_()
    return torch.addcmul(one, rest, rest, value=-1)
