"""Figures of several metrics on one data set, as a record for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relqa_loss.evaluation.datasets.records import OpinionDataset
from relqa_loss.evaluation.measure import Measured
from relqa_loss.evaluation.statistics import FEWEST, agreement, compare, srcc, two_alternative

Array = NDArray[np.float64]

FEWEST_SCENES = 5
"""References without which pairs are resampled one by one."""


def summarise(
    dataset: OpinionDataset,
    rows: Sequence[Measured],
    directions: Mapping[str, bool | None],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is said about the metrics.

    Values and opinions are turned so that high is good. Where a metric's direction is not known
    it is the one that fits the whole data set, and by type it stays so: a metric that is wrong
    about one distortion gets a negative correlation there.

    Args:
        dataset: The opinions.
        rows: Of the same data set; those with an error are left out.
        directions: Metric → whether a high value is good, None if that is not known.
        samples: Resamples of the intervals.
        seed: Decides them.

    Returns:
        ``kind``, ``scale``, ``higher_is_better``, ``count``, ``resampled`` (``"scenes"`` or
        ``"pairs"``), ``excluded`` (image and error), ``metrics`` (``higher_is_better``,
        ``direction_known``, ``overall``, ``by_type``, the last two with a ``resampled`` of their
        own) and ``differences`` (pairs of metrics).

    Raises:
        ValueError: If too few rows are left.
        ImportError: If SciPy is not installed.
    """
    good = [row for row in rows if not row.error]
    fewest = 1 if dataset.comparisons else FEWEST
    if len(good) < fewest:
        raise ValueError(
            f"{len(good)} of {len(rows)} images could be judged; figures need at least {fewest}"
        )
    scenes = [str(row.item.reference) for row in good]
    by_scene = len(set(scenes)) >= FEWEST_SCENES
    options: dict[str, Any] = {"samples": samples, "seed": seed}
    figures = _Figures(dataset, good, scenes if by_scene else None, options)
    oriented = {spec: figures.orient(spec, known) for spec, known in directions.items()}
    record = {
        "kind": dataset.kind,
        "path": str(dataset.root),
        "scale": dataset.scale,
        "higher_is_better": dataset.higher_is_better,
        "count": len(good),
        "resampled": "scenes" if by_scene else "pairs",
        "samples": samples,
        "seed": seed,
        "excluded": [
            {"image": str(row.item.images[0]), "error": row.error} for row in rows if row.error
        ],
        "metrics": {
            spec: {
                "higher_is_better": higher,
                "direction_known": directions[spec] is not None,
                "overall": figures.of(values, None),
                "by_type": {
                    name: figures.of(values, rows_of)
                    for name, rows_of in figures.types().items()
                    if len(rows_of) >= fewest
                },
            }
            for spec, (higher, values) in oriented.items()
        },
        "differences": []
        if dataset.comparisons
        else [
            {"first": one, "second": two, **figures.difference(oriented[one][1], oriented[two][1])}
            for one, two in combinations(oriented, 2)
        ],
    }
    cleaned: dict[str, Any] = _without_nan(record)
    return cleaned


class _Figures:
    """Rows as vectors."""

    def __init__(
        self,
        dataset: OpinionDataset,
        rows: Sequence[Measured],
        scenes: list[str] | None,
        options: dict[str, Any],
    ) -> None:
        self.rows, self.scenes, self.options = rows, scenes, options
        self.compared = bool(dataset.comparisons)
        opinions = np.array([row.item.opinion for row in rows])
        self.opinions = opinions if dataset.higher_is_better else -opinions

    def orient(self, spec: str, known: bool | None) -> tuple[bool, Array]:
        """Direction, and N×images values of which high is good."""
        values = np.array([row.values[spec] for row in self.rows])
        if known is None and self.compared:
            share = two_alternative(-values[:, 0], -values[:, 1], self.opinions, samples=1).value
            known = share >= 0.5
        elif known is None:
            known = not srcc(values[:, 0], self.opinions) < 0
        return known, values if known else -values

    def types(self) -> dict[str, list[int]]:
        """Type → rows; none if there is but one."""
        found: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            found.setdefault(row.item.type, []).append(index)
        return dict(sorted(found.items())) if len(found) > 1 else {}

    def of(self, values: Array, rows: list[int] | None) -> dict[str, Any]:
        """Figures over all or some rows."""
        index = np.arange(len(self.rows)) if rows is None else np.array(rows)
        scenes = None if self.scenes is None else [self.scenes[k] for k in index]
        if scenes is not None and len(set(scenes)) < FEWEST_SCENES:
            scenes = None
        resampled = "pairs" if scenes is None else "scenes"
        part, opinions = values[index], self.opinions[index]
        if self.compared:
            # Quality to distance: the closer image has the higher value.
            figure = two_alternative(
                -part[:, 0], -part[:, 1], opinions, scenes=scenes, **self.options
            )
            return {"count": len(index), "resampled": resampled, "two_afc": asdict(figure)}
        found = agreement(part[:, 0], opinions, scenes=scenes, **self.options)
        return {"resampled": resampled, **asdict(found)}

    def difference(self, one: Array, two: Array) -> dict[str, Any]:
        """See :func:`~relqa_loss.evaluation.statistics.compare`."""
        found = compare(one[:, 0], two[:, 0], self.opinions, scenes=self.scenes, **self.options)
        return asdict(found)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
