"""The benchmark of what selection costs: its arithmetic, and that it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import selection_cost as benchmark  # noqa: E402


def test_the_least_call_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = 0.0, iter([1.0, 5.0, 3.0, 4.0])

    def call() -> None:
        nonlocal now
        now += next(took)

    monkeypatch.setattr(benchmark.time, "process_time", lambda: now)
    assert benchmark.seconds(call, 3) == 3.0


def test_share_is_of_the_whole() -> None:
    assert benchmark.share(1.0, 19.0) == pytest.approx(0.05)


def test_multiply_adds_are_per_pixel_of_the_image() -> None:
    image = torch.rand(3, 8, 8)
    assert benchmark.multiply_adds(nn.Conv2d(3, 5, 3, padding=1), image) == 3 * 5 * 9
    halved = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 8, 1))
    assert benchmark.multiply_adds(halved, image) == 3 * 8 // 4


def test_it_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads, out = torch.get_num_threads(), tmp_path / "cost.md"
    monkeypatch.setattr(
        sys, "argv", ["selection_cost.py", "--size", "32", "--images", "3", "--repeats", "1",
                      "--networks", "1", "--out", str(out)]
    )  # fmt: skip
    try:
        benchmark.main()
    finally:
        torch.set_num_threads(threads)
    assert out.read_text("utf-8") == capsys.readouterr().out
    row = next(line for line in out.read_text("utf-8").splitlines() if "denoiser" in line)
    shares = [float(cell.strip().rstrip("%")) for cell in row.split("|")[-3:-1]]
    assert all(0 < share < 100 for share in shares)
