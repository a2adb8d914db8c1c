"""File names that are no UTF-8: they cost nothing of what was measured."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from relqa_loss.cli.main import main
from relqa_loss.selection import BestCheckpoint, CheckpointSelector

ODD = os.fsdecode(b"caf\xe9.png")
WRITTEN = r"caf\udce9.png"


@pytest.fixture
def odd(photos: Path) -> Path:
    """The folders of ``photos``, in each of them one file with such a name."""
    for folder in ("reference", "image"):
        try:
            (photos / folder / "b.png").rename(photos / folder / ODD)
        except OSError:
            pytest.skip("the file system takes names in UTF-8 only")
    return photos


def test_score_prints_them(odd: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(odd / "reference"), str(odd / "image"), "--weights", weights]) == 0
    assert WRITTEN in capsys.readouterr().out


def test_score_keeps_lines_and_words_together(
    photos: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photos / "image" / "a\nb.jpg"
    (photos / "image" / "a.jpg").rename(image)
    files = [photos / "image" / "b.png", image, photos / "reference" / "a.png"]
    reference = str(photos / "reference" / "a.png")
    assert main(["score", reference, *map(str, files), "--weights", weights]) == 0
    _, *rows, mean = capsys.readouterr().out.splitlines()
    assert len(rows) == len(files)
    assert r"a\nb.jpg" in rows[1]
    assert rows[2].endswith("identical")
    assert mean.startswith("mean of 3")


def test_score_writes_them(odd: Path, weights: str) -> None:
    names = [str(odd / name) for name in ("reference", "image", "a.json", "a.csv")]
    options = ["--json", names[2], "--csv", names[3], "--weights", weights]
    assert main(["score", *names[:2], *options]) == 0
    results = json.loads((odd / "a.json").read_text("utf-8"))["results"]
    assert str(odd / "image" / ODD) in [row["image"] for row in results]
    rows = list(csv.DictReader((odd / "a.csv").open(encoding="utf-8")))
    assert str(odd / "image" / WRITTEN) in [row["image"] for row in rows]


def test_select(odd: Path, weights: str) -> None:
    options = ["--reference", str(odd / "reference"), "--out", str(odd / "out")]
    candidates = ["--candidates", str(odd / "reference"), str(odd / "image")]
    assert main(["select", *options, *candidates, "--weights", weights]) == 0
    assert WRITTEN in (odd / "out" / "report.html").read_text("utf-8")


def test_evaluate(odd: Path, weights: str) -> None:
    folder = odd / os.fsdecode(b"\xfc")
    (odd / "image").rename(folder)
    opinions = [f"../reference/a.png,a.jpg,{k}\n" for k in range(5)]
    (folder / "mos.csv").write_text("reference,distorted,score\n" + "".join(opinions))
    out = odd / "out"
    options = ["--weights", weights, "--samples", "5", "--out", str(out)]
    assert main(["evaluate", str(folder / "mos.csv"), *options]) == 0
    rows = list(csv.DictReader((out / "values.csv").open(encoding="utf-8")))
    assert [row["image"] for row in rows] == [str(odd / r"\udcfc" / "a.jpg")] * 5
    for name in ("settings.json", "figures.json"):
        assert r"\udcfc" in (out / name).read_text("utf-8")
    assert r"\udcfc" in (out / "report.html").read_text("utf-8")
    assert main(["evaluate", str(folder / "mos.csv"), *options, "--resume"]) == 0


def test_maps(odd: Path, weights: str) -> None:
    pair = [str(odd / folder / ODD) for folder in ("reference", "image")]
    assert main(["maps", *pair, "--out", str(odd / "a.png"), "--weights", weights]) == 0
    assert (odd / "a.png").is_file()


def test_engine(odd: Path) -> None:
    (odd / "reference" / "a.png").unlink()
    options = ["-n", "2", "--crop", "32", "--out", str(odd / "out")]
    assert main(["engine", "sample", "--photos", str(odd / "reference"), *options]) == 0
    for name in ("manifest.csv", "manifest.jsonl"):
        assert (odd / "out" / name).read_text("utf-8").count(WRITTEN) == 2


def test_demo(tmp_path: Path, weights: str) -> None:
    out = tmp_path / os.fsdecode(b"d\xe9mo")
    try:
        out.mkdir()
    except OSError:
        pytest.skip("the file system takes names in UTF-8 only")
    options = ["--steps", "1", "--batch", "1", "--crop", "32", "--weights", weights]
    assert main(["demo", "--out", str(out), *options]) == 0
    assert r"d\udce9mo" in (out / "report.html").read_text("utf-8")
    assert str(out) in json.loads((out / "figures.json").read_text("utf-8"))["command"]


def test_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"r\xe9sultats")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system takes names in UTF-8 only")
    state = {"weight": torch.arange(3.0)}
    BestCheckpoint(folder / "best.safetensors").update(0.5, state, step=7)
    best = BestCheckpoint(folder / "best.safetensors", resume=True)
    assert (best.value, best.step) == (0.5, 7)
    assert torch.equal(best.load()["weight"], state["weight"])
    (folder / "best.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="was not written by BestCheckpoint"):
        BestCheckpoint(folder / "best.safetensors", resume=True)
    selector = CheckpointSelector(folder / "selection")
    selector.update(1, [0.1, 0.2], state=state)
    assert torch.equal(selector.load()["weight"], state["weight"])
