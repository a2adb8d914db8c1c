"""``relqa select`` on real files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from relqa_loss import CHANNELS
from relqa_loss._relational import PIXEL_WEIGHT
from relqa_loss.cli import select
from relqa_loss.cli.main import main
from relqa_loss.functional import distortion_maps, relational_distance
from relqa_loss.imageio import read_image
from relqa_loss.selection import comparison
from relqa_loss.selection.folders import Job, Measure, PoolMeasure, name_folders, natural_key

# The distance falls on every straight way to the reference, whatever the weights: the order of
# darkened images is known.
GAINS = {"step-0": 0.5, "step-200": 0.9, "step-1000": 0.8}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """``reference/{0..4}.png`` and ``step-*/outputs``, each darkened by its gain."""
    generator = np.random.default_rng(0)
    for name in range(5):
        small = generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
        for folder, gain in {"reference": 1.0, **GAINS}.items():
            place = tmp_path / folder / ("" if gain == 1 else "outputs")
            place.mkdir(parents=True, exist_ok=True)
            picture.point(lambda v, g=gain: int(v * g)).save(place / f"{name}.png")
    return tmp_path


def choose(run: Path, weights: str, *arguments: object, out: str = "out") -> tuple[int, Any]:
    candidates = sorted(run.glob("step-*/outputs"))
    options = ["--reference", str(run / "reference"), "--weights", weights, "--out", str(run / out)]
    code = main(["select", *options, "--candidates", *map(str, candidates), *map(str, arguments)])
    path = run / out / "selection.json"
    return code, json.loads(path.read_text("utf-8")) if path.exists() else None


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is measured."""
    seen: list[Path] = []
    make = select.make_measure

    def counting(weights: str, device: str) -> Measure:
        measure = make(weights, device)

        def measure_and_note(job: Job) -> Any:
            seen.extend(job.images.values())
            return measure(job)

        return measure_and_note

    monkeypatch.setattr(select, "make_measure", counting)
    return seen


def test_ranking_profile_and_reason(run: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    code, document = choose(run, weights, "--no-report")
    assert code == 0
    assert document["recommended"] == "step-200"
    assert [row["name"] for row in document["ranking"]] == ["step-200", "step-1000", "step-0"]
    first, second, _ = document["ranking"]
    pair = [read_image(run / name / "3.png")[None] for name in ("step-200/outputs", "reference")]
    expected = (
        relational_distance(*pair, weights=weights)
        + PIXEL_WEIGHT * (pair[0] - pair[1]).abs().mean()
    )
    assert document["values"]["step-200"]["3.png"] == pytest.approx(float(expected))
    assert first["gain_over_recommended"] is None
    assert second["gain_over_recommended"][2] < 0
    assert second["shared_with_recommended"] == 5
    assert tuple(first["signed"]) == tuple(first["absolute"]) == CHANNELS
    maps = [
        distortion_maps(
            read_image(run / f"step-200/outputs/{k}.png")[None],
            read_image(run / f"reference/{k}.png")[None],
            weights=weights,
        )[0]
        for k in range(5)
    ]
    for name, plane in zip(CHANNELS, torch.stack(maps, 1), strict=True):
        assert first["signed"][name] == pytest.approx(float(plane.mean()), abs=1e-6)
        assert first["absolute"][name] == pytest.approx(float(plane.abs().mean()), abs=1e-6)
    duel = document["preferences"]["step-200"]["step-0"]
    assert (duel["win_rate"], duel["images"]) == (1.0, 5)
    printed = capsys.readouterr().out
    assert document["reason"] in printed
    assert document["reason"].startswith("step-200 is recommended: mean loss")
    assert "better than step-1000 by" in document["reason"]
    assert not (run / "out" / "report.html").exists()


def test_a_report_is_of_the_selection_beside_it(run: Path, weights: str) -> None:
    report = run / "out" / "report.html"
    _, document = choose(run, weights)
    assert report.exists()
    assert document["coverage"] == 0.9
    _, document = choose(run, weights, "--resume", "--no-report", "--metric", "score")
    assert document["metric"] == "score"
    assert not report.exists()


def test_distances_are_taken_from_the_same_rows(run: Path, weights: str) -> None:
    choose(run, weights, "--no-report")
    rows = (run / "out/scores.jsonl").read_text("utf-8")
    _, document = choose(run, weights, "--no-report", "--resume", "--metric", "distance")
    assert (run / "out/scores.jsonl").read_text("utf-8") == rows
    pair = [read_image(run / name / "3.png")[None] for name in ("step-200/outputs", "reference")]
    expected = relational_distance(*pair, weights=weights)
    assert document["values"]["step-200"]["3.png"] == pytest.approx(float(expected))
    assert document["reason"].startswith("step-200 is recommended: mean distance")


def test_every_option_reaches_the_comparison(
    run: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Any]] = []
    compare = comparison.compare

    def noting(*tables: Any, **options: Any) -> Any:
        found.append(options)
        return compare(*tables, **options)

    monkeypatch.setattr(comparison, "compare", noting)
    usual = {"mode": "min", "metric": "loss", "rule": "best", "veto": {}, "baseline": None}
    usual |= {"coverage": 0.9, "confidence": 0.95}
    for words, changes in {
        "": {},
        "--metric distance": {"metric": "distance"},
        "--metric score": {"metric": "score", "mode": "max"},
        "--rule earliest": {"rule": "earliest"},
        "--veto ringing=0.5 --veto=-noise=2": {"veto": {"ringing": 0.5, "-noise": 2.0}},
        "--baseline step-200": {"baseline": "step-200"},
        "--coverage 0.5": {"coverage": 0.5},
        "--confidence 0.5": {"confidence": 0.5},
    }.items():
        _, document = choose(run, weights, "--no-report", "--resume", *words.split())
        options = found.pop()
        assert options == {**usual, **changes}, words
        for name in ("metric", "rule", "veto", "confidence"):
            assert document[name] == options[name]
    assert document["baseline"] is None
    rows = [json.loads(line) for line in (run / "out/scores.jsonl").read_text().splitlines()]
    _, document = choose(run, weights, "--no-report", "--resume", "--metric", "score")
    for row in rows:
        assert document["values"][row["candidate"]][row["key"]] == row["score"]


