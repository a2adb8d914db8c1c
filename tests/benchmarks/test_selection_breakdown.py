"""The breakdown of the benchmark of selection, from files as that benchmark writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import selection_breakdown as benchmark  # noqa: E402
from _selection_runs import Run  # noqa: E402

SAME = {"vif": [[0.3], [0.1], [0.2]], "dss": [[0.3], [0.1], [0.2]]}  # 1 is best
OTHER = {"vif": [[0.0], [0.5], [1.0]], "dss": [[0.0], [0.1], [0.2]]}  # 0 is best
RUNS = [Run("denoise", "none", "l1", 1), Run("deblur", "none", "l2", 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run in RUNS:
        content = json.dumps({"selected on": SAME, "other": OTHER})
        (tmp_path / f"{run.name}-60-8x128.json").write_text(content, "utf-8")
    return tmp_path


def test_regret_is_on_the_other_images_and_the_judges_choose_on_the_same(folder: Path) -> None:
    judged = benchmark.kept_values(folder, RUNS[0])
    assert benchmark.regrets([0, 2], judged) == pytest.approx([0.0, 1.0, 0.5])


def test_groups_are_means_of_their_runs() -> None:
    values = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    rows = benchmark.grouped(["b", "a", "b"], values)
    assert rows == [["b", 2, 0.5, 0.5], ["a", 1, 0.5, 0.5]]


def test_missing_and_ambiguous_values_are_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match="one file of judges' values of enlarge-none-l1-1"):
        benchmark.kept_values(folder, Run("enlarge", "none", "l1", 1))
    (folder / f"{RUNS[0].name}-90-8x128.json").write_text("{}", "utf-8")
    with pytest.raises(SystemExit, match="one file"):
        benchmark.kept_values(folder, RUNS[0])


def test_it_reports(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[run.task, run.trouble, run.loss, run.seed, 1, 0, 0, 2, 2, 2, 2, 1] for run in RUNS]
    (folder / "figures.json").write_text(json.dumps({"runs": rows}), "utf-8")
    given = ["x", "--json", str(folder / "figures.json"), "--folder", str(folder)]
    monkeypatch.setattr(sys, "argv", given)
    benchmark.main()
    printed = capsys.readouterr().out
    assert "| none | 2 | 0.000 | 1.000 | 1.000 | 1.000 | 1.000 | 0.500 | 0.500 |" in printed
    assert "| ours, best | 0.000 [0.000, 0.000] |" in printed
