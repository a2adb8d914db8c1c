"""Soft spatial masks: where in a photograph a distortion acts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions._device import drawn_alike

MASK_KINDS: tuple[str, ...] = (
    "whole",
    "blobs",
    "gradient",
    "rectangles",
    "segments",
    "edges",
    "flat",
)
"""Kinds of masks :func:`sample_mask` can draw."""

_SEGMENTS = 14
_SEGMENT_SIDE = 32  # side of the thumbnail that is clustered: larger ones gain nothing visible


def sample_mask(kind: str, image: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a mask of one kind for one photograph.

    Args:
        kind: One of :data:`MASK_KINDS`.
        image: 3×H×W in [0, 1]; ``segments``, ``edges`` and ``flat`` follow its content.
        generator: A CPU generator, the only source of randomness.

    Returns:
        1×H×W in [0, 1], on the device and in the dtype of ``image``. Kinds other than ``whole``
        exceed one half on roughly 10 to 60 % of the pixels, whatever the image.

    Raises:
        ValueError: For an unknown kind.

    Example:
        >>> import torch
        >>> mask = sample_mask("blobs", torch.rand(3, 64, 48), torch.Generator().manual_seed(0))
        >>> mask.shape
        torch.Size([1, 64, 48])
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"mask kind must be one of {MASK_KINDS}, got {kind!r}")
    height, width = int(image.shape[-2]), int(image.shape[-1])
    if kind == "whole":
        return image.new_ones(1, height, width)
    with drawn_alike(), torch.autocast("cpu", enabled=False):
        if kind == "blobs":
            mask = _blobs(height, width, generator)
        elif kind == "gradient":
            mask = _gradient(height, width, generator)
        elif kind == "rectangles":
            mask = _rectangles(height, width, generator)
        elif kind == "segments":
            mask = _segments(image.detach().float().cpu(), generator)
        else:
            mask = _activity(image.detach().float().cpu(), generator, flat=kind == "flat")
    return mask.clamp(0, 1)[None].to(image)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of N×C×H×W images with replicated borders."""
    if sigma <= 0:
        return images.clone()
    radius = max(1, math.ceil(3 * sigma))
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    count, channels, height, width = images.shape
    planes = images.reshape(count * channels, 1, height, width)
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(planes, kernel.view(1, 1, 1, -1))
    planes = F.conv2d(planes, kernel.view(1, 1, -1, 1))
    return planes.reshape(count, channels, height, width)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))


def _axes(height: int, width: int) -> tuple[Tensor, Tensor]:
    y = torch.linspace(-1, 1, height)[:, None] if height > 1 else torch.zeros(1, 1)
    x = torch.linspace(-1, 1, width)[None, :] if width > 1 else torch.zeros(1, 1)
    return y, x


