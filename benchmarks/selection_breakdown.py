"""Where each criterion of ``selection.py`` loses: regret by trouble and by task, and a ceiling.

    python benchmarks/selection_breakdown.py --json runs/selection.json [--folder runs/selection]

Reads what ``selection.py --json`` wrote and the judges' values that it kept. Judged on the images
that the choice was not made on. "the judges themselves" choose by their consensus on the images
that the criteria saw: what a criterion that is the judges would lose on others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import show, table
from _selection_runs import Run
from selection import CRITERIA, Values, consensus, interval, relative_regret, shown

CEILING = "the judges themselves"
SHOWN = (*CRITERIA[:-1], CEILING)
Judged = dict[str, Values]


def kept_values(folder: Path, run: Run) -> dict[str, Judged]:
    """The judges' values of a run, by part."""
    found = sorted(folder.glob(f"{run.name}-*x*.json"))
    if len(found) != 1:
        raise SystemExit(f"{folder} must hold one file of judges' values of {run.name}: {found}")
    content = json.loads(found[0].read_text("utf-8"))
    return {
        part: {judge: np.array(values) for judge, values in each.items()}
        for part, each in content.items()
    }


def regrets(choices: Sequence[int], judged: dict[str, Judged]) -> list[float]:
    """On the other images, of each criterion's choice and of the judges' own."""
    own = consensus(judged["selected on"])
    return [relative_regret(judged["other"], chosen) for chosen in (*choices, own)]


def grouped(labels: Sequence[str], values: Values) -> list[list[object]]:
    """A row per label, in order of appearance: how many runs, mean regret of each criterion."""
    found: list[list[object]] = []
    for label in dict.fromkeys(labels):
        among = values[[each == label for each in labels]]
        found.append([label, len(among), *(float(interval(column)[0]) for column in among.T)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/selection"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    listed = json.loads(arguments.json.read_text("utf-8"))["runs"]
    losses = np.array(
        [regrets(row[6:], kept_values(arguments.folder, Run(*row[:4]))) for row in listed]
    )
    tables = [
        table((title, "runs", *SHOWN), grouped([row[column] for row in listed], losses))
        for title, column in (("trouble", 1), ("task", 0), ("trained with", 2))
    ]
    overall = [[name, shown(column)] for name, column in zip(SHOWN, losses.T, strict=True)]
    report = "\n\n".join([table(("criterion", "regret"), overall), *tables])
    show(report, arguments.out)


if __name__ == "__main__":
    main()
