"""Figures of several metrics on one data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair
from relqa_loss.evaluation.measure import Measured, items_of
from relqa_loss.evaluation.summary import summarise


def _summary(scenes: int, each: int) -> dict[str, Any]:
    """Of two metrics, one better than the other; images of a scene repeat one another."""
    generator = np.random.default_rng(0)
    opinions = generator.normal(size=12)
    values = {"good": opinions + 0.3 * generator.normal(size=12), "poor": opinions.copy()}
    values["poor"] += 1.5 * generator.normal(size=12)
    pairs = tuple(
        RatedPair(Path(f"{k * scenes // (12 * each)}.png"), Path(f"{k}.png"), opinions[k // each])
        for k in range(12 * each)
    )
    dataset = OpinionDataset("own", Path(), "0 to 1", True, pairs)
    rows = [
        Measured(item, {name: (one[item.number // each],) for name, one in values.items()})
        for item in items_of(dataset)
    ]
    return summarise(dataset, rows, {"good": True, "poor": True}, samples=300)


INTERVALS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "overall": lambda record: record["metrics"]["poor"]["overall"],
    "difference": lambda record: record["differences"][0],
}


@pytest.mark.parametrize("figure", INTERVALS)
def test_images_of_a_scene_count_as_one_wherever_figures_have_an_interval(figure: str) -> None:
    widths = []
    for scenes in (12, 120):  # ten images of each scene, or one
        record = _summary(scenes, each=10)
        assert record["resampled"] == "scenes"
        found = INTERVALS[figure](record)["srcc"]
        widths.append(found["high"] - found["low"])
    assert widths[0] > 2 * widths[1]


def test_one_type_is_no_table_by_type() -> None:
    metrics = _summary(12, each=1)["metrics"]
    assert [one["by_type"] for one in metrics.values()] == [{}, {}]
