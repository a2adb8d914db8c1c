"""``relqa engine``: list, sheet and sample, third parties' operators included."""

from __future__ import annotations

import csv
import itertools
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relqa_loss.channels import CHANNELS
from relqa_loss.cli._sheets import SEVERITIES
from relqa_loss.cli.main import main
from relqa_loss.distortions import (
    Curve,
    DistortionEngine,
    Recipe,
    Sample,
    Step,
    list_operators,
    register,
    unregister,
)
from relqa_loss.imageio import read_image


@pytest.fixture
def fade() -> Iterator[str]:
    @register(
        "test_fade", channel="contrast", sign=-1, curve=Curve(0.01, 0.9), side={"noise": -0.5}
    )
    def fade(images, strength, generator):  # type: ignore[no-untyped-def]
        """Fades towards mid-grey."""
        return images + strength * (0.5 - images)

    yield "test_fade"
    unregister("test_fade")


def engine(*arguments: object) -> int:
    return main(["engine", *map(str, arguments)])


def test_list_prints_every_operator_and_third_parties(fade: str, capsys) -> None:  # type: ignore[no-untyped-def]
    assert engine("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["name", "family", "channel", "sign"]
    names = [line.split()[0] for line in lines[1:-2]]
    assert names == [operator.name for operator in list_operators()]
    assert fade in names
    own = next(line for line in lines if line.startswith(fade))
    assert "−" in own
    assert "noise -0.5" in own
    assert "Fades towards mid-grey." in own
    assert lines[-1].startswith(f"{len(names)} operators")


def test_list_as_json_and_by_channel(fade: str, capsys) -> None:  # type: ignore[no-untyped-def]
    assert engine("list", "--json", "--channel", "contrast") == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["channel"] for record in records} == {"contrast"}
    own = next(record for record in records if record["name"] == fade)
    assert own["sign"] == -1
    assert own["side"] == {"noise": -0.5}
    assert own["parameter"]["severe"] == 0.9
    assert engine("list", "--channel", "contrst") == 2
    assert "no channel named 'contrst'" in capsys.readouterr().err


def test_sheet_shows_rising_severities(photos: Path, fade: str) -> None:
    out = photos / "sheet.png"
    photo = photos / "reference" / "a.png"
    arguments = ("sheet", photo, "--out", out, "--operators", fade, "--tile", 64)
    assert engine(*arguments) == 0
    sheet = np.asarray(Image.open(out).convert("RGB")).astype(float)
    left, top, step = 24, 76 + 22, 64 + 3
    spreads = [
        sheet[top : top + 64, left + i * step : left + i * step + 64].std()
        for i in range(len(SEVERITIES))
    ]
    assert all(a > b for a, b in itertools.pairwise(spreads))
    assert engine(*arguments) == 2  # exists
    assert engine(*arguments, "--force") == 0
    assert engine("sheet", photo, "--out", photo, "--force") == 2
    assert engine("sheet", photo, "--out", photos / "x.png", "--operators", "nonsense") == 2


def test_a_sheet_is_a_png_and_says_so(photos: Path, fade: str, capsys) -> None:  # type: ignore[no-untyped-def]
    arguments = ("sheet", photos / "reference" / "a.png", "--operators", fade, "--tile", 32)
    assert engine(*arguments, "--out", photos / "sheet.jpg") == 2
    assert "sheet.jpg: the picture must end in .png" in capsys.readouterr().err
    assert not (photos / "sheet.jpg").exists()
    assert engine(*arguments, "--out", photos / "sheet.PNG") == 0


