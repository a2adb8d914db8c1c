"""How sure a difference between two checkpoints is, from the images that both were scored on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from relqa_loss._numbers import whole_number

# Resamples are drawn in blocks of about this many indices, so that memory stays bounded.
_BLOCK = 1_000_000


class Interval(NamedTuple):
    """A mean difference and its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        """Whether the difference may as well be nothing, or the other way round."""
        return self.low <= 0 <= self.high


def paired_interval(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean of ``first − second`` over the same images.

    Images are resampled, not scores: how hard an image is cancels, so that far smaller
    differences show than between two means with their own intervals. The generator is the
    function's own, so the result depends on the arguments alone. With few images (below about
    ten) bootstrap intervals are too narrow.

    Args:
        first: One finite number per image.
        second: The same for the other checkpoint, in the same order.
        confidence: Level, between 0 and 1.
        resamples: How many, at least 1.
        seed: Of the resamples.

    Returns:
        Mean, low and high end. One image says nothing about noise: its interval is unbounded.

    Raises:
        TypeError: For a number of resamples or a seed that is no integer.
        ValueError: For no images, different lengths, non-finite numbers or unknown options.

    Example:
        >>> from relqa_loss.selection.statistics import paired_interval
        >>> paired_interval([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
        Interval(mean=0.25, low=0.25, high=0.25)
        >>> paired_interval([0.5], [0.25])
        Interval(mean=0.25, low=-inf, high=inf)
    """
    check_options(confidence, resamples, seed)
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if left.ndim != 1 or left.shape != right.shape or not left.size:
        raise ValueError(
            "paired scores must be two lists of one number per image, of the same images; got "
            f"shapes {left.shape} and {right.shape}"
        )
    difference = left - right
    if not np.isfinite(difference).all():
        raise ValueError("paired scores must be finite; leave out checkpoints with NaN scores")
    count = len(difference)
    mean = math.fsum(difference) / count
    if count == 1:
        return Interval(mean, -math.inf, math.inf)
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // count)
    means = np.concatenate(
        [
            difference[generator.integers(count, size=(min(rows, resamples - start), count))].mean(
                1
            )
            for start in range(0, resamples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(mean, float(low), float(high))


def check_options(confidence: float, resamples: int, seed: int = 0) -> None:
    """Refuse options that :func:`paired_interval` cannot work with.

    Raises:
        TypeError: For a number of resamples or a seed that is no integer.
        ValueError: For a confidence outside (0, 1), fewer than one resample, or a negative seed.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95; got {confidence}")
    if whole_number("resamples", resamples) < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if whole_number("seed", seed) < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