def test_missing_images_may_be_allowed_but_too_few_are_no_choice(run: Path, weights: str) -> None:
    for name in GAINS:
        (run / name / "outputs/0.png").unlink()
    code, document = choose(run, weights, "--no-report", "--allow-missing", "--coverage", 0.8)
    assert (code, document["failures"], document["recommended"]) == (0, [], "step-200")
    code, document = choose(run, weights, "--no-report", "--allow-missing", out="strict")
    assert (code, document["failures"], document["recommended"]) == (2, [], None)


def test_missing_and_unreadable_files_are_named_and_left_out_pairwise(
    run: Path, weights: str, capsys
) -> None:  # type: ignore[no-untyped-def]
    (run / "step-200/outputs/0.png").unlink()
    (run / "step-200/outputs/1.png").write_bytes(b"\x89PNG nonsense")
    (run / "step-1000/outputs/stranger.png").write_bytes(b"")
    Image.new("RGB", (40, 40)).save(run / "step-1000/outputs/2.png")
    (run / "step-7/outputs").mkdir(parents=True)
    code, document = choose(run, weights, "--coverage", "0.5", "--no-report")
    assert code == 2
    errors = capsys.readouterr().err
    for text in (
        r"step-200: .*outputs/0\.png: no image for this reference",
        r"step-200: .*outputs/1\.png: not an image",
        r"step-1000: .*outputs/2\.png is 40×40, but its reference",
        r"step-1000: .*stranger\.png: no reference named stranger",
        r"step-7: .*step-7/outputs: has no image files in it",
    ):
        assert re.search(text, errors), text
    assert len(document["failures"]) == 5
    images = {row["name"]: row["images"] for row in document["ranking"]}
    assert images == {"step-0": 5, "step-200": 3, "step-1000": 4, "step-7": 0}
    assert document["preferences"]["step-200"]["step-1000"]["images"] == 2
    assert document["preferences"]["step-200"]["step-0"]["images"] == 3
    assert document["recommended"] == "step-200"
    # At the default coverage a third of the images is too few to be recommended.
    code, strict = choose(run, weights, "--no-report", out="strict")
    assert strict["recommended"] == "step-0"
    assert "3 of 5 images can be used" in str(strict["ranking"])


