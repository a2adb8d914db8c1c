"""The metrics, images for them, and their values by plain loops over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import NormalDist

import torch
from tester import Batch, Case, Values, flat
from torch import Tensor
from torchmetrics import Metric

from relqa_loss import CHANNELS
from relqa_loss.metrics import (
    DistortionProfile,
    RelationalDistance,
    RelationalPreference,
    RelationalScore,
)
from relqa_loss.network import Relation, load_pretrained


def triples() -> list[Batch]:
    """Batches of several sizes and of several images; with wins, losses and a tie."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for count, *side in ((3, 32, 32), (2, 40, 33), (2, 32, 48), (1, 45, 61)):
        target, one, other = torch.rand(3, count, 3, *side, generator=generator)
        # Plain wins and losses in turn, so that no rounding and no weights decide.
        amounts = torch.tensor([0.1, 0.6, 0.2])[:count].reshape(-1, 1, 1, 1)
        preds, baseline = target.lerp(one, amounts), target.lerp(other, 0.7 - amounts)
        if count == 2:
            preds[0] = baseline[0]
        batches.append({"preds": preds, "baseline": baseline, "target": target})
    return batches


def pairs() -> list[Batch]:
    """The same without a baseline."""
    return [{name: batch[name] for name in ("preds", "target")} for batch in triples()]


def relations(batches: Sequence[Batch], name: str = "preds") -> list[Relation]:
    """One image at a time through the bare network."""
    network = load_pretrained()
    with torch.no_grad():
        return [
            network(target[None], image[None])
            for batch in batches
            for image, target in zip(batch[name], batch["target"], strict=True)
        ]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def mean_distance(batches: Sequence[Batch]) -> Values:
    return {"value": mean([relation.distance.item() for relation in relations(batches)])}


def mean_score(batches: Sequence[Batch]) -> Values:
    return {"value": mean([relation.score.item() for relation in relations(batches)])}


def profile(batches: Sequence[Batch]) -> Values:
    found: dict[str, list[float]] = {}
    for relation in relations(batches):
        for index, name in enumerate(CHANNELS):
            cells = relation.maps[0, index].flatten().tolist()
            found.setdefault(f"{name}_signed", []).append(mean(cells))
            found.setdefault(f"{name}_absolute", []).append(mean([abs(cell) for cell in cells]))
    return {name: mean(values) for name, values in found.items()}


def win_rate(batches: Sequence[Batch], *, by: str = "distance") -> Values:
    outcomes = []
    for ours, theirs in zip(relations(batches), relations(batches, "baseline"), strict=True):
        if by == "distance":
            lead = theirs.distance.item() - ours.distance.item()
        else:
            lead = ours.score.item() - theirs.score.item()
        outcomes.append(1.0 if lead > 0 else 0.0 if lead < 0 else 0.5)
    rate = mean(outcomes)
    return {
        "value": rate,
        "low": wilson_bound(rate, len(outcomes), 0.95, upper=False),
        "high": wilson_bound(rate, len(outcomes), 0.95, upper=True),
    }


def wilson_bound(rate: float, count: int, confidence: float, *, upper: bool) -> float:
    """The rate furthest from the one seen that a z-test would not reject, by bisection."""
    deviation = NormalDist().inv_cdf((1 + confidence) / 2)
    accepted, end = rate, 1.0 if upper else 0.0
    for _ in range(100):
        middle = (accepted + end) / 2
        sigma = math.sqrt(middle * (1 - middle) / count)
        if abs(middle - rate) <= deviation * sigma:
            accepted = middle
        else:
            end = middle
    return accepted


def read_win_rate(metric: Metric) -> Values:
    """Rate and interval."""
    interval: Callable[[], tuple[Tensor, Tensor]] = metric.interval  # type: ignore[assignment]
    low, high = interval()
    return flat(metric.compute()) | {"low": float(low), "high": float(high)}


_ALL = {"is_differentiable": False, "full_state_update": False}
_BOUNDED = {"higher_is_better": True, "plot_lower_bound": 0.0, "plot_upper_bound": 1.0}

CASES = {
    "RelationalDistance": Case(
        RelationalDistance,
        pairs(),
        mean_distance,
        _ALL | {"higher_is_better": False, "plot_lower_bound": 0.0},
    ),
    "RelationalScore": Case(
        RelationalScore,
        pairs(),
        mean_score,
        _ALL | {"higher_is_better": True},
        # Where the direction is in doubt, a score feels rounding fifty times as much as a distance.
        rounding=1e-4,
    ),
    "DistortionProfile": Case(
        DistortionProfile, pairs(), profile, _ALL | {"higher_is_better": None}, scalar=False
    ),
    "RelationalPreference": Case(
        RelationalPreference, triples(), win_rate, _ALL | _BOUNDED, read_win_rate
    ),
    "RelationalPreference by score": Case(
        partial(RelationalPreference, by="score"),
        triples(),
        partial(win_rate, by="score"),
        _ALL | _BOUNDED,
        read_win_rate,
    ),
}
