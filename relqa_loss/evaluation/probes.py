"""Known distortions of unseen photographs, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.distortions import MASK_KINDS, DistortionEngine, Recipe, Step, get_operator
from relqa_loss.network.model import ParityNetwork
from relqa_loss.training.validation import mean_ranks

LEVELS: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Severities of the ladders."""


@dataclass(frozen=True)
class Probe:
    """One operator on one photograph at one severity, and the network's answer."""

    operator: str
    channel: str
    severity: float
    mask: str
    dominant: bool
    """The channel strongest inside the mask is the operator's."""
    sign: bool
    """The operator's channel has the right sign inside the mask."""
    auroc: float
    """Of the channel's magnitude as a detector of the mask; NaN for whole-image masks."""
    error: float
    """Mean absolute error of all maps."""


@dataclass(frozen=True)
class Ladder:
    """One operator on one photograph at rising severities."""

    operator: str
    distance_rises: bool
    score_falls: bool
    score_negative: float
    """Share of rungs whose score is negative."""


def probe_operator(
    network: ParityNetwork, photo: Tensor, operator: str, seed: int
) -> tuple[list[Probe], Ladder | None]:
    """Run one operator's ladder over one photograph, whole and through a mask.

    Images in which nothing changed (a colour operator on a grey photograph) are left out: there is
    nothing to find. So is the ladder, if that holds for all of its rungs.

    Args:
        network: Frozen or not; it is only read.
        photo: 3×H×W in [0, 1].
        operator: Its name.
        seed: Decides the mask and the operator's own randomness.
    """
    declared = get_operator(operator)
    engine = DistortionEngine([operator])
    masks = [kind for kind in MASK_KINDS if kind != "whole"]
    kinds = ("whole", masks[seed % len(masks)])
    samples = [
        engine.apply(photo, Recipe((Step(operator, severity, kind),), seed))
        for kind in kinds
        for severity in LEVELS
    ]
    images = torch.stack([sample.distorted for sample in samples])
    images = eight_bit(images)
    with torch.no_grad():
        relation = network(photo.expand_as(images), images)
    channel = network.channels.index(declared.channel)
    changed = (images != photo).flatten(1).any(1)
    probes = []
    for index, sample in enumerate(samples):
        if not changed[index]:
            continue
        step = sample.recipe.steps[0]
        maps = relation.maps[index]
        mask = F.avg_pool2d(sample.masks[None], 4, ceil_mode=True)[0, 0]
        # Soft masks peak below 1 on the grid; inside is where they are at least half their peak.
        inside = mask > 0.5 * mask.max()
        within = maps[:, inside].mean(-1)
        probes.append(
            Probe(
                operator=operator,
                channel=declared.channel,
                severity=step.severity,
                mask=step.mask,
                dominant=int(within.abs().argmax()) == channel,
                sign=bool(within[channel] * declared.sign > 0),
                auroc=auroc(maps[channel].abs(), inside),
                error=float((maps - sample.maps).abs().mean()),
            )
        )
    whole = slice(0, len(LEVELS))
    if not bool(changed[whole].any()):
        return probes, None
    return probes, Ladder(
        operator=operator,
        distance_rises=bool((relation.distance[whole].diff() > 0).all()),
        score_falls=bool((relation.score[whole].diff() < 0).all()),
        score_negative=float((relation.score[whole] < 0).float().mean()),
    )


def probe_bank(
    network: ParityNetwork,
    photos: Sequence[Tensor],
    operators: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Probe], list[Ladder]]:
    """Every operator on every photograph."""
    probes: list[Probe] = []
    ladders: list[Ladder] = []
    for row, photo in enumerate(photos):
        for number, operator in enumerate(operators):
            found, ladder = probe_operator(network, photo, operator, seed=row * 7 + number)
            probes += found
            if ladder is not None:
                ladders.append(ladder)
        if progress is not None:
            progress(row + 1, len(photos))
    return probes, ladders


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve (the Mann–Whitney statistic, ties counted half).

    NaN where one of the classes is empty.
    """
    flat, labels = scores.flatten().double(), positive.flatten()
    ones, zeros = int(labels.sum()), int((~labels).sum())
    if ones == 0 or zeros == 0:
        return float("nan")
    return float((mean_ranks(flat)[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def path_inconsistency(network: ParityNetwork, photo: Tensor, seed: int) -> tuple[float, float]:
    """How far a detour differs from the direct way, for maps and score.

    Returns:
        ``mean|M(a,c) − M(a,b) − M(b,c)| / mean|M(a,c)|`` and the same for the score, where a is
        the photograph and b, c are two distorted images of it.
    """
    engine = DistortionEngine()
    b, c, _ = engine.pair(photo, seed)
    with torch.no_grad():
        direct, first, second = (
            network(x[None], y[None]) for x, y in ((photo, c), (photo, b), (b, c))
        )
    gap = (direct.maps - first.maps - second.maps).abs().mean()
    score_gap = (direct.score - first.score - second.score).abs().mean()
    size = direct.maps.abs().mean().clamp(min=1e-6)
    return float(gap / size), float(score_gap / direct.score.abs().mean().clamp(min=1e-6))
