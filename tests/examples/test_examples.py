"""The examples run, choose, and say why as their ledger does."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from scripts import run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relqa_loss.selection.best import BestCheckpoint

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[!_]*.py"))
DENOISERS = [example for example in EXAMPLES if example.stem.startswith("denoise")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(skimage.data, name)()[:120, :160]).save(folder / f"{name}.png")
    return folder


def logged(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder)).Reload()
    return [each.value for each in events.Scalars(tag)]


def test_there_are_five() -> None:
    assert [example.stem for example in EXAMPLES] == [
        "codec_pytorch",
        "denoise_huggingface",
        "denoise_lightning",
        "denoise_pytorch",
        "upscale_pytorch",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("example", DENOISERS, ids=lambda example: example.stem)
def test_the_choice_is_printed_with_its_reason(example: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # In a process of its own: trainers keep states for all of it.
    options = ("--photos", photos, "--out", out, "--steps", 4, "--every", 2)
    result = run_script(example, *options, MPLBACKEND="Agg")
    assert result.returncode == 0, result.stderr
    ledger = json.loads((out / "selection" / "ledger.json").read_text())
    assert [each["step"] for each in ledger["checkpoints"]] == [0, 2, 4]
    assert ledger["images"] == 24
    last = result.stdout.strip().splitlines()[-1]
    chosen_by = f" is chosen: mean {ledger['settings']['metric']} "
    assert last.startswith(f"step {ledger['chosen_step']}{chosen_by}")
    assert chosen_by in (ROOT / "examples" / "README.md").read_text("utf-8")
    assert list((out / "logs").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("name", "tag", "count"), [("codec", "cost", 2), ("upscale", "relational_loss", 3)]
)
def test_the_best_is_kept_and_said(
    name: str,
    tag: str,
    count: int,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    options = ["--photos", str(photos), "--out", str(out), "--steps", "4", "--every", "2"]
    monkeypatch.setattr("sys.argv", [name, *options])
    monkeypatch.syspath_prepend(ROOT / "examples")
    runpy.run_path(str(ROOT / "examples" / f"{name}_pytorch.py"), run_name="__main__")
    values = logged(out / "logs", f"val/{tag}")
    assert len(values) == count
    assert 0 < min(values) < max(values)
    best = BestCheckpoint(out / "best.safetensors", resume=True)
    assert best.value == pytest.approx(min(values), rel=1e-6)
    distance = logged(out / "logs", "val/relational_distance")[values.index(min(values))]
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"step {best.step} is kept: distance {distance:.2f}")
    assert (out / "left.png").is_file() == (name == "upscale")


def test_results_are_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["example", "--out", str(tmp_path)])
    options = runpy.run_path(str(ROOT / "examples" / "_data.py"))["options"]
    with pytest.raises(SystemExit):
        options("An example.")
    assert "exists; choose another --out" in capsys.readouterr().err


def test_damaged_photographs_are_skipped_and_a_missing_folder_is_named(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "_data.py"))
    damaged = photos / "damaged.png"
    damaged.write_bytes((photos / "coffee.png").read_bytes()[:300])
    train, rest = example["data"](example["Options"](photos, tmp_path / "out", 2, 1), 2)
    assert (len(train.photos), len(rest.photos)) == (2, 1)
    assert f"skipped: {damaged}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["example", "--photos", "gone", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        example["options"]("An example.")
    assert "--photos gone is not a folder" in capsys.readouterr().err
