"""Losses of sharpness: blurs of every shape, continuous in their width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions._filters import blur, filter2d, grid, separable, uniform
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


@register("gaussian_blur", channel="sharpness", sign=-1, curve=Curve(0.28, 3.6))
def gaussian_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blurs with a round Gaussian, as an out-of-focus or low-pass filtered picture."""
    return blur(images, strength)


def _quadratic_form(radius: int, long: float, short: float, angle: float) -> Tensor:
    y, x = grid(radius)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    return (along / long) ** 2 + (across / short) ** 2


@register("anisotropic_blur", channel="sharpness", sign=-1, curve=Curve(0.3, 4.8))
def anisotropic_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blurs more along one direction, drawn at random, than across it."""
    angle = uniform(generator, 0, math.pi)
    ratio = uniform(generator, 0.25, 0.6)
    # A floor under the short axis: a narrower Gaussian would fall between the pixels.
    short = math.hypot(ratio * strength, 0.25)
    form = _quadratic_form(math.ceil(3.5 * strength), math.hypot(strength, 0.1), short, angle)
    kernel = torch.exp(-0.5 * form)
    return filter2d(images, kernel / kernel.sum())


@register("lens_blur", channel="sharpness", sign=-1, curve=Curve(0.51, 6.2))
def lens_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blurs with a disc, the shape of an open lens out of focus."""
    y, x = grid(math.ceil(strength))
    # Coverage with a soft rim, so that the disc grows by fractions of a pixel.
    kernel = (strength + 0.5 - torch.hypot(y, x)).clamp(0, 1)
    return filter2d(images, kernel / kernel.sum())


@register("motion_blur", channel="sharpness", sign=-1, curve=Curve(0.4, 15.0))
def motion_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Smears along a straight line in a random direction, as a moving camera does."""
    angle = uniform(generator, 0, math.pi)
    y, x = grid(math.ceil(strength / 2) + 1)
    steps = torch.linspace(-strength / 2, strength / 2, 129, dtype=torch.float64)[:, None, None]
    # Every point of the line is shared among its four pixels, so the kernel moves smoothly.
    share_x = (1 - (x - steps * math.cos(angle)).abs()).clamp_min(0)
    share_y = (1 - (y - steps * math.sin(angle)).abs()).clamp_min(0)
    kernel = (share_x * share_y).sum(0)
    return filter2d(images, kernel / kernel.sum())


@register("plateau_blur", channel="sharpness", sign=-1, curve=Curve(0.33, 4.6))
def plateau_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blurs with the flat-topped or peaked, slightly oriented kernels of Real-ESRGAN.

    Reference: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
    Synthetic Data", ICCV Workshops 2021.
    """
    angle = uniform(generator, 0, math.pi)
    ratio = uniform(generator, 0.6, 1.0)
    flat = uniform(generator) < 0.5
    shape = uniform(generator)
    form = _quadratic_form(math.ceil(4 * strength), strength, ratio * strength, angle)
    if flat:
        kernel = 1 / (1 + form ** (2 + 2 * shape))
    else:
        kernel = torch.exp(-0.5 * form ** (0.75 + 1.25 * shape))
    return filter2d(images, kernel / kernel.sum())


@register("mean_blur", channel="sharpness", sign=-1, curve=Curve(1.02, 10.5))
def mean_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Replaces every pixel by the mean of the square around it."""
    radius = math.ceil((strength - 1) / 2)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (strength / 2 + 0.5 - x.abs()).clamp(0, 1)
    return separable(images, kernel / kernel.sum())


@register("zoom_blur", channel="sharpness", sign=-1, curve=Curve(0.006, 0.27))
def zoom_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Smears away from a random centre, as when a lens zooms during the exposure."""
    centre = [uniform(generator, -0.4, 0.4), uniform(generator, -0.4, 0.4)]
    height, width = images.shape[-2:]
    # Steps closer than two pixels at the far corner, or the smear would break into ghosts.
    count = max(5, math.ceil(strength * max(height, width) * 0.7 / 2) + 1)
    theta = torch.zeros(images.shape[0], 2, 3, dtype=images.dtype, device=images.device)
    total = torch.zeros_like(images)
    for index in range(count):
        scale = 1 + strength * (index / (count - 1) - 0.5)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, 0, 2] = centre[0] * (1 - scale)
        theta[:, 1, 2] = centre[1] * (1 - scale)
        places = F.affine_grid(theta, list(images.shape), align_corners=False)
        total = total + F.grid_sample(
            images, places, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    return total / count
