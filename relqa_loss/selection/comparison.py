"""Comparing any number of candidates on the same images, some of which may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from relqa_loss.selection import sentences
from relqa_loss.selection.statistics import Interval, check_options, paired_interval
from relqa_loss.selection.veto import check_veto, find_vetoes


class Measured(NamedTuple):
    """One output of one candidate against its reference."""

    value: float
    """Distance or score."""
    signed: tuple[float, ...]
    """Mean signed map per channel."""
    absolute: tuple[float, ...]
    """Mean magnitude of the map per channel."""


class Duel(NamedTuple):
    """Two candidates on the images that both have."""

    wins: int
    ties: int
    images: int
    lead: float
    """Mean difference per image, positive where the first one is the better one; NaN without
    images."""

    @property
    def rate(self) -> float:
        """Share of images won, a tie counting half; NaN without images."""
        return (self.wins + 0.5 * self.ties) / self.images if self.images else math.nan


@dataclass(frozen=True)
class Standing:
    """One candidate in the ranking."""

    name: str
    images: int
    mean: float
    """Mean over its own images; NaN without any."""
    lead: float
    """Mean lead over all candidates, each on the images that both have; NaN without a mean."""
    gain: Interval | None
    """By how much it is better than the recommended one; ``None`` for that one itself."""
    shared: int
    """On how many images that comparison rests."""
    rejected: str | None
    """Why it may not be recommended, or ``None``."""
    signed: Mapping[str, float]
    absolute: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Result of :func:`compare`."""

    images: int
    """How many there are to be had."""
    standings: tuple[Standing, ...]
    """From best to worst; candidates that are ruled out stand where their scores put them."""
    duels: Mapping[str, Mapping[str, Duel]]
    """``duels[first][second]``."""
    recommended: str | None
    rival: str | None
    """The candidate that the recommended one had to be told apart from."""
    baseline: str | None
    """Which one vetoes compare with, or ``None`` without vetoes."""
    reason: str
    """The recommendation in one sentence."""


