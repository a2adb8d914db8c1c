"""Measurements of a loss that need nothing but the loss: see ``loss_trust.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(preds N×3×H×W, target N×3×H×W) -> N``, lower is better."""

STRIDES = (2, 4, 8)


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """N values in dB."""
    error = (images - references).square().mean((1, 2, 3)).clamp(min=1e-12)
    return -10 * torch.log10(error)


def spectrum_peak(images: Tensor, stride: int) -> float:
    """Amplitude at the frequencies of a grid of ``stride`` over that of their neighbourhoods.

    The largest over all frequencies ``(i, j) / stride`` that are not those of ``stride / 2``, so
    that each grid is seen once; 2 is Nyquist. Power is averaged over images, which must be many
    enough to make chance peaks small; about 1 without a pattern.

    Args:
        images: N×3×H×W, sides divisible by ``stride`` and at least ``16 · stride``.
        stride: A power of two, at least 2.
    """
    height, width = images.shape[-2:]
    if height % stride or width % stride or min(height, width) < 16 * stride:
        raise ValueError(
            f"sides must be multiples of {stride} and at least {16 * stride}, got {height}×{width}"
        )
    grey = images.mean(1)
    grey = grey - grey.mean((1, 2), keepdim=True)
    # Without the window the jump from one border to the other would look like a peak.
    window = torch.outer(torch.hann_window(height), torch.hann_window(width))
    power = torch.fft.fft2(grey * window).abs().square().mean(0)
    ratios = []
    reach = range(-4, 5)
    ring = [(y, x) for y in reach for x in reach if max(abs(y), abs(x)) >= 3]
    for i in range(stride):
        for j in range(stride):
            if (i % 2 == 0 and j % 2 == 0) or 2 * i > stride:  # seen before; mirror image
                continue
            y, x = i * height // stride, j * width // stride
            around = torch.stack([power[(y + a) % height, (x + b) % width] for a, b in ring])
            ratios.append(float((power[y, x] / around.mean().clamp(min=1e-20)).sqrt()))
    return max(ratios)


def colour_drift(images: Tensor, references: Tensor) -> float:
    """Shift of the mean colour in 8-bit levels: the largest of three channels, mean over images."""
    shift = (images - references).mean((2, 3)).abs().amax(1)
    return 255 * float(shift.mean())


def local_minima(values: Tensor, tolerance: float = 1e-3) -> int:
    """How many interior valleys a line scan has, deeper than ``tolerance`` of its range."""
    least = tolerance * float(values.max() - values.min()) + 1e-12
    count, top, bottom, falling = 0, float(values[0]), float(values[0]), False
    for value in values[1:].tolist():
        if falling:
            bottom = min(bottom, value)
            if value > bottom + least:
                count, falling, top = count + 1, False, value
        else:
            top = max(top, value)
            if value < top - least:
                falling, bottom = True, value
    return count


def gradient(distance: Distance, images: Tensor, references: Tensor) -> Tensor:
    """Gradient of every image's own distance."""
    leaf = images.detach().clone().requires_grad_()
    distance(leaf, references).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def homeward(gradients: Tensor, images: Tensor, references: Tensor) -> Tensor:
    """Cosine between the way that descent takes and the way back to the reference, N values."""
    return F.cosine_similarity(-gradients.flatten(1), (references - images).flatten(1))


EXTREMES = ("random", "constant", "identical", "black", "white", "black/white", "out of range")


def extreme_pair(kind: str, size: int) -> tuple[Tensor, Tensor]:
    """An image and a reference that losses are known to fail on, 2×3×size×size."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, size, size)
    # Multiples of 1/64 are exact in half precision: what is identical stays identical.
    first, second = torch.randint(0, 65, (2, *shape), generator=generator) / 64
    black, white = torch.zeros(shape), torch.ones(shape)
    pairs = {
        "random": (first, second),
        "constant": (torch.full(shape, 0.4), torch.full(shape, 0.6)),
        "identical": (first, first),
        "black": (black, black),
        "white": (white, white),
        "black/white": (black, white),
        "out of range": (1.6 * first - 0.3, second),
    }
    return pairs[kind]


class Finite(NamedTuple):
    """What came out of extreme pairs under one precision."""

    bad: float
    """Share of gradient values that are NaN or infinite, of pairs that were taken."""
    refused: tuple[str, ...]
    """Pairs that the loss raised an error for."""


def finiteness(distance: Distance, dtype: torch.dtype, size: int = 96) -> Finite:
    """Non-finite gradients of a network's output layer under autocast to ``dtype``."""
    bad: list[float] = []
    refused = []
    layer = nn.Conv2d(3, 3, 1, bias=False)
    for kind in EXTREMES:
        image, reference = extreme_pair(kind, size)
        layer.weight.data = torch.eye(3)[:, :, None, None]
        leaf = image.clone().requires_grad_()
        try:
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                value = distance(layer(leaf), reference).sum()
            value.backward()
        except (RuntimeError, ValueError, AssertionError):
            refused.append(kind)
            continue
        assert leaf.grad is not None
        share = float((~leaf.grad.isfinite()).float().mean())
        bad.append(share if bool(value.isfinite()) else 1.0)
    return Finite(sum(bad) / len(bad) if bad else 1.0, tuple(refused))


def attack(
    distance: Distance,
    images: Tensor,
    references: Tensor,
    *,
    radius: float,
    sign: float,
    steps: int = 8,
) -> Tensor:
    """Images within ``radius`` per value whose distance is raised (sign 1) or lowered (−1).

    Projected gradient descent of Madry et al. (2018), from a random start: some losses have no
    gradient where an image equals its reference.
    """
    generator = torch.Generator().manual_seed(0)
    noise = radius * (2 * torch.rand(images.shape, generator=generator) - 1)
    current = (images + noise).clamp(0, 1)
    for _ in range(steps):
        step = gradient(distance, current, references).nan_to_num().sign()
        current = current + sign * step * (2.5 * radius / steps)
        current = images + (current - images).clamp(-radius, radius)
        current = current.clamp(0, 1)
    return current


def same_error(
    distance: Distance, start: Tensor, references: Tensor, *, sign: float, steps: int = 60
) -> Tensor:
    """Images as far from the references as ``start`` in MSE, of least (−1) or most (1) distance.

    The search of Wang and Simoncelli, "Maximum differentiation competition" (2008): steps along
    the gradient's part tangential to the sphere of equal error, and back onto the sphere.
    """
    radius = (start - references).flatten(1).norm(dim=1)[:, None, None, None]
    current = start
    for step in range(steps):
        slope = gradient(distance, current, references).nan_to_num()
        error = current - references
        slope = slope - error * (_dot(slope, error) / _dot(error, error).clamp(min=1e-20))
        slope = slope / slope.flatten(1).norm(dim=1).clamp(min=1e-20)[:, None, None, None]
        length = 0.25 * radius * (1 - step / steps)
        error = (current + sign * length * slope).clamp(0, 1) - references
        for _ in range(3):  # clamping shortens the error; stretching may leave the range
            scale = radius / error.flatten(1).norm(dim=1).clamp(min=1e-20)[:, None, None, None]
            error = (references + error * scale).clamp(0, 1) - references
        current = references + error
    return current


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((1, 2, 3), keepdim=True)
