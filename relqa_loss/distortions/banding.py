"""Too few levels: posterised, palettised and dithered images, and contours in smooth areas."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from relqa_loss.distortions._pillow import from_pillow, pillow, to_pillow
from relqa_loss.distortions.colour import luma
from relqa_loss.distortions.masks import gaussian_blur
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


@register("quantisation", channel="banding", sign=1, curve=Curve(0.02, 0.4), differentiable=False)
def quantisation(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Every colour channel rounded to a few levels, each the mean of what it replaces."""
    planes = images.flatten(0, 1)[:, None]
    return _posterise(planes, torch.ones_like(planes), strength).view_as(images).clamp(0, 1)


@register(
    "colour_quantisation",
    channel="banding",
    sign=1,
    curve=Curve(0.01, 1.0, "linear"),
    differentiable=False,
    runs_on="host",
)
def colour_quantisation(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A palette of a few colours, without dither."""
    module = pillow()
    colours = max(2, round(256 * (7 / 256) ** strength))
    # Pillow's palettes end at 256 colours, which already shows on rich photographs: below that
    # the palettised image is mixed in.
    weight = min(1.0, strength / 0.15)
    out = []
    for image in images:
        picture = to_pillow(image)
        palette = picture.quantize(
            colours, method=module.Quantize.MEDIANCUT, dither=module.Dither.NONE
        )
        out.append(image + weight * (from_pillow(palette, image) - image))
    return torch.stack(out)


_BAYER = torch.tensor(
    [
        [0, 32, 8, 40, 2, 34, 10, 42],
        [48, 16, 56, 24, 50, 18, 58, 26],
        [12, 44, 4, 36, 14, 46, 6, 38],
        [60, 28, 52, 20, 62, 30, 54, 22],
        [3, 35, 11, 43, 1, 33, 9, 41],
        [51, 19, 59, 27, 49, 17, 57, 25],
        [15, 47, 7, 39, 13, 45, 5, 37],
        [63, 31, 55, 23, 61, 29, 53, 21],
    ],
    dtype=torch.float32,
)


@register(
    "dithered_quantisation",
    channel="banding",
    sign=1,
    curve=Curve(0.016, 0.28),
    side={"noise": 0.5},
    differentiable=False,
)
def dithered_quantisation(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A few levels per colour channel with an ordered dither."""
    height, width = images.shape[-2:]
    tiles = ((_BAYER + 0.5) / 64).repeat(-(-height // 8), -(-width // 8))[:height, :width]
    dither = tiles.to(images)
    return ((images / strength + dither).floor() * strength).clamp(0, 1)


@register(
    "contour_banding", channel="banding", sign=1, curve=Curve(0.018, 0.49), differentiable=False
)
def contour_banding(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Smooth areas broken into steps of luma, textures kept."""
    y = luma(images)
    smooth = gaussian_blur(y, 2.0)
    activity = gaussian_blur((y - smooth).square(), 2.0).sqrt()
    weight = torch.exp(-((activity / 0.04) ** 2))
    # The smoothed luma decides the step: noise would tear the contours to pieces.
    banded = _posterise(smooth, weight, strength)
    return (images + weight * (banded - smooth)).clamp(0, 1)


def _posterise(values: Tensor, weight: Tensor, step: float) -> Tensor:
    """Levels about ``step`` apart, in N×1×H×W values."""
    # Between steps that double, their mixture: the finer levels nest in the coarser ones, so the
    # error rises all the way, which plain rounding does not do on smooth images.
    octave = 2.0 ** math.floor(math.log2(step))
    fine = _level_means(values, weight, octave)
    coarse = _level_means(values, weight, 2 * octave)
    return fine + (step / octave - 1) * (coarse - fine)


def _level_means(values: Tensor, weight: Tensor, step: float) -> Tensor:
    """Every value replaced by the weighted mean of the values between the same two levels."""
    bins = math.floor(1 / step) + 1
    index = (values.detach().flatten(1) / step).long().clamp(0, bins - 1)
    share = weight.flatten(1).square() + 1e-6
    total = values.new_zeros(len(values), bins).scatter_add(1, index, share)
    summed = values.new_zeros(len(values), bins).scatter_add(1, index, share * values.flatten(1))
    return (summed / total.clamp_min(1e-12)).gather(1, index).view_as(values)