def compare(
    candidates: Mapping[str, Mapping[str, Measured]],
    images: Sequence[str],
    channels: Sequence[str],
    *,
    mode: Literal["min", "max"] = "min",
    metric: str = "distance",
    rule: Literal["best", "earliest"] = "best",
    veto: Mapping[str, float] | None = None,
    baseline: str | None = None,
    coverage: float = 0.9,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Rank candidates, rule some out, and recommend one for a stated reason.

    Two candidates are compared on the images that both have. The ranking is by the mean lead over
    all others, which without gaps is the order of the means.

    Args:
        candidates: Name to image to result, in order of age; images may be missing.
        images: Keys of all images there are.
        channels: Names of the channels of the results.
        mode: ``"min"`` for a distance, ``"max"`` for a score.
        metric: Its name, for the sentences.
        rule: ``"best"`` recommends the first in the ranking that is not ruled out; ``"earliest"``
            the earliest whose difference to that one may be noise.
        veto: Tolerance per channel, as of :class:`~relqa_loss.selection.CheckpointSelector`.
        baseline: Name of the candidate that vetoes compare with; the first by default.
        coverage: Least share of the images that a candidate must have to be recommended.
        confidence: Level of the intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: For unknown options, no candidates, or a baseline without images.

    Example:
        >>> from relqa_loss.selection.comparison import Measured, compare
        >>> def results(*values):
        ...     return {str(i): Measured(v, (0.0,), (0.0,)) for i, v in enumerate(values)}
        >>> found = compare(
        ...     {"step-1": results(0.5, 0.75), "step-2": results(0.25, 0.5)}, ["0", "1"], ["noise"]
        ... )
        >>> found.recommended, found.duels["step-2"]["step-1"].rate
        ('step-2', 1.0)
        >>> found.reason
        'step-2 is recommended: mean distance 0.375, the best of 2 candidates; better than step-1 \
by 0.25 [0.25, 0.25] (95%, 2 images)'
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
    if rule not in ("best", "earliest"):
        raise ValueError(f"rule must be 'best' or 'earliest', got {rule!r}")
    check_coverage(coverage)
    if not candidates:
        raise ValueError("there are no candidates to compare")
    check_options(confidence, resamples, seed)
    limits = check_veto(veto, channels)
    sign = -1 if mode == "min" else 1

    def gain(first: str, second: str) -> tuple[Interval, int]:
        """By how much the first is better, and on how many images."""
        ours, theirs = candidates[first], candidates[second]
        shared = [key for key in ours if key in theirs]
        interval = paired_interval(
            [sign * ours[key].value for key in shared],
            [sign * theirs[key].value for key in shared],
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        return interval, len(shared)

    if baseline is None and limits:
        baseline = next((name for name, rows in candidates.items() if rows), None)
    if baseline is not None and not candidates.get(baseline):
        raise ValueError(
            f"the baseline {baseline!r} is no candidate with images; there are "
            f"{', '.join(name for name, rows in candidates.items() if rows)}"
        )
    rejected = {
        name: _reject(name, candidates, images, channels, limits, baseline, coverage)
        for name in candidates
    }
    duels = {
        first: {
            second: _duel(candidates[first], candidates[second], sign)
            for second in candidates
            if second != first
        }
        for first in candidates
    }
    age = {name: at for at, name in enumerate(candidates)}
    means = {name: _mean([row.value for row in rows.values()]) for name, rows in candidates.items()}
    leads = {
        name: _lead(duels[name]) if math.isfinite(means[name]) else math.nan for name in candidates
    }

    def rank(name: str) -> tuple[bool, float, int]:
        lost = not math.isfinite(leads[name])
        return lost, 0.0 if lost else -leads[name], age[name]

    order = sorted(candidates, key=rank)
    pool = [name for name in order if rejected[name] is None]
    best = pool[0] if pool else None
    chosen = best
    if best is not None and rule == "earliest":
        for name in sorted(pool, key=age.__getitem__):
            if name == best or (duels[name][best].images > 1 and gain(name, best)[0].covers_zero):
                chosen = name
                break
    rival = _rival(order, rejected, chosen, best)
    standings = []
    for name in order:
        interval, shared = None, len(candidates[name])
        if chosen is not None and name != chosen:
            shared = duels[name][chosen].images
            if shared and math.isfinite(duels[name][chosen].lead):
                interval, _ = gain(name, chosen)
        rows = list(candidates[name].values())
        standings.append(
            Standing(
                name,
                len(rows),
                means[name],
                leads[name],
                interval,
                shared,
                rejected[name],
                {c: _mean([row.signed[k] for row in rows]) for k, c in enumerate(channels)},
                {c: _mean([row.absolute[k] for row in rows]) for k, c in enumerate(channels)},
            )
        )
    reason = _reason(standings, rejected, chosen, best, rival, metric, confidence)
    return Comparison(len(images), tuple(standings), duels, chosen, rival, baseline, reason)


def check_coverage(coverage: float) -> None:
    """Refuse a share that is none.

    Raises:
        ValueError: If it is outside [0, 1].
    """
    if not 0 <= coverage <= 1:
        raise ValueError(f"coverage must be between 0 and 1, got {coverage}")


def _reject(
    name: str,
    candidates: Mapping[str, Mapping[str, Measured]],
    images: Sequence[str],
    channels: Sequence[str],
    limits: Mapping[str, float],
    baseline: str | None,
    coverage: float,
) -> str | None:
    rows = candidates[name]
    if not rows or len(rows) < coverage * len(images):
        return f"not a candidate: {len(rows)} of {sentences.count_images(len(images))} can be used"
    bad = sentences.not_finite([row.value for row in rows.values()], tuple(rows))
    if bad is not None:
        return f"not a candidate: {bad}"
    if baseline is None or name == baseline or not limits:
        return None
    base = candidates[baseline]
    shared = [key for key in rows if key in base]
    if not shared:
        return f"vetoed: it has no image in common with {baseline}"
    profiles = [
        {c: _mean([part[key].signed[k] for key in shared]) for k, c in enumerate(channels)}
        for part in (rows, base)
    ]
    phrases = find_vetoes(profiles[0], profiles[1], limits, baseline)
    return f"vetoed: {', '.join(phrases)}" if phrases else None


def _duel(first: Mapping[str, Measured], second: Mapping[str, Measured], sign: int) -> Duel:
    leads = [sign * (row.value - second[key].value) for key, row in first.items() if key in second]
    return Duel(
        sum(lead > 0 for lead in leads),
        sum(lead == 0 for lead in leads),
        len(leads),
        _mean(leads),
    )


def _lead(duels: Mapping[str, Duel]) -> float:
    """Mean over all with whom it can be compared, itself included."""
    leads = [duel.lead for duel in duels.values() if math.isfinite(duel.lead)]
    return math.fsum(leads) / (len(leads) + 1)


def _mean(numbers: Sequence[float]) -> float:
    if not numbers:
        return math.nan
    try:
        return math.fsum(numbers) / len(numbers)
    except (OverflowError, ValueError):  # a sum too large; inf − inf
        return math.nan


def _rival(
    order: Sequence[str], rejected: Mapping[str, str | None], chosen: str | None, best: str | None
) -> str | None:
    """A vetoed one with better scores; else the best, if another is chosen; else the next."""
    if chosen is None:
        return None
    for name in order:
        if name in (chosen, best):
            break
        if (rejected[name] or "").startswith("vetoed"):
            return name
    others = [name for name in order if name != chosen and rejected[name] is None]
    return others[0] if others else None


def _reason(
    standings: Sequence[Standing],
    rejected: Mapping[str, str | None],
    chosen: str | None,
    best: str | None,
    rival: str | None,
    metric: str,
    confidence: float,
) -> str:
    if chosen is None:
        first = standings[0]
        return (
            f"no candidate is recommended: all of {len(standings)} are ruled out; the first in the "
            f"ranking, {first.name}, is {first.rejected}"
        )
    by_name = {standing.name: standing for standing in standings}
    title = "best" if chosen == best else f"earliest within the noise of {best}"
    text = (
        f"{chosen} is recommended: {sentences.mean_of(metric, by_name[chosen].mean)}, the {title} "
        f"of {len(standings)} candidates"
        if len(standings) > 1
        else f"{chosen} is recommended, as the only candidate: "
        f"{sentences.mean_of(metric, by_name[chosen].mean)}"
    )
    out = sum(reason is not None for reason in rejected.values())
    if out:
        text += f" ({out} ruled out)"
    if rival is None:
        return text
    other = by_name[rival]
    if other.gain is not None:
        # The other's gain over the chosen one, the other way round.
        mean, low, high = other.gain
        turned = Interval(-mean, -high, -low)
        text += f"; {sentences.compare(rival, turned, confidence, other.shared)}"
    if other.rejected is not None:
        text += f", but {rival} is {other.rejected}"
    return text