def test_resumes_after_a_stop_and_measures_changed_files_again(
    run: Path, weights: str, measured: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = choose(run, weights, "--no-report", out="whole")
    assert len(measured) == 15
    measured.clear()
    counting = select.make_measure

    def stopping(weights: str, device: str) -> Measure:
        measure = counting(weights, device)

        def measure_or_stop(job: Job) -> Any:
            if job.key == "3.png":
                raise KeyboardInterrupt
            return measure(job)

        return measure_or_stop

    with monkeypatch.context() as patch:
        patch.setattr(select, "make_measure", stopping)
        assert choose(run, weights, "--no-report") == (130, None)
    assert len(measured) == 9
    rows = run / "out" / "scores.jsonl"
    text = rows.read_text("utf-8")
    rows.write_text(text[:-40], "utf-8")  # killed within a line
    measured.clear()
    assert choose(run, weights, "--no-report")[0] == 2  # without --resume
    assert measured == []
    assert choose(run, weights, "--no-report", "--resume") == (0, whole)
    assert len(measured) == 7
    measured.clear()
    assert choose(run, weights, "--no-report", "--resume") == (0, whole)
    assert measured == []
    changed = run / "step-0/outputs/4.png"
    read = Image.open(run / "reference/4.png")
    read.load()
    read.save(changed)
    _, document = choose(run, weights, "--no-report", "--resume")
    assert measured == [changed]
    assert document["values"]["step-0"]["4.png"] == 0


@pytest.mark.slow
def test_what_was_decided_to_read_files_is_said(
    run: Path,
    weights: str,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    candidate, reference = run / "step-200/outputs", run / "reference"
    for path in (*candidate.glob("*.png"), reference / "3.png"):
        with Image.open(path) as picture:
            clear = picture.convert("RGBA")
        clear.putalpha(128)
        clear.save(path)
    for arguments in ((), ("--resume",)):
        _, document = choose(run, weights, *arguments)
        said = capsys.readouterr().err
        transparent = "transparent in 100% of its pixels: composited on mid-grey"
        assert f"relqa: note: references: 3.png: {transparent}\n" in said
        assert said.count(f"relqa: note: step-200: {candidate}") == 5
        assert len(said.splitlines()) == 6
        assert [note["candidate"] for note in document["notes"]] == [
            "references",
            *["step-200"] * 5,
        ]
        assert document["notes"][-1] == {
            "candidate": "step-200",
            "image": str(candidate / "4.png"),
            "note": transparent,
        }


def test_processes_and_torchrun_give_the_same(run: Path, weights: str) -> None:
    (run / "step-200/outputs/1.png").write_bytes(b"not an image")
    _, alone = choose(run, weights, "--no-report")
    code, pooled = choose(run, weights, "--no-report", "--processes", 2, out="pooled")
    assert code == 2
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + ["-m", "relqa_loss", "select", "--reference", str(run / "reference")]
        + ["--weights", weights, "--out", str(run / "many"), "--no-report", "--candidates"]
        + [str(path) for path in sorted(run.glob("step-*/outputs"))],
        timeout=240,
        check=False,  # 2, as one file cannot be read
        capture_output=True,
    )
    many = json.loads((run / "many/selection.json").read_text("utf-8"))
    assert len(list((run / "many").glob("scores*.jsonl"))) == 2
    for document in (pooled, many):
        assert document["reason"] == alone["reason"]
        for name, values in alone["values"].items():
            assert document["values"][name] == pytest.approx(values, abs=1e-6)
        assert [f["image"] for f in document["failures"]] == [f["image"] for f in alone["failures"]]


def test_processes_that_are_done_wait_for_the_slowest(
    run: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    class Stop(Exception):
        pass

    def begin(backend: str, *, timeout: timedelta = timedelta(minutes=30)) -> None:
        waits.append(timeout)
        raise Stop

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    with pytest.raises(Stop):
        choose(run, weights)
    assert waits[0] > timedelta(days=1)


def _die() -> Measure:
    os._exit(1)


def test_a_process_that_dies_is_reported() -> None:
    job = Job("a", Path("a"), {"x": Path("b")})
    with pytest.raises(OSError, match=r"a worker process died.*--resume"):
        list(PoolMeasure(_die, 1)([job]))


def test_report_stands_alone_and_shows_what_decided(
    run: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, document = choose(run, weights)
    assert code == 0
    page = (run / "out/report.html").read_text("utf-8")
    assert "Recommended: step-200" in page
    assert all(source.startswith("data:image/png;base64,") for source in _sources(page))
    assert not re.search(r"(href|src)=\"(http|//)|@import|url\(", page)
    # Three pictures, three details and two maps of two candidates for each of three images.
    assert len(_sources(page)) == 3 * (3 + 3 + 4)
    assert "step-200 is better by" in page
    assert "No channel was limited" in page
    excess = {
        name: document["ranking"][0]["signed"][name] - document["ranking"][-1]["signed"][name]
        for name in CHANNELS
    }
    limit = max(CHANNELS, key=lambda name: abs(excess[name]))
    veto = f"--veto={'-' if excess[limit] < 0 else ''}{limit}={abs(excess[limit]) / 2}"
    code, vetoed = choose(run, weights, veto, out="vetoed")
    page = (run / "vetoed/report.html").read_text("utf-8")
    assert vetoed["recommended"] != "step-200"
    assert "step-200 is vetoed" in vetoed["reason"]
    assert "the greatest difference in the limited channels" in page
    assert f"<b>{limit.replace('_', ' ')}</b>" in page


def _sources(page: str) -> list[str]:
    return re.findall(r'<img[^>]* src="([^"]*)"', page)


def test_a_veto_on_no_channel_is_found_out_before_measuring(
    run: Path, weights: str, measured: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = choose(run, weights, "--veto", "ringin=0.1")
    assert (code, document, measured) == (2, None, [])
    assert "no channel named 'ringin'; there are" in capsys.readouterr().err
    assert not (run / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--confidence", 95), ("--coverage", 90), ("--confidence", "nan")]
)
def test_a_share_out_of_range_is_found_out_before_measuring(
    run: Path,
    weights: str,
    measured: list[Path],
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: object,
) -> None:
    code, document = choose(run, weights, option, value)
    assert (code, document, measured) == (2, None, [])
    assert f"{option.removeprefix('--')} must be between 0 and 1" in capsys.readouterr().err
    assert not (run / "out").exists()


def test_folders_of_which_nothing_matches_are_found_out_before_out_is_begun(
    run: Path, weights: str, capsys
) -> None:  # type: ignore[no-untyped-def]
    candidates = [str(run / name) for name in GAINS]  # one level too high
    options = ["--reference", str(run / "reference"), "--weights", weights]
    out = ["--out", str(run / "out"), "--candidates"]
    assert main(["select", *options, *out, *candidates]) == 2
    err = capsys.readouterr().err
    assert "such as 0.png: give the folders one level higher or lower" in err
    assert "outputs/0.png: no reference named outputs/0" in err
    assert not (run / "out").exists()


def test_names_and_order() -> None:
    assert sorted(["s-10", "s-9", "s-9b", "a"], key=natural_key) == ["a", "s-9", "s-9b", "s-10"]


def test_names_are_what_differs(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        for path in paths:
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        return list(name_folders([tmp_path / path for path in paths]))

    assert names("run/step-10/out", "run/step-9/out") == ["step-9", "step-10"]
    assert names("x/1/out", "y/2/out") == ["x/1", "y/2"]
    assert names("solo") == ["solo"]
    assert names("a", "a/b") == [str(tmp_path / "a"), str(tmp_path / "a/b")]


def test_refusals(run: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    def refused(*arguments: object) -> str:
        assert choose(run, weights, *arguments)[0] == 2
        return str(capsys.readouterr().err)

    check: list[tuple[Callable[[], str], str]] = [
        (lambda: refused("--veto", "ringing"), "write CHANNEL=TOLERANCE"),
        (lambda: refused("--veto", "rings=0.1"), "no channel named 'rings'"),
        (lambda: refused("--baseline", "step-3"), "no such candidate"),
        (lambda: refused("--processes", 0), "at least 1"),
        (lambda: refused("--candidates", run / "step-0", run / "step-0"), "more than once"),
        (lambda: refused("--candidates", run / "gone"), "not a folder"),
        (lambda: refused("--reference", run / "gone"), "not a folder"),
    ]
    for act, message in check:
        assert message in act()
    (run / "empty").mkdir()
    assert "no image files" in refused("--resume", "--reference", run / "empty")
