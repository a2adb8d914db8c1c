"""``relqa calibrate``, and opinions from ``relqa score``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relqa_loss._version import __version__
from relqa_loss.cli.main import main
from relqa_loss.evaluation import calibration as library
from relqa_loss.evaluation.calibration import load_calibration
from relqa_loss.evaluation.finished import read_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six references with four levels of noise; opinions fall with the level."""
    folder = tmp_path_factory.mktemp("rated")
    generator = np.random.default_rng(0)
    rows = ["reference,distorted,score"]
    for scene in range(6):
        small = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"{scene}.png")
        for level in range(1, 5):
            array = np.asarray(picture) + generator.normal(0, 10 * level, (48, 48, 3))
            name = f"{scene}-{level}.png"
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(folder / name)
            rows.append(f"{scene}.png,{name},{5 - level + 0.2 * generator.normal():.3f}")
    (folder / "mos.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def evaluated(folder: Path, weights: str) -> Path:
    options = ["--metric", "relqa:distance", "--metric", "torchmetrics:psnr", "--samples", "2"]
    out = folder / "out"
    assert main(["evaluate", str(folder / "mos.csv"), *options, "--weights", weights,
                 "--out", str(out)]) == 0  # fmt: skip
    return out


def calibrate(*arguments: object) -> int:
    return main(["calibrate", *map(str, arguments), "--samples", "20"])


def test_from_evaluation_to_opinions(
    folder: Path,
    evaluated: Path,
    weights: str,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    out = folder / "scale.json"
    assert calibrate(evaluated, "--out", out) == 0
    printed = capsys.readouterr().out
    assert calibrate(evaluated, "--out", folder) == 2
    assert f"--out {folder} is a folder; give the file to write" in capsys.readouterr().err
    assert "24 images of 6 references" in printed
    assert str(out) in printed
    calibration = load_calibration(out)
    rated = read_evaluation(evaluated)
    assert calibration.about["metric"] == "relqa:distance"
    assert calibration.about["scale"]
    # Near the opinions that it was made from, and on their scale.
    assert np.abs(calibration(rated.values).value - rated.opinions).mean() < 0.5

    table = folder / "opinions.csv"
    arguments = [str(folder / "2.png"), *(str(folder / f"2-{k}.png") for k in (1, 3))]
    options = ["--weights", weights, "--calibration", str(out)]
    assert main(["score", *arguments, *options, "--csv", str(table)]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    for row in rows:
        estimate = calibration(float(row["distance"]))
        assert float(row["opinion"]) == pytest.approx(estimate.value[0])
        assert float(row["opinion_low"]) == pytest.approx(estimate.low[0])
        assert float(row["opinion_high"]) == pytest.approx(estimate.high[0])
        assert f"{float(row['opinion']):.2f} [" in printed
    assert float(rows[0]["opinion"]) > float(rows[1]["opinion"])

    assert main(["score", *arguments, *options, "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["calibration"]["data"] == "csv"
    assert record["calibration"]["level"] == 0.95
    mean = sum(float(row["opinion"]) for row in rows) / 2
    assert record["mean"]["opinion"] == pytest.approx(mean, rel=1e-4)


def test_without_calibration_nothing_is_said_of_opinions(
    folder: Path,
    weights: str,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    files = [str(folder / "2.png"), str(folder / "2-1.png")]
    assert main(["score", *files, "--weights", weights, "--csv", "-"]) == 0
    assert "opinion" not in capsys.readouterr().out


def test_distances_that_were_not_seen_are_noted(
    folder: Path,
    evaluated: Path,
    weights: str,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    out = folder / "scale.json"
    assert calibrate(evaluated, "--out", out) == 0
    Image.new("RGB", (48, 48)).save(folder / "black.png")
    files = [str(folder / "2.png"), str(folder / "black.png"), str(folder / "2-2.png")]
    assert main(["score", *files, "--weights", weights, "--calibration", str(out)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "lies outside" in line]
    assert len(notes) == 1
    assert "black.png" in notes[0]


def test_what_was_left_out_of_the_fit(evaluated: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    for name in ("figures.json", "settings.json"):
        (tmp_path / name).write_bytes((evaluated / name).read_bytes())
    text = (evaluated / "values.csv").read_text("utf-8")
    for many, said in ((6, "references were left out"), (4, "images were left out")):
        for scene in range(many, 6):
            text = text.replace(f"/{scene}.png", "/0.png")
        (tmp_path / "values.csv").write_text(text)
        assert calibrate(tmp_path, "--out", tmp_path / "scale.json") == 0
        printed = capsys.readouterr().out
        assert f"24 images of {many} references; error where {said} of the fit" in printed


def test_options_decide_the_calibration(evaluated: Path, tmp_path: Path) -> None:
    assert calibrate(evaluated, "--out", tmp_path / "a.json", "--seed", 3, "--level", 0.8) == 0
    rated = read_evaluation(evaluated)
    assert load_calibration(tmp_path / "a.json") == library.calibrate(
        rated.values,
        rated.opinions,
        scenes=rated.scenes,
        samples=20,
        seed=3,
        level=0.8,
        about={**rated.about, "relqa_loss": __version__},
    )


def test_another_metric(folder: Path, evaluated: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    out = folder / "psnr.json"
    assert calibrate(evaluated, "--out", out, "--metric", "torchmetrics:psnr") == 0
    estimate = load_calibration(out)([15.0, 30.0]).value
    assert estimate[0] < estimate[1]
    files = [str(folder / "2.png"), str(folder / "2-1.png")]
    assert main(["score", *files, "--weights", weights, "--calibration", str(out)]) == 2
    said = capsys.readouterr().err
    assert "psnr.json: the calibration is for torchmetrics:psnr, not for relqa:distance" in said
    assert "without --metric" in said


def test_other_weights_are_refused(folder: Path, evaluated: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = folder / "scale.json"
    assert calibrate(evaluated, "--out", out) == 0
    files = [str(folder / "2.png"), str(folder / "2-1.png")]
    assert main(["score", *files, "--calibration", str(out)]) == 2
    assert "these are relqa-base@" in capsys.readouterr().err


def test_images_that_were_reduced_are_refused(
    folder: Path,
    weights: str,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    evaluation, out = folder / "reduced", folder / "reduced.json"
    assert main(["evaluate", str(folder / "mos.csv"), "--weights", weights, "--samples", "2",
                 "--short-side", "40", "--out", str(evaluation)]) == 0  # fmt: skip
    assert calibrate(evaluation, "--out", out) == 0
    files = [str(folder / "2.png"), str(folder / "2-1.png")]
    assert main(["score", *files, "--weights", weights, "--calibration", str(out)]) == 2
    assert "short side of 40 pixels" in capsys.readouterr().err


def test_opinions_that_go_the_wrong_way(folder: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    evaluation = folder / "dmos"
    assert main(["evaluate", str(folder / "mos.csv"), "--lower-is-better", "--weights", weights,
                 "--samples", "2", "--out", str(evaluation)]) == 0  # fmt: skip
    assert calibrate(evaluation, "--out", folder / "none.json") == 2
    assert "wrong way" in capsys.readouterr().err
    assert not (folder / "none.json").exists()


def test_folders_that_cannot_be_used(evaluated: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    def refused(sentence: str, *options: object) -> None:
        assert calibrate(tmp_path, "--out", tmp_path / "a.json", *options) == 2
        assert sentence in capsys.readouterr().err

    refused("has no figures.json: give the --out folder")
    for name in ("figures.json", "settings.json"):
        (tmp_path / name).write_bytes((evaluated / name).read_bytes())
    refused("has no values.csv; finish the evaluation")
    refused("no values of piq:ssim, only of relqa:distance", "--metric", "piq:ssim")
    lines = (evaluated / "values.csv").read_text("utf-8").splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[4], "good", 1)
    (tmp_path / "values.csv").write_text("\n".join(lines) + "\n")
    refused("values.csv, line 4: damaged")
    (tmp_path / "figures.json").write_text('{"metrics": 1}')
    refused("not of relqa evaluate")
    (tmp_path / "figures.json").write_text("{")
    refused("figures.json: damaged")


@pytest.mark.parametrize("name", ["values.csv", "figures.json", "settings.json"])
def test_the_evaluation_is_not_replaced(evaluated: Path, name: str, capsys) -> None:  # type: ignore[no-untyped-def]
    before = (evaluated / name).read_bytes()
    assert calibrate(evaluated, "--out", evaluated / ".." / evaluated.name / name) == 2
    assert "would replace what relqa evaluate wrote" in capsys.readouterr().err
    assert (evaluated / name).read_bytes() == before
