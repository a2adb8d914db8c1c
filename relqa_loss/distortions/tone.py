"""Tone curves: luminance and contrast, each in both directions."""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss.distortions.colour import luma
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


def _power(images: Tensor, exponent: float) -> Tensor:
    # The floor keeps the gradient of roots finite at black; it is far below one 8-bit level.
    floor = 1e-4
    powered = images.clamp_min(floor) ** exponent
    return torch.where(images > floor, powered, images * float(floor ** (exponent - 1)))


@register("brighten", channel="luminance", sign=1, curve=Curve(0.04, 1.0))
def brighten(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Lightened mid-tones and highlights, with white kept."""
    return 1 - _power(1 - images, 1 + strength)


@register("darken", channel="luminance", sign=-1, curve=Curve(0.03, 0.85))
def darken(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Darkened mid-tones and highlights, by a factor that depends on the luma alone."""
    y = luma(images)
    return images / (1 + strength * (0.35 + y))


@register("gamma_brighten", channel="luminance", sign=1, curve=Curve(0.04, 0.95))
def gamma_brighten(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A gamma curve that lifts the shadows."""
    return _power(images, 1 / (1 + strength))


@register("gamma_darken", channel="luminance", sign=-1, curve=Curve(0.04, 1.0))
def gamma_darken(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A gamma curve that sinks the shadows."""
    return _power(images, 1 + strength)


def _expose(images: Tensor, stops: float) -> Tensor:
    # Gains in linear light are gains of the encoded values too, for a pure power of 2.2.
    return (images * 2 ** (stops / 2.2)).clamp(0, 1)


@register("overexposure", channel="luminance", sign=1, curve=Curve(0.06, 1.5))
def overexposure(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Too long an exposure: highlights clip to white."""
    return _expose(images, strength)


@register("underexposure", channel="luminance", sign=-1, curve=Curve(0.07, 2.0))
def underexposure(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Too short an exposure."""
    return _expose(images, -strength)


@register("mean_shift_up", channel="luminance", sign=1, curve=Curve(0.012, 0.28))
def mean_shift_up(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A constant added to every value."""
    return (images + strength).clamp(0, 1)


@register("mean_shift_down", channel="luminance", sign=-1, curve=Curve(0.012, 0.26))
def mean_shift_down(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A constant subtracted from every value."""
    return (images - strength).clamp(0, 1)


@register("contrast_up", channel="contrast", sign=1, curve=Curve(0.05, 1.2), one_directional=False)
def contrast_up(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Values pushed away from the mean luma."""
    mean = luma(images).mean((2, 3), keepdim=True)
    return (mean + (1 + strength) * (images - mean)).clamp(0, 1)


@register("contrast_down", channel="contrast", sign=-1, curve=Curve(0.05, 0.68))
def contrast_down(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Values pulled towards the mean luma."""
    mean = luma(images).mean((2, 3), keepdim=True)
    return images + strength * (mean - images)


@register("s_curve", channel="contrast", sign=1, curve=Curve(0.08, 1.7), one_directional=False)
def s_curve(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """An S-shaped tone curve: darker shadows and lighter highlights, black and white kept."""
    # x^p / (x^p + (1 − x)^p) goes through (0, 0), (½, ½) and (1, 1) for every power p.
    high = _power(images, 1 + strength)
    low = _power(1 - images, 1 + strength)
    return high / (high + low)


@register("inverse_s_curve", channel="contrast", sign=-1, curve=Curve(0.04, 0.66))
def inverse_s_curve(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A flattened tone curve: mid-tones squeezed, black and white kept."""
    high = _power(images, 1 - strength)
    low = _power(1 - images, 1 - strength)
    return high / (high + low)


@register("haze", channel="contrast", sign=-1, curve=Curve(0.025, 0.55), side={"luminance": 0.4})
def haze(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A light grey veil over the scene."""
    return images + strength * (0.8 - images)


@register(
    "lifted_blacks", channel="contrast", sign=-1, curve=Curve(0.03, 0.45), side={"luminance": 0.4}
)
def lifted_blacks(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A faded tone curve: shadows lifted to grey, highlights kept."""
    return images + strength * (1 - images) ** 2


@register(
    "crushed_blacks",
    channel="contrast",
    sign=1,
    curve=Curve(0.02, 0.3),
    side={"luminance": -0.4},
)
def crushed_blacks(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Shadows cut off at black and the rest stretched."""
    return ((images - strength) / (1 - strength)).clamp(0, 1)
