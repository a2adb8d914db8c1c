"""Publishing weights: file, manifest entry, and figures measured on these very weights."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from relqa_loss.network import NetworkConfig, ParityNetwork, load_pretrained
from relqa_loss.network.pretrained import find_weights, save_weights
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
    into = tmp_path / "shipped"
    before = publish(weights, "first", into)
    publish(weights, "second", into)
    version = f"first@{before['sha256'][:8]}"
    figures = tmp_path / "accuracy.json"
    figures.write_text(json.dumps({"weights": version, "srcc": 0.9}))
    publish(weights, "first", into, [figures])
    manifest = json.loads((into / "manifest.json").read_text())
    assert set(manifest["weights"]) == {"first", "second"}
    entry = manifest["weights"]["first"]
    assert before["figures"] == {}
    assert entry == before | {"figures": {"accuracy": {"weights": version, "srcc": 0.9}}}
    assert entry["training"] == {"command": "relqa train"}
    assert entry["file"] == "first.safetensors"
    content = (into / "first.safetensors").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_maps_ship_in_half_precision_and_distances_as_they_are(
    weights: Path, tmp_path: Path
) -> None:
    trained = load_pretrained(weights)
    publish(weights, "first", tmp_path)
    shipped = load_pretrained(tmp_path / "first.safetensors")
    assert (tmp_path / "first.safetensors").stat().st_size < 0.6 * weights.stat().st_size
    assert {buffer.dtype for buffer in shipped.buffers()} == {torch.float32}
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 3, 64, 64, generator=generator)
    before, after = trained(first, second), shipped(first, second)
    assert torch.equal(before.distance, after.distance)
    assert not torch.equal(before.maps, after.maps)
    # Where a network that has learned nothing is between two signs, little decides; elsewhere:
    assert float((after.maps - before.maps).abs().mean()) < 1e-3 * float(before.maps.abs().max())


def test_what_has_been_published_is_loaded_by_its_path_and_can_be_published_again(
    weights: Path, tmp_path: Path
) -> None:
    into = tmp_path / "shipped"
    entry = publish(weights, "first", into)
    publish(weights, "second", into)
    shipped = into / "first.safetensors"
    assert find_weights(shipped).version == f"first@{entry['sha256'][:8]}"
    content = shipped.read_bytes()
    publish(shipped, "first", into)
    assert shipped.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["../first", "", "a/b", "first.safetensors", "manifest", "Manifest"]
)
def test_names_that_are_those_of_no_file_are_refused(
    weights: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=f"got '{re.escape(name)}'"):
        publish(weights, name, tmp_path / "shipped")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert not (tmp_path / "first.safetensors").exists()


def test_a_file_that_is_not_what_its_manifest_says_is_refused(
    weights: Path, tmp_path: Path
) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        publish(weights, "first", tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_figures_of_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    figures = tmp_path / "accuracy.json"
    for content, said in (
        ({"weights": "other@00000000"}, "measured on 'other@00000000'"),
        ({"weights": ""}, "measured on ''"),
        ({}, "measured on None"),
    ):
        figures.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=said):
            publish(weights, "first", tmp_path / "shipped", [figures])
    assert not (tmp_path / "shipped").exists()


def test_the_file_says_what_the_trained_one_said(weights: Path, tmp_path: Path) -> None:
    publish(weights, "first", tmp_path / "shipped")
    said = []
    for path in (weights, tmp_path / "shipped" / "first.safetensors"):
        with safe_open(path, "pt") as file:
            said.append(file.metadata())
    assert said[0]
    assert said[0] == said[1]


def test_command_line_publishes_into_the_shipped_weights_with_all_figures(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(weights), "--name", "first"]) == 0
    manifest = tmp_path / "pretrained" / "manifest.json"
    digest = json.loads(manifest.read_text())["weights"]["first"]["sha256"]
    assert f"published first: SHA-256 {digest}" in capsys.readouterr().err
    names = ("accuracy", "trust")
    for name in names:
        Path(f"{name}.json").write_text(json.dumps({"weights": f"first@{digest[:8]}"}))
    figures = [f"{name}.json" for name in names]
    assert main([str(weights), "--name", "first", "--figures", *figures]) == 0
    assert set(json.loads(manifest.read_text())["weights"]["first"]["figures"]) == set(names)


def test_command_line_names_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "no.safetensors"), "--name", "x"]) == 2
    assert "no.safetensors" in capsys.readouterr().err
