"""``relqa evaluate`` on a small data set of real files."""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scripts import environment

from relqa_loss.cli.main import main
from relqa_loss.evaluation.measure import Item, Measured, Notebook
from relqa_loss.evaluation.statistics import agreement
from relqa_loss.functional import relational_distance
from relqa_loss.imageio import read_image

METRIC = """
import torch
calls = []
stop_after = None

def error(preds, target):
    if stop_after is not None and len(calls) >= stop_after:
        raise KeyboardInterrupt
    calls.append(tuple(preds.shape))
    return (preds - target).abs().mean((1, 2, 3))

def constant(preds, target):
    return torch.ones(1)

def dividing(preds, target):
    return 1 / int((preds - target).abs().mean() < 0.05)

def wordy(preds, target):
    raise ValueError(f"cannot judge {preds.tolist()}")

def two_values(preds, target):
    return torch.zeros(2)

def infinite(preds, target):
    return torch.tensor([float("inf")])
"""


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A module of the user's in the working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "my_metric.py").write_text(METRIC)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("my_metric", None)
    import my_metric  # type: ignore[import-not-found]

    yield my_metric
    sys.modules.pop("my_metric", None)


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    """Five references, noise and blur at three levels; the opinion falls with the level."""
    generator = np.random.default_rng(0)
    rows = ["reference,distorted,score,type"]
    for scene in range(5):
        small = generator.integers(0, 256, (8, 10, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{scene}.png")
        for level in (1, 2, 3):
            array = np.asarray(picture) + generator.normal(0, 12 * level, (64, 80, 3))
            noisy = Image.fromarray(array.clip(0, 255).astype(np.uint8))
            noisy.save(tmp_path / f"{scene}-noise-{level}.png")
            blurred = picture.filter(ImageFilter.GaussianBlur(2 * level))
            blurred.save(tmp_path / f"{scene}-blur-{level}.png")
            for kind in ("noise", "blur"):
                opinion = 5 - level + 0.1 * generator.normal()
                rows.append(f"{scene}.png,{scene}-{kind}-{level}.png,{opinion:.3f},{kind}")
    (tmp_path / "mos.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mos.csv"


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "--samples", "50"])


def figures(out: Path) -> dict:  # type: ignore[type-arg]
    record: dict = json.loads((out / "figures.json").read_text("utf-8"))  # type: ignore[type-arg]
    record.pop("command")
    return record


def test_values_figures_and_report(rated: Path, weights: str, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    metrics = ["relqa:distance", "piq:gmsd", "torchmetrics:psnr"]
    options = [word for name in metrics for word in ("--metric", name)]
    assert evaluate(rated, *options, "--weights", weights, "--out", out) == 0
    rows = list(csv.DictReader((out / "values.csv").open(encoding="utf-8")))
    assert [int(row["number"]) for row in rows] == list(range(30))
    row = rows[7]
    preds, target = (read_image(row[key])[None] for key in ("image", "reference"))
    distance = float(relational_distance(preds, target, weights=weights))
    assert float(row["relqa:distance"]) == pytest.approx(distance)
    psnr = float(-10 * torch.log10((preds - target).square().mean()))
    assert float(row["torchmetrics:psnr"]) == pytest.approx(psnr, rel=1e-5)

    record = figures(out)
    assert record["count"] == 30
    assert record["resampled"] == "scenes"
    assert not record["excluded"]
    found = {name: record["metrics"][name]["higher_is_better"] for name in metrics}
    assert found == {"relqa:distance": False, "piq:gmsd": False, "torchmetrics:psnr": True}
    values = np.array([float(row["torchmetrics:psnr"]) for row in rows])
    opinions = np.array([float(row["opinion"]) for row in rows])
    scenes = [row["reference"] for row in rows]
    expected = agreement(values, opinions, scenes=scenes, samples=50)
    overall = record["metrics"]["torchmetrics:psnr"]["overall"]
    for name in ("srcc", "krcc", "plcc", "rmse"):
        figure = getattr(expected, name)
        assert overall[name]["value"] == pytest.approx(figure.value)
        assert overall[name]["low"] == pytest.approx(figure.low)
    by_type = record["metrics"]["torchmetrics:psnr"]["by_type"]
    assert {name: part["count"] for name, part in by_type.items()} == {"blur": 15, "noise": 15}
    assert [(d["first"], d["second"]) for d in record["differences"]] == [
        ("relqa:distance", "piq:gmsd"),
        ("relqa:distance", "torchmetrics:psnr"),
        ("piq:gmsd", "torchmetrics:psnr"),
    ]
    page = (out / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert f"{overall['srcc']['value']:.3f}" in page
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split() == ["metric", "SRCC", "KRCC", "PLCC", "RMSE"]
    assert "torchmetrics:psnr: a high value was taken for better" in printed.err
    assert "relqa:distance: a high value" not in printed.err


def test_a_type_of_few_references_is_resampled_image_by_image(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
) -> None:
    lines = rated.read_text().splitlines()
    few = [line for line in lines if not line.startswith("4") or "blur" in line]
    few[1] = few[1].replace("noise", "rare").replace("rare-1.png", "noise-1.png")
    rated.write_text("\n".join(few) + "\n")
    assert evaluate(rated, "--metric", "my_metric:error", "--out", tmp_path / "out") == 0
    record = figures(tmp_path / "out")
    parts = record["metrics"]["my_metric:error"]
    assert parts["overall"]["resampled"] == record["resampled"] == "scenes"
    found = {name: part["resampled"] for name, part in parts["by_type"].items()}
    assert found == {"blur": "scenes", "noise": "pairs"}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Resamples of pairs, for want of references: noise" in page


def test_a_killed_run_resumes(rated: Path, metric, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ("--metric", "my_metric:error")
    assert evaluate(rated, *options, "--out", whole) == 0
    metric.calls.clear()
    metric.stop_after = 11
    assert evaluate(rated, *options, "--out", broken) == 130
    assert "go on with --resume" in capsys.readouterr().err
    [part] = broken.glob("values.part-*.csv")
    # Killed while a line was being written.
    with part.open("a") as stream:
        stream.write("11,half a l")
    metric.stop_after = None
    assert evaluate(rated, *options, "--out", broken) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert evaluate(rated, *options, "--out", broken, "--resume") == 0
    assert len(metric.calls) == 30
    assert (broken / "values.csv").read_bytes() == (whole / "values.csv").read_bytes()
    assert figures(broken) == figures(whole)
    assert not list(broken.glob("values.part-*"))


def test_killed_again_while_resuming(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    for stop in (3, 8, None):
        metric.stop_after = stop
        more = ["--resume"] if stop != 3 else []
        code = evaluate(rated, "--metric", "my_metric:error", "--out", out, *more)
        assert code == (0 if stop is None else 130)
    assert len(metric.calls) == 30


def test_unreadable_images_are_left_out_and_tried_again(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    capsys,
) -> None:
    out, image = tmp_path / "out", tmp_path / "2-blur-1.png"
    content = image.read_bytes()
    image.write_bytes(content[:50])
    Image.new("RGB", (40, 40)).save(tmp_path / "3-noise-2.png")
    options = ("--metric", "my_metric:error", "--out", out)
    assert evaluate(rated, *options) == 2
    err = capsys.readouterr().err
    assert f"error: {image}: " in err
    assert "3-noise-2.png is 40×40, but its reference" in err
    assert "2 of 30 left out" in err
    record = figures(out)
    assert record["count"] == 28
    assert [Path(one["image"]).name for one in record["excluded"]] == [
        "2-blur-1.png",
        "3-noise-2.png",
    ]
    assert "Left out: 2" in (out / "report.html").read_text("utf-8")
    image.write_bytes(content)
    metric.calls.clear()
    assert evaluate(rated, *options, "--resume") == 2
    assert len(metric.calls) == 1
    assert figures(out)["count"] == 29


def test_what_had_to_be_decided_to_read_a_file_is_said(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    capsys,
) -> None:
    for scene in range(5):
        for name in (f"{scene}.png", *(f"{scene}-noise-{level}.png" for level in (1, 2))):
            image = Image.open(tmp_path / name).convert("RGB")
            image.putalpha(128)
            image.save(tmp_path / name)
    assert evaluate(rated, "--metric", "my_metric:error", "--out", tmp_path / "out") == 0
    err = capsys.readouterr().err
    # Ten of fifteen; the reference, which is read for all of its images, once.
    assert err.count("composited on mid-grey") == 10
    assert err.count(f"note: {tmp_path / '0.png'}: transparent in 100%") == 1
    assert "note: 15 such notes in all" in err


def test_a_constant_metric_does_not_cost_the_report(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    capsys,
) -> None:
    options = ("--metric", "my_metric:error", "--metric", "my_metric:constant")
    assert evaluate(rated, *options, "--out", tmp_path / "out") == 0
    record = figures(tmp_path / "out")
    assert record["metrics"]["my_metric:error"]["overall"]["srcc"]["value"] > 0.5
    [difference] = record["differences"]
    assert difference["p_bootstrap"] is None
    assert difference["p_williams"] is None
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<td>–</td><td>–</td>" in page
    # Nor is it known whether a high value is better.
    said = capsys.readouterr().err
    assert "my_metric:error: a high value was taken for worse, as fits these data" in said
    assert "my_metric:constant: whether a high value is better cannot be told from" in said
    assert "constant: a high value was taken" not in said
    assert re.search(r"<td>my_metric:constant</td>.*<td>–</td></tr>", page)


def test_images_on_which_a_metric_fails_are_left_out(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    capsys,
) -> None:
    assert evaluate(rated, "--metric", "my_metric:dividing", "--out", tmp_path / "out") == 2
    assert "my_metric:dividing failed: ZeroDivisionError: division" in capsys.readouterr().err
    record = figures(tmp_path / "out")
    assert 5 <= record["count"] < 30
    assert len(record["excluded"]) == 30 - record["count"]


def test_a_metric_that_says_much_when_it_fails(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    capsys,
) -> None:
    options = ("--metric", "my_metric:wordy", "--out", tmp_path / "out")
    for more in ([], ["--resume"]):
        assert evaluate(rated, *options, *more) == 2
        said = capsys.readouterr().err
        assert "error: " in said
        assert "my_metric:wordy failed: ValueError: cannot judge [[[[0." in said
        assert "0 of 30 images could be judged" in said
        assert len(said) < 20_000


def test_dollars_in_a_type_are_no_mathematics(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rated.write_text(rated.read_text().replace(",noise\n", ",$^$\n"))
    assert evaluate(rated, "--metric", "my_metric:error", "--out", tmp_path / "out") == 0
    assert "<td>$^$</td>" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_every_type_is_in_the_legend_and_leaves_the_points_to_be_seen(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("relqa_loss.evaluation.report.figure_png", lambda f: drawn.append(f) or b"")
    long = f"blur, {50 * 'very '} strong"
    text = rated.read_text().replace(",noise\n", ",_noise\n").replace(",blur\n", f',"{long}"\n')
    rated.write_text(text.replace(",_noise\n", ",\n", 1))
    assert evaluate(rated, "--metric", "my_metric:error", "--out", tmp_path / "out") == 0
    [legend] = [drawn[0].axes[0].get_legend()]
    words = [label.get_text() for label in legend.get_texts()]
    assert words == ["(none)", "_noise", "blur, very very …ery very  strong"]
    colours = [handle.get_color() for handle in legend.legend_handles]
    assert colours == [line.get_color() for line in drawn[0].axes[0].lines[: len(words)]]
    drawn[0].canvas.draw()
    assert legend.get_window_extent().width < 0.7 * drawn[0].axes[0].bbox.width


def test_short_side(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ("--metric", "my_metric:error")
    assert evaluate(rated, *options, "--out", tmp_path / "a", "--short-side", 32) == 0
    assert set(metric.calls) == {(1, 3, 32, 40)}
    metric.calls.clear()
    assert evaluate(rated, *options, "--out", tmp_path / "b", "--short-side", 256) == 0
    assert set(metric.calls) == {(1, 3, 64, 80)}


def test_opinions_that_fall_with_quality(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [line.split(",") for line in rated.read_text().splitlines()]
    turned = [rows[0], *([*row[:2], f"{-float(row[2]):.3f}", row[3]] for row in rows[1:])]
    dmos = rated.with_name("dmos.csv")
    dmos.write_text("\n".join(",".join(row) for row in turned))
    options = ("--metric", "my_metric:error")
    assert evaluate(rated, *options, "--out", tmp_path / "a") == 0
    assert evaluate(dmos, *options, "--out", tmp_path / "b", "--lower-is-better") == 0
    one, two = (figures(tmp_path / name)["metrics"]["my_metric:error"] for name in "ab")
    assert one == two
    assert one["higher_is_better"] is False
    assert one["overall"]["srcc"]["value"] > 0.5


def test_two_alternatives(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "2afc" / "noise"
    for part in ("ref", "p0", "p1", "judge"):
        (root / part).mkdir(parents=True)
    for scene in range(5):
        for part, name in (("ref", ""), ("p0", "-noise-1"), ("p1", "-noise-3")):
            picture = (tmp_path / f"{scene}{name}.png").read_bytes()
            (root / part / f"{scene:06d}.png").write_bytes(picture)
        np.save(root / "judge" / f"{scene:06d}.npy", np.array([0.2 if scene else 0.9]))
    out = tmp_path / "out"
    assert evaluate(tmp_path / "2afc", "--metric", "my_metric:error", "--out", out) == 0
    overall = figures(out)["metrics"]["my_metric:error"]["overall"]
    assert overall["count"] == 5
    assert overall["two_afc"]["value"] == pytest.approx((4 * 0.8 + 0.1) / 5)
    assert "2AFC" in (out / "report.html").read_text("utf-8")
    [first, *_] = csv.DictReader((out / "values.csv").open(encoding="utf-8"))
    assert float(first["my_metric:error"]) < float(first["my_metric:error (second)"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--metric", "ssim"], "a metric is named package:function"),
        (["--metric", "piq:sim"], "has no function 'sim'; perhaps one of"),
        (["--metric", "piq:SSIMLoss"], "has no function 'SSIMLoss'"),
        (["--metric", "nothing_here:f"], "cannot import nothing_here"),
        (["--metric", "relqa:maps"], "relqa has distance and score, not 'maps'"),
        (["--kind", "tid2014"], "unknown kind of data set 'tid2014'"),
        (["--kind", "tid2013"], "kind tid2013 is a folder"),
        (["--short-side", "8"], "--short-side must be at least 32"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--metric", "my_metric:two_values"], "my_metric:two_values gave shape (2,)"),
        (["--metric", "my_metric:infinite"], "0 of 30 images could be judged"),
        (["--weights", "no-such"], "no-such"),
    ],
)
def test_wrong_input(
    rated: Path,
    metric,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    capsys,
    options: list[str],
    sentence: str,
) -> None:
    assert evaluate(rated, *options, "--out", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err


def test_a_malformed_data_set(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a.csv").write_text("reference,distorted,score\na.png,b.png,3\n")
    assert evaluate(tmp_path / "a.csv", "--out", tmp_path / "out") == 2
    assert "a.csv, line 2: no image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_resume_with_other_settings(rated: Path, metric, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    options = ("--metric", "my_metric:error", "--out", tmp_path / "out", "--resume")
    assert evaluate(rated, *options) == 0
    assert evaluate(rated, *options, "--short-side", 48) == 2
    assert "short_side was None, now 48" in capsys.readouterr().err
    rated.write_text(rated.read_text().replace("4.", "3."))
    assert evaluate(rated, *options) == 2
    assert "labels was" in capsys.readouterr().err


def test_resume_with_other_weights(rated: Path, weights: str, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    lines = rated.read_text().splitlines()
    rated.write_text("\n".join(lines[:13]) + "\n")
    options = (rated, "--out", tmp_path / "out", "--resume", "--weights")
    assert evaluate(*options, weights) == 0
    assert evaluate(*options, "relqa-nano") == 2
    assert "weights was 'tiny@" in capsys.readouterr().err


def test_the_seed_decides_the_resamples(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert evaluate(rated, "--metric", "my_metric:error", "--out", out, "--seed", 3) == 0
    rows = list(csv.DictReader((out / "values.csv").open(encoding="utf-8")))
    values, opinions = (
        np.array([float(row[name]) for row in rows]) for name in ("my_metric:error", "opinion")
    )
    scenes = [row["reference"] for row in rows]
    found = figures(out)["metrics"]["my_metric:error"]["overall"]
    for seed, same in ((3, True), (0, False)):
        expected = agreement(values, opinions, scenes=scenes, samples=50, seed=seed)
        assert (found["plcc"]["low"] == pytest.approx(expected.plcc.low)) is same


def test_a_folder_that_not_all_processes_see(tmp_path: Path) -> None:
    items = [Item(k, Path("reference.png"), (Path(f"{k}.png"),), 1.0, "") for k in range(4)]

    def share(folder: Path, rank: int, resume: bool = False) -> Notebook:
        book = Notebook(folder, {}, items, ["m:f"], resume=resume)
        book.start()
        todo = book.todo() if resume else book.todo(rank, 2)
        book.keep((Measured(item, {"m:f": (float(item.number),)}) for item in todo), rank)
        return book

    for world in (1, 2, 3, 7):
        book = Notebook(tmp_path / "none", {}, items, ["m:f"])
        assert [item for rank in range(world) for item in book.todo(rank, world)] == items
    share(tmp_path / "elsewhere", 1)
    with pytest.raises(ValueError, match=r"of 2 of 4 images only; .* --resume"):
        share(tmp_path / "here", 0).close()
    assert len(share(tmp_path / "here", 0, resume=True).close()) == 4


@pytest.mark.parametrize(("device", "chosen"), [("cuda", [1]), ("auto", [1]), ("cpu", [])])
def test_each_process_has_a_gpu_of_its_own(
    rated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    chosen: list[int],
) -> None:
    taken: list[int] = []

    def resolve(name: str) -> str:
        raise ValueError("far enough")  # there need not be a GPU

    monkeypatch.setattr("relqa_loss.cli.evaluate.resolve_device", resolve)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert evaluate(rated, "--device", device, "--out", tmp_path / "out") == 2
    assert not taken
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert evaluate(rated, "--device", device, "--out", tmp_path / "out") == 2
    assert taken == chosen


def test_several_processes_give_the_same(rated: Path, metric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert evaluate(rated, "--metric", "my_metric:error", "--out", alone) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "relqa_loss", "evaluate", str(rated), "--metric",
               "my_metric:error", "--out", str(shared), "--samples", "50"]  # fmt: skip
    processes = [
        subprocess.Popen(
            command,
            env=environment(
                RANK=str(rank),
                WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            ),
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert (shared / "values.csv").read_bytes() == (alone / "values.csv").read_bytes()
    assert figures(shared) == figures(alone)
