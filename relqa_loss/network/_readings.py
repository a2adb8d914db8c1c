"""All that the distance reads of an error at full resolution, in one step.

There are three readers: a pyramid, a convolution and a mean. Apart, each would have a gradient of
the images' size, to be added up with the others; in new memory that takes longer than arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from relqa_loss.network._function import QuickFunction
from relqa_loss.network._layout import (
    channels_last,
    corner,
    padded,
    plus,
    repeated,
    times,
)
from relqa_loss.network._lean import (
    BlockKernel,
    block_conv,
    block_conv_back,
    block_conv_forth,
    mean_error,
)
from relqa_loss.network.pyramid import PixelPyramid, bands, bands_adjoint, mixed


class Readings(NamedTuple):
    """Of ``image − reference``, on the padded grid."""

    reduced: Tensor
    """By the convolution: N×C×H'/2×W'/2."""
    fine: Tensor
    """By the pyramid, as the next three: N×9×H'/4×W'/4; of the first three, channels lie beside one
    another in memory."""
    middle: Tensor
    """N×3×H'/8×W'/8."""
    rest: Tensor
    """N×3×H'/16×W'/16."""
    smooth: Tensor
    """N×3×H'/4×W'/4."""
    plain: Tensor
    """The first three, summed over their channels and with one another: N×1×H'/4×W'/4."""
    error: Tensor
    """N: the mean magnitude, of the images' own pixels."""


def readings(
    image: Tensor, reference: Tensor, kernel: BlockKernel, pyramid: PixelPyramid, *, mean: bool
) -> Readings:
    """Read what ``image`` differs by.

    Args:
        image: N×3×H×W.
        reference: The same.
        kernel: Of the convolution, over blocks of 2×2 pixels.
        pyramid: Of the difference.
        mean: Whether the mean error is wanted; 0 without.
    """
    if kernel.blocks.requires_grad:
        error = padded(image - reference)
        total = mean_error(image, reference) if mean else image.new_zeros(image.shape[0])
        *found, smooth = pyramid(error)
        fine, middle, rest = map(channels_last, found)
        summed = _summed(fine, middle, rest)
        return Readings(block_conv(error, kernel), fine, middle, rest, smooth, summed, total)
    found = _Readings.apply(image, reference, *kernel, pyramid.opponent.to(image.dtype), mean)
    return Readings(*found[: len(Readings._fields)])


def _summed(fine: Tensor, middle: Tensor, rest: Tensor) -> Tensor:
    total = rest.sum(1, keepdim=True)
    for band in (middle, fine):
        total = plus(repeated(total), band.sum(1, keepdim=True))
    return total


class _Readings(QuickFunction):
    @staticmethod
    def forward(
        image: Tensor,
        reference: Tensor,
        pixels: Tensor,
        pairs: Tensor,
        blocks: Tensor,
        matrix: Tensor,
        mean: bool,
    ) -> tuple[Tensor, ...]:
        error = padded(image - reference)
        reduced = block_conv_forth(error, pixels, pairs)
        opponent = mixed(matrix, error)
        total = error.abs_().sum((1, 2, 3)) if mean else error.new_zeros(error.shape[0])
        del error  # the first band needs as much
        fine, middle, rest, smooth, *signs = bands(opponent)
        found = [channels_last(band) for band in (fine, middle, rest)]
        return (reduced, *found, smooth, _summed(*found), total / image[0].numel(), *signs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        image, reference, _, _, blocks, matrix, ctx.mean = inputs
        signs = output[len(Readings._fields) :]
        ctx.save_for_backward(image, reference, blocks, matrix, *signs)
        ctx.mark_non_differentiable(*signs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, reference, blocks, matrix, *signs = ctx.saved_tensors
        reduced, *found, smooth, plain, mean = grads[: len(Readings._fields)]
        grad = bands_adjoint((*found, smooth), signs, matrix, plain)
        # One after the other: each would show in the peak of memory.
        grad = corner(plus(grad, block_conv_back(reduced, blocks)), *image.shape[-2:])
        if ctx.mean:
            share = (mean / image[0].numel())[:, None, None, None]
            grad = plus(grad, times((image - reference).sign_(), share))
        first, second, *_ = ctx.needs_input_grad
        return (grad if first else None, -grad if second else None, *[None] * 5)
