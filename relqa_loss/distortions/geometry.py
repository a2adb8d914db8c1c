"""Pixels in the wrong place: shifts, warps, jitter and misplaced patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


def displace(images: Tensor, dy: Tensor, dx: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample ``images`` at displaced places.

    Args:
        images: N×C×H×W.
        dy: Vertical displacements in pixels, broadcastable to N×H×W.
        dx: Horizontal displacements in pixels, broadcastable to N×H×W.
        mode: ``bilinear`` or ``bicubic``.
    """
    count, _, height, width = images.shape
    y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None]
    x = torch.arange(width, device=images.device, dtype=images.dtype)[None, :]
    gy = 2 * (y + dy.to(images)) / max(height - 1, 1) - 1
    gx = 2 * (x + dx.to(images)) / max(width - 1, 1) - 1
    grid = torch.stack([gx.expand(count, height, width), gy.expand(count, height, width)], dim=-1)
    moved = F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=True)
    return moved.clamp(0, 1)


def _direction(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    angle = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    return angle.sin(), angle.cos()


@register("pixel_jitter", channel="geometry", sign=1, curve=Curve(0.14, 2.3), hard_mask=True)
def pixel_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Every pixel taken from a random place close by."""
    count, _, height, width = images.shape
    offsets = 2 * torch.rand(2, count, height, width, generator=generator) - 1
    return displace(images, strength * offsets[0], strength * offsets[1])


@register("elastic_warp", channel="geometry", sign=1, curve=Curve(0.18, 3.8), hard_mask=True)
def elastic_warp(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A smooth random warp."""
    count, _, height, width = images.shape
    rows, cols = math.ceil(height / 24) + 2, math.ceil(width / 24) + 2
    coarse = torch.randn(count, 2, rows, cols, generator=generator)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    # The strength is the largest displacement of the warp in pixels, or close to it.
    length = field.square().sum(1, keepdim=True).sqrt().amax((2, 3), keepdim=True)
    field = strength * field / length.clamp_min(1e-6)
    return displace(images, field[:, 0], field[:, 1], "bicubic")


@register("displacement", channel="geometry", sign=1, curve=Curve(0.08, 2.8), hard_mask=True)
def displacement(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The whole picture shifted by a part of a pixel to a few pixels."""
    dy, dx = _direction(images.shape[0], generator)
    return displace(images, strength * dy, strength * dx, "bicubic")


@register("rotation_zoom", channel="geometry", sign=1, curve=Curve(0.0013, 0.045), hard_mask=True)
def rotation_zoom(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A slight rotation and change of scale about a random centre."""
    count, _, height, width = images.shape
    sine, cosine = _direction(count, generator)
    centre = 0.25 + 0.5 * torch.rand(2, count, 1, 1, generator=generator)
    y = torch.arange(height, dtype=torch.float32)[:, None] - centre[0] * (height - 1)
    x = torch.arange(width, dtype=torch.float32)[None, :] - centre[1] * (width - 1)
    # (zoom, angle) = strength · (cos, sin): one number for both, to first order a similarity.
    # A larger photograph must not move by more pixels than a crop of 128.
    scale = strength * 128 / max(height, width)
    dy = scale * (cosine * y + sine * x)
    dx = scale * (cosine * x - sine * y)
    return displace(images, dy, dx, "bicubic")


@register("row_jitter", channel="geometry", sign=1, curve=Curve(0.1, 2.2), hard_mask=True)
def row_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Every scanline shifted sideways by a random amount."""
    count, _, height, _ = images.shape
    shift = torch.randn(count, height, 1, generator=generator).clamp(-2.5, 2.5)
    return displace(images, torch.zeros(1, 1, 1), strength * shift)


@register(
    "misplaced_patches",
    channel="geometry",
    sign=1,
    curve=Curve(0.003, 0.75),
    differentiable=False,
    hard_mask=True,
)
def misplaced_patches(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Small patches replaced by patches from close by (non-eccentricity pattern noise)."""
    count, channels, height, width = images.shape
    cell, side = 16, 12
    rows, cols = max(1, height // cell), max(1, width // cell)
    rank = torch.rand(count, rows * cols, generator=generator).argsort(1).argsort(1).float()
    place = torch.rand(2, count, rows, cols, generator=generator)
    angle = 2 * math.pi * torch.rand(count, rows, cols, generator=generator)
    reach = 5 + 5 * torch.rand(count, rows, cols, generator=generator)
    # Patches in cells of their own do not overlap, so one more always moves the image further off.
    # The last of them comes in row by row.
    shown = side * (strength * rows * cols - rank).clamp(0, 1).view(count, rows, cols)
    y, x = torch.arange(height), torch.arange(width)
    row, col = (y // cell).clamp_max(rows - 1), (x // cell).clamp_max(cols - 1)

    def per_pixel(values: Tensor) -> Tensor:
        return values[:, row][:, :, col]

    corner = (
        per_pixel((place[0] * (cell - side + 1)).floor()),
        per_pixel((place[1] * (cell - side + 1)).floor()),
    )
    in_y = (y - row * cell)[:, None] - corner[0]
    in_x = (x - col * cell)[None, :] - corner[1]
    inside = (in_y >= 0) & (in_y < per_pixel(shown)) & (in_x >= 0) & (in_x < side)
    dy = torch.where(inside, per_pixel((reach * angle.sin()).round()), 0).long()
    dx = torch.where(inside, per_pixel((reach * angle.cos()).round()), 0).long()
    # Mirrored rather than clamped: a patch at the border would come out as smeared lines.
    from_y, from_x = _mirror(y[:, None] + dy, height), _mirror(x[None, :] + dx, width)
    index = (from_y * width + from_x).view(count, 1, -1).expand(-1, channels, -1)
    moved = images.reshape(count, channels, -1).gather(2, index.to(images.device))
    return moved.view_as(images)


def _mirror(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index > size - 1, 2 * (size - 1) - index, index).clamp(0, size - 1)
