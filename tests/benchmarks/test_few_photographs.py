"""Benchmarks on a folder with fewer photographs than they need, or than they were asked to take."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import skimage.data
from PIL import Image

pytest.importorskip("piq")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs to train on, one to validate on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = "file,split\n"
    for name, split in (("astronaut", "train"), ("chelsea", "train"), ("coffee", "val")):
        Image.fromarray(getattr(skimage.data, name)()[:300, :300]).save(folder / f"{name}.png")
        rows += f"{name}.png,{split}\n"
    (folder / "MANIFEST.csv").write_text(rows)
    return folder


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["trust", "loss_trust"], indirect=True)
def test_a_start_from_another_photograph_needs_another_photograph(
    script: ModuleType,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["x", "--photos", str(photos), "--count", "2", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit):
        script.main()
    assert "one start is another photograph, and the `val` split has 1" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["recipes", "restoration"], indirect=True)
def test_without_photographs_left_to_train_on_it_says_so(
    script: ModuleType,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["x", "--photos", str(photos), "--steps", "1", "--runs", str(tmp_path / "runs")]
    if script.__name__ == "restoration":
        given += ["--tune", "--size", "256"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit):
        script.main()
    message = capsys.readouterr().err
    assert "16 of the `train` split are left out of training, and it has 2: give more" in message


@pytest.mark.parametrize("script", ["grids"], indirect=True)
def test_an_operator_that_changes_no_photograph_has_no_median(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Blocks of one grey are what they were.
    Image.new("RGB", (264, 264), (120, 120, 120)).save(tmp_path / "grey.png")
    (tmp_path / "MANIFEST.csv").write_text("file,split\ngrey.png,val\n")
    monkeypatch.setattr(sys, "argv", ["x", "--photos", str(tmp_path), "--weights", "relqa-nano"])
    assert script.main() == 0
    assert "| block_average | nan | nan |" in capsys.readouterr().out
