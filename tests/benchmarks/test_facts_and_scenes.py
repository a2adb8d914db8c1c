"""The benchmarks of failure types and of different scenes run and write what they print."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from scripts import run_script

from relqa_loss.network import find_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "chelsea"):
        pixels = getattr(skimage.data, name)()[60:260, 100:300]
        Image.fromarray(pixels).save(folder / f"{name}.png")
    rows = "".join(f"{name}.png,val\n" for name in ("astronaut", "coffee", "chelsea"))
    (folder / "MANIFEST.csv").write_text("file,split\n" + rows)
    return folder


def run(script: str, photos: Path, *options: object) -> tuple[str, dict]:  # type: ignore[type-arg]
    figures, report = photos / f"{script}.json", photos / f"{script}.md"
    text = start(script, photos, *options, "--json", figures, "--out", report)
    assert report.read_text("utf-8").strip() == text.strip()
    return text, json.loads(figures.read_text("utf-8"))


def start(script: str, photos: Path, *options: object) -> str:
    result = run_script(ROOT / "benchmarks" / f"{script}.py", "--photos", photos, *options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_failure_types(photos: Path) -> None:
    options = ("--count", 1, "--size", 96, "--metrics", "psnr", "gmsd")
    report, figures = run("failure_types", photos, *options)
    assert figures["photographs"] == 1
    assert set(figures["firm facts that hold"]) == {"distance", "score", "psnr", "gmsd"}
    by_name = {fact["fact"]: fact for fact in figures["facts"]}
    fact = by_name["correlated noise at 25 dB > high-frequency noise at 25 dB"]
    assert fact["shares"]["distance"] == fact["shares"]["gmsd"] == 1.0
    assert fact["ratio"] > 1
    assert "correlated noise at 25 dB > high-frequency noise at 25 dB" in report


def test_of_several_weights_each_has_the_figures_that_it_has_alone(photos: Path) -> None:
    options = ("--count", 1, "--size", 96, "--metrics", "--json", photos / "facts.json")
    start("failure_types", photos, "--weights", "relqa-base", "relqa-nano", *options)
    start("failure_types", photos, "--weights", "relqa-nano", *options)
    base, nano, alone = (
        json.loads((photos / f"facts{name}.json").read_text("utf-8"))
        for name in ("-relqa-base", "-relqa-nano", "")
    )
    assert nano | {"command": ""} == alone | {"command": ""}
    assert base["facts"] != nano["facts"]


def namesakes(folder: Path) -> list[Path]:
    """The shipped weights as two runs would leave them: files of one name in two folders."""
    manifest = json.loads((ROOT / "pretrained/manifest.json").read_text("utf-8"))["weights"]
    found = []
    for name in ("relqa-base", "relqa-nano"):
        path = folder / name / "final.safetensors"
        path.parent.mkdir()
        shutil.copy(ROOT / "pretrained" / f"{name}.safetensors", path)
        path.with_suffix(".json").write_text(json.dumps(manifest[name]))
        found.append(path)
    return found


def test_weights_of_one_name_have_files_of_their_own(photos: Path, tmp_path: Path) -> None:
    options = ("--count", 1, "--size", 96, "--metrics", "--json", tmp_path / "facts.json")
    start("failure_types", photos, "--weights", *namesakes(tmp_path), *options)
    files = sorted(tmp_path.glob("facts-*.json"))
    named = [json.loads(file.read_text("utf-8"))["weights"] for file in files]
    assert [file.stem for file in files] == [f"facts-{name}" for name in named]
    assert len(named) == 2


def test_contenders_of_one_name_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pareto = importlib.import_module("pareto")
    weights = [str(path) for path in namesakes(tmp_path)]
    names = [name for name in pareto.contenders(weights) if "final" in name]
    assert names == [find_weights(path).version for path in weights]
    assert "relqa-nano" in pareto.contenders(["relqa-base", "relqa-nano"])


def test_cross_scene(photos: Path) -> None:
    options = ("--size", 96, "--operators", "white_noise", "gaussian_blur", "jpeg")
    report, figures = run("cross_scene", photos, *options)
    same = figures["pairs"]["same operator and severity"]
    other = figures["pairs"]["different operators"]
    # Three pairs of photographs under each of three operators at two severities.
    assert same["asked"] == 3 * 3 * 2
    # Two severities on either side.
    assert other["asked"] == 3 * 6 * 4
    assert 0 < same["unanimous"] <= same["asked"]
    assert other["shares"]["PSNR"]["value"] > 0.5
    assert "same operator and severity" in report


def test_cross_scene_of_one_operator_has_no_pairs_of_several(photos: Path) -> None:
    report, figures = run("cross_scene", photos, "--size", 96, "--operators", "gaussian_blur")
    assert set(figures["pairs"]) == {"same operator and severity"}
    assert "| different operators |" not in report
