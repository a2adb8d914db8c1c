"""The long speed benchmark: its cells, its fit, its tables. Nothing here depends on speed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("piq")
pytest.importorskip("torchvision")


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speed_matrix

    return speed_matrix


def test_a_line_is_found_again(matrix) -> None:  # type: ignore[no-untyped-def]
    offset, slope, fit = matrix.line([(x, 3.0 + 20.0 * x) for x in (0.1, 0.5, 2.0, 8.0)])
    assert (offset, slope, fit) == pytest.approx((3.0, 20.0, 1.0))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_images_are_as_the_cell_says(matrix, layout: str) -> None:  # type: ignore[no-untyped-def]
    cell = matrix.Cell(32, 2, layout=layout)
    preds, target = matrix.images(cell, torch.device("cpu"))
    wanted = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert preds.shape == target.shape == (2, 3, 32, 32)
    assert preds.is_contiguous(memory_format=wanted)
    assert preds.requires_grad
    assert preds.is_leaf
    assert not target.requires_grad
    assert cell.plain == (layout == "contiguous")


def test_precision_reaches_the_loss(matrix) -> None:  # type: ignore[no-untyped-def]
    seen = []

    def loss(preds, target):  # type: ignore[no-untyped-def]
        seen.append((preds @ target).dtype)
        return preds.sum()

    contender = matrix.Contender("any", loss, 0)
    for precision in ("float32", "bf16"):
        cell = matrix.Cell(32, 1, precision)
        matrix.prepared(contender, cell, torch.device("cpu")).loss(*torch.rand(2, 3, 32, 32))
    assert seen == [torch.float32, torch.bfloat16]


def test_a_contender_that_fails_is_named_and_left_out(matrix) -> None:  # type: ignore[no-untyped-def]
    def fails(preds, target):  # type: ignore[no-untyped-def]
        raise ValueError("too small\nfor this")

    field = [
        matrix.Contender(matrix.OURS, torch.nn.L1Loss(), 0),
        matrix.Contender("other", fails, 0),
    ]
    cell = matrix.Cell(32, 1)
    results = {cell: matrix.measure(field, cell, torch.device("cpu"), 0.01)}
    assert results[cell]["other"] == "too small"
    page = matrix.ratio_tables(results, [matrix.OURS, "other"])
    assert "| other | – |" in page
    assert "1.00 / 1.00" in page


@pytest.mark.slow
def test_everything_is_written(matrix, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    paths = {name: tmp_path / name for name in ("page.md", "cells.csv", "picture.png")}
    options = "--sizes 32 48 --batches 1 --layouts contiguous channels_last --seconds 0.01"
    given = [*options.split(), "--out", str(paths["page.md"]), "--csv", str(paths["cells.csv"])]
    assert matrix.main([*given, "--plot", str(paths["picture.png"]), "--further"]) == 0
    page = paths["page.md"].read_text("utf-8")
    assert page == capsys.readouterr().out
    for name in ("RelationalLoss", "piq GMSD", "torchmetrics SSIM", "LPIPS-Squeeze architecture"):
        assert f"| {name} |" in page
    with paths["cells.csv"].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["size"], row["batch"], row["layout"]) for row in rows} == {
        (size, "1", layout) for size in ("32", "48") for layout in ("contiguous", "channels_last")
    }
    ours = [row for row in rows if row["loss"] == "RelationalLoss"]
    assert len(ours) == 4
    assert all(0 < float(row["low"]) <= float(row["both"]) <= float(row["high"]) for row in ours)
    assert paths["picture.png"].read_bytes().startswith(b"\x89PNG")


def test_figures_without_a_plain_call_are_written(  # type: ignore[no-untyped-def]
    matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = [matrix.Contender(matrix.OURS, torch.nn.L1Loss(), 0)]
    monkeypatch.setattr(matrix, "contenders", lambda *_: field)
    page = tmp_path / "page.md"
    options = "--sizes 32 --batches 1 --precisions bf16 --seconds 0.01"
    assert matrix.main([*options.split(), "--out", str(page)]) == 0
    assert "| 32² × 1, bf16, eager, contiguous |" in page.read_text("utf-8")


@pytest.mark.parametrize("option", ["--modes", "--precisions", "--layouts"])
def test_what_cannot_be_measured_is_refused(matrix, option: str, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        matrix.main(["--sizes", "32", "--batches", "1", "--seconds", "0", option, "other"])
    assert "invalid choice: 'other'" in capsys.readouterr().err
