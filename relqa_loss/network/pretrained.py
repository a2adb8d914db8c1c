"""Finding, verifying and freezing shipped weights. No network access, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from relqa_loss._files import encoded, write_atomically
from relqa_loss.network._frozen import replace_layers
from relqa_loss.network._settled import Settling
from relqa_loss.network.config import NetworkConfig
from relqa_loss.network.model import ParityNetwork

DEFAULT_WEIGHTS = "relqa-base"
"""Name of the weights used unless others are asked for."""

MANIFEST_NAME = "manifest.json"

SUFFIX = ".safetensors"
"""Of a file of weights."""


@dataclass(frozen=True)
class WeightsRecord:
    """What the manifest says about one weights file.

    It stands for these very weights wherever a name or path is expected: a file that is written
    anew is refused, not mistaken for them.
    """

    name: str
    path: Path
    sha256: str
    config: NetworkConfig
    training: dict[str, Any]

    @property
    def version(self) -> str:
        """Name and first digits of the hash, to be reported beside scores."""
        return f"{self.name}@{self.sha256[:8]}"

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def pretrained_folder() -> Path:
    """The folder of the shipped weights: inside an installed wheel, or at the repository's top.

    Raises:
        FileNotFoundError: If neither holds a manifest.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "pretrained", package.parent / "pretrained"):
        if (folder / MANIFEST_NAME).is_file():
            return folder
    raise FileNotFoundError(
        f"no {MANIFEST_NAME} under {package / 'pretrained'} or {package.parent / 'pretrained'}: "
        "the installation is incomplete; reinstall relqa-loss or pass weights=PATH"
    )


def find_weights(weights: str | os.PathLike[str] = DEFAULT_WEIGHTS) -> WeightsRecord:
    """Look up weights by shipped name, or by path.

    Args:
        weights: A name in the shipped manifest, or the path of a ``.safetensors`` file with a
            manifest of the same name beside it (``model.safetensors`` and ``model.json``, as
            ``relqa train`` writes them), or in a folder of published ones, whose
            ``manifest.json`` knows it. Or a record, which is returned.

    Raises:
        ValueError: For an unknown name, or a manifest that does not describe the file.
        FileNotFoundError: If the file or its manifest is missing.
    """
    if isinstance(weights, WeightsRecord):
        return weights
    path = Path(weights)
    if path.suffix == SUFFIX:
        if not path.is_file():
            raise FileNotFoundError(f"weights={os.fspath(weights)!r}: {path} does not exist")
        return _record(path.stem, path, read_entry(path), _manifest_of(path))
    folder = pretrained_folder()
    manifest = folder / MANIFEST_NAME
    entries = _read_manifest(manifest)["weights"]
    if str(weights) not in entries:
        raise ValueError(
            f"no weights named {os.fspath(weights)!r}: shipped are {sorted(entries)}; "
            "a path must end in .safetensors"
        )
    entry = entries[str(weights)]
    return _record(str(weights), folder / entry["file"], entry, manifest)


def read_entry(path: Path) -> dict[str, Any]:
    """What the manifest of a file of weights says of it.

    Raises:
        ValueError: If the manifest is damaged.
        FileNotFoundError: If it is missing, or that of the folder does not know the file.
    """
    own, manifest = path.with_suffix(".json"), _manifest_of(path)
    if not manifest.is_file():
        raise FileNotFoundError(f"weights={os.fspath(path)!r}: {own} does not exist")
    content = _read_manifest(manifest)
    if manifest == own:
        return content
    try:
        known = {entry["file"]: entry for entry in content["weights"].values()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"weights={os.fspath(path)!r}: {own} does not exist, and {manifest} is no manifest of "
            f"published weights: {error!r}"
        ) from error
    if path.name not in known:
        raise FileNotFoundError(
            f"weights={os.fspath(path)!r}: {own} does not exist, and {manifest} describes only "
            f"{sorted(known)}"
        )
    return known[path.name]  # type: ignore[no-any-return]


def stamp(weights: str | os.PathLike[str]) -> tuple[int, ...]:
    """Of a file and its manifest, something that changes when they are written anew.

    Empty for the name of shipped weights, which do not change, and for files that are gone.
    """
    path = Path(weights)
    if path.suffix != SUFFIX:
        return ()
    try:
        found = [each.stat() for each in (path, _manifest_of(path))]
    except OSError:
        return ()
    return tuple(
        value
        for each in found
        for value in (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns)
    )


