"""From one level of the pyramid to the next: means over 4×4 pixels that overlap, and the transpose.

Windows overlap so that no period of the grid goes unseen at the next level. At the border the mean
is over what there is, so that constants stay constant.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.network._layout import one_by_one_on_a_cpu, overwritable


def coarser(image: Tensor, *, many: bool) -> Tensor:
    """Half the resolution, N×C×H×W → N×C×H/2×W/2.

    Args:
        image: Of even sides.
        many: Whether pixels take longer than calls.
    """
    if many and torch.compiler.is_compiling():
        return _means(_means(image, -2), -1)
    if not many or not one_by_one_on_a_cpu(image):
        return F.avg_pool2d(image, 4, 2, 1, count_include_pad=False)
    # Four rows to one before anything is padded: that would be a copy of the whole image.
    rows = image[..., ::2, :] + image[..., 1::2, :]
    rows[..., 1:, :].add_(image[..., 1:-1:2, :])
    rows[..., :-1, :].add_(image[..., 2::2, :])
    rows = F.pad(rows, (1, 1))
    pairs = rows[..., ::2] + rows[..., 1::2]
    return _divided(pairs[..., :-1] + pairs[..., 1:])


def plus_coarser_adjoint(band: Tensor, grad: Tensor, *, many: bool) -> Tensor:
    """``band``, and the transpose of :func:`coarser`; may overwrite both."""
    if many and torch.compiler.is_compiling():
        return band + _means_adjoint(_means_adjoint(grad, -1), -2)
    if not many or not one_by_one_on_a_cpu(grad):
        height, width = band.shape[-2:]
        like = grad.new_empty(()).expand(*grad.shape[:-2], height, width)
        adjoint: Tensor = torch.ops.aten.avg_pool2d_backward(
            grad, like, [4, 4], [2, 2], [1, 1], False, False, None
        )
        return band + adjoint
    grad = F.pad(_divided(grad), (1, 1, 1, 1))
    grad = grad[..., :-1] + grad[..., 1:]
    columns = grad.repeat_interleave(2, -1)[..., 1:-1]
    rows = columns[..., :-1, :] + columns[..., 1:, :]
    above, below = rows[..., :-1, :], rows[..., 1:, :]
    if overwritable(band, rows):
        band[..., ::2, :].add_(above)
        band[..., 1::2, :].add_(below)
        return band
    return band + torch.stack([above, below], -2).flatten(-3, -2)


def _divided(sums: Tensor) -> Tensor:
    """Sums over windows, as means over what each window has inside; in place."""
    sums.mul_(1 / 16)
    for side in (-1, -2):
        size = sums.shape[side]
        ends = sums.transpose(side, -1)[..., :: max(1, size - 1)]
        # Three of four rows are inside at either end; two, if there is but one window.
        ends.mul_(2.0 if size == 1 else 4 / 3)
    return sums


def _means(image: Tensor, side: int) -> Tensor:
    """Along one of the last two sides, as a formula, of which a compiler makes one loop.

    It would make 16 loads of each window of ``avg_pool2d``, each with a check of the border.
    """
    even, odd = torch.unflatten(image, side, (-1, 2)).unbind(side)
    rest = even.shape[side] - 1
    before = _padded(odd.narrow(side, 0, rest), side, 1, 0)
    after = _padded(even.narrow(side, 1, rest), side, 0, 1)
    return (before + even + odd + after) / _inside(even, side)


def _means_adjoint(grad: Tensor, side: int) -> Tensor:
    """The transpose of :func:`_means`."""
    grad = _padded(grad / _inside(grad, side), side, 1, 1)
    inner = grad.shape[side] - 1
    pairs = grad.narrow(side, 0, inner) + grad.narrow(side, 1, inner)
    return pairs.unfold(side, 2, 1).movedim(-1, side).flatten(side - 1, side)


def _padded(image: Tensor, side: int, before: int, after: int) -> Tensor:
    return F.pad(image, (before, after) if side == -1 else (0, 0, before, after))


def _inside(windows: Tensor, side: int) -> Tensor:
    """How many of the four pixels of each window are inside the image, on one side."""
    count = windows.shape[side]
    window = torch.arange(count, device=windows.device)
    inside = 4 - ((window == 0).to(windows.dtype) + (window == count - 1))
    return inside if side == -1 else inside[:, None]
