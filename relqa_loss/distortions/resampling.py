"""Scaling down and up again, with the filters in use. Factors are continuous, not whole sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from relqa_loss.distortions._filters import uniform
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register

Profile = tuple[Callable[[Tensor], Tensor], float]
"""An interpolation kernel and its half-width."""


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_min(0)


def _cubic(x: Tensor) -> Tensor:
    a = -0.5
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


_BILINEAR: Profile = (_triangle, 1.0)
_BICUBIC: Profile = (_cubic, 2.0)
_LANCZOS: Profile = (_lanczos, 3.0)


def _weights(targets: Tensor, sources: Tensor, profile: Callable[[Tensor], Tensor]) -> Tensor:
    weights = profile(targets[:, None] - sources[None])
    return weights / weights.sum(1, keepdim=True)


def _round_trip(size: int, scale: float, profile: Profile) -> Tensor:
    """The size × size matrix that scales a line down by ``scale`` (≥ 1) and up again.

    As a matrix, it takes any real factor: a whole number of small pixels would make plateaus.
    """
    kernel, half_width = profile
    margin = math.ceil(half_width)
    count = math.ceil(size / scale)
    place = torch.arange(size, dtype=torch.float64) + 0.5
    # Small pixels are centred on the picture and go on past its borders, which are mirrored.
    small = torch.arange(-margin, count + margin, dtype=torch.float64) + 0.5
    small = (small - count / 2) * scale + size / 2
    reach = math.ceil((2 * half_width + 2) * scale)
    wide = torch.arange(-reach, size + reach, dtype=torch.float64) + 0.5
    down = _weights(small / scale, wide / scale, kernel)
    up = _weights(place / scale, small / scale, kernel)
    full = up @ down
    period = 2 * size
    mirrored = torch.arange(-reach, size + reach) % period
    mirrored = torch.where(mirrored < size, mirrored, period - 1 - mirrored)
    return torch.zeros(size, size, dtype=torch.float64).index_add_(1, mirrored, full)


def _rescale(images: Tensor, scale: float, profile: Profile) -> Tensor:
    rows = _round_trip(images.shape[-2], scale, profile).to(images)
    columns = _round_trip(images.shape[-1], scale, profile).to(images)
    # Already a factor of 1.01 interpolates half-way between pixels somewhere: fade in.
    amount = min(1.0, (scale - 1) / 0.6)
    return images + amount * (rows @ images @ columns.T - images)


@register("bilinear_resize", channel="sharpness", sign=-1, curve=Curve(0.08, 4.6))
def bilinear_resize(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scales down and up again with linear interpolation."""
    return _rescale(images, 1 + strength, _BILINEAR)


@register("bicubic_resize", channel="sharpness", sign=-1, curve=Curve(0.1, 5.8))
def bicubic_resize(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scales down and up again with cubic interpolation."""
    return _rescale(images, 1 + strength, _BICUBIC)


@register(
    "lanczos_resize", channel="sharpness", sign=-1, curve=Curve(0.1, 6.3), side={"ringing": 0.2}
)
def lanczos_resize(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scales down and up again with a Lanczos window, which rings a little."""
    return _rescale(images, 1 + strength, _LANCZOS)


@register("resize_chain", channel="sharpness", sign=-1, curve=Curve(0.08, 5.2))
def resize_chain(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scales down and up twice, with filters and factors drawn at random."""
    profiles = (_BILINEAR, _BICUBIC, _LANCZOS)
    share = uniform(generator, 0.4, 1.0)
    picks = torch.randint(3, (2,), generator=generator).tolist()
    first = _rescale(images, 1 + strength * share, profiles[picks[0]])
    return _rescale(first, 1 + strength * (1.4 - share), profiles[picks[1]])


def _cell_means(size: int, width: float) -> Tensor:
    cell = torch.div(torch.arange(size, dtype=torch.float64), width, rounding_mode="floor")
    same = (cell[:, None] == cell[None]).to(torch.float64)
    return same / same.sum(1, keepdim=True)


@register("pixelate", channel="blocking", sign=1, curve=Curve(0.03, 3.6), side={"sharpness": -0.5})
def pixelate(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Enlarges from few pixels without interpolation, so that each shows as a square."""
    rows = _cell_means(images.shape[-2], 1 + strength).to(images)
    columns = _cell_means(images.shape[-1], 1 + strength).to(images)
    # Just above 1, single rows and columns would be doubled and nothing else: fade in.
    amount = min(1.0, strength / 0.8)
    return images + amount * (rows @ images @ columns.T - images)
