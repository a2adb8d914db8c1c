"""What a benchmark found is kept where it was asked for, whether or not the folder is there."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_common")


def test_reports_and_figures_make_their_folder(
    common: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, figures = tmp_path / "a/b/report.md", tmp_path / "c/d/figures.json"
    common.show("# ours, ≥ 3", report)
    common.keep({"AUROC ≥.3": [0.25, 1]}, figures)
    assert report.read_text("utf-8") == capsys.readouterr().out == "# ours, ≥ 3\n"
    assert json.loads(figures.read_text("utf-8")) == {"AUROC ≥.3": [0.25, 1]}
    assert common.in_folder(tmp_path / "e/f/picture.png").parent.is_dir()


def test_nothing_is_written_where_nothing_is_asked_for(
    common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common.show("report", None)
    common.keep({}, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_no_benchmark_loses_its_report_to_a_missing_folder(path: Path) -> None:
    # A report that is written by hand fails after all the measuring.
    assert not re.search(r"\.write_text\(|savefig\((?!in_folder)", path.read_text("utf-8"))


def test_provenance_names_what_was_measured_on(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"a GPU ({device})")
    monkeypatch.setattr(common, "_processor", lambda: "a processor")
    assert "; a processor, " in common.provenance("relqa-base@12345678")
    assert "; a GPU (cuda:1), " in common.provenance("relqa-base@12345678", "cuda:1")
