"""Memory layout: which one convolutions take."""

from __future__ import annotations

from torch import Tensor


def channels_last(image: Tensor) -> Tensor:
    """``image`` (N×C×H×W) with its channels beside one another in memory.

    Convolutions follow the layout of their input, and this one is the fastest; layouts that meet
    each other in an operation are the slowest. By permutation, since ``torch.vmap`` does not know
    ``contiguous(memory_format=torch.channels_last)``.
    """
    return image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


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
