"""Are values of different photographs comparable?

A metric that orders versions of one photograph well may still call every picture of a forest worse
than any of a sky. Pairs of images with different scenes tell, ordered by judges that agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relqa_loss.evaluation.statistics import Figure, numbered

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairTable:
    """Pairs of images of different scenes on whose order all judges agree."""

    order: NDArray[np.int8]
    """N×N: 1 where the row's image is worse than the column's, −1 where it is better, else 0."""
    asked: int
    """Pairs before the judges were heard."""
    scenes: NDArray[np.intp]
    """N: number of each image's scene."""

    @property
    def count(self) -> int:
        """Pairs that are left."""
        return int(np.count_nonzero(self.order)) // 2


def pair_table(
    judged: ArrayLike,
    scenes: Sequence[object],
    kinds: Sequence[object],
    *,
    same_kind: bool,
) -> PairTable:
    """Choose the pairs.

    Args:
        judged: N×J badness of N images under J judges, finite.
        scenes: N labels of photographs.
        kinds: N labels of what was done to them.
        same_kind: Pairs of equal kind if True, of different kinds if False.

    Raises:
        ValueError: For unequal lengths, no judges or values not finite.

    Example:
        >>> from relqa_loss.evaluation.cross_scene import pair_table
        >>> table = pair_table(
        ...     [[1, 1], [2, 3], [3, 2]], ["a", "b", "c"], ["blur"] * 3, same_kind=True
        ... )
        >>> table.asked, table.count
        (3, 2)
    """
    values = np.asarray(judged, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"expected N×J values of judges, got shape {values.shape}")
    if not len(values) == len(scenes) == len(kinds):
        raise ValueError(
            f"expected as many scenes and kinds as images, got {len(values)} images, "
            f"{len(scenes)} scenes and {len(kinds)} kinds"
        )
    if not np.isfinite(values).all():
        raise ValueError("the judges' values must be finite")
    scene, kind = numbered(scenes), numbered(kinds)
    allowed = (scene[:, None] != scene) & ((kind[:, None] == kind) == same_kind)
    worse = allowed.copy()
    for column in values.T:
        worse &= column[:, None] > column
    order = worse.astype(np.int8) - worse.T.astype(np.int8)
    return PairTable(order, int(np.count_nonzero(allowed)) // 2, scene)


def share_ordered(
    values: ArrayLike,
    table: PairTable,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """Share of the pairs that a metric orders as the judges do; ties count half.

    The interval comes from resampling scenes: pairs that share a photograph are not independent.

    Args:
        values: N values, higher is worse, finite.
        table: See :func:`pair_table`.
        samples: Resamples.
        seed: Decides them.
        level: Of the interval.

    Returns:
        In [0, 1]; 0.5 is chance.

    Raises:
        ValueError: If the number of values does not fit, values are not finite, or no pair is left.

    Example:
        >>> from relqa_loss.evaluation.cross_scene import pair_table, share_ordered
        >>> table = pair_table([[1], [2], [3]], "abc", "xyz", same_kind=False)
        >>> round(share_ordered([0.1, 0.3, 0.2], table, samples=10).value, 3)
        0.667
    """
    x = np.asarray(values, np.float64)
    if x.shape != table.scenes.shape:
        raise ValueError(f"expected {len(table.scenes)} values, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("values must be finite")
    if not table.count:
        raise ValueError("no pair is left on whose order the judges agree")
    rows, columns = np.nonzero(table.order > 0)
    right = np.where(x[rows] > x[columns], 1.0, np.where(x[rows] < x[columns], 0.0, 0.5))
    # Sums for each pair of scenes are all that a resample of scenes needs.
    count = int(table.scenes.max()) + 1
    place = table.scenes[rows] * count + table.scenes[columns]
    won = np.bincount(place, right, count * count).reshape(count, count)
    all_ = np.bincount(place, minlength=count * count).reshape(count, count)
    drawn = np.random.default_rng(seed).integers(0, count, (samples, count))
    often = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
    total = np.einsum("bi,ij,bj->b", often, all_, often)
    shares = np.einsum("bi,ij,bj->b", often, won, often)[total > 0] / total[total > 0]
    low, high = (
        np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
        if len(shares)
        else (float("nan"), float("nan"))
    )
    return Figure(float(won.sum() / all_.sum()), float(low), float(high))
