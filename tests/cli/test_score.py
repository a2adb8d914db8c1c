"""``relqa score`` on real files."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from relqa_loss import CHANNELS, tiling
from relqa_loss.cli import _pairs
from relqa_loss.cli._common import resolve_device
from relqa_loss.cli.main import main
from relqa_loss.functional import relate
from relqa_loss.imageio import read_image
from relqa_loss.tiling import relate_in_tiles


def score(*arguments: object, weights: str) -> int:
    return main(["score", *map(str, arguments), "--weights", weights])


def test_numbers_are_those_of_the_library(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference, image = photos / "reference" / "a.png", photos / "image" / "a.jpg"
    assert score(reference, image, "--json", "-", weights=weights) == 0
    record = json.loads(capsys.readouterr().out)
    [row] = record["results"]
    relation = relate(read_image(image)[None], read_image(reference)[None], weights=weights)
    assert row["distance"] == pytest.approx(float(relation.distance), rel=1e-5)
    assert row["score"] == pytest.approx(float(relation.score), rel=1e-5)
    assert tuple(row["channels"]) == CHANNELS
    means = torch.tensor(list(row["channels"].values()))
    assert torch.allclose(means, relation.maps[0].mean((1, 2)), atol=1e-5)
    assert record["weights"].startswith("tiny@")


def test_large_images_are_related_in_tiles(
    photos: Path, weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (photos / "reference", photos / "image", "--json", "-")
    assert score(*arguments, weights=weights) == 0
    whole = json.loads(capsys.readouterr().out)["results"]
    sizes: list[torch.Size] = []

    def in_tiles(preds: torch.Tensor, target: torch.Tensor, **options: object) -> object:
        sizes.append(preds.shape)
        return relate_in_tiles(preds, target, tile=32, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tiling, "relate_in_tiles", in_tiles)
    monkeypatch.setattr(_pairs, "LARGE", 1000)
    assert score(*arguments, weights=weights) == 0
    tiled = json.loads(capsys.readouterr().out)["results"]
    assert len(sizes) == len(whole) > 1
    for one, other in zip(whole, tiled, strict=True):
        assert other["distance"] == pytest.approx(one["distance"], rel=1e-5)
        assert other["score"] == pytest.approx(one["score"], rel=1e-4, abs=1e-6)
        assert other["channels"] == pytest.approx(one["channels"], abs=1e-5)
        assert other["words"] == one["words"]


def test_a_large_reference_is_not_taken_for_the_small_one_before(
    photos: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, image = photos / "reference" / "a.png", photos / "image" / "a.jpg"
    monkeypatch.setattr(_pairs, "LARGE", 80 * 64)
    wide = []
    for path in (reference, image):
        wide.append(photos / f"wide-{path.stem}-{path.parent.name}.png")
        Image.open(path).resize((96, 64)).save(wide[-1])
    examine = _pairs.Examiner(weights, "cpu")
    for pair in ((reference, image), wide, (reference, image)):
        found = examine(_pairs.Pair(*pair)).relation
        target, preds = (read_image(path)[None] for path in pair)
        expected = relate(preds, target, weights=weights)
        assert float(found.distance) == pytest.approx(float(expected.distance), rel=1e-4)


def test_an_image_of_the_folder_that_is_the_reference_is_left_out(photos: Path) -> None:
    reference = photos / "reference" / "a.png"
    pairs, failures = _pairs.pair_up(reference, [photos / "reference", photos / "image"])
    assert [pair.image for pair in pairs] == [
        photos / "reference" / "b.png",
        photos / "image" / "a.jpg",
        photos / "image" / "b.png",
    ]
    assert not failures


def test_one_reference_many_images(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference = photos / "reference" / "a.png"
    assert score(reference, reference, photos / "image" / "a.jpg", weights=weights) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "distance", "score", "in", "words"]
    assert lines[1].split()[1:] == ["0.0000", "+0.0000", "identical"]
    assert float(lines[2].split()[1]) > 0
    assert lines[3].startswith("mean of 2")


def test_folders_are_matched_by_name_whatever_the_ending(photos: Path, weights: str) -> None:
    out = photos / "out" / "scores.csv"
    assert score(photos / "reference", photos / "image", "--csv", out, weights=weights) == 0
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [(Path(r["reference"]).name, Path(r["image"]).name) for r in rows] == [
        ("a.png", "a.jpg"),
        ("b.png", "b.png"),
    ]
    assert all(float(row["distance"]) > 0 and row["error"] == "" for row in rows)
    for row in rows:  # each against its own reference
        preds, target = (read_image(row[key])[None] for key in ("image", "reference"))
        distance = float(relate(preds, target, weights=weights).distance)
        assert float(row["distance"]) == pytest.approx(distance, rel=1e-5)
    assert set(CHANNELS) <= set(rows[0])
    assert not list(out.parent.glob(".*"))  # nothing temporary is left


def test_table_csv_and_json_say_the_same(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    table, text = photos / "a.csv", photos / "a.json"
    folders = (photos / "reference", photos / "image")
    assert score(*folders, "--csv", table, "--json", text, weights=weights) == 0
    record = json.loads(text.read_text("utf-8"))
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    for row, found, line in zip(rows, record["results"], lines, strict=False):
        assert row["words"] == found["words"]
        assert line[1:3] == [f"{found['distance']:.4f}", f"{found['score']:+.4f}"]
        for name in ("distance", "score"):
            assert float(row[name]) == found[name]
        assert {name: float(row[name]) for name in CHANNELS} == found["channels"]
    for name in ("distance", "score"):
        values = [found[name] for found in record["results"]]
        assert record["mean"][name] == pytest.approx(sum(values) / len(values))
    mean = record["mean"]
    assert lines[2] == ["mean", "of", "2", f"{mean['distance']:.4f}", f"{mean['score']:+.4f}"]


def test_bad_files_are_named_and_the_others_kept(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference, good = photos / "reference" / "b.png", photos / "image" / "b.png"
    truncated, small = photos / "truncated.png", photos / "small.png"
    truncated.write_bytes(good.read_bytes()[:300])
    Image.new("RGB", (40, 40)).save(small)
    tiny = photos / "tiny.png"
    Image.new("RGB", (80, 20)).save(tiny)
    out = photos / "out.json"
    arguments = (reference, truncated, small, photos / "gone.png", tiny, good)
    assert score(*arguments, "--json", out, weights=weights) == 2
    captured = capsys.readouterr()
    assert "b.png" in captured.out
    errors = [line for line in captured.err.splitlines() if "error" in line]
    assert len(errors) == 4
    for line, words in zip(
        errors,
        (
            "truncated.png: truncated",
            f"small.png is 40×40, but its reference {reference} is 80×64",
            "gone.png: no such file",
            "tiny.png is 80×20; images must be at least 32×32",
        ),
        strict=True,
    ):
        assert words in line
        assert line.count("small.png") + line.count("gone.png") <= 1
    record = json.loads(out.read_text("utf-8"))
    assert [Path(row["image"]).name for row in record["results"]] == ["b.png"]
    assert len(record["failures"]) == 4


def test_missing_reference_fails_every_image(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    assert score(photos / "gone.png", photos / "image" / "a.jpg", weights=weights) == 2
    assert "gone.png: no such file" in capsys.readouterr().err


def test_unmatched_files_of_folders(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference, image = photos / "reference", photos / "image"
    (image / "b.png").rename(image / "other.png")
    assert score(reference, image, weights=weights) == 2
    captured = capsys.readouterr()
    assert "a.jpg" in captured.out
    assert "other.png: no reference named other" in captured.err
    assert "no image for this reference" in captured.err
    (image / "other.png").unlink()
    assert score(reference, image, "--allow-missing", weights=weights) == 0
    capsys.readouterr()
    (reference / "a.bmp").write_bytes((reference / "a.png").read_bytes())
    assert score(reference, image, "--allow-missing", weights=weights) == 2
    assert "several references fit: a.bmp, a.png" in capsys.readouterr().err


def test_a_folder_that_is_mistyped_is_what_is_missing(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    assert score(photos / "reference", photos / "imgae", weights=weights) == 2
    said = capsys.readouterr().err
    assert f"{photos / 'imgae'}: no such file or folder" in said
    assert "no reference named" not in said


def test_exact_names_win_over_stems_and_subfolders_count(photos: Path) -> None:
    reference, image = photos / "reference", photos / "image"
    (image / "b.png").rename(image / "b.jpg")
    (reference / "a.jpg").write_bytes(b"x")
    for folder in (reference, image):
        (folder / "sub").mkdir()
        (folder / "sub" / "a.png").write_bytes(b"x")
        (folder / ".hidden.png").write_bytes(b"x")
    pairs, failures = _pairs.pair_up(reference, [image], allow_missing=True)
    assert failures == []
    assert {
        (str(p.reference.relative_to(reference)), str(p.image.relative_to(image))) for p in pairs
    } == {
        ("a.jpg", "a.jpg"),
        ("b.png", "b.jpg"),
        ("sub/a.png", "sub/a.png"),
    }


def test_folders_that_lie_elsewhere(photos: Path, weights: str) -> None:
    for name in ("reference", "image"):
        disk = photos / "disk" / name
        disk.parent.mkdir(exist_ok=True)
        (photos / name).rename(disk)
        (photos / name).mkdir()
        (photos / name / "set").symlink_to(disk)
        (disk / "latest").symlink_to(disk)  # goes by its own name, and once
    out = photos / "scores.csv"
    assert score(photos / "reference", photos / "image", "--csv", out, weights=weights) == 0
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    files = [photos / "image" / "set" / name for name in ("a.jpg", "b.png")]
    assert [Path(row["image"]) for row in rows] == files


def test_names_match_however_their_accents_are_composed(photos: Path) -> None:
    reference, image = photos / "reference", photos / "image"
    # What comes from a Mac has the accent behind its letter.
    (reference / "a.png").rename(reference / "caf\u00e9.png")
    (image / "a.jpg").rename(image / "cafe\u0301.jpg")
    pairs, failures = _pairs.pair_up(reference, [image])
    assert failures == []
    assert [(p.reference.name, p.image.name) for p in pairs] == [
        ("b.png", "b.png"),
        ("caf\u00e9.png", "cafe\u0301.jpg"),
    ]


def test_empty_folder_and_two_reports_on_stdout(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    (photos / "empty").mkdir()
    assert score(photos / "empty", photos / "image", weights=weights) == 2
    assert "has no image files" in capsys.readouterr().err
    for reference in (photos / "reference", photos / "reference" / "a.png"):
        out = photos / "scores.csv"
        folders = (photos / "empty", photos / "image")
        assert score(reference, *folders, "--csv", out, weights=weights) == 2
        rows = list(csv.DictReader(out.open(encoding="utf-8")))
        assert len([row for row in rows if row["distance"]]) == 2, reference
        errors = [line for line in capsys.readouterr().err.splitlines() if "empty" in line]
        assert len(errors) == 1, errors
        assert "has no image files in it" in errors[0]
    reference = photos / "reference" / "a.png"
    (photos / "reference" / "b.png").unlink()
    assert score(reference, photos / "reference", weights=weights) == 2
    assert "has no image files in it but the reference" in capsys.readouterr().err
    assert score(reference, reference, "--json", "-", "--csv", "-", weights=weights) == 2


def test_outputs_never_replace_an_image(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference = photos / "reference" / "a.png"
    before = reference.read_bytes()
    assert score(reference, photos / "image" / "a.jpg", "--csv", reference, weights=weights) == 2
    assert "would replace one of the images" in capsys.readouterr().err
    assert reference.read_bytes() == before


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_file_that_cannot_be_written_is_found_out_before_the_work(
    photos: Path,
    weights: str,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    examined: list[Path] = []
    monkeypatch.setattr(_pairs.Examiner, "__call__", lambda self, pair: examined.append(pair.image))
    folders = photos / "reference", photos / "image"
    assert score(*folders, option, photos / "image", weights=weights) == 2
    assert f"{option} {photos / 'image'} is a folder" in capsys.readouterr().err
    under = photos / "image" / "b.png" / "out"  # b.png is no folder
    assert score(*folders, option, under, weights=weights) == 2
    assert "b.png" in capsys.readouterr().err
    assert not examined


def test_notes_are_said_and_written(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    picture = Image.open(photos / "reference" / "a.png").convert("RGBA")
    picture.putalpha(128)
    picture.save(photos / "clear.png")
    out = photos / "out.json"
    assert (
        score(
            photos / "reference" / "a.png",
            photos / "clear.png",
            "--json",
            out,
            weights=weights,
        )
        == 0
    )
    assert "composited on mid-grey" in capsys.readouterr().err
    assert "composited" in json.loads(out.read_text("utf-8"))["results"][0]["notes"][0]
    assert score(photos / "clear.png", photos / "clear.png", "--json", out, weights=weights) == 0
    notes = json.loads(out.read_text("utf-8"))["results"][0]["notes"]
    assert [note.partition(": ")[0] for note in notes] == ["reference", "image"]


@pytest.mark.parametrize("arguments", [(), ("--json", "-")])
def test_a_reader_that_has_gone_costs_no_file(
    arguments: tuple[str, ...], photos: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    table = photos / "table.csv"
    monkeypatch.setattr(sys, "stdout", Gone())  # `| head` with more than it takes
    files = (photos / "reference", photos / "image")
    assert score(*files, "--csv", table, *arguments, weights=weights) == 141
    with table.open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [
            str(photos / "image" / name) for name in ("a.jpg", "b.png")
        ]


def test_interruption_keeps_what_was_computed(
    photos: Path,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    whole = _pairs.Examiner.__call__

    def interrupt(self, pair, **options):  # type: ignore[no-untyped-def]
        if pair.image.name == "b.png":
            raise KeyboardInterrupt
        return whole(self, pair, **options)

    monkeypatch.setattr(_pairs.Examiner, "__call__", interrupt)
    out = photos / "out.json"
    arguments = (photos / "reference", photos / "image", "--json", out)
    assert score(*arguments, weights=weights) == 130
    error = capsys.readouterr().err
    assert "interrupted" in error
    record = json.loads(out.read_text("utf-8"))
    assert len(record["results"]) == 1
    # Nor do they pass for all that there is.
    left = [failure for failure in record["failures"] if "interrupted" in failure["error"]]
    assert Path(left[0]["image"]).name == "b.png"
    assert f"error: {len(left)} of {1 + len(record['failures'])} images were not scored" in error


def test_unknown_weights_and_device(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference = photos / "reference" / "a.png"
    assert score(reference, reference, weights="nonsense") == 2
    assert "no weights named 'nonsense'" in capsys.readouterr().err
    assert score(reference, reference, "--device", "nonsense", weights=weights) == 2
    assert "'nonsense' is not available" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cuda", "mps", "name"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_device_is_what_is_there(
    cuda: bool, mps: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == name
    assert resolve_device("cpu") == "cpu"
