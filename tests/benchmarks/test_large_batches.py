"""The benchmark of large batches measures both ways of them, and says which is which."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from relqa_loss import _parts

ROOT = Path(__file__).resolve().parents[2]


def test_both_ways_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "PIXELS", _parts.PIXELS)  # put back afterwards
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import batches

    monkeypatch.setattr(batches, "AS_IT_IS", 32**2)
    kept: list[int] = []

    def step(preds: Tensor, target: Tensor) -> None:
        def mebibyte(image: Tensor) -> Tensor:
            kept.append(len(image))
            return torch.zeros(len(image), 2**18).sum(1) + image.sum((1, 2, 3))

        _parts.in_parts(mebibyte, preds, maps=False)

    ratio, memory, *_ = batches.measure(step, count=8, size=32, repeats=3)
    assert sorted({*kept}) == [1, 8]
    assert kept.count(8) == 4
    assert kept.count(1) == 4 * 8
    assert float(str(ratio)) > 0
    assert float(str(memory)) > 4  # at once, eight of them are held


def test_tiles_are_measured_on_as_many_threads_as_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tiling

    before = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["x", "--sides", "64", "--tile", "64"])
    try:
        torch.set_num_threads(2)  # as torch has it on a machine with two cores
        tiling.main()
    finally:
        torch.set_num_threads(before)
    assert ", 1 threads;" in capsys.readouterr().out
