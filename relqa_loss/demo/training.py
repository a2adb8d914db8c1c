"""The demo's training loop: what a user's own loop looks like with the library dropped in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from relqa_loss.demo.data import Photographs, degrade_for_test, training_batch
from relqa_loss.demo.model import Restorer
from relqa_loss.losses import RelationalLoss
from relqa_loss.metrics import RelationalDistance, RelationalScore
from relqa_loss.selection.best import BestCheckpoint


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo.

    Args:
        seconds: Length of the training, unless ``steps`` is given.
        steps: Optimiser steps; with these the result depends on the seed alone.
        validations: How often to validate, the start and the end not counted.
        batch: Crops per step.
        crop: Their side in pixels.
        rate: Peak learning rate.
        seed: Of everything random.
        device: Where to train.
        weights: Of the loss and the metric.
    """

    seconds: float = 60.0
    steps: int | None = None
    validations: int = 12
    batch: int = 8
    crop: int = 96
    rate: float = 3e-3
    seed: int = 0
    device: str = "cpu"
    weights: str = "relqa-base"

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be positive, got {self.seconds}")
        if self.crop < 32 or self.crop % 2:
            raise ValueError(f"crop must be even and at least 32, got {self.crop}")
        if not -(1 << 63) <= self.seed < 1 << 64:
            raise ValueError(f"seed must be from -2**63 to 2**64 - 1, got {self.seed}")


class Validation(NamedTuple):
    """Figures of one validation, means over the photographs of the selection split."""

    step: int
    seconds: float
    distance: float
    score: float
    psnr: float
    loss: float
    """Mean training loss since the validation before; NaN at the start."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo has to show."""

    config: DemoConfig
    model: Restorer = field(repr=False)
    """With the chosen weights, on the CPU."""
    history: tuple[Validation, ...]
    chosen: Validation
    seconds: float
    parameters: int
    loss: str
    """Version of the loss: its weights and options."""


OnProgress = Callable[[float, Validation | None], None]
"""``(done in [0, 1], validation if there was one)``, called after every step."""


def train_restorer(
    photographs: Photographs,
    config: DemoConfig,
    checkpoint: Path,
    on_progress: OnProgress | None = None,
) -> DemoResult:
    """Train a :class:`Restorer` with :class:`RelationalLoss` and keep what the metric prefers.

    Args:
        photographs: Their ``train`` part is trained on, their ``select`` part validated on.
        config: Settings.
        checkpoint: File to keep the best weights in.
        on_progress: Called after every step.

    Returns:
        The chosen model and the history, the state before the first step included.

    Raises:
        ValueError: If a photograph is smaller than the crop.
        FileExistsError: If the checkpoint exists.
    """
    for name, photo in photographs.train.items():
        if min(photo.shape[-2:]) < config.crop:
            raise ValueError(f"photograph {name!r} is smaller than the crop of {config.crop}")
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Restorer()
    model = model.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss_fn = RelationalLoss(on_out_of_range="ignore", weights=config.weights).to(config.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.rate)
    best = BestCheckpoint(checkpoint, mode="min")
    clean = list(photographs.train.values())
    tests = [(degrade_for_test(p, config.seed), p) for p in photographs.select.values()]

    start = time.monotonic()
    history: list[Validation] = []
    losses: list[float] = []
    step, done = 0, 0.0
    while True:
        if done >= min(1.0, len(history) / (config.validations + 1)):
            loss = sum(losses) / len(losses) if losses else math.nan
            losses.clear()
            history.append(_validate(model, tests, config, step, time.monotonic() - start, loss))
            best.update(history[-1].distance, model.state_dict(), step=step)
            if on_progress is not None:
                on_progress(done, history[-1])
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = config.rate * _schedule(done)
        target, degraded = training_batch(clean, config.batch, config.crop, generator)
        degraded = degraded.to(config.device, memory_format=torch.channels_last)
        target = target.to(config.device, memory_format=torch.channels_last)
        loss_value: Tensor = loss_fn(model(degraded), target)
        optimiser.zero_grad(set_to_none=True)
        loss_value.backward()  # type: ignore[no-untyped-call]
        # Every step is longer than this, so all weigh alike. Clipped at a norm that none of them
        # reaches, networks of three seeds were no better.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss_value.detach()))
        step += 1
        elapsed = time.monotonic() - start
        done = step / config.steps if config.steps is not None else elapsed / config.seconds
        done = min(1.0, done)
        if on_progress is not None:
            on_progress(done, None)

    model = model.cpu()
    if best.value is not None:
        model.load_state_dict(best.load())
    # Had every value been NaN, nothing would have been chosen: the start stands in.
    chosen = next((entry for entry in history if entry.step == best.step), history[0])
    return DemoResult(
        config,
        model.eval(),
        tuple(history),
        chosen,
        time.monotonic() - start,
        sum(parameter.numel() for parameter in model.parameters()),
        loss_fn.version,
    )


def restore(model: Restorer, image: Tensor) -> Tensor:
    """Restore one 3×H×W image; the result is clamped and rounded to 8 bits, as a file would be."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        restored: Tensor = model(image[None].to(parameter.device))[0].cpu()
    return (restored.clamp(0, 1) * 255).round() / 255


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB; infinite for identical images."""
    error = float((image - reference).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def _validate(
    model: Restorer,
    tests: list[tuple[Tensor, Tensor]],
    config: DemoConfig,
    step: int,
    seconds: float,
    loss: float,
) -> Validation:
    distance = RelationalDistance(weights=config.weights)
    score = RelationalScore(weights=config.weights)
    ratios = []
    model.eval()
    for degraded, reference in tests:
        restored = restore(model, degraded)
        distance.update(restored[None], reference[None])
        score.update(restored[None], reference[None])
        ratios.append(psnr(restored, reference))
    model.train()
    return Validation(
        step,
        seconds,
        float(distance.compute()),
        float(score.compute()),
        sum(ratios) / len(ratios),
        loss,
    )


def _schedule(done: float) -> float:
    """Learning rate relative to its peak: a short warm-up, then a cosine."""
    warm = min(1.0, (done + 0.005) / 0.05)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