def test_sheets_are_seeded(photos: Path) -> None:
    pictures = []
    for place, seed in enumerate((1, 1, 2)):
        out = photos / f"{place}.png"
        arguments = ("sheet", photos / "reference" / "a.png", "--out", out, "--tile", 32)
        assert engine(*arguments, "--operators", "white_noise", "--seed", seed) == 0
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_sheet_has_every_operator(photos: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = photos / "sheet.png"
    assert engine("sheet", photos / "reference" / "a.png", "--out", out, "--tile", 32) == 0
    assert f"{len(list_operators())} operators" in capsys.readouterr().out
    picture = Image.open(out)
    assert picture.width * picture.height > len(list_operators()) * 5 * 32 * 32


def read_manifest(folder: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_sample_writes_what_the_engine_made(photos: Path, fade: str, capsys) -> None:  # type: ignore[no-untyped-def]
    out = photos / "out"
    (photos / "reference" / "broken.png").write_bytes(b"no image")
    arguments = ("sample", "--photos", photos / "reference", "--out", out, "-n", 5)
    assert engine(*arguments, "--crop", 48, "--seed", 3) == 0
    captured = capsys.readouterr()
    assert "broken.png" in captured.err
    assert "5 triplets from 2 photographs" in captured.out
    assert "1 unreadable files skipped" in captured.out
    entries = read_manifest(out)
    assert len(entries) == 5
    for entry in entries:
        reference = read_image(out / entry["reference"])
        distorted = read_image(out / entry["distorted"])
        assert reference.shape == (3, 48, 48)
        recipe = Recipe(tuple(Step(**step) for step in entry["steps"]), entry["seed"])
        again = DistortionEngine().apply(reference, recipe)
        assert float((again.distorted - distorted).abs().max()) <= 0.5 / 255 + 1e-6
        with np.load(out / entry["maps"]) as stored:
            assert tuple(stored["channels"]) == CHANNELS
            assert stored["maps"].dtype == np.float16
            assert np.allclose(stored["maps"], again.maps.numpy(), atol=1e-3)
    rows = list(csv.DictReader((out / "manifest.csv").open(encoding="utf-8")))
    assert [row["distorted"] for row in rows] == [entry["distorted"] for entry in entries]
    assert entries[0]["steps"][0]["operator"] in rows[0]["recipe"]
    assert Image.open(out / "sheet.png").width > 500


def test_what_was_decided_to_read_a_photograph_is_said(
    tmp_path: Path,
    fade: str,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    photo = tmp_path / "photos" / "clear.png"
    photo.parent.mkdir()
    Image.new("RGBA", (64, 48), (200, 100, 0, 128)).save(photo)
    said = f"relqa: note: {photo}: transparent in 100% of its pixels: composited on mid-grey\n"
    out = tmp_path / "out"
    options = ("--out", out, "-n", 2, "--crop", 48, "--operators", fade)
    assert engine("sample", "--photos", photo.parent, *options) == 0
    assert capsys.readouterr().err == said
    assert engine("sheet", photo, "--out", tmp_path / "s.png", "--operators", fade) == 0
    assert capsys.readouterr().err == said


def test_a_photograph_smaller_than_the_crop_is_said_to_be(
    tmp_path: Path,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (64, 48), (200, 100, 0)).save(photos / "small.png")
    Image.new("RGB", (64, 64), (200, 100, 0)).save(photos / "whole.png")
    arguments = ["engine", "sample", "--photos", str(photos), "--crop", "64", "-n", "4"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert notes == [
        f"relqa: note: {photos / 'small.png'}: 64×48, not 64 on each side: kept as far as it goes"
    ]


def test_sample_is_seeded(photos: Path) -> None:
    manifests, seeds = [], []
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        out = photos / name
        arguments = ("--photos", photos / "reference", "--out", out, "-n", 3, "--seed", seed)
        assert engine("sample", *arguments, "--crop", 32) == 0
        files = sorted(path for path in out.rglob("*") if path.suffix in (".png", ".jsonl"))
        manifests.append([path.read_bytes() for path in files])
        seeds.append({entry["seed"] for entry in read_manifest(out)})
    assert manifests[0] == manifests[1]
    assert manifests[0] != manifests[2]
    assert not seeds[0] & seeds[2]


def test_sample_with_a_third_partys_operator(photos: Path, fade: str) -> None:
    out = photos / "out"
    arguments = ("--photos", photos / "reference", "--out", out, "-n", 2, "--operators", fade)
    assert engine("sample", *arguments, "--crop", 0) == 0
    never = ("--operators", fade, "jpeg", "--exclude", "jpeg", "--force", "-n", 6)
    excluded = photos / "excluded"
    assert engine("sample", *arguments[:2], "--out", excluded, "--crop", 32, *never) == 0
    assert len(read_manifest(excluded)) == 6
    for entry in read_manifest(excluded):
        assert [step["operator"] for step in entry["steps"]] == [fade]
    for entry in read_manifest(out):
        assert [step["operator"] for step in entry["steps"]] == [fade]
        assert (entry["width"], entry["height"]) == (80, 64)


def test_sample_refuses_to_overwrite(photos: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = photos / "out"
    arguments = ("sample", "--photos", photos / "reference", "--out", out, "--crop", 32)
    assert engine(*arguments, "-n", 3) == 0
    mine = [out / "notes.txt", out / "distorted" / "mine.png", out / "maps" / "mine.npz"]
    for file in mine:
        file.write_text("mine")
    assert engine(*arguments, "-n", 1) == 2
    assert "is not empty" in capsys.readouterr().err
    assert len(list((out / "distorted").glob("0*"))) == 3
    assert engine(*arguments, "-n", 1, "--force") == 0
    for folder in ("reference", "distorted", "maps"):
        assert len(list((out / folder).glob("0*"))) == 1  # nothing stale
    assert [file.read_text() for file in mine] == ["mine"] * 3


def test_sample_does_not_take_its_own_files_for_photographs(photos: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = photos / "samples"
    arguments = ("sample", "--photos", photos, "--out", out, "--crop", 32, "-n", 6)
    assert engine(*arguments) == 0
    first = (out / "manifest.jsonl").read_text()
    assert engine(*arguments, "--force") == 0
    assert (out / "manifest.jsonl").read_text() == first
    for file in (*(photos / "reference").iterdir(), *(photos / "image").iterdir()):
        file.unlink()
    assert engine(*arguments, "--force") == 2
    assert "has no image files in it" in capsys.readouterr().err
    assert (out / "manifest.jsonl").read_text() == first


def test_sample_keeps_no_photograph_in_memory(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, made, kept = DistortionEngine.sample, [], []

    def sample(self: DistortionEngine, reference: torch.Tensor, seed: int) -> Sample:
        kept.append(sum(one() is not None for one in made))
        new = draw(self, reference, seed)
        made.append(weakref.ref(new.distorted))
        return new

    monkeypatch.setattr(DistortionEngine, "sample", sample)
    out = photos / "out"
    assert engine("sample", "--photos", photos / "image", "--out", out, "--crop", 0, "-n", 6) == 0
    assert len(kept) == 6
    assert max(kept) <= 1  # the one before


def test_sample_errors(photos: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (photos / "empty").mkdir()
    (photos / "bad").mkdir()
    (photos / "bad" / "x.png").write_bytes(b"no image")
    for folder, words in (
        ("empty", "has no image files"),
        ("bad", "none of the 1 image files"),
        ("gone", "is not a folder"),
    ):
        arguments = ("--photos", photos / folder, "--out", photos / f"out-{folder}", "-n", 1)
        assert engine("sample", *arguments) == 2
        assert words in capsys.readouterr().err
    good = ("sample", "--photos", photos / "reference")
    assert engine(*good, "--out", photos / "reference", "-n", 1, "--force") == 2
    assert "holds the photographs" in capsys.readouterr().err
    assert engine(*good, "--out", photos / "o", "-n", 0) == 2
    assert engine(*good, "--out", photos / "o", "-n", 1, "--crop", 8) == 2
    for seed in (1 << 32, -(1 << 31) - 1):
        assert engine(*good, "--out", photos / "o", "-n", 1, "--seed", seed) == 2
        assert f"--seed must be from -2147483648 to 4294967295, got {seed}" in (
            capsys.readouterr().err
        )
    assert not (photos / "o").exists()
    for place, seed in enumerate(((1 << 32) - 1, -(1 << 31))):
        out = photos / f"seed-{place}"
        assert engine(*good, "--out", out, "-n", 1, "--crop", 32, "--seed", seed) == 0


def test_references_on_disk_are_what_was_distorted(photos: Path, fade: str) -> None:
    deep = torch.rand(48, 48).mul(65535).to(torch.int32).numpy().astype(np.uint16)
    (photos / "deep").mkdir()
    Image.fromarray(deep).save(photos / "deep" / "a.png")
    out = photos / "out"
    arguments = ("--photos", photos / "deep", "--out", out, "-n", 1, "--operators", fade)
    assert engine("sample", *arguments) == 0
    [entry] = read_manifest(out)
    reference = read_image(out / entry["reference"])
    recipe = Recipe(tuple(Step(**step) for step in entry["steps"]), entry["seed"])
    again = DistortionEngine([fade]).apply(reference, recipe).distorted
    assert float((again - read_image(out / entry["distorted"])).abs().max()) <= 0.5 / 255 + 1e-6
