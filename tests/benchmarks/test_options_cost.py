"""What options cost is measured of losses that are what their rows say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import options_cost  # noqa: E402


def test_each_row_is_another_loss() -> None:
    preds, target = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    field = options_cost.field("relqa-nano", torch.device("cpu"))
    values = {each.name: float(each.loss(preds, target)) for each in field}
    plain = values.pop(options_cost.OURS)
    # What is worked out in another way is the same.
    assert values.pop("of a reference encoded before") == pytest.approx(plain)
    assert values.pop("with `weight`, a mask") == pytest.approx(plain, rel=1e-4)
    assert values.pop("the same, `detach_maps=False`") == values["`SpatialMapWeightedLoss`"]
    found = [plain, *values.values()]
    assert len({round(value, 6) for value in found}) == len(found) == 7


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "options_cost.md"
    assert options_cost.main(["--sizes", "48", "--repeats", "1", "--out", str(page)]) == 0
    text = capsys.readouterr().out
    assert text == page.read_text("utf-8")
    assert text.count("\n| ") == 12  # ten losses, and two lines of head
    assert "| RelationalLoss | 1.00 | 1.00 |" in text
