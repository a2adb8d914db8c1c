"""Memory layout, which one convolutions take; and the grids that images are padded to and cells are
repeated on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 16
"""The coarsest stride; sides are padded to a multiple of it."""


def padded(image: Tensor) -> Tensor:
    """``image`` with zeros below and on the right, up to sides that :data:`GRID` divides."""
    height, width = image.shape[-2:]
    if not torch.compiler.is_compiling() and height % GRID == 0 == width % GRID:
        return image  # padding by nothing would copy
    return F.pad(image, (0, -width % GRID, 0, -height % GRID))


def channels_last(image: Tensor) -> Tensor:
    """``image`` (N×C×H×W) with its channels beside one another in memory.

    Convolutions follow the layout of their input, and this one is the fastest; layouts that meet
    each other in an operation are the slowest. By permutation, since ``torch.vmap`` does not know
    ``contiguous(memory_format=torch.channels_last)``.
    """
    return image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def repeated(cells: Tensor, times: int = 2) -> Tensor:
    """``times`` the resolution, by repetition."""
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


def by_position(weight: Tensor) -> Tensor:
    """Weights over channels of ``pixel_unshuffle(…, 2)``, for those of :func:`space_to_depth`."""
    outputs, inputs, *kernel = weight.shape
    grouped = weight.view(outputs, inputs // 4, 4, *kernel)
    return grouped.transpose(1, 2).reshape(weight.shape)
