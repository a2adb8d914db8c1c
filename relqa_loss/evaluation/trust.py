"""Is a distance fit to be minimised? Recovery by gradient descent, and line scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(preds N×3×H×W, target N×3×H×W) -> N``, differentiable in ``preds``."""

STARTS: tuple[str, ...] = ("noise", "blur", "jpeg", "tone", "other")
"""White noise, a strong blur, heavy JPEG, a tone and colour shift, a different photograph."""


@dataclass(frozen=True)
class Recovery:
    """Where gradient descent from one start ended."""

    psnr: float
    """Of the result, in dB."""
    start_psnr: float
    ratio: float
    """Final distance over first."""


def starting_point(kind: str, reference: Tensor, generator: torch.Generator) -> Tensor:
    """A start of the given kind for one reference, 3×H×W in [0, 1].

    Raises:
        ValueError: For an unknown kind; ``other`` needs a photograph and is left to the caller.
    """
    from relqa_loss.distortions import get_operator

    images = reference[None]
    if kind == "noise":
        return torch.rand(reference.shape, generator=generator)
    if kind == "blur":
        return get_operator("gaussian_blur")(images, 1.0, generator)[0]
    if kind == "jpeg":
        return get_operator("jpeg")(images, 1.0, generator)[0]
    if kind == "tone":
        shifted = get_operator("contrast_down")(images, 0.5, generator)
        return get_operator("warm")(shifted, 0.8, generator)[0]
    raise ValueError(f"unknown start {kind!r}; known: {STARTS}")


def recover(
    distance: Distance,
    reference: Tensor,
    start: Tensor,
    *,
    steps: int = 800,
    rate: float = 0.05,
) -> Recovery:
    """Minimise ``distance`` over the image by Adam with a cosine schedule.

    Args:
        distance: What is minimised, alone.
        reference: N×3×H×W in [0, 1].
        start: Of the same shape.
        steps: Gradient steps.
        rate: First learning rate.

    Returns:
        Mean figures over the batch.
    """
    return recover_image(distance, reference, start, steps=steps, rate=rate)[0]


def recover_image(
    distance: Distance,
    reference: Tensor,
    start: Tensor,
    *,
    steps: int = 800,
    rate: float = 0.05,
) -> tuple[Recovery, Tensor]:
    """:func:`recover`, with the image that it ended at."""
    image = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, rate / 200)
    first = last = 0.0
    for step in range(steps):
        optimiser.zero_grad()
        loss = distance(image, reference)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            image.clamp_(0, 1)
        last = float(loss.mean().detach())
        first = last if step == 0 else first
    result = image.detach()
    return Recovery(
        psnr=_psnr(result, reference),
        start_psnr=_psnr(start, reference),
        ratio=last / first if first else 0.0,
    ), result


def line_scan(
    distance: Distance, reference: Tensor, distorted: Tensor, points: int = 17
) -> tuple[Tensor, Tensor]:
    """Distances along the segment from the reference to a distorted image.

    Args:
        distance: The distance.
        reference: 3×H×W in [0, 1].
        distorted: 3×H×W in [0, 1].
        points: How many, both ends included.

    Returns:
        The positions in [0, 1] and the distances, each of shape ``points``.
    """
    position = torch.linspace(0, 1, points)
    blend = reference + position[:, None, None, None] * (distorted - reference)
    with torch.no_grad():
        return position, distance(blend, reference.expand_as(blend))


def is_monotone(values: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether values never fall by more than ``tolerance`` of their range."""
    span = float(values.max() - values.min())
    return bool((values.diff() >= -tolerance * span - 1e-12).all())


def _psnr(image: Tensor, reference: Tensor) -> float:
    mse = F.mse_loss(image, reference, reduction="none").flatten(1).mean(1)
    return float((-10 * torch.log10(mse.clamp(min=1e-12))).mean())
