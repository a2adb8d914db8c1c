"""Publishing weights under a shipped name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from relqa_loss.network import NetworkConfig, ParityNetwork
from relqa_loss.network.pretrained import WeightsRecord, save_weights
from relqa_loss.training.publish import main, publish


@pytest.fixture
def weights(tmp_path: Path) -> WeightsRecord:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ParityNetwork(NetworkConfig())
    return save_weights(network, tmp_path / "run.safetensors", network.config, {"seed": 0})


def _figures(path: Path, version: str) -> Path:
    path.write_text(json.dumps({"weights": version, "srcc": 0.5}))
    return path


def test_file_and_manifest_agree(weights: WeightsRecord, tmp_path: Path) -> None:
    figures = _figures(tmp_path / "accuracy.json", weights.version)
    into = tmp_path / "pretrained"
    publish(weights.path, "relqa-test", into, [figures])
    manifest = json.loads((into / "manifest.json").read_text("utf-8"))
    entry = manifest["weights"]["relqa-test"]
    assert (into / entry["file"]).read_bytes() == weights.path.read_bytes()
    assert entry["sha256"] == weights.sha256
    assert entry["training"] == {"seed": 0}
    assert entry["figures"]["accuracy"]["srcc"] == 0.5


def test_other_entries_are_kept(weights: WeightsRecord, tmp_path: Path) -> None:
    into = tmp_path / "pretrained"
    publish(weights.path, "first", into)
    publish(weights.path, "second", into)
    manifest = json.loads((into / "manifest.json").read_text("utf-8"))
    assert set(manifest["weights"]) == {"first", "second"}


def test_figures_of_other_weights_are_refused(weights: WeightsRecord, tmp_path: Path) -> None:
    for number, version in enumerate(("run@00000000", "run", "")):
        figures = _figures(tmp_path / f"{number}.json", version)
        with pytest.raises(ValueError, match="run the benchmark on these weights"):
            publish(weights.path, "relqa-test", tmp_path / "pretrained", [figures])
    assert not (tmp_path / "pretrained").exists()


def test_command_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "no.safetensors"), "--name", "x", "--into", str(tmp_path)]) == 2
    assert "no.safetensors" in capsys.readouterr().err
