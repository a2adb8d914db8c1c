"""Agreement of a metric with human opinions, and how sure one can be of it.

The intervals come from resampling: percentiles, farther out where there are few scenes, whose
resamples are less spread than samples are (the expanded percentile interval of Hesterberg, "What
teachers should know about the bootstrap", The American Statistician 69 (2015),
doi:10.1080/00031305.2015.1089789). Pairs of one scene are not independent, so that scenes can be
resampled as a whole (``scenes``). A resample is a vector of multiplicities, one number per pair:
all figures are computed from these for all resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relqa_loss.evaluation._scipy import scipy_module
from relqa_loss.evaluation.logistic import Logistic, fit_logistic

Array = NDArray[np.float64]

FEWEST = 5
"""Pairs without which there are no figures: the logistic alone has four parameters."""
_BLOCK = 512  # rows of the sign matrix at a time


@dataclass(frozen=True)
class Figure:
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Figures of one metric on one set of pairs."""

    count: int
    srcc: Figure
    """Spearman's rank correlation, ties by their mean rank, in [−1, 1]."""
    krcc: Figure
    """Kendall's tau-b, in [−1, 1]."""
    plcc: Figure
    """Pearson's correlation after the four-parameter logistic."""
    rmse: Figure
    """Root mean squared error after the logistic, on the opinions' scale."""
    logistic: Logistic


@dataclass(frozen=True)
class Difference:
    """Spearman's correlation of one metric less that of another, on the same pairs."""

    srcc: Figure
    p_bootstrap: float
    """Two-sided, from the paired bootstrap."""
    p_williams: float
    """Two-sided, from Williams' test; it takes pairs for independent, scenes or not."""


