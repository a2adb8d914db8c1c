"""Ringing: oscillation beside edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from relqa_loss.distortions._filters import filter2d, grid
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


@register(
    "sinc_ringing", channel="ringing", sign=1, curve=Curve(0.12, 0.82), side={"sharpness": -0.5}
)
def sinc_ringing(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Cuts off high frequencies in all directions at once, which leaves ripples beside edges.

    Reference: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
    Synthetic Data", ICCV Workshops 2021.
    """
    cutoff = math.pi * (1 - strength)
    y, x = grid(10)
    r = torch.hypot(y, x)
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp_min(1e-9))
    kernel[10, 10] = cutoff**2 / (4 * math.pi)
    kernel = kernel / kernel.sum()
    # Even the widest circle misses the corners of the spectrum, so it is faded in.
    return images + min(1.0, 2 * strength) * (filter2d(images, kernel) - images)


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II matrix: it mirrors at the borders, so nothing wraps around."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)[None] + 0.5
    matrix = torch.cos(math.pi / size * frequency * place) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _low_pass(size: int, cutoff: float) -> Tensor:
    basis = _cosines(size)
    frequency = torch.arange(size, dtype=torch.float64) / size
    # A transition of a few coefficients: steep enough to ring, soft enough to be continuous.
    gain = ((cutoff - frequency) / 0.03 + 0.5).clamp(0, 1)
    return basis.T @ (gain[:, None] * basis)


@register(
    "gibbs_truncation", channel="ringing", sign=1, curve=Curve(1.0, 6.8), side={"sharpness": -0.5}
)
def gibbs_truncation(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Drops the high horizontal and vertical frequencies of the whole picture (Gibbs ripples)."""
    rows = _low_pass(images.shape[-2], 1 / strength).to(images)
    columns = _low_pass(images.shape[-1], 1 / strength).to(images)
    return rows @ images @ columns.T


@register("edge_echo", channel="ringing", sign=1, curve=Curve(0.25, 10.0))
def edge_echo(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Repeats edges beside themselves with alternating sign, and blurs nothing."""
    y, x = grid(11)
    r = torch.hypot(y, x)
    # Nothing near the centre, or the ripple would sharpen or blur the edge itself.
    window = ((r - 1.5) / 1.5).clamp(0, 1) * ((11.5 - r) / 3).clamp(0, 1) * torch.exp(-r / 5)
    kernel = torch.cos(2 * math.pi * r / 4.5) * window
    kernel = kernel - window * (kernel.sum() / window.sum())
    kernel = kernel / kernel.abs().sum()
    return images + strength * filter2d(images, kernel)
