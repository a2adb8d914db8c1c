"""Finding, verifying and freezing weights."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from relqa_loss import RelationalLoss, relational_distance
from relqa_loss.network import (
    DEFAULT_WEIGHTS,
    NetworkConfig,
    ParityNetwork,
    find_weights,
    load_pretrained,
)
from relqa_loss.network import pretrained as module
from relqa_loss.network.pretrained import save_weights

NANO = NetworkConfig(
    widths=(8, 8, 12, 12),
    stem_width=4,
    odd_widths=(4, 4, 6, 8),
    even_widths=(4, 8, 8, 12),
    error_widths=(4, 6, 8, 8),
    judgement_width=6,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "nano.safetensors"
    save_weights(ParityNetwork(NANO), path, NANO, {"seed": 0})
    return path


def _edit(path: Path, **changes: object) -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


def test_shipped_weights_load_frozen() -> None:
    network = load_pretrained()
    assert list(network.parameters()) == []
    assert network.state_dict() == {}
    assert not any(part.training for part in network.modules())
    assert network.floor > 0


def test_shipped_weights_are_of_the_architectures_called_after_them() -> None:
    assert find_weights("relqa-base").config == NetworkConfig.base()
    assert find_weights("relqa-nano").config == NetworkConfig.nano()


@pytest.mark.parametrize("name", ["relqa-base", "relqa-nano"])
def test_what_is_settled_when_frozen_is_what_the_weights_say(name: str) -> None:
    record = find_weights(name)
    frozen, free = load_pretrained(name).double(), ParityNetwork(record.config)
    free.load_state_dict(load_file(record.path))
    free.double()
    preds, target = torch.rand(2, 2, 3, 48, 64, generator=torch.Generator().manual_seed(0)).double()
    preds.requires_grad_()
    values, grads = [], []
    for network in (frozen, free):
        values.append(network.distance(network.encode(target), preds))
        grads += torch.autograd.grad(values[-1].sum(), preds)
    torch.testing.assert_close(*values, rtol=1e-6, atol=0)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-8)


def test_version_names_the_hash() -> None:
    record = find_weights()
    assert record.version == f"{DEFAULT_WEIGHTS}@{record.sha256[:8]}"


def test_the_hash_is_of_the_architecture_too(saved: Path, tmp_path: Path) -> None:
    other = replace(NANO, confined=0.5)
    network = ParityNetwork(other)
    network.load_state_dict(load_file(saved))
    record = save_weights(network, tmp_path / "other.safetensors", other, {"seed": 0})
    assert record.sha256 != find_weights(saved).sha256


def test_weights_from_a_path_survive_the_round_trip(saved: Path) -> None:
    network = load_pretrained(saved)
    assert network.config == NANO
    assert find_weights(saved).training == {"seed": 0}
    again = load_pretrained(str(saved))
    for one, other in zip(network.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)


def test_a_path_works_for_loss_and_function(saved: Path) -> None:
    first, second = torch.rand(2, 1, 3, 32, 32)
    loss = RelationalLoss(pixel_weight=0.0, weights=saved)
    assert torch.equal(loss(first, second), relational_distance(first, second, weights=saved))
    assert "nano@" in loss.version


def test_a_changed_byte_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        load_pretrained(saved)
    with pytest.raises(ValueError, match="SHA-256"):
        RelationalLoss(weights=saved)


def test_a_truncated_file_is_noticed(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ValueError, match="SHA-256"):
        load_pretrained(saved)


def test_a_changed_shipped_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = module.pretrained_folder()
    manifest = json.loads((folder / module.MANIFEST_NAME).read_text())
    (tmp_path / module.MANIFEST_NAME).write_text(json.dumps(manifest))
    file = manifest["weights"][DEFAULT_WEIGHTS]["file"]
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / file).write_bytes(content)
    monkeypatch.setattr(module, "pretrained_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="SHA-256"):
        load_pretrained()


def test_a_missing_manifest_is_named(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"nano\.json does not exist"):
        load_pretrained(saved)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ({"weights": {}}, FileNotFoundError, r"nano\.json does not exist, and .* only \[\]"),
        ({"weights": {"x": {}}}, ValueError, r"nano\.json does not exist, .* no manifest of"),
        ({}, ValueError, r"nano\.json does not exist, .* no manifest of"),
        ([], ValueError, r"nano\.json does not exist, .* no manifest of"),
    ],
)
def test_a_manifest_of_other_weights_is_named(
    saved: Path, content: object, error: type[Exception], said: str
) -> None:
    saved.with_suffix(".json").unlink()
    saved.with_name("manifest.json").write_text(json.dumps(content))
    with pytest.raises(error, match=said):
        load_pretrained(saved)


def test_a_manifest_of_its_own_comes_before_the_folder_s(saved: Path) -> None:
    saved.with_name("manifest.json").write_text("{}")
    assert find_weights(saved).name == "nano"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lost\.safetensors does not exist"):
        load_pretrained(tmp_path / "lost.safetensors")


def test_a_missing_folder_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(FileNotFoundError, match="reinstall relqa-loss"):
        load_pretrained()


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=f"no weights named 'relqa-huge'.*{DEFAULT_WEIGHTS}"):
        load_pretrained("relqa-huge")


def test_another_architecture_is_refused(saved: Path) -> None:
    _edit(saved, architecture=NetworkConfig().to_dict())
    with pytest.raises(ValueError, match="does not fit the architecture"):
        load_pretrained(saved)


def test_unknown_architecture_keys_are_refused(saved: Path) -> None:
    _edit(saved, architecture=NANO.to_dict() | {"attention": True})
    with pytest.raises(ValueError, match="attention"):
        load_pretrained(saved)


def test_an_incomplete_manifest_is_refused(saved: Path) -> None:
    manifest = saved.with_suffix(".json")
    manifest.write_text(json.dumps({"file": saved.name}))
    with pytest.raises(ValueError, match="does not describe"):
        load_pretrained(saved)


@pytest.mark.parametrize("content", [b"", b'{"sha256": "12', b"\xff\xfe"])
def test_a_damaged_manifest_is_named(saved: Path, content: bytes) -> None:
    manifest = saved.with_suffix(".json")
    manifest.write_bytes(content)
    with pytest.raises(ValueError, match=r"is no JSON") as error:
        load_pretrained(saved)
    assert str(manifest) in str(error.value)


def test_an_architecture_that_is_none_is_refused(saved: Path) -> None:
    _edit(saved, architecture=[])
    with pytest.raises(ValueError, match="does not describe"):
        load_pretrained(saved)


def test_a_pickle_is_not_opened(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a pickle was opened")

    torch.save({"x": torch.zeros(1)}, saved)
    _edit(saved, sha256=module.hashlib.sha256(saved.read_bytes()).hexdigest())
    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(ValueError, match="no safetensors file"):
        load_pretrained(saved)


def test_good_weights_load_without_pickle(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a pickle was opened")

    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(owner, name, refuse)
    assert load_pretrained(saved).config == NANO


def test_a_manifest_takes_a_command_with_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "nano.safetensors"
    command = "relqa train --photos " + os.fsdecode(b"caf\xe9")
    save_weights(ParityNetwork(NANO), path, NANO, {"command": command})
    assert find_weights(path).training["command"] == command


def test_weights_are_saved_whatever_their_layout(tmp_path: Path) -> None:
    path, network = tmp_path / "nano.safetensors", ParityNetwork(NANO)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_weights(network, path, NANO, {})
    torch.testing.assert_close(load_file(path), expected, rtol=0, atol=0)


def test_saving_leaves_no_partial_file(saved: Path) -> None:
    assert sorted(path.name for path in saved.parent.iterdir()) == [
        "nano.json",
        "nano.safetensors",
    ]
