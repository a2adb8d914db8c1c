"""``relqa train``: what can be said before any training, and one tiny run."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from relqa_loss.cli.main import main
from relqa_loss.network import load_pretrained


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
    assert "finished" in capsys.readouterr().err
