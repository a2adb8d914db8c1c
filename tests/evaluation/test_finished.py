"""What ``relqa evaluate`` left, read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relqa_loss.evaluation.finished import read_evaluation

HEAD = "number,reference,image,second,opinion,type,relqa:distance,psnr,error\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    metrics = {
        name: {"higher_is_better": name == "psnr", "overall": {"srcc": {"value": 0.9}}}
        for name in ("relqa:distance", "psnr")
    }
    figures = {"kind": "csv", "scale": "1 to 5", "higher_is_better": True, "metrics": metrics}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    settings = {"short_side": 256, "labels": "abc", "weights": "relqa-base@01234567"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    _write(tmp_path, "0,a.png,1.png,,4.5,x,0.5,31.0,", "1,b.png,2.png,,,x,,,gone",
           "2,a.png,3.png,,2.5,x,1.5,25.0,", "3,c.png,4.png,,1.0,x,2.5,20.0,")  # fmt: skip
    return tmp_path


def _write(folder: Path, *rows: str) -> None:
    (folder / "values.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))


def _change(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_values_of_what_could_be_judged_beside_opinions_and_references(folder: Path) -> None:
    found = read_evaluation(folder)
    assert found.values.tolist() == [0.5, 1.5, 2.5]
    assert found.opinions.tolist() == [4.5, 2.5, 1.0]
    assert found.scenes == ("a.png", "a.png", "c.png")
    assert found.falling
    assert found.about == {
        "metric": "relqa:distance",
        "data": "csv",
        "labels": "abc",
        "scale": "1 to 5",
        "higher_is_better": True,
        "short_side": 256,
        "references": 2,
        "weights": "relqa-base@01234567",
    }


def test_another_metric_goes_its_own_way_and_has_no_weights(folder: Path) -> None:
    found = read_evaluation(folder, "psnr")
    assert found.values.tolist() == [31.0, 25.0, 20.0]
    assert not found.falling
    assert "weights" not in found.about
    _change(folder / "figures.json", {"higher_is_better": False})
    assert read_evaluation(folder, "psnr").falling
    assert not read_evaluation(folder).falling


@pytest.mark.parametrize("row", ["0,a.png,1.png,,4.5,x,inf,31.0,", "0,a.png,1.png,,nan,x,1.0,31.0,",
                                 "0,a.png,1.png,,4.5,x,,31.0,", "0,a.png"])  # fmt: skip
def test_a_damaged_line_is_named(folder: Path, row: str) -> None:
    _write(folder, "1,b.png,2.png,,1.5,x,0.1,9.0,", row)
    with pytest.raises(ValueError, match=r"values\.csv, line 3: damaged"):
        read_evaluation(folder)


def test_choices_between_two_images_are_refused(folder: Path) -> None:
    overall = {"overall": {"two_afc": {"value": 0.8}}, "higher_is_better": False}
    _change(folder / "figures.json", {"metrics": {"relqa:distance": overall}})
    with pytest.raises(ValueError, match="choices between two images"):
        read_evaluation(folder)


def test_a_record_that_is_none_is_named(folder: Path) -> None:
    (folder / "settings.json").write_text("[]")
    with pytest.raises(ValueError, match=r"settings\.json: damaged \(not a JSON object\)"):
        read_evaluation(folder)
