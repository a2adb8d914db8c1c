"""The model card's table says what was measured, and on these weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, working on a copy of the pages it writes."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("model_card", ROOT / "benchmarks/model_card.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pretrained").mkdir()
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def _figures(weights: str) -> dict[str, dict[str, Any]]:
    maps = {"dominant ≥.3": 0.5, "sign ≥.3": 0.75, "AUROC ≥.3": 0.8125}
    group = {"maps": maps, "ladders": {"distance rises": 0.9, "score falls": 0.625}}
    field = {
        "RelationalLoss": {"milliseconds": [10.0, 20.0, 30.0], "peak_mib": 4.0},
        "RelationalLoss, relqa-nano": {"milliseconds": [5.0, 8.0, 10.0], "peak_mib": 2.0},
        "piq SSIM": {"milliseconds": [10.0, 12.0, 15.0], "peak_mib": 2.0},
        "LPIPS-VGG architecture": {"milliseconds": [600.0, 1200.0, 1800.0], "peak_mib": 1.0},
        "LPIPS-Alex architecture": {"milliseconds": [30.0, 50.0, 60.0], "peak_mib": 8.0},
        "piq MS-SSIM": {"milliseconds": [40.0, 60.0, 90.0], "peak_mib": 1.0},
        "DISTS architecture": {"milliseconds": [500.0, 1000.0, 1500.0], "peak_mib": 1.0},
    }
    known = {"weights": weights, "command": "python benchmarks/x.py"}
    facts = [
        {"fact": name, "firm": firm, "photographs": 4, "shares": {"distance": share, "score": 0.5}}
        for name, firm, share in (("a > b", True, 1.0), ("c > d", True, 0.75), ("e > f", False, 0))
    ]
    return {
        "accuracy": {**known, "trained operators": group},
        "accuracy-heldout": {**known, "weights": "heldout@0", "held-out operators": group},
        "trust": {**known, "recovery dB": {"noise": 40.04, "blur": 50.0}, "monotone line scans": 1},
        "failure_types": {
            **known,
            "photographs": 4,
            "firm facts that hold": {"distance": 0.5, "score": 0.0},
            "facts": facts,
        },
        "speed": {**known, "results": {"256": field, "512": field}},
    }


def _run(script: ModuleType, folder: Path, weights: str, **tables: str) -> None:
    for name, content in _figures(weights).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
        measured = tables.get(name, content["weights"])
        (folder / f"{name}.md").write_text(f"#### Measured {name}\n\nWeights {measured}.\n")
    (folder / "MANIFEST.csv").write_text(
        "file,split,source,licence\na,train,here,CC0\nb,train,here,CC0\nc,val,there,MIT\n"
    )
    path = ROOT / "pretrained" / "relqa-base.safetensors"
    copy = folder / "runs.safetensors"
    shutil.copy(path, copy)
    entry = json.loads((ROOT / "pretrained/manifest.json").read_text("utf-8"))["weights"]
    copy.with_suffix(".json").write_text(json.dumps(entry["relqa-base"]))
    arguments = ["--weights", copy, "--figures", folder, "--photos", folder]
    sys.argv = ["model_card.py", *map(str, arguments)]
    assert script.main() == 0


def test_card_and_readme_hold_the_figures(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    manifest = json.loads((ROOT / "pretrained/manifest.json").read_text("utf-8"))
    entry = manifest["weights"]["relqa-base"]
    _run(script, tmp_path, f"relqa-base@{entry['sha256'][:8]}")
    card = (tmp_path / "pretrained/MODEL_CARD.md").read_text("utf-8")
    readme = (tmp_path / "README.md").read_text("utf-8")
    for text in (
        "50.0% / 75.0% / 0.812",
        "| ≥ 97% | 62.5% |",
        "40.0 / 50.0 dB",
        "| ≥ 3× | 2.50× / 2.50× |",
        "| ≥ 50× | 50.00× / 50.00× |",
        "| ≥ 50× | 60.00× / 60.00× |",
        "| ≥ 6× | 6.00× / 6.00× |",
        "| ≥ 1× | 1.50× / 1.50× |",
        "| ≤ 0.5× | 0.50× / 0.50× |",
        "| ≥ 90% | 50.0% / 0.0% |",
    ):
        assert text in card
        assert text in readme
    assert "### Measured accuracy-heldout" in card
    assert "1 of 2 firm facts" in card
    assert "| c > d | 4 | 0.750 | 0.500 |" in card
    assert "a > b" not in card
    assert "e > f" not in card
    assert entry["training"]["command"] in card
    assert "2 for training, 1 for validation" in card
    assert "| here | CC0 | 2 | 0 |\n| there | MIT | 0 | 1 |" in card
    assert "@" not in card.replace("@" + entry["sha256"][:8], "").replace("heldout@0", "")
    old = (ROOT / "README.md").read_text("utf-8")
    assert readme.partition(script.HEAD)[0] == old.partition(script.HEAD)[0]
    assert readme.partition(script.FOOT)[2] == old.partition(script.FOOT)[2]


def test_figures_of_other_weights_are_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit):
        _run(script, tmp_path, "relqa-base@00000000")
    assert not (tmp_path / "pretrained/MODEL_CARD.md").exists()


@pytest.mark.parametrize("name", ["accuracy", "trust", "speed"])
def test_tables_of_other_weights_than_their_figures_are_refused(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    manifest = json.loads((ROOT / "pretrained/manifest.json").read_text("utf-8"))
    version = f"relqa-base@{manifest['weights']['relqa-base']['sha256'][:8]}"
    with pytest.raises(SystemExit):
        _run(script, tmp_path, version, **{name: "relqa-base@00000000"})
    assert f"{name}.md is not of the weights of {name}.json" in capsys.readouterr().err
    assert not (tmp_path / "pretrained/MODEL_CARD.md").exists()


def test_the_chain_of_runs_passes_through_joined_weights(script: ModuleType) -> None:
    def run(
        command: str, initial: dict[str, Any] | None = None, learn: str = "both"
    ) -> dict[str, Any]:
        return {
            "command": command, "commit": "c", "step": 1, "seconds": 60.0, "date": "d",
            "torch": "t", "config": {"seed": 0, "learn": learn}, "initial": initial,
            "photos": {split: {"sha256": "f" * 64} for split in ("train", "val")},
        }  # fmt: skip

    parts = {part: {"training": run(f"first of {part}")} for part in ("maps", "distance")}
    last = run("last", {"training": {"command": "join", "joined": parts}}, "distance")
    table = script.runs(last, "distance")
    assert table.index("first of distance") < table.index("| 2 | `last`")
    assert "first of maps" not in table
    maps, _, distance = script.training(last).partition("The distance:")
    assert "`join`" in maps
    assert "first of maps" in maps
    assert "last" not in maps.partition("The maps:")[2]
    assert table in distance
    left_out = ["error.stages.2.mix.weight", "error.stages.2.reduce.weight"]
    shaped = {"command": "shape", "left_out": left_out, "initial": {"training": last}}
    text = script.training(shaped)
    assert table in text
    assert "`join`,\nafter" in text
    assert "`shape`,\nwhich" in text
    assert "Left out: `error.stages.2`." in text