def _smooth_field(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A few overlapping bumps with a peak of 1, never constant."""
    y, x = _axes(height, width)
    field = torch.zeros(height, width)
    for cy, cx, sy, sx, gain in torch.rand(3, 5, generator=generator).tolist():
        dy = (y - (1.8 * cy - 0.9)) / (0.25 + 0.45 * sy)
        dx = (x - (1.8 * cx - 0.9)) / (0.25 + 0.45 * sx)
        field = field + (0.4 + 0.6 * gain) * torch.exp(-0.5 * (dy * dy + dx * dx))
    return field / field.max()


def _cover(field: Tensor, share: float, softness: float) -> Tensor:
    """A soft threshold of ``field`` that exceeds one half on a ``share`` of the pixels."""
    values = field.flatten()
    rank = min(max(round((1 - share) * values.numel()), 1), values.numel())
    threshold = values.kthvalue(rank).values
    # The second term lets the mask reach one even where the field hardly exceeds the threshold.
    # A single pixel has no spread.
    spread = values.std() if values.numel() > 1 else values.new_zeros(())
    width = torch.minimum(softness * spread, (values.max() - threshold) / 4)
    return torch.sigmoid((field - threshold) / width.clamp_min(1e-9))


def _blobs(height: int, width: int, generator: torch.Generator) -> Tensor:
    share = _uniform(0.15, 0.5, generator)
    return _cover(_smooth_field(height, width, generator), share, 0.3)


def _gradient(height: int, width: int, generator: torch.Generator) -> Tensor:
    y, x = _axes(height, width)
    linear, angle, cy, cx, share, flip = torch.rand(6, generator=generator).tolist()
    if linear < 0.5:
        ramp = math.cos(2 * math.pi * angle) * x + math.sin(2 * math.pi * angle) * y
    else:
        ramp = ((y - (2 * cy - 1)) ** 2 + (x - (2 * cx - 1)) ** 2).sqrt()
        ramp = ramp if flip < 0.5 else -ramp
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min()).clamp_min(1e-9)
    values = ramp.flatten()
    rank = max(1, round((1 - (0.2 + 0.35 * share)) * values.numel()))
    middle = float(values.kthvalue(rank).values.clamp(0.05, 0.95))
    # A power moves the middle of the ramp so that the wanted share of the image exceeds 0.5.
    return ramp.pow(math.log(0.5) / math.log(middle))


def _rectangles(height: int, width: int, generator: torch.Generator) -> Tensor:
    count = 1 + int(torch.randint(3, (1,), generator=generator))
    draws = torch.rand(3, 4, generator=generator).tolist()
    share = _uniform(0.18, 0.5, generator) / count
    mask = torch.zeros(height, width)
    for a, b, top, left in draws[:count]:
        # Sides from a share of the area and an aspect ratio between 1:1.6 and 1.6:1.
        area = share * (0.8 + 0.4 * b)
        aspect = 1.6 ** (2 * a - 1)
        tall = min(height, max(1, round(height * math.sqrt(area * aspect))))
        wide = min(width, max(1, round(width * math.sqrt(area / aspect))))
        y, x = round(top * (height - tall)), round(left * (width - wide))
        mask[y : y + tall, x : x + wide] = 1
    return mask


def _segments(image: Tensor, generator: torch.Generator) -> Tensor:
    height, width = int(image.shape[-2]), int(image.shape[-1])
    rows, cols = min(height, _SEGMENT_SIDE), min(width, _SEGMENT_SIDE)
    small = F.adaptive_avg_pool2d(image[None], (rows, cols))[0]
    # Texture would tear the segments to pieces.
    small = gaussian_blur(small[None], 1.2)[0]
    y, x = _axes(rows, cols)
    place = torch.stack([y.expand(rows, cols), x.expand(rows, cols)])
    features = torch.cat([2.0 * small, place]).flatten(1).T
    start = torch.randperm(len(features), generator=generator)[:_SEGMENTS]
    centres = features[start]
    labels = torch.zeros(len(features), dtype=torch.long)
    for _ in range(5):
        distance = centres.square().sum(1) - 2 * features @ centres.T
        labels = distance.argmin(1)
        members = F.one_hot(labels, len(centres)).to(features)
        sizes = members.sum(0)
        means = (members.T @ features) / sizes.clamp_min(1)[:, None]
        centres = torch.where(sizes[:, None] > 0, means, centres)
    areas = torch.bincount(labels, minlength=len(centres)).float() / len(labels)
    order = torch.randperm(len(centres), generator=generator)
    # Segments too large to fit the share come last, where a smaller choice precedes them.
    order = order[(areas[order] > 0.5).long().argsort(stable=True)]
    total = areas[order].cumsum(0)
    wanted = _uniform(0.2, 0.45, generator)
    gap = torch.where(total > 0, (total - wanted).abs(), torch.inf)
    chosen = torch.zeros(len(centres))
    chosen[order[: int(gap.argmin()) + 1]] = 1
    mask = F.interpolate(chosen[labels].view(1, 1, rows, cols), (height, width), mode="nearest")
    # Blurred and steepened: the corners of the thumbnail's pixels go, the outline stays crisp.
    blurred = gaussian_blur(mask, 0.018 * max(height, width))[0, 0]
    return (2 * blurred - 0.5).clamp(0, 1)


def _activity(image: Tensor, generator: torch.Generator, *, flat: bool) -> Tensor:
    height, width = int(image.shape[-2]), int(image.shape[-1])
    luma = image.mean(0)[None, None]
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    dy = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    dx = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    slope = F.max_pool2d((dx * dx + dy * dy).sqrt(), 5, stride=1, padding=2)
    slope = gaussian_blur(slope, 1.5)[0, 0]
    peak = slope.max()
    slope = slope / peak if peak > 1e-3 else torch.zeros_like(slope)
    share = _uniform(0.15, 0.45, generator)
    # The faint smooth field decides between equal pixels: on a constant image it leaves a blob.
    ties = 1e-3 * _smooth_field(height, width, generator)
    return _cover(ties - slope if flat else ties + slope, share, 0.15)
