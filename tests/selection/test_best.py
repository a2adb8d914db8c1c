"""The checkpoint that a metric prefers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from relqa_loss.selection.best import BestCheckpoint


def state(value: float) -> dict[str, Tensor]:
    return {"w": torch.full((2,), value)}


@pytest.mark.parametrize(("mode", "expected"), [("min", 3), ("max", 1)])
def test_best_in_either_mode(tmp_path: Path, mode: str, expected: int) -> None:
    best = BestCheckpoint(tmp_path / "best.safetensors", mode=mode)  # type: ignore[arg-type]
    for step, value in enumerate((0.5, 0.9, 0.7, 0.1, 0.3)):
        best.update(value, state(step), step=step)
    assert best.step == expected
    assert torch.equal(best.load()["w"], state(expected)["w"])


def test_nan_and_infinity_never_win(tmp_path: Path) -> None:
    for mode in ("min", "max"):
        best = BestCheckpoint(tmp_path / f"{mode}.safetensors", mode=mode)  # type: ignore[arg-type]
        for step, value in enumerate((math.nan, math.inf, -math.inf)):
            assert not best.update(value, state(step), step=step)
        assert best.value is None
        assert not best.path.exists()
        with pytest.raises(FileNotFoundError, match="no checkpoint has been saved yet"):
            best.load()
        assert best.update(1.0, state(3), step=3)
        assert not best.update(math.nan, state(4), step=4)
        assert best.step == 3


@pytest.mark.parametrize("mode", ["min", "max"])
def test_tie_keeps_the_earliest(tmp_path: Path, mode: Literal["min", "max"]) -> None:
    best = BestCheckpoint(tmp_path / "best.safetensors", mode=mode)
    assert best.update(0.5, state(0), step=0)
    assert not best.update(0.5, state(1), step=1)
    assert best.step == 0
    assert torch.equal(best.load()["w"], state(0)["w"])


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = BestCheckpoint(tmp_path / "best.safetensors")
    best.update(0.5, state(0), step=0)

    def fail(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        best.update(0.1, state(1), step=1)
    assert best.value == 0.5
    assert torch.equal(best.load()["w"], state(0)["w"])


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_is_refused_with_what_to_give(tmp_path: Path, resume: bool) -> None:
    with pytest.raises(ValueError, match=r"is a folder; give the file .*best\.safetensors"):
        BestCheckpoint(tmp_path, resume=resume)


def test_existing_file_is_refused_or_resumed(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    BestCheckpoint(path).update(0.5, state(7), step=7)
    with pytest.raises(FileExistsError, match="resume"):
        BestCheckpoint(path)
    resumed = BestCheckpoint(path, resume=True)
    assert (resumed.value, resumed.step) == (0.5, 7)
    assert not resumed.update(0.6, state(8), step=8)
    with pytest.raises(ValueError, match="mode='min'"):
        BestCheckpoint(path, mode="max", resume=True)


def test_a_step_is_any_integer_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    best = BestCheckpoint(path)
    for value, step in ((0.5, np.int64(1)), (0.25, torch.tensor(2))):
        assert best.update(value, state(0), step=step)  # type: ignore[arg-type]
        assert BestCheckpoint(path, resume=True).step == best.step == int(step)
    before = path.read_bytes()
    # Either was written, and resumed as another step or not at all.
    for wrong in (2.5, None):
        with pytest.raises(TypeError, match="integer"):
            best.update(0.1, state(0), step=wrong)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert best.value == 0.25


def test_foreign_files_and_modes_are_refused(tmp_path: Path) -> None:
    save_file(state(0), tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, record in (("half", {"value": 0.5}), ("list", [0.5]), ("word", {"value": "low"})):
        header = {"relqa_best": json.dumps(record)}
        save_file(state(0), tmp_path / f"{name}.safetensors", metadata=header)
    for name in ("other", "text", "half", "list", "word"):
        with pytest.raises(ValueError, match=f"{name}.safetensors was not written"):
            BestCheckpoint(tmp_path / f"{name}.safetensors", resume=True)
    with pytest.raises(ValueError, match="'min' or 'max'"):
        BestCheckpoint(tmp_path / "new.safetensors", mode="lower")  # type: ignore[arg-type]


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    best = BestCheckpoint(path)
    best.update(0.5, state(0), step=0)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"best\.safetensors is damaged"):
        best.load()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, dtype=torch.complex128), "complex128"),
        (torch.eye(2).to_sparse(), "not dense"),
        (torch.eye(2, device="meta"), "no values yet"),
        (nn.LazyLinear(1).weight, "no values yet"),
        ([1.0], "is list, and only tensors"),
    ],
)
def test_what_the_format_cannot_hold_is_named(tmp_path: Path, tensor: Any, message: str) -> None:
    best = BestCheckpoint(tmp_path / "best.safetensors")
    with pytest.raises(TypeError, match=rf"state\['odd'\] .*{message}"):
        best.update(0.5, {**state(0), "odd": tensor}, step=0)
    assert best.value is None
    assert not best.path.exists()


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    weights = torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last)
    best = BestCheckpoint(tmp_path / "best.safetensors")
    best.update(0.5, {"w": weights}, step=0)
    assert torch.equal(best.load()["w"], weights)


def test_tied_weights_are_saved_and_the_folder_is_made_at_once(tmp_path: Path) -> None:
    weights = torch.rand(3, 2)
    best = BestCheckpoint(tmp_path / "runs" / "first" / "best.safetensors")
    assert best.path.parent.is_dir()
    best.update(0.5, {"a": weights, "b": weights, "turned": weights.T}, step=0)
    loaded = best.load()
    assert torch.equal(loaded["a"], weights)
    assert torch.equal(loaded["b"], weights)
    assert torch.equal(loaded["turned"], weights.T)
    assert [path.name for path in best.path.parent.iterdir()] == [best.path.name]
    with pytest.raises(TypeError, match=r"state\['extra'\] is int"):
        best.update(0.1, {"a": weights, "extra": 1}, step=1)  # type: ignore[dict-item]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        BestCheckpoint(tmp_path / "file" / "best.safetensors")
