"""``relqa train``: what can be said before any training, and one tiny run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import skimage.data
from PIL import Image

from relqa_loss.cli import train as command
from relqa_loss.cli.main import main
from relqa_loss.network import NetworkConfig, load_pretrained
from relqa_loss.training import loop
from relqa_loss.training.config import TrainConfig
from relqa_loss.training.panel import PANEL


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that explains exit code 2."""
    assert main(["train", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("relqa: error: ")
    return lines[0]


def test_folder_without_readable_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "notes.txt").write_text("none")
    out = tmp_path / "w.safetensors"
    line = _fails(["--photos", str(photos), "--out", str(out), "--accelerator", "cpu"], capsys)
    assert str(photos) in line
    assert "no usable photograph" in line
    assert not out.exists()


def test_without_rich_it_is_said_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    line = _fails(["--photos", str(tmp_path), "--out", str(tmp_path / "w.safetensors")], capsys)
    assert "pip install 'relqa-loss[train]'" in line


def test_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    line = _fails(["--photos", str(tmp_path / "gone"), "--out", str(out)], capsys)
    assert "gone is not a folder" in line


def test_output_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"precious")
    assert "exists" in _fails(["--photos", str(tmp_path), "--out", str(out)], capsys)
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "weights.pt"], "must end in .safetensors"),
        (["--out", "w.safetensors", "--crop", "70"], "multiple of 16"),
        (["--out", "w.safetensors", "--resume"], "nothing to resume"),
        (["--out", "w.safetensors", "--exclude", "no_such_blur"], "no_such_blur"),
    ],
)
def test_impossible_options(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in _fails(["--photos", ".", *arguments], capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--accelerator", "gpu", "--devices", "4"], "accelerator='gpu', devices=4"),
        (["--accelerator", "cpu", "--devices", "0,1"], "devices='0,1'"),
    ],
)
def test_devices_that_are_not_there(
    options: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("cuda.CUDAAccelerator", "mps.MPSAccelerator"):
        there = f"lightning.fabric.accelerators.{name}.is_available"
        monkeypatch.setattr(there, lambda: False)
    out = tmp_path / "w.safetensors"
    line = _fails(["--photos", str(tmp_path), "--out", str(out), *options], capsys)
    assert words in line
    assert "accelerator='auto'" in line


def test_output_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Found out before the pool is made, which takes hours.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    out = tmp_path / "w.safetensors"
    assert "no permission to write --out to" in _fails(
        ["--photos", str(tmp_path), "--out", str(out)], capsys
    )


def test_photos_and_out_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train"])
    assert stopped.value.code == 2
    assert "--photos" in capsys.readouterr().err


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``asked("--steps 7")``: the settings and the options that a run would begin with."""
    found: list[tuple[TrainConfig, dict[str, Any]]] = []

    def train(photos: Path, out: Path, config: TrainConfig, **options: Any) -> Any:
        found.append((config, {"photos": photos, "out": out, **options}))
        return SimpleNamespace(record=None)

    monkeypatch.setattr(loop, "train", train)

    def ask(words: str) -> tuple[TrainConfig, dict[str, Any]]:
        files = ["--photos", "here", "--out", str(tmp_path / "w.safetensors")]
        assert main(["train", *files, *words.split()]) == 0
        return found.pop()

    return ask


def test_every_setting_reaches_the_run(asked: Any) -> None:
    assert asked("")[0] == TrainConfig()
    base = NetworkConfig.base()
    for words, changes in {
        "--steps 7": {"steps": 7},
        "--sets 96": {"sets": 96},
        "--validation-sets 32": {"validation_sets": 32},
        "--batch 3": {"batch": 3},
        "--unjudged-sets 64 --unjudged-batch 5": {"unjudged_sets": 64, "unjudged_batch": 5},
        "--fact-sets 32 --fact-batch 6": {"fact_sets": 32, "fact_batch": 6},
        "--crop 128": {"crop": 128},
        "--crop 64": {"crop": 64, "window": 64},
        "--window 48": {"window": 48},
        "--luma-share 0.25": {"luma_share": 0.25},
        "--grey-share 0.125": {"grey_share": 0.125},
        "--two-outputs": {"two_outputs": True},
        "--half-maps": {"half_maps": True},
        "--learn maps": {"learn": "maps"},
        "--rank-by pairs": {"rank_by": "pairs"},
        "--network nano": {"network": NetworkConfig.nano()},
        "--floor 0.5": {"network": replace(base, floor=0.5)},
        "--teacher relqa-nano": {"teacher": "relqa-nano"},
        "--rate 0.001": {"rate": 0.001},
        "--seed 9": {"seed": 9},
        "--validate-every 11": {"validate_every": 11},
        "--exclude jpeg haze": {"exclude": ("jpeg", "haze")},
        "--hold-out": {"hold_out": True},
    }.items():
        assert asked(words)[0] == replace(TrainConfig(), **changes), words


def test_every_option_reaches_the_run(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/relqa", "train", "--out", "a b"])
    _, usual = asked("")
    assert (usual["photos"], usual["out"]) == (Path("here"), tmp_path / "w.safetensors")
    assert usual["command"] == "relqa train --out 'a b'"
    assert {"commit", "progress"} <= set(usual)
    for words, changes in {
        "--initial relqa-base": {"initial": "relqa-base"},
        "--minutes 1.5": {"minutes": 1.5},
        "--resume": {"resume": True},
        "--pool-folder there": {"pool_folder": Path("there")},
        "--workers 5": {"workers": 5},
        "--logs logs": {"logs": Path("logs")},
        "--accelerator cuda": {"accelerator": "cuda"},
        "--devices 2": {"devices": 2},
        "--devices -1": {"devices": -1},
        "--devices auto": {"devices": "auto"},
        "--nodes 3": {"nodes": 3},
    }.items():
        _, options = asked(words)
        assert {k: v for k, v in options.items() if k != "progress"} == {
            **{k: v for k, v in usual.items() if k != "progress"},
            **changes,
        }, words


@pytest.mark.slow
def test_a_tiny_run_writes_usable_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(skimage.data, name)()[:120, :140]).save(photos / f"{name}.png")
    (photos / "MANIFEST.csv").write_text("file,split\nastronaut.png,train\ncoffee.png,val\n")
    out = tmp_path / "w.safetensors"
    options = "--steps 2 --sets 32 --validation-sets 32 --crop 64 --batch 1 --validate-every 2"
    files = ["--photos", photos, "--out", out, "--pool-folder", tmp_path / "pool"]
    arguments = ["train", *map(str, files), *options.split(), "--accelerator", "cpu"]
    assert main(arguments) == 0
    assert load_pretrained(out).channels
    record = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert record["training"]["panel"] == list(PANEL)
    assert "finished" in capsys.readouterr().err


def test_lines_of_a_log_stay_whole_and_paths_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {f"figure_{number}": 0.5 for number in range(12)}
    out = tmp_path / "[red]" / ":smile:" / "w.safetensors"

    def train(*_: Any, progress: loop.Progress, **__: Any) -> Any:
        progress.validation(2, figures)
        record = SimpleNamespace(path=out, version="w@1")
        pace = SimpleNamespace(seconds_per_step=0.5, waiting=0.0)
        return SimpleNamespace(record=record, finished=True, step=2, pace=pace)

    monkeypatch.setattr(loop, "train", train)
    assert main(["train", "--photos", "here", "--out", str(out)]) == 0
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("step 2: figure_0 0.5000")
    assert first.endswith("figure_11 0.5000")
    assert second == f"finished: {out} (w@1)"


def test_the_commit_is_not_that_of_a_repository_around_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    installed = tmp_path / "env" / "train.py"
    installed.parent.mkdir()
    installed.write_text("")
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr(command, "__file__", str(installed))
    assert command._commit() == ""
    git("add", "env/train.py")
    git("commit", "-q", "-m", "a checkout")
    assert len(command._commit()) == 12
