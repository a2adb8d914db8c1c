"""Publishing weights: file, manifest entry, and figures measured on these very weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from relqa_loss.network import NetworkConfig, ParityNetwork, find_weights
from relqa_loss.network.pretrained import save_weights
from relqa_loss.training.publish import main, publish


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ParityNetwork()
    path = tmp_path / "mine.safetensors"
    save_weights(network, path, NetworkConfig(), {"command": "relqa train"})
    return path


def test_published_file_and_entry(weights: Path, tmp_path: Path) -> None:
    record = find_weights(weights)
    figures = tmp_path / "accuracy.json"
    figures.write_text(json.dumps({"weights": record.version, "srcc": 0.9}))
    into = tmp_path / "shipped"
    publish(weights, "first", into, [figures])
    publish(weights, "second", into)
    manifest = json.loads((into / "manifest.json").read_text())
    assert set(manifest["weights"]) == {"first", "second"}
    entry = manifest["weights"]["first"]
    assert entry["sha256"] == record.sha256
    assert entry["figures"] == {"accuracy": {"weights": record.version, "srcc": 0.9}}
    assert entry["training"] == {"command": "relqa train"}
    assert (into / "first.safetensors").read_bytes() == weights.read_bytes()


def test_figures_of_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    figures = tmp_path / "accuracy.json"
    figures.write_text(json.dumps({"weights": "other@00000000"}))
    with pytest.raises(ValueError, match="measured on 'other@00000000'"):
        publish(weights, "first", tmp_path / "shipped", [figures])
    assert not (tmp_path / "shipped").exists()


def test_command_line_names_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "no.safetensors"), "--name", "x"]) == 2
    assert "no.safetensors" in capsys.readouterr().err
