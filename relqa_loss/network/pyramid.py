"""The pixel pyramid: an opponent-colour difference in bands, whose sum is the difference itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relqa_loss.network._function import QuickFunction
from relqa_loss.network._layout import one_by_one_on_a_cpu, plus, repeated, sum_blocks, times
from relqa_loss.network._precision import full_precision
from relqa_loss.network._windows import coarser, plus_coarser_adjoint

BANDS = 4
"""Bands at strides 1, 2, 4 and 8; the low-pass rest at stride 16 comes on top."""

PYRAMID_BANDS = (9, 3, 3)
"""Channels gathered on the grids at strides 4, 8 and 16."""

# JPEG's YCbCr (ITU-T T.871). The columns of its inverse have a mean absolute value of at most 1,
# hence mean|difference in RGB| <= mean of the summed |differences| in these three channels.
_OPPONENT = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


class PixelPyramid(nn.Module):
    """Absolute band differences, gathered on the grids at strides 4, 8 and 16.

    Every band is ``e − up(down(e))`` with nearest up-sampling, so bands and rest add up to the
    difference at full resolution: by the triangle inequality the sum of their mean magnitudes is
    never below the mean magnitude of the difference. Nothing but the magnitude is non-linear, so
    each output is a convex function of the image.
    """

    opponent: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = torch.tensor(_OPPONENT, dtype=torch.float32)  # whatever the default
        self.register_buffer("opponent", matrix, persistent=False)

    def smooth(self, image: Tensor) -> Tensor:
        """``N×3×H×W`` → ``N×3×H/4×W/4``: in opponent colours, without what a stride of 4 aliases.

        What :meth:`forward` gives of a difference, but for windows of 2×2 in place of 4×4 at first:
        at full resolution those would take most of the time.
        """
        matrix = self.opponent.to(image.dtype)
        return mixed(matrix, coarser(sum_blocks(image).mul_(0.25), many=True).contiguous())

    def smooth_difference(self, difference: Tensor) -> Tensor:
        """The last of what :meth:`forward` gives, alone."""
        current = mixed(self.opponent.to(difference.dtype), difference)
        for _ in range(_GATHER):
            current = coarser(current, many=True)
        return current

    def forward(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Magnitudes of the bands, and the smooth difference that the bands below stride 4 leave.

        ``N×3×H×W`` → ``N×9×H/4×W/4`` (bands 1, 2, 4), ``N×3×H/8×W/8``, ``N×3×H/16×W/16`` and
        ``N×3×H/4×W/4``.
        """
        matrix = self.opponent.to(difference.dtype)
        fine, middle, rest, smooth, *_ = _Bands.apply(difference.contiguous(), matrix)
        return fine, middle, rest, smooth


class _Bands(QuickFunction):
    """The pyramid with its backward pass, which needs the signs of the bands and nothing else."""

    @staticmethod
    def forward(difference: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        return bands(mixed(matrix, difference))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        signs = output[MAGNITUDES:]
        ctx.save_for_backward(inputs[1], *signs)
        ctx.mark_non_differentiable(*signs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        matrix, *signs = ctx.saved_tensors
        return bands_adjoint(grads[:MAGNITUDES], signs, matrix), None


MAGNITUDES = 4
"""Of what :func:`bands` returns, those that come first; signs follow."""


def bands(current: Tensor) -> tuple[Tensor, ...]:
    """What :class:`PixelPyramid` makes of a difference in opponent colours, N×3×H×W, and the signs
    of the bands; may overwrite it."""
    magnitudes, signs = [], []
    for level in range(BANDS):
        coarse = coarser(current, many=level < _GATHER)
        # In place where images are large: new memory costs more than arithmetic.
        band = _less(current, coarse, level) if level < _GATHER else current - repeated(coarse)
        if level == _GATHER:
            smooth = current
        signs.append(band.sign().to(torch.int8))
        magnitudes.append(_gathered(band.abs_(), level))
        current = coarse
    signs.append(current.sign().to(torch.int8))
    fine = torch.cat(magnitudes[: _GATHER + 1], 1)
    # No output is what a step in place left: compiled by PyTorch 2.11, such have no gradient.
    return (fine, magnitudes[-1], current.abs(), smooth, *signs)


def bands_adjoint(
    grads: Sequence[Tensor], signs: Sequence[Tensor], matrix: Tensor, plain: Tensor | None = None
) -> Tensor:
    """The transpose of :func:`bands`: a new tensor, N×3×H×W.

    Args:
        grads: For the magnitudes and the smooth difference.
        signs: Of the bands.
        matrix: Into opponent colours.
        plain: For the sum of all magnitudes at stride 4, N×1×H/4×W/4.
    """
    fine, middle, rest, smooth = grads
    split = [*torch.split(fine, fine.shape[1] // (_GATHER + 1), 1), middle]
    if plain is not None:
        coarse = sum_blocks(plain)
        rest, split[-1] = rest + sum_blocks(coarse), middle + coarse
    grad = rest * signs[-1]
    for level in reversed(range(BANDS)):
        own = split[level]
        # Not all at once: it would show in the peak of memory.
        own = own if plain is None or level > _GATHER else own + plain
        band = _signed(own, signs[level], level)
        grad = plus_coarser_adjoint(band, grad - sum_blocks(band), many=level < _GATHER)
        if level == _GATHER:
            grad = plus(grad, smooth)
    return mixed(matrix.T, grad)


def mixed(matrix: Tensor, image: Tensor) -> Tensor:
    """Each pixel's channels times ``matrix``.

    A 1×1 convolution with so few channels takes up to seventy times as long on several threads.
    """
    if torch.compiler.is_compiling():  # which fuses this, and not a product of matrices
        return (image.unsqueeze(-4) * matrix[:, :, None, None]).sum(-3)
    with full_precision(image):  # a backward pass may be called under autocast
        return torch.matmul(matrix, image.flatten(-2)).view(image.shape)


_GATHER = 2  # the bands at strides 1, 2 and 4 meet on the grid of the last


def _many(image: Tensor, level: int) -> bool:
    """Whether pixels take longer than calls: at the finest levels, on a CPU.

    There, sums of slices take a fraction of the time of pooling.
    """
    return level < _GATHER and one_by_one_on_a_cpu(image)


def _less(image: Tensor, coarse: Tensor, level: int) -> Tensor:
    """``image`` without what is half as fine; may overwrite it."""
    if not _many(image, level):
        return image - repeated(coarse)
    _rows(image, 2).sub_(coarse.repeat_interleave(2, -1).unsqueeze(-2))
    return image


def _gathered(image: Tensor, level: int) -> Tensor:
    """Means over blocks, from a finer level down to the grid where bands meet."""
    halvings = max(0, _GATHER - level)
    for _ in range(halvings):
        image = sum_blocks(image)
    return 0.25**halvings * image


def _signed(grad: Tensor, signs: Tensor, level: int) -> Tensor:
    """The transpose of :func:`_gathered`, times the signs of the band; a new tensor."""
    halvings = _GATHER - level
    if halvings <= 0:
        return grad * signs
    grad, side = 0.25**halvings * grad, 2**halvings
    # Signs as numbers of their own, not within the product: that would be a tensor more.
    signs = signs.to(grad.dtype)
    if not _many(signs, level):
        return times(signs, repeated(grad, side))
    columns = grad.repeat_interleave(side, -1).unsqueeze(-2)
    return times(_rows(signs, side), columns).view(signs.shape)


def _rows(image: Tensor, count: int) -> Tensor:
    """N×C×H×W → N×C×H/count×count×W, a view."""
    *before, height, width = image.shape
    return image.view(*before, height // count, count, width)
