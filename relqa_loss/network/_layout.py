"""Memory layout, which one convolutions take; and the grids that images are padded to and cells are
repeated on."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 16
"""The coarsest stride; sides are padded to a multiple of it."""
NARROW = 8
"""Channels of half a register, where that holds sixteen numbers."""


def padded(image: Tensor) -> Tensor:
    """``image`` with zeros below and on the right, up to sides that :data:`GRID` divides."""
    below, right = (_missing(side) for side in image.shape[-2:])
    if not torch.compiler.is_compiling() and below == 0 == right:
        return image  # padding by nothing would copy
    return F.pad(image, (0, right, 0, below))


def corner(image: Tensor, height: int, width: int) -> Tensor:
    """The upper left ``height`` × ``width`` of ``image``; of :func:`padded`, the transpose."""
    if torch.compiler.is_compiling():
        # A slice asks whether anything is left out, and either answer would have its own graph.
        return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
    return image[..., :height, :width]


def _missing(side: int) -> int:
    # Not by remainders: for the compiler, parts of a multiple of GRID are then whole numbers.
    return (side + GRID - 1) // GRID * GRID - side


def channels_last(image: Tensor) -> Tensor:
    """``image`` (N×C×H×W) with its channels beside one another in memory.

    Convolutions follow the layout of their input, and this one is the fastest; layouts that meet
    each other in an operation are the slowest. By permutation, since ``torch.vmap`` does not know
    ``contiguous(memory_format=torch.channels_last)``.
    """
    return first(last(image).contiguous())


def last(image: Tensor) -> Tensor:
    """N×C×h×w → N×h×w×C, a view."""
    return image.permute(0, 2, 3, 1)


def first(cells: Tensor) -> Tensor:
    """N×h×w×C → N×C×h×w, a view."""
    return cells.permute(0, 3, 1, 2)


class Layer(Protocol):
    """What a convolution consists of, frozen or not."""

    @property
    def weight(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor | None: ...


def pointwise(layer: Layer, image: Tensor) -> Tensor:
    """A 1×1 convolution; as a product of matrices it costs less to call."""
    return first(F.linear(last(image), layer.weight.flatten(1), layer.bias))


def one_by_one_on_a_cpu(values: Tensor) -> bool:
    """Whether a few quick calls are better than a slow one: a GPU is slow to call, and a compiler
    joins calls by itself."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def overwritable(values: Tensor, *others: Tensor) -> bool:
    """Whether steps in place on ``values`` are right and pay: nothing of them is kept for a
    gradient, no vmap is mapping ``others`` alone, and new memory takes time."""
    return (
        one_by_one_on_a_cpu(values)
        and not torch.is_grad_enabled()
        and not any(map(torch._C._functorch.is_batchedtensor, others))
    )


def plus(values: Tensor, others: Tensor) -> Tensor:
    """Their sum; may overwrite ``values``."""
    return values.add_(others) if overwritable(values, others) else values + others


def times(values: Tensor, others: Tensor) -> Tensor:
    """Their product; may overwrite ``values``."""
    return values.mul_(others) if overwritable(values, others) else values * others


def sum_blocks(image: Tensor) -> Tensor:
    """Sums over blocks of 2×2 pixels."""
    if torch.compiler.is_compiling():
        *before, height, width = image.shape
        return image.reshape(*before, height // 2, 2, width // 2, 2).sum((-3, -1))
    if not one_by_one_on_a_cpu(image):
        return 4 * F.avg_pool2d(image, 2)
    # A fraction of the time of pooling.
    rows = image[..., ::2, :] + image[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def repeated(cells: Tensor, times: int = 2) -> Tensor:
    """``times`` the resolution, by repetition."""
    if torch.compiler.is_compiling():
        # The gradient of an interpolation would add to one cell after the other.
        *before, height, width = cells.shape
        copies = cells[..., :, None, :, None].expand(*before, height, times, width, times)
        return copies.reshape(*before, height * times, width * times)
    return F.interpolate(cells, scale_factor=float(times), mode="nearest")


def space_to_depth(image: Tensor) -> Tensor:
    """2×2 pixels to 4·C channels beside one another in memory: N×C×H×W → N×4C×H/2×W/2.

    Channels come by row, column and then colour, which takes one short copy less than the order of
    ``pixel_unshuffle``; :func:`by_position` brings a convolution's weights to it.
    """
    count, channels, height, width = image.shape
    pixels = image.permute(0, 2, 3, 1).contiguous()
    pixels = pixels.view(count, height // 2, 2, width // 2, 2 * channels).transpose(2, 3)
    return pixels.reshape(count, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)


def depth_to_space(blocks: Tensor) -> Tensor:
    """Inverse of :func:`space_to_depth`."""
    count, channels, height, width = blocks.shape
    rows = blocks.permute(0, 2, 3, 1).reshape(count, height, width, 2, channels // 2)
    pixels = rows.transpose(2, 3).reshape(count, 2 * height, 2 * width, channels // 4)
    return pixels.permute(0, 3, 1, 2)


def by_position(weight: Tensor) -> Tensor:
    """Weights over channels of ``pixel_unshuffle(…, 2)``, for those of :func:`space_to_depth`."""
    outputs, inputs, *kernel = weight.shape
    grouped = weight.view(outputs, inputs // 4, 4, *kernel)
    return grouped.transpose(1, 2).reshape(weight.shape)


def on_pixels(weight: Tensor) -> Tensor:
    """A kernel over blocks of 2×2 pixels (channels of ``pixel_unshuffle``), as one over pixels.

    O×4·C×k×k → O×C×2k×2k, for a convolution of stride 2; channels beside one another.
    """
    outputs, inputs, rows, columns = weight.shape
    apart = weight.view(outputs, inputs // 4, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3)
    kernel = apart.reshape(outputs, inputs // 4, 2 * rows, 2 * columns)
    return kernel.contiguous(memory_format=torch.channels_last)


def pairs_pay(channels: int, values: Tensor) -> bool:
    """Whether two cells side by side are better worked out as one.

    With registers of sixteen numbers libraries take as long for eight channels as for twice as
    many; with shorter ones pairs cost nothing.
    """
    return channels <= NARROW and one_by_one_on_a_cpu(values)


def in_pairs(weight: Tensor, step: int) -> Tensor:
    """Weights O×… for two cells side by side, 2·O×…: the second is ``step`` further along the last
    dimension, and :func:`single` takes their outcomes apart."""
    return torch.cat([F.pad(weight, (0, step)), F.pad(weight, (step, 0))])


def single(pairs: Tensor) -> Tensor:
    """Cells that were side by side in one: N×2·C×h×w → N×C×h×2·w, a view if channels come last."""
    count, channels, height, width = pairs.shape
    return first(last(pairs).reshape(count, height, 2 * width, channels // 2))
