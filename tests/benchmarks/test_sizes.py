"""Two sizes side by side, and what agreement costs."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(request.param)


def figures(srcc: float) -> dict[str, Any]:
    agreement = {"mdsi": srcc, "vif": -srcc}
    maps = {"dominant ≥.3": 0.5, "sign ≥.3": 0.75, "AUROC ≥.3": 0.8}
    ladders = {"distance rises": 1.0, "score falls": 0.6, "score < 0": 0.9}
    facts = [
        {"firm": firm, "shares": {"distance": srcc, "score": 0.5, "psnr": 0.1}}
        for firm in (True, False)
    ]
    return {
        "accuracy": {
            "command": "python a.py",
            "SRCC, all operators": {"distance": agreement, "score": agreement},
            "trained operators": {"maps": maps, "ladders": ladders},
        },
        "failure_types": {
            "command": "python f.py",
            "facts": facts,
            "firm facts that hold": {"distance": 1.0, "score": 0.0},
        },
        "trust": {
            "command": "python t.py",
            "recovery dB": {"noise": 40.4, "blur": 100.0},
            "monotone line scans": 1.0,
        },
    }


@pytest.mark.parametrize("script", ["sizes"], indirect=True)
@pytest.mark.parametrize(("other", "verdict"), [(0.885, "within"), (0.875, "not within")])
def test_the_largest_loss_decides(script: ModuleType, other: float, verdict: str) -> None:
    page = script.report(["large", "small"], [figures(0.9), figures(other)])
    assert f"is {other - 0.9:+.3f} (SRCC of the distance with mdsi): {verdict} 0.02" in page
    assert f"| SRCC of the score with vif | 0.900 | {other:.3f} | {other - 0.9:+.3f} |" in page
    assert "| recovery by descent from noise / blur, dB | 40 / 100 | 40 / 100 |  |" in page


@pytest.mark.parametrize("script", ["sizes"], indirect=True)
def test_figures_are_those_of_the_manifest(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"weights": {"a": {"figures": figures(0.9)}, "b": {}}}))
    assert script.figures_of("a", manifest) == figures(0.9)
    with pytest.raises(ValueError, match="no figures of accuracy, failure_types, trust for b"):
        script.figures_of("b", manifest)
    with pytest.raises(ValueError, match="no figures of accuracy, failure_types, trust for c"):
        script.figures_of("c", manifest)  # of a run, and not in the manifest
    page = tmp_path / "sizes.md"
    assert script.main(["--out", str(page)]) == 0  # of the weights that ship
    assert capsys.readouterr().out == page.read_text("utf-8")
    assert "relqa-nano@" in page.read_text("utf-8")


@pytest.mark.parametrize("script", ["failure_types"], indirect=True)
def test_shares_are_told_apart_by_network(script: ModuleType) -> None:
    columns = {"distance a@1": 0.1, "score a@1": 0.2, "distance b@2": 0.3, "psnr": 0.4}
    assert script.own(columns, " a@1") == {"distance": 0.1, "score": 0.2, "psnr": 0.4}
    assert script.own({"distance": 0.5, "psnr": 0.4}, "") == {"distance": 0.5, "psnr": 0.4}


@pytest.mark.parametrize("script", ["pareto"], indirect=True)
def test_the_front_is_what_nobody_beats_in_both(script: ModuleType) -> None:
    def point(time: float, srcc: float) -> Any:
        return script.Point([time, time, 100.0], {"ms_gmsd": srcc, "vif": -srcc})

    points = {
        "fast": point(1, 0.5), "good": point(3, 0.9),
        "slow": point(4, 0.8), "MDSI": point(2, 0.4),
    }  # fmt: skip
    assert script.front(points) == {"fast", "good"}
    assert points["good"].mean == pytest.approx(0.9)


@pytest.mark.parametrize("script", ["pareto"], indirect=True)
def test_contenders_are_ranked_and_timed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {
        "L1": script._MeanError(),
        "relqa": script.RelationalLoss(pixel_weight=0, reduction="none"),
    }
    monkeypatch.setattr(script, "contenders", lambda weights: losses)
    crops = [torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    monkeypatch.setattr(script, "photographs", lambda *args, **options: crops)
    monkeypatch.setattr(sys, "argv", ["benchmarks/pareto.py"])
    page, picture = tmp_path / "pareto.md", tmp_path / "pareto.png"
    options = ["--photos", ".", "--size", "96", "--repeats", "2", "--weights", "relqa-base"]
    options += ["--out", str(page), "--json", str(tmp_path / "x.json"), "--plot", str(picture)]
    assert script.main(options) == 0
    content = json.loads((tmp_path / "x.json").read_text("utf-8"))
    for name in losses:
        assert f"| {name} |" in page.read_text("utf-8")
        assert len(content["points"][name]["milliseconds"]) == 2
        values = content["points"][name]["agreement"]
        assert set(values) == set(script.REFEREES)
        assert all(math.isfinite(value) for value in values.values())
    assert picture.stat().st_size > 1000
