"""Maps of one run and the distance of another, in one file."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from relqa_loss.network import NetworkConfig, ParityNetwork, load_pretrained
from relqa_loss.network.pretrained import save_weights
from relqa_loss.training.join import main


def _save(path: Path, seed: int, config: NetworkConfig) -> ParityNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ParityNetwork(config)
    network.scale.fill_(1 + seed)
    held_out = ["lens_blur", ("avif", "webp")[seed - 1]]
    record = {"command": f"run {seed}", "held_out_operators": held_out}
    save_weights(network, path, config, record)
    return network.requires_grad_(False)


def _join(folder: Path, *options: str) -> int:
    paths = {name: str(folder / f"{name}.safetensors") for name in ("maps", "distance", "out")}
    return main([part for name, path in paths.items() for part in (f"--{name}", path)] + [*options])


def test_each_half_is_the_one_asked_for(tmp_path: Path) -> None:
    config = NetworkConfig()
    first = _save(tmp_path / "maps.safetensors", 1, config)
    # The other half of the file need not even fit.
    second = _save(tmp_path / "distance.safetensors", 2, replace(config, judgement_width=8))
    assert _join(tmp_path) == 0
    joined = load_pretrained(tmp_path / "out.safetensors")
    image, reference = torch.rand(2, 2, 3, 48, 48)
    torch.testing.assert_close(
        joined(reference, image).maps, first(reference, image).maps, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(joined(reference, image).distance, second(reference, image).distance)
    entry = json.loads((tmp_path / "out.json").read_text())
    commands = {name: p["training"]["command"] for name, p in entry["training"]["joined"].items()}
    assert commands == {"maps": "run 1", "distance": "run 2"}
    command = shlex.split(entry["training"]["command"])
    assert command[:4] == ["python", "-m", "relqa_loss.training.join", "--maps"]
    assert command[4] == str(tmp_path / "maps.safetensors")
    assert entry["training"]["held_out_operators"] == ["lens_blur"]


def test_refusals_keep_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save(tmp_path / "maps.safetensors", 1, NetworkConfig())
    _save(tmp_path / "distance.safetensors", 2, replace(NetworkConfig(), stem_width=8))
    assert _join(tmp_path) == 2
    assert "do not fit" in capsys.readouterr().err
    (tmp_path / "out.safetensors").write_bytes(b"mine")
    assert _join(tmp_path) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "out.safetensors").read_bytes() == b"mine"


def test_the_manifest_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("maps", "distance"), start=1):
        _save(tmp_path / f"{name}.safetensors", seed, NetworkConfig())
    other = tmp_path / "out.json"
    other.write_text("mine")
    assert _join(tmp_path) == 2
    assert "out.json exists" in capsys.readouterr().err
    assert other.read_text() == "mine"
    # It would replace the weights themselves, and weights of another suffix are not found by path.
    for name in ("new.json", "new"):
        assert _join(tmp_path, "--out", str(tmp_path / name)) == 2
        assert "must end in .safetensors" in capsys.readouterr().err
        assert not (tmp_path / name).exists()


def test_a_stride_at_which_nothing_was_learned_can_be_left_out(tmp_path: Path) -> None:
    for seed, name in ((1, "maps"), (2, "distance")):
        _save(tmp_path / f"{name}.safetensors", seed, NetworkConfig())
    assert _join(tmp_path, "--network", "base") == 0
    joined = load_pretrained(tmp_path / "out.safetensors")
    assert joined.config == NetworkConfig.base()
    before = load_pretrained(tmp_path / "distance.safetensors")
    torch.testing.assert_close(joined.error.stages[1].mix.weight, before.error.stages[1].mix.weight)
    training = json.loads((tmp_path / "out.json").read_text())["training"]
    left_out = training["left_out"]
    assert "error.judgements.2.weigh" in left_out
    assert not [name for name in left_out if ".2." not in name]
    # Nothing but whole strides is left out.
    (tmp_path / "out.safetensors").unlink()
    assert _join(tmp_path, "--network", "nano") == 2


def test_both_halves_of_one_file_are_one_start(tmp_path: Path) -> None:
    _save(tmp_path / "maps.safetensors", 1, NetworkConfig())
    for suffix in (".safetensors", ".json"):
        content = (tmp_path / "maps.safetensors").with_suffix(suffix).read_bytes()
        (tmp_path / "distance.safetensors").with_suffix(suffix).write_bytes(content)
    assert _join(tmp_path, "--network", "base") == 0
    training = json.loads((tmp_path / "out.json").read_text())["training"]
    assert "joined" not in training
    assert training["initial"]["training"]["command"] == "run 1"


def test_each_half_keeps_its_own_history(tmp_path: Path) -> None:
    for seed, name in ((1, "maps"), (2, "distance")):
        _save(tmp_path / f"{name}.safetensors", seed, NetworkConfig())
    assert _join(tmp_path) == 0
    # The outcome went on by itself, and is joined once more.
    before = json.loads((tmp_path / "out.json").read_text())
    start = {"file": "out.safetensors", "sha256": "0", "training": before["training"]}
    record = json.loads((tmp_path / "distance.json").read_text())
    record["training"] = {"command": "run 3", "initial": start}
    (tmp_path / "distance.json").write_text(json.dumps(record))
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"out{suffix}").unlink()
    assert _join(tmp_path) == 0
    joined = json.loads((tmp_path / "out.json").read_text())["training"]["joined"]
    assert joined["maps"]["training"]["command"] == "run 1"
    distance = joined["distance"]["training"]
    assert distance["command"] == "run 3"
    earlier = distance["initial"]["training"]["joined"]
    assert earlier["distance"]["training"]["command"] == "run 2"
    assert "maps" not in earlier
