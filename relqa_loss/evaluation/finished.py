"""What ``relqa evaluate`` left in a folder, read again."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relqa_loss.evaluation.measure import SETTINGS, VALUES

FIGURES = "figures.json"


@dataclass(frozen=True)
class Rated:
    """Values of one metric beside opinions."""

    values: NDArray[np.float64]
    opinions: NDArray[np.float64]
    """On the data set's own scale."""
    scenes: tuple[str, ...]
    """Reference of each image."""
    falling: bool
    """Whether opinions should fall as the metric rises."""
    about: dict[str, Any]
    """``metric``, ``weights`` if it is ours, ``short_side``, ``scale``, ``data`` …"""


def read_evaluation(folder: Path, metric: str = "relqa:distance") -> Rated:
    """Read one metric's values from a finished evaluation.

    Images that could not be judged are left out.

    Args:
        folder: The ``--out`` of ``relqa evaluate``.
        metric: One of those that were evaluated.

    Raises:
        ValueError: If the folder holds no finished evaluation, not of this metric, or one with
            two alternatives instead of scores; or for a damaged line, with file and line.
    """
    figures, settings = (_load(folder, name) for name in (FIGURES, SETTINGS))
    try:
        known = figures["metrics"]
        scale, higher = str(figures["scale"]), bool(figures["higher_is_better"])
        kind = str(figures["kind"])
        direction = {name: bool(entry["higher_is_better"]) for name, entry in known.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / FIGURES}: not of relqa evaluate ({error!r})") from None
    if metric not in direction:
        raise ValueError(f"{folder} has no values of {metric}, only of {', '.join(direction)}")
    if any("two_afc" in entry.get("overall", {}) for entry in known.values()):
        raise ValueError(
            f"{folder} has choices between two images; a calibration needs a score of each image"
        )
    path = folder / VALUES
    if not path.is_file():
        raise ValueError(f"{folder}: has no {VALUES}; finish the evaluation with --resume")
    rows = []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            if row.get("error"):
                continue
            try:
                value, opinion = float(row[metric]), float(row["opinion"])
                if not math.isfinite(value + opinion):
                    raise ValueError("not finite")
                rows.append((value, opinion, row["reference"]))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: damaged ({error})") from None
    about = {
        "metric": metric,
        "data": kind,
        "labels": settings.get("labels"),
        "scale": scale,
        "higher_is_better": higher,
        "short_side": settings.get("short_side"),
        "references": len({reference for *_, reference in rows}),
    }
    if metric.startswith("relqa:"):
        about["weights"] = settings.get("weights")
    return Rated(
        values=np.array([value for value, *_ in rows]),
        opinions=np.array([opinion for _, opinion, _ in rows]),
        scenes=tuple(reference for *_, reference in rows),
        falling=direction[metric] != higher,
        about=about,
    )


def _load(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no {name}: give the --out folder of a finished relqa evaluate"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: damaged (not a JSON object)")
    return record
