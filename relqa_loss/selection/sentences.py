"""Wording of decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from relqa_loss.selection.statistics import Interval


def mean_of(metric: str, mean: float) -> str:
    """Such as "mean distance 0.0123"."""
    return f"mean {metric} {mean:.4g}"


def count_images(count: int) -> str:
    """Such as "48 images"."""
    return f"{count} image" if count == 1 else f"{count} images"


def compare(other: str, gain: Interval, confidence: float, count: int) -> str:
    """How a checkpoint stands to another one.

    Args:
        other: Name of the other.
        gain: Positive where the checkpoint is the better one, whichever way the metric runs.
        confidence: Of the interval.
        count: Number of images.

    Returns:
        Such as "better than step 900 by 0.0004 [0.0002, 0.0006] (95%, 48 images)". The interval
        is that of the difference as worded: of a checkpoint that is worse, by how much worse.
    """
    mean, low, high = gain
    if mean == 0:
        return f"a tie with {other} ({count_images(count)})"
    word = "better" if mean > 0 else "worse"
    if mean < 0:
        mean, low, high = -mean, -high, -low
    if not math.isfinite(low):
        return f"{word} than {other} by {mean:.2g} ({count_images(count)}: noise unknown)"
    sentence = (
        f"{word} than {other} by {mean:.2g} [{low:.2g}, {high:.2g}] "
        f"({100 * confidence:g}%, {count_images(count)})"
    )
    return f"{sentence}, within the noise" if gain.covers_zero else sentence


def not_finite(values: Sequence[float], images: Sequence[str] | int) -> str | None:
    """Which scores rule a checkpoint out, or ``None`` if all are finite."""
    bad = [index for index, value in enumerate(values) if not math.isfinite(value)]
    if not bad:
        return None
    first = f"image {bad[0]}" if isinstance(images, int) else f"image {images[bad[0]]!r}"
    return (
        f"{len(bad)} of {len(values)} scores are not finite (first: {first} has {values[bad[0]]})"
    )
