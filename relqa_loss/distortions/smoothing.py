"""Over-smoothing: what denoisers take away with the noise. Edges stay, texture goes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions._filters import box_mean, luma, pad
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register

_SIDE = {"sharpness": -0.3}


def _shifted(padded: Tensor, margin: int, dy: int, dx: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return padded[..., margin + dy : margin + dy + height, margin + dx : margin + dx + width]


@register("bilateral", channel="noise", sign=-1, curve=Curve(0.012, 0.45), side=_SIDE)
def bilateral(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Averages neighbours of similar colour, so that texture melts and edges stay."""
    radius = 3
    padded = pad(images, radius, radius)
    total = images
    norm = torch.ones_like(images[:, :1])
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            apart = dy * dy + dx * dx
            if apart == 0 or apart > radius * radius + 1:
                continue
            other = _shifted(padded, radius, dy, dx, images)
            unlike = (other - images).square().sum(1, keepdim=True)
            weight = torch.exp(unlike * (-0.5 / strength**2) - apart / (2 * 2.2**2))
            total = total + weight * other
            norm = norm + weight
    return total / norm


def _sorted_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(a, b), torch.maximum(a, b)


def _median9(images: Tensor, spread: int) -> Tensor:
    """Median of nine pixels that lie ``spread`` apart, by sorting columns and then rows."""
    padded = pad(images, spread, spread)
    steps = (-spread, 0, spread)
    columns = []
    for dx in steps:
        a, b, c = (_shifted(padded, spread, dy, dx, images) for dy in steps)
        a, b = _sorted_pair(a, b)
        b, c = _sorted_pair(b, c)
        a, b = _sorted_pair(a, b)
        columns.append((a, b, c))
    (low0, mid0, high0), (low1, mid1, high1), (low2, mid2, high2) = columns
    low = torch.maximum(torch.maximum(low0, low1), low2)
    high = torch.minimum(torch.minimum(high0, high1), high2)
    mid = _middle(mid0, mid1, mid2)
    return _middle(low, mid, high)


def _middle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    low, high = _sorted_pair(a, b)
    return torch.maximum(low, torch.minimum(high, c))


@register("median", channel="noise", sign=-1, curve=Curve(0.1, 4.0), side={"sharpness": -0.4})
def median(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Applies medians again and again, which wipes out small detail and rounds corners."""
    # The last pass is blended in by the fraction, so that the strength is continuous; wider and
    # wider passes, since a repeated median of one width soon changes nothing.
    result = images
    for spread in (1, 1, 2, 3, 3):
        amount = min(1.0, strength)
        if amount <= 0:
            break
        result = result + amount * (_median9(result, spread) - result)
        strength -= 1
    return result


@register("non_local_means", channel="noise", sign=-1, curve=Curve(0.008, 0.45), side=_SIDE)
def non_local_means(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Averages pixels whose surroundings look alike, which paints over fine texture."""
    # Few, scattered candidates: the look of the method at a tenth of its price.
    steps = (-4, -2, -1, 0, 1, 2, 4)
    padded = pad(images, 4, 4)
    grey = luma(images)
    grey_padded = pad(grey, 4, 4)
    total = images
    norm = torch.ones_like(grey)
    for dy in steps:
        for dx in steps:
            if dy == dx == 0 or abs(dy) + abs(dx) > 5:
                continue
            unlike = F.avg_pool2d(
                (_shifted(grey_padded, 4, dy, dx, images) - grey).square(),
                3,
                stride=1,
                padding=1,
                count_include_pad=False,
            )
            weight = torch.exp(unlike * (-1 / strength**2))
            total = total + weight * _shifted(padded, 4, dy, dx, images)
            norm = norm + weight
    return total / norm


@register("guided_filter", channel="noise", sign=-1, curve=Curve(0.009, 0.45), side=_SIDE)
def guided_filter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Fits a plane to the brightness in each window, so that weak texture goes flat.

    Reference: He, Sun and Tang, "Guided Image Filtering", TPAMI 2013.
    """
    radius = 3
    mean = box_mean(images, radius)
    variance = (box_mean(images * images, radius) - mean * mean).clamp_min(0)
    slope = variance / (variance + strength**2)
    offset = mean - slope * mean
    return box_mean(slope, radius) * images + box_mean(offset, radius)


@register("total_variation", channel="noise", sign=-1, curve=Curve(0.0025, 0.36), side=_SIDE)
def total_variation(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Shrinks the total variation, which leaves flat patches as in a painting.

    Reference: Chambolle, "An Algorithm for Total Variation Minimization and Applications", 2004.
    """
    down = torch.zeros_like(images)
    right = torch.zeros_like(images)
    step = 0.24
    result = images
    for _ in range(25):
        gradient_down = F.pad(result[..., 1:, :] - result[..., :-1, :], (0, 0, 0, 1))
        gradient_right = F.pad(result[..., :, 1:] - result[..., :, :-1], (0, 1))
        down = down + step / strength * gradient_down
        right = right + step / strength * gradient_right
        # Projection onto the unit ball; the floor keeps the root's gradient finite.
        norm = (down * down + right * right).clamp_min(1.0).sqrt()
        down, right = down / norm, right / norm
        divergence = down - F.pad(down[..., :-1, :], (0, 0, 1, 0))
        divergence = divergence + right - F.pad(right[..., :, :-1], (1, 0))
        result = images + strength * divergence
    return result
