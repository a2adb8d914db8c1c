"""Colour changes: saturation, colour temperature and tint, each in both directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register

_LUMA = (0.299, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma, N×1×H×W."""
    weights = torch.tensor(_LUMA, device=images.device, dtype=images.dtype)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def to_opponent(images: Tensor) -> tuple[Tensor, Tensor]:
    """Luma (N×1×H×W) and the colour differences R − Y and B − Y (N×2×H×W)."""
    y = luma(images)
    return y, images[:, 0::2] - y


def from_opponent(y: Tensor, chroma: Tensor) -> Tensor:
    """The inverse of :func:`to_opponent`, not clamped."""
    red, blue = y + chroma[:, :1], y + chroma[:, 1:]
    green = (y - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    return torch.cat([red, green, blue], 1)


def _matrix(rows: tuple[tuple[float, ...], ...], images: Tensor) -> Tensor:
    matrix = torch.tensor(rows, device=images.device, dtype=images.dtype)
    return torch.einsum("ij,njhw->nihw", matrix, images)


# Linear sRGB to XYZ relative to the D65 white, so that grey has equal X, Y and Z.
_XYZ = (
    (0.433953, 0.376219, 0.189828),
    (0.212671, 0.715160, 0.072169),
    (0.017758, 0.109477, 0.872765),
)
_RGB = tuple(tuple(row) for row in torch.tensor(_XYZ, dtype=torch.float64).inverse().tolist())


def _scale_lab_chroma(images: Tensor, gain: float) -> Tensor:
    linear = torch.where(
        images > 0.04045, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92
    )
    xyz = _matrix(_XYZ, linear)
    knee = 216 / 24389
    f = torch.where(xyz > knee, xyz.clamp_min(knee) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    fy = f[:, 1:2]
    # a* and b* are differences from f(Y): scaling them scales the distances from f(Y).
    f = fy + gain * (f - fy)
    xyz = torch.where(f > 6 / 29, f.clamp_min(6 / 29) ** 3, (116 * f - 16) * 27 / 24389)
    linear = _matrix(_RGB, xyz).clamp(0, 1)
    return torch.where(
        linear > 0.0031308,
        1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055,
        12.92 * linear,
    )


@register(
    "saturation_up", channel="saturation", sign=1, curve=Curve(0.1, 2.0), one_directional=False
)
def saturation_up(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Colours pushed away from grey of the same luma."""
    y = luma(images)
    return (y + (1 + strength) * (images - y)).clamp(0, 1)


@register("saturation_down", channel="saturation", sign=-1, curve=Curve(0.07, 0.95))
def saturation_down(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Colours pulled towards grey of the same luma."""
    return images + strength * (luma(images) - images)


@register(
    "hsv_saturation_up",
    channel="saturation",
    sign=1,
    curve=Curve(0.07, 1.6),
    side={"luminance": -0.15},
    one_directional=False,
)
def hsv_saturation_up(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """HSV saturation multiplied, at the same value."""
    value, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    limit = value / (value - low).clamp_min(1e-6)
    gain = limit.clamp(1.0, 1 + strength)
    return (value - gain * (value - images)).clamp(0, 1)


@register(
    "hsv_saturation_down",
    channel="saturation",
    sign=-1,
    curve=Curve(0.05, 0.9),
    side={"luminance": 0.3},
)
def hsv_saturation_down(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """HSV saturation reduced, at the same value: pale colours."""
    return images + strength * (images.amax(1, keepdim=True) - images)


@register(
    "lab_saturation_up",
    channel="saturation",
    sign=1,
    curve=Curve(0.07, 1.6),
    one_directional=False,
)
def lab_saturation_up(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """CIELAB chroma multiplied, at the same lightness and hue."""
    return _scale_lab_chroma(images, 1 + strength)


@register("lab_saturation_down", channel="saturation", sign=-1, curve=Curve(0.07, 0.95))
def lab_saturation_down(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """CIELAB chroma reduced, at the same lightness and hue."""
    return _scale_lab_chroma(images, 1 - strength)


def _gains(images: Tensor, logs: tuple[float, float, float]) -> Tensor:
    """Multiply R, G and B by e^logs, keeping the luma of grey."""
    gains = [math.exp(value) for value in logs]
    norm = sum(weight * gain for weight, gain in zip(_LUMA, gains, strict=True))
    scale = torch.tensor(gains, device=images.device, dtype=images.dtype) / norm
    return (images * scale.view(1, 3, 1, 1)).clamp(0, 1)


@register("warm", channel="temperature", sign=1, curve=Curve(0.02, 0.42))
def warm(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """White balance too warm: more red, less blue."""
    return _gains(images, (strength, 0.0, -1.2 * strength))


@register("cool", channel="temperature", sign=-1, curve=Curve(0.02, 0.42))
def cool(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """White balance too cool: less red, more blue."""
    return _gains(images, (-1.2 * strength, 0.0, strength))


@register("colour_cast_warm", channel="temperature", sign=1, curve=Curve(0.01, 0.16))
def colour_cast_warm(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """An orange veil: red added and blue removed, in the shadows as well."""
    cast = torch.tensor((1.0, 0.05, -1.0), device=images.device, dtype=images.dtype)
    return (images + strength * cast.view(1, 3, 1, 1)).clamp(0, 1)


@register("colour_cast_cool", channel="temperature", sign=-1, curve=Curve(0.01, 0.16))
def colour_cast_cool(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A blue veil: blue added and red removed, in the shadows as well."""
    cast = torch.tensor((-1.0, 0.1, 1.0), device=images.device, dtype=images.dtype)
    return (images + strength * cast.view(1, 3, 1, 1)).clamp(0, 1)


@register("tint_magenta", channel="tint", sign=1, curve=Curve(0.018, 0.32))
def tint_magenta(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """White balance towards magenta: less green."""
    return _gains(images, (0.6 * strength, -0.8 * strength, 0.6 * strength))


@register("tint_green", channel="tint", sign=-1, curve=Curve(0.018, 0.32))
def tint_green(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """White balance towards green: less red and blue."""
    return _gains(images, (-0.8 * strength, 0.6 * strength, -0.8 * strength))
