"""Artefacts of sensors and neural restorers: invented texture, lattices, aliasing, mosaics."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions.colour import luma
from relqa_loss.distortions.masks import gaussian_blur
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


def _tile(tiles: Tensor, height: int, width: int) -> Tensor:
    side = tiles.shape[-1]
    return tiles.repeat(1, 1, -(-height // side), -(-width // side))[..., :height, :width]


@register("checkerboard", channel="noise", sign=1, curve=Curve(0.011, 0.18))
def checkerboard(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A fine periodic pattern, as left by transposed convolutions."""
    count, _, height, width = images.shape
    side = (2, 4, 8)[int(torch.randint(3, (1,), generator=generator))]
    tiles = torch.randn(count, 1, side, side, generator=generator)
    tiles = tiles - tiles.mean((2, 3), keepdim=True)
    # Two rows and columns hold little randomness: the chequered part is always there.
    chequers = 1 - 2.0 * ((torch.arange(side)[:, None] + torch.arange(side)) % 2).float()
    tiles = chequers + 0.8 * tiles / tiles.std((2, 3), keepdim=True).clamp_min(1e-6)
    tiles = tiles / tiles.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    pattern = _tile(tiles, height, width).to(images)
    # A gain rather than an offset, with a floor so that black areas are not spared altogether.
    return (images + strength * pattern * (0.35 + luma(images))).clamp(0, 1)


@register(
    "hallucinated_texture",
    channel="noise",
    sign=1,
    curve=Curve(0.07, 1.2),
    side={"sharpness": 0.3},
)
def hallucinated_texture(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Invented detail: texture from elsewhere in the picture, strongest where there is texture."""
    count, _, height, width = images.shape
    noise = torch.randn(count, 1, height, width, generator=generator).to(images)
    shift = torch.rand(2, generator=generator).tolist()
    y = luma(images)
    detail = y - gaussian_blur(y, 1.5)
    contrast = gaussian_blur(detail.square(), 4.0).add(1e-8).sqrt()
    # Divided by its own contrast, detail becomes a texture of even strength that can go anywhere.
    rolled = (detail / (contrast + 0.01)).roll(
        (int((0.25 + 0.5 * shift[0]) * height), int((0.25 + 0.5 * shift[1]) * width)), (2, 3)
    )
    band = gaussian_blur(noise, 0.7) - gaussian_blur(noise, 1.6)
    texture = 0.7 * rolled + 2.5 * band
    return (images + strength * texture * (contrast + 0.015)).clamp(0, 1)


@register("grid_pattern", channel="blocking", sign=1, curve=Curve(0.014, 0.28))
def grid_pattern(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A regular lattice of lines, as at the seams of patches."""
    count, _, height, width = images.shape
    period = (8, 16)[int(torch.randint(2, (1,), generator=generator))]
    phase = torch.randint(period, (2,), generator=generator).tolist()
    lift = 0.6 + 0.8 * torch.rand(count, 1, 1, 1, generator=generator).to(images)
    lift = lift * math.sqrt(period / 16)
    rows = (torch.arange(height) + phase[0]) % period == 0
    cols = (torch.arange(width) + phase[1]) % period == 0
    lines = (rows[:, None] | cols[None, :]).to(images)
    # Light lines where it is dark and dark lines where it is light, so that they show everywhere.
    sign = torch.where(gaussian_blur(luma(images), 6.0) > 0.5, -1.0, 1.0).to(images)
    added: Tensor = strength * lift * lines * sign
    return (images + added).clamp(0, 1)


@register(
    "moire_aliasing",
    channel="ringing",
    sign=1,
    curve=Curve(0.09, 1.0),
    side={"sharpness": -0.3},
)
def moire_aliasing(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Samples dropped without a filter and interpolated again: jagged edges and moiré."""
    height, width = images.shape[-2:]
    factor = 2.6 + 0.8 * float(torch.rand(1, generator=generator))
    size = (max(2, round(height / factor)), max(2, round(width / factor)))
    # `nearest-exact` takes the centres: plain `nearest` would shift the image.
    small = F.interpolate(images, size, mode="nearest-exact")
    coarse = F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return images + strength * (coarse - images)


@register(
    "sparse_sampling",
    channel="sharpness",
    sign=-1,
    curve=Curve(0.025, 0.92),
    side={"noise": 0.25},
)
def sparse_sampling(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A random part of the pixels kept and the rest interpolated."""
    count, _, height, width = images.shape
    draw = torch.rand(count, 1, height, width, generator=generator)
    kept = (draw >= strength).to(images)
    sigma = 0.55 / math.sqrt(1 - strength)
    blurred = gaussian_blur(torch.cat([images * kept, kept], 1), sigma)
    # Holes that the kernel does not reach take the value of a wider one.
    wide = gaussian_blur(torch.cat([images * kept, kept], 1), 3 * sigma)
    weights = blurred[:, 3:] + 1e-3 * wide[:, 3:]
    filled = (blurred[:, :3] + 1e-3 * wide[:, :3]) / weights.clamp_min(1e-9)
    return torch.where(kept > 0, images, filled).clamp(0, 1)


@register("demosaicing", channel="chroma_bleed", sign=1, curve=Curve(0.13, 2.5))
def demosaicing(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A Bayer mosaic interpolated plainly: zippers and false colours at fine detail."""
    height, width = images.shape[-2:]
    phase = torch.randint(2, (2,), generator=generator).tolist()
    y = (torch.arange(height, device=images.device) + phase[0]) % 2
    x = (torch.arange(width, device=images.device) + phase[1]) % 2
    red, blue = (y == 0)[:, None] & (x == 0), (y == 1)[:, None] & (x == 1)
    mosaic = torch.stack([red, ~(red | blue), blue])[None].to(images)
    kernel = images.new_tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    kernel = kernel.expand(3, 1, 3, 3)

    def spread(planes: Tensor) -> Tensor:
        out: Tensor = F.conv2d(planes, kernel, padding=1, groups=3)
        return out

    filled = spread(images * mosaic) / spread(mosaic).clamp_min(1e-6)
    # Mild cameras hide part of the error, and repeated processing amplifies it.
    return (images + strength * (filled - images)).clamp(0, 1)
