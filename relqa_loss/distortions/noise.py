"""Noise of every colour. The pattern never depends on the strength, so ladders share it."""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss.distortions._filters import (
    blur,
    from_ycbcr,
    gaussian_kernel,
    luma,
    normal,
)
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


def _correlated(noise: Tensor, sigma: float) -> Tensor:
    # Blurred to unit variance again: white noise keeps the kernel's energy, once per axis.
    return blur(noise, sigma) / float(gaussian_kernel(sigma).square().sum())


@register("white_noise", channel="noise", sign=1, curve=Curve(0.007, 0.2))
def white_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds independent Gaussian noise to red, green and blue."""
    return images + strength * normal(images, generator)


@register("luma_noise", channel="noise", sign=1, curve=Curve(0.006, 0.17))
def luma_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds grey noise that leaves the colours alone."""
    return images + strength * normal(images, generator, 1)


@register("chroma_noise", channel="noise", sign=1, curve=Curve(0.01, 0.24))
def chroma_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds noise that is much stronger in the colours than in the brightness."""
    pattern = normal(images, generator)
    return images + strength * from_ycbcr(pattern * pattern.new_tensor([0.3, 1, 1])[:, None, None])


@register("poisson_gaussian", channel="noise", sign=1, curve=Curve(0.009, 0.32))
def poisson_gaussian(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds sensor noise: shot noise that grows with the light, and read noise below it."""
    shot = normal(images, generator)
    read = normal(images, generator)
    # Gaussian in place of Poisson counts, so that the pattern is the same at every strength. The
    # floor keeps the gradient of the root finite in black.
    return images + strength * (shot * images.clamp_min(1e-3).sqrt() + 0.2 * read)


@register("correlated_noise", channel="noise", sign=1, curve=Curve(0.004, 0.1))
def correlated_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds blotchy noise, as is left after demosaicking or a weak denoiser."""
    return images + strength * _correlated(normal(images, generator), 1.0)


@register("high_frequency_noise", channel="noise", sign=1, curve=Curve(0.01, 0.34))
def high_frequency_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds noise of the finest scale alone."""
    pattern = normal(images, generator)
    return images + strength * (pattern - blur(pattern, 0.8))


@register("speckle", channel="noise", sign=1, curve=Curve(0.014, 0.5))
def speckle(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Multiplies by noise, so that bright regions suffer most."""
    return images * (1 + strength * normal(images, generator))


@register("film_grain", channel="noise", sign=1, curve=Curve(0.003, 0.13))
def film_grain(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Adds grey grains of a pixel or two, strongest in the mid-tones, as photographic film has."""
    grain = _correlated(normal(images, generator, 1), 0.7)
    grey = luma(images)
    return images + strength * grain * (0.3 + 2.8 * grey * (1 - grey))
