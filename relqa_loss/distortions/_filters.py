"""Convolution and colour helpers shared by the operator families."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601 luma weights, those of JPEG."""


def pad(images: Tensor, vertical: int, horizontal: int) -> Tensor:
    """Pad by reflection where the image is large enough for it, else by replication."""
    fits = vertical < images.shape[-2] and horizontal < images.shape[-1]
    mode = "reflect" if fits else "replicate"
    return F.pad(images, (horizontal, horizontal, vertical, vertical), mode=mode)


def filter2d(images: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every plane of N×C×H×W images with one odd-sized kernel, keeping the size."""
    height, width = kernel.shape
    planes = pad(images, height // 2, width // 2).flatten(0, 1)[:, None]
    # Planes as a batch: grouped convolutions with large kernels are much slower on CPUs.
    return F.conv2d(planes, kernel.to(images)[None, None]).reshape(images.shape)


def separable(images: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every plane with one odd-sized 1-D kernel along both axes."""
    return filter2d(filter2d(images, kernel[:, None]), kernel[None, :])


def gaussian_kernel(sigma: float) -> Tensor:
    """A normalised 1-D Gaussian, wide enough that its truncation makes no step in ``sigma``."""
    radius = max(1, math.ceil(4 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return kernel / kernel.sum()


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a standard deviation of ``sigma`` pixels."""
    return separable(images, gaussian_kernel(sigma))


def grid(radius: int) -> tuple[Tensor, Tensor]:
    """Vertical and horizontal offsets of a (2·radius + 1)² kernel from its centre."""
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def box_mean(images: Tensor, radius: int) -> Tensor:
    """Mean over a (2·radius + 1)² window."""
    return F.avg_pool2d(pad(images, radius, radius), 2 * radius + 1, stride=1)


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma, N×1×H×W."""
    weights = images.new_tensor(LUMA)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def to_ycbcr(images: Tensor) -> Tensor:
    """Full-range YCbCr with centred colour components (zero for greys)."""
    y = luma(images)
    return torch.cat([y, (images[:, 2:] - y) / 1.772, (images[:, :1] - y) / 1.402], 1)


def from_ycbcr(components: Tensor) -> Tensor:
    """Inverse of :func:`to_ycbcr`."""
    y, cb, cr = components.unbind(1)
    red = y + 1.402 * cr
    blue = y + 1.772 * cb
    green = (y - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return torch.stack([red, green, blue], 1)


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """One uniform number from ``generator``."""
    return low + (high - low) * float(torch.rand(1, generator=generator))


def normal(like: Tensor, generator: torch.Generator, channels: int = 3) -> Tensor:
    """White Gaussian noise of the images' size, drawn on the CPU so that devices agree."""
    count, _, height, width = like.shape
    return torch.randn(count, channels, height, width, generator=generator).to(like)