def pinned(weights: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """What stands for the same weights as long as it is kept: the name of shipped ones, or the
    record of a file, without the history of its training."""
    if Path(weights).suffix != SUFFIX:
        return weights
    return replace(find_weights(weights), training={})


def load_pretrained(weights: str | os.PathLike[str] = DEFAULT_WEIGHTS) -> ParityNetwork:
    """A new frozen network: in eval mode, its weights non-persistent buffers, nothing to train.

    It is in float32 and on the CPU, whatever the default dtype, the default device or inference
    mode, and takes none of the user's random numbers. The file's SHA-256 is checked against its
    manifest at every load.

    Args:
        weights: As for :func:`find_weights`.

    Raises:
        ValueError: If the hash or the tensors do not match the manifest, or the name is unknown.
        FileNotFoundError: If a file is missing.

    Example:
        >>> from relqa_loss.network import load_pretrained
        >>> network = load_pretrained()
        >>> len(list(network.parameters())), len(network.state_dict())
        (0, 0)
    """
    return load_record(find_weights(weights))


def read_tensors(record: WeightsRecord) -> dict[str, Tensor]:
    """The tensors of weights that have been looked up, as they are stored.

    Raises:
        ValueError: If the file is not the one that the record speaks of, or damaged.
        FileNotFoundError: If it is missing.
    """
    content = record.path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != record.sha256:
        raise ValueError(
            f"{record.path} has SHA-256 {digest}, its manifest says {record.sha256}: the file is "
            "damaged or was replaced; reinstall relqa-loss or fetch the file again"
        )
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise ValueError(f"{record.path} is no safetensors file: {error}") from error


def load_record(record: WeightsRecord) -> ParityNetwork:
    """As :func:`load_pretrained`, of weights that have been looked up."""
    tensors = read_tensors(record)
    # Networks are made in the middle of a user's program: within inference mode the weights would
    # be unusable for training, within ``torch.device("meta")`` empty, within ``torch.func.grad``
    # and ``vmap`` not made at all; and the random numbers that initialise modules must not be
    # missed by the user's own seed.
    with (
        torch.inference_mode(False),
        torch._C._DisableFuncTorch(),
        torch.device("cpu"),
        torch.random.fork_rng(devices=[]),
    ):
        # Before the weights come: a default of half precision would round them.
        network = ParityNetwork(record.config).float()
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(
                f"{record.path} does not fit the architecture in its manifest: {error}"
            ) from error
        return freeze(network)


def freeze(network: ParityNetwork) -> ParityNetwork:
    """Turn all weights into non-persistent buffers, in place, and switch to eval mode.

    Buffers follow ``.to()``, but no optimiser, checkpoint or DDP bucket of a parent sees them, and
    no layer is one that a parent's initialisers look for.
    """
    replace_layers(network)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().clone(), persistent=False)
        module._non_persistent_buffers_set.update(module._buffers)
    for module in network.modules():
        if isinstance(module, Settling):
            module.settle()
    return network.eval()


def save_weights(
    network: nn.Module, path: Path, config: NetworkConfig, training: dict[str, Any]
) -> WeightsRecord:
    """Write ``path`` (.safetensors) and its manifest beside it, each atomically."""
    tensors = {k: v.contiguous().cpu() for k, v in network.state_dict().items()}
    # So that the hash, and with it the version, is of the architecture as well: there are settings
    # that change distances and no tensor.
    metadata = {"architecture": json.dumps(config.to_dict(), sort_keys=True)}
    content = save_safetensors(tensors, metadata)
    digest = hashlib.sha256(content).hexdigest()
    entry = {
        "file": path.name,
        "sha256": digest,
        "architecture": config.to_dict(),
        "training": training,
    }
    write_atomically(path, content)
    text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path.with_suffix(".json"), encoded(text))
    return WeightsRecord(path.stem, path, digest, config, training)


def provenance(record: WeightsRecord) -> dict[str, Any]:
    """What the manifest of other weights says of those that they started from."""
    return {"file": record.path.name, "sha256": record.sha256, "training": record.training}


def _manifest_of(path: Path) -> Path:
    """The manifest beside a file of weights, or that of a folder of published ones."""
    own, shared = path.with_suffix(".json"), path.with_name(MANIFEST_NAME)
    return shared if shared.is_file() and not own.is_file() else own


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]
    except ValueError as error:
        raise ValueError(f"{path} is no JSON, as a manifest of weights is: {error}") from error


def _record(name: str, path: Path, entry: dict[str, Any], manifest: Path) -> WeightsRecord:
    try:
        return WeightsRecord(
            name=name,
            path=path,
            sha256=entry["sha256"],
            config=NetworkConfig.from_dict(entry["architecture"]),
            training=entry.get("training", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{manifest} does not describe weights {name!r}: {error!r}") from error
