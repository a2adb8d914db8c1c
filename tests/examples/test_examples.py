"""The examples run, choose, and say why as their ledger does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from scripts import run_script

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("denoise_*.py"))


def run(example: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return run_script(example, *options, MPLBACKEND="Agg")


def test_there_are_three() -> None:
    assert [example.stem for example in EXAMPLES] == [
        "denoise_huggingface",
        "denoise_lightning",
        "denoise_pytorch",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_the_choice_is_printed_with_its_reason(example: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(skimage.data, name)()[:120, :160]).save(photos / f"{name}.png")
    result = run(example, "--photos", photos, "--out", out, "--steps", 4, "--every", 2)
    assert result.returncode == 0, result.stderr
    ledger = json.loads((out / "selection" / "ledger.json").read_text())
    assert [each["step"] for each in ledger["checkpoints"]] == [0, 2, 4]
    assert ledger["images"] == 24 or len(ledger["images"]) == 24
    last = result.stdout.strip().splitlines()[-1]
    chosen_by = f" is chosen: mean {ledger['settings']['metric']} "
    assert last.startswith(f"step {ledger['chosen_step']}{chosen_by}")
    assert chosen_by in (ROOT / "examples" / "README.md").read_text("utf-8")
    assert list((out / "logs").rglob("events.out.tfevents.*"))
    again = run(example, "--out", out)
    assert again.returncode == 2
    assert "exists; choose another --out" in again.stderr
