"""The speed benchmark runs and measures what it says. Nothing here depends on how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scripts import run_script
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_table_and_record(tmp_path: Path) -> None:
    record, page = tmp_path / "speed.json", tmp_path / "speed.md"
    # Multi-scale SSIM takes nothing below 161.
    options = f"--sizes 176 --repeats 2 --threads 1 --json {record} --out {page}".split()
    run = run_script(ROOT / "benchmarks" / "speed.py", *options)
    assert run.returncode == 0, run.stderr
    assert run.stdout == page.read_text("utf-8")
    content = json.loads(record.read_text("utf-8"))
    results = content["results"]["176"]
    assert len(results) == 7
    for name, measured in results.items():
        assert f"| {name} |" in run.stdout
        assert len(measured["milliseconds"]) == 2
        assert min(measured["milliseconds"]) > 0
        assert measured["peak_mib"] > 0
    assert content["threads"] == 1
    assert content["parameters"]["LPIPS-VGG architecture"] > 14e6


def test_peak_memory_counts_what_is_alive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speed

    preds = torch.rand(1, 1, 512, 512, requires_grad=True)  # one MiB
    target = torch.rand(1, 1, 512, 512)

    def keeps(count: int) -> float:
        def loss(image: Tensor, reference: Tensor) -> Tensor:
            kept = [torch.sin(image * float(i + 1)) for i in range(count)]
            return torch.stack([(each - reference).mean() for each in kept]).sum()

        return float(speed.peak_memory(loss, preds, target))

    # Every sine keeps its input for the backward pass, and the list keeps its output.
    assert keeps(20) - keeps(10) == pytest.approx(20, abs=1)


def test_ratios_are_against_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speed

    field = [speed.Contender(name, torch.nn.L1Loss(), 9) for name in (speed.OURS, "other")]
    results = {
        64: {
            speed.OURS: speed.Measured([1.0, 2.0, 4.0], 10.0),
            "other": speed.Measured([3.0, 6.0, 12.0], 5.0),
        }
    }
    rows = [line.split(" | ") for line in speed.report(field, results).splitlines()]
    assert rows[2][2:4] == ["1.00", "1.00"]
    assert rows[3][2:4] == ["3.00", "0.50"]


def test_nobody_always_comes_after_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pytest.importorskip("piq")
    from speed import shuffled

    order = list(shuffled("abcd", 40))
    assert all(sorted(order[start : start + 4]) == list("abcd") for start in range(0, 160, 4))
    before = {name: {order[i - 1] for i in range(1, 160) if order[i] == name} for name in "abcd"}
    assert all(len(found) >= 3 for found in before.values())
    assert order == list(shuffled("abcd", 40))
