"""Colour that has left its place: diffused, displaced or subsampled chroma planes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions.colour import from_opponent, to_opponent
from relqa_loss.distortions.geometry import displace
from relqa_loss.distortions.masks import gaussian_blur
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


@register(
    "colour_diffusion",
    channel="chroma_bleed",
    sign=1,
    curve=Curve(0.45, 14.0),
    side={"saturation": -0.2},
)
def colour_diffusion(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Chroma planes blurred, luma kept."""
    y, chroma = to_opponent(images)
    return from_opponent(y, _wide_blur(chroma, strength)).clamp(0, 1)


def _wide_blur(planes: Tensor, sigma: float) -> Tensor:
    if sigma <= 4:
        return gaussian_blur(planes, sigma)
    # Kernels of dozens of taps cost milliseconds; at half the size a quarter of that.
    height, width = planes.shape[-2:]
    small = F.avg_pool2d(planes, 2, ceil_mode=True, count_include_pad=False)
    # Pooling (variance ¼) and interpolation (about ½) widen the kernel by themselves.
    small = gaussian_blur(small, math.sqrt(sigma * sigma - 0.75) / 2)
    return F.interpolate(small, scale_factor=2.0, mode="bilinear")[..., :height, :width]


@register("colour_shift", channel="chroma_bleed", sign=1, curve=Curve(0.25, 11.0))
def colour_shift(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Chroma planes displaced against the luma."""
    angle = 2 * math.pi * torch.rand(images.shape[0], 1, 1, generator=generator)
    y, chroma = to_opponent(images)
    # Colour differences are signed, and `displace` keeps to [0, 1].
    moved = displace((chroma + 1) / 2, strength * angle.sin(), strength * angle.cos())
    return from_opponent(y, 2 * moved - 1).clamp(0, 1)


@register("chromatic_aberration", channel="chroma_bleed", sign=1, curve=Curve(0.12, 3.5))
def chromatic_aberration(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Red and blue magnified oppositely about an optical centre: coloured fringes."""
    count, _, height, width = images.shape
    # The centre may lie outside, as it does for most crops of a photograph.
    centre = 3 * torch.rand(2, count, 1, 1, generator=generator) - 1.5
    y = torch.linspace(-1, 1, height)[:, None] - centre[0]
    x = torch.linspace(-1, 1, width)[None, :] - centre[1]
    # The strength is the displacement in pixels at a unit distance from the centre, on average.
    radius = (y * y + x * x).sqrt().mean((1, 2), keepdim=True)
    dy, dx = strength * y / radius, strength * x / radius
    red = displace(images[:, :1], dy, dx)
    blue = displace(images[:, 2:], -dy, -dx)
    return torch.cat([red, images[:, 1:2], blue], 1)


@register(
    "chroma_subsampling",
    channel="chroma_bleed",
    sign=1,
    curve=Curve(0.35, 4.6),
    side={"saturation": -0.15},
)
def chroma_subsampling(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Chroma planes stored at a fraction of the resolution and repeated."""
    y, chroma = to_opponent(images)
    # Between two powers of two, their mixture: the finer blocks nest in the coarser ones, so the
    # error rises all the way.
    octave = math.floor(strength)
    fine, coarse = _blocks(chroma, 2**octave), _blocks(chroma, 2 ** (octave + 1))
    return from_opponent(y, fine + (strength - octave) * (coarse - fine)).clamp(0, 1)


def _blocks(planes: Tensor, side: int) -> Tensor:
    if side == 1:
        return planes
    height, width = planes.shape[-2:]
    # A window larger than the plane is refused by the pooling, although its meaning is plain.
    means = F.avg_pool2d(
        planes,
        (min(side, height), min(side, width)),
        ceil_mode=True,
        count_include_pad=False,
    )
    blocks = means.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return blocks[..., :height, :width]


@register("colour_smear", channel="chroma_bleed", sign=1, curve=Curve(0.35, 14.0))
def colour_smear(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Chroma dragged along the scanlines, as by analogue video."""
    leftwards = float(torch.rand(1, generator=generator)) < 0.5
    y, chroma = to_opponent(images)
    taps = math.ceil(4 * strength) + 1
    kernel = torch.exp(-torch.arange(taps, device=images.device, dtype=images.dtype) / strength)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    count, planes, height, width = chroma.shape
    rows = chroma.reshape(-1, 1, height, width)
    padding = (0, taps - 1, 0, 0) if leftwards else (taps - 1, 0, 0, 0)
    rows = F.conv2d(F.pad(rows, padding, mode="replicate"), kernel if leftwards else kernel.flip(3))
    return from_opponent(y, rows.view(count, planes, height, width)).clamp(0, 1)