def agreement(
    values: ArrayLike,
    opinions: ArrayLike,
    *,
    scenes: Sequence[object] | None = None,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Agreement:
    """SRCC, KRCC, PLCC and RMSE, each with a bootstrap interval.

    PLCC and RMSE follow the Video Quality Experts Group (VQEG final report FR-TV II, 2003):
    values are first mapped by a logistic fitted to the opinions. Resamples keep its midpoint and
    slope and fit its two ends anew.

    Args:
        values: N values of a metric, finite.
        opinions: N opinion scores, finite. Turn both so that they should rise together.
        scenes: N labels; pairs of equal label are resampled together. None: each alone.
        samples: Resamples.
        seed: Decides them.
        level: Of the intervals, in (0, 1).

    Returns:
        The figures; correlations are NaN where values or opinions are all equal.

    Raises:
        ValueError: For unequal lengths, fewer than :data:`FEWEST` pairs, or values not finite.
        ImportError: If SciPy is not installed.

    Example:
        >>> from relqa_loss.evaluation.statistics import agreement
        >>> result = agreement([1, 2, 3, 4, 6, 5], [10, 20, 30, 40, 50, 60])
        >>> round(result.srcc.value, 3), round(result.krcc.value, 3)
        (0.943, 0.867)
    """
    x, y = _vectors(values, opinions)
    weights, units = _weights(len(x), scenes, samples, seed)
    logistic = fit_logistic(x, y)
    mapped = logistic(x)
    plcc = _pearson(mapped, y, weights)
    # With its ends fitted anew, the mapping leaves the variance that is not explained.
    rmse = np.sqrt(np.maximum(_variance(y, weights) * (1 - np.nan_to_num(plcc) ** 2), 0))
    rmse[0] = math.sqrt(float(np.mean((mapped - y) ** 2)))
    return Agreement(
        count=len(x),
        srcc=_figure(_spearman(x, y, weights), level, units),
        krcc=_figure(_kendall(x, y, weights), level, units),
        plcc=_figure(plcc, level, units),
        rmse=_figure(rmse, level, units),
        logistic=logistic,
    )


def srcc(values: ArrayLike, opinions: ArrayLike) -> float:
    """Spearman's rank correlation, ties by their mean rank; NaN if one side is constant.

    Args:
        values: N finite numbers.
        opinions: N finite numbers.

    Raises:
        ValueError: As :func:`agreement`.

    Example:
        >>> from relqa_loss.evaluation.statistics import srcc
        >>> srcc([1, 2, 3, 4, 5], [1, 4, 9, 16, 25])
        1.0
    """
    x, y = _vectors(values, opinions)
    return round(float(_spearman(x, y, np.ones((len(x), 1)))[0]), 12)


def two_alternative(
    first: ArrayLike,
    second: ArrayLike,
    preference: ArrayLike,
    *,
    scenes: Sequence[object] | None = None,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """2AFC: the share of votes that agree with a distance, averaged over comparisons.

    As Zhang et al., CVPR 2018: the votes for the image that the distance calls closer; half a
    vote each where the distances are equal. 0.5 is chance, and below 1 even for people, as they
    disagree.

    Args:
        first: N distances of the first image from the reference.
        second: N distances of the second.
        preference: N shares of the votes for the second, in [0, 1].
        scenes: As for :func:`agreement`, and so are the other arguments.
        samples: Resamples.
        seed: Decides them.
        level: Of the interval.

    Raises:
        ValueError: For unequal lengths, no comparisons, values not finite, or a preference
            outside [0, 1].
        ImportError: If SciPy is not installed.

    Example:
        >>> from relqa_loss.evaluation.statistics import two_alternative
        >>> two_alternative([0.1, 0.4], [0.2, 0.3], [0.0, 0.8]).value
        0.9
    """
    a, b = _vectors(first, second, fewest=1)
    _, votes = _vectors(a, preference, fewest=1)
    if votes.min() < 0 or votes.max() > 1:
        raise ValueError(f"preferences must be in [0, 1], got {votes.min():g} to {votes.max():g}")
    right = np.where(a < b, 1 - votes, np.where(a > b, votes, 0.5))
    weights, units = _weights(len(a), scenes, samples, seed)
    return _figure(right @ weights / weights.sum(0), level, units)


def compare(
    values: ArrayLike,
    others: ArrayLike,
    opinions: ArrayLike,
    *,
    scenes: Sequence[object] | None = None,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Whether two metrics differ in their Spearman correlation with the same opinions.

    Args:
        values: N values of one metric.
        others: N values of the other.
        opinions: N opinion scores. Turn all three so that they should rise together.
        scenes: As for :func:`agreement`, and so are the other arguments.
        samples: Resamples, the same for both metrics.
        seed: Decides them.
        level: Of the interval.

    Returns:
        The difference; NaN throughout where one of the three is constant.

    Raises:
        ValueError: As :func:`agreement`.
        ImportError: If SciPy is not installed.
    """
    x, y = _vectors(values, opinions)
    z, _ = _vectors(others, opinions)
    weights, units = _weights(len(x), scenes, samples, seed)
    gaps = _spearman(x, y, weights) - _spearman(z, y, weights)
    drawn = gaps[1:][np.isfinite(gaps[1:])]
    # One is added to each count: a bootstrap of 1000 cannot show a chance below 1 in 1000.
    below, above = 1 + np.sum(drawn <= 0), 1 + np.sum(drawn >= 0)
    tail = min(0.5, float(min(below, above)) / (len(drawn) + 1))
    p = math.nan if math.isnan(gaps[0]) else 2 * _sample_tail(tail, units)
    return Difference(
        _figure(gaps, level, units), p, williams(srcc(x, y), srcc(z, y), srcc(x, z), len(x))
    )


def williams(first: float, second: float, between: float, count: int) -> float:
    """p of Williams' test that two correlations with one variable are equal, two-sided.

    Source: Steiger, "Tests for comparing elements of a correlation matrix", Psychological
    Bulletin 87 (1980), doi:10.1037/0033-2909.87.2.245, equation 7. Made for Pearson's
    correlation; with Spearman's it is an approximation.

    Args:
        first: Correlation of one metric with the opinions.
        second: Correlation of the other.
        between: Correlation of the two metrics.
        count: Pairs, at least 4.

    Returns:
        p in [0, 1]; 1 for metrics that are the same but for a monotone map; NaN if a
        correlation is.

    Raises:
        ValueError: For a correlation outside [−1, 1] or fewer than 4 pairs.
        ImportError: If SciPy is not installed.

    Example:
        >>> from relqa_loss.evaluation.statistics import williams
        >>> round(williams(0.4, 0.5, 0.1, 103), 3)
        0.375
    """
    special = _special()
    if count < 4:
        raise ValueError(f"Williams' test needs at least 4 pairs, got {count}")
    for r in (first, second, between):
        if abs(r) > 1 + 1e-9:
            raise ValueError(f"a correlation must be in [−1, 1], got {r}")
    if math.isnan(first + second + between):
        return math.nan
    if first == second:
        return 1.0
    volume = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    mean = (first + second) / 2
    spread = 2 * (count - 1) / (count - 3) * max(volume, 0.0) + mean**2 * (1 - between) ** 3
    if spread <= 0:
        return 0.0
    t = (first - second) * math.sqrt((count - 1) * (1 + between) / spread)
    return float(2 * special.stdtr(count - 3, -abs(t)))


def numbered(labels: Sequence[object]) -> NDArray[np.intp]:
    """A number for each label, equal for equal ones, from 0 in the order in which they come."""
    # Tensors and arrays give new objects at every look, and tensors and NaN equal no other.
    plain = list(labels.tolist() if hasattr(labels, "tolist") else labels)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(plain))}
    return np.array([numbers[label] for label in plain], np.intp)


def _vectors(first: ArrayLike, second: ArrayLike, fewest: int = FEWEST) -> tuple[Array, Array]:
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected two vectors of one length, got shapes {x.shape} and {y.shape}")
    if len(x) < fewest:
        raise ValueError(f"expected at least {fewest} pairs, got {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("values must be finite; leave pairs with NaN or infinity out")
    return x, y


def _weights(
    count: int, scenes: Sequence[object] | None, samples: int, seed: int
) -> tuple[Array, int]:
    """N×(1+samples) multiplicities, the first column of which is the sample itself; and of how
    many units, scenes or pairs, it is resampled."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if scenes is None:
        members: NDArray[Any] = np.arange(count)
    else:
        if len(scenes) != count:
            raise ValueError(f"expected {count} scenes, got {len(scenes)}")
        members = numbered(scenes)
    units = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, units, (samples, units))
    counts = np.stack([np.bincount(row, minlength=units) for row in drawn], axis=1)
    weights = np.concatenate([np.ones((count, 1)), counts[members]], axis=1).astype(np.float64)
    return weights, units


def _figure(values: Array, level: float, units: int) -> Figure:
    """The first value, with an interval from the others, resamples of so many ``units``."""
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    tail = _resample_tail((1 - level) / 2, units)
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
    return Figure(float(values[0]), float(low), float(high))


def _resample_tail(tail: float, units: int) -> float:
    """The share of resamples that lies as far out as ``tail`` of the samples."""
    special = _special()
    if units == 1:  # which says nothing of others; all of its resamples are the same
        return 0.0
    farther = special.stdtrit(units - 1, tail) * math.sqrt(units / (units - 1))
    return float(special.ndtr(farther))


def _sample_tail(tail: float, units: int) -> float:
    """The inverse of :func:`_resample_tail`."""
    special = _special()
    if units == 1:
        return 0.5
    nearer = special.ndtri(tail) * math.sqrt((units - 1) / units)
    return float(special.stdtr(units - 1, nearer))


def _special() -> Any:
    return scipy_module("special", "intervals and tests need")


def _ties(x: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Sorting order, first place of each run of equal values, run of each original place."""
    order = np.argsort(x, kind="stable")
    fresh = np.concatenate([[True], np.diff(x[order]) != 0])
    runs = np.empty(len(x), np.intp)
    runs[order] = np.cumsum(fresh) - 1
    return order, np.flatnonzero(fresh), runs


def _ranks(x: Array, weights: Array) -> Array:
    """N×B mean ranks within each resample."""
    order, starts, runs = _ties(x)
    sizes = np.add.reduceat(weights[order], starts, axis=0)
    ranks: Array = (np.cumsum(sizes, axis=0) - (sizes - 1) / 2)[runs]
    return ranks


def _spearman(x: Array, y: Array, weights: Array) -> Array:
    return _pearson(_ranks(x, weights), _ranks(y, weights), weights)


def _pearson(x: Array, y: Array, weights: Array) -> Array:
    """Weighted correlation of each column; x and y are N or N×B."""
    x, y = (v[:, None] if v.ndim == 1 else v for v in (x, y))
    total = weights.sum(0)
    dx = x - (weights * x).sum(0) / total
    dy = y - (weights * y).sum(0) / total
    power = (weights * dx * dx).sum(0) * (weights * dy * dy).sum(0)
    size = np.sqrt(power)
    # Relative to the values' size: a constant leaves rounding behind, not exactly nothing.
    floor = 1e-12 * np.sqrt((weights * x * x).sum(0) * (weights * y * y).sum(0)) + 1e-300
    covariance = (weights * dx * dy).sum(0)
    result: Array = np.where(size > floor, covariance / np.maximum(size, floor), np.nan)
    return np.clip(result, -1, 1)


def _variance(y: Array, weights: Array) -> Array:
    total = weights.sum(0)
    mean = (weights * y[:, None]).sum(0) / total
    result: Array = (weights * (y[:, None] - mean) ** 2).sum(0) / total
    return result


def _kendall(x: Array, y: Array, weights: Array) -> Array:
    """Tau-b of each resample: the sign matrix is the same for all, multiplicities weigh it."""
    # Single precision: entries are −1, 0 and 1, and sums stay far below 2²⁴.
    light = weights.astype(np.float32)
    balance = np.zeros(weights.shape[1])
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        signs = np.sign(x[rows, None] - x) * np.sign(y[rows, None] - y)
        balance += (weights[rows] * (signs.astype(np.float32) @ light)).sum(0)
    total = weights.sum(0)
    pairs = total * (total - 1) / 2
    untied = []
    for v in (x, y):
        order, starts, _ = _ties(v)
        sizes = np.add.reduceat(weights[order], starts, axis=0)
        untied.append(pairs - (sizes * (sizes - 1) / 2).sum(0))
    size = np.sqrt(untied[0] * untied[1])
    return np.where(size > 0, balance / 2 / np.maximum(size, 1e-300), np.nan)
