"""The folder of a selection: weights of the checkpoints that are kept, and the ledger."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor
from torch.nn.parameter import is_lazy

from relqa_loss._files import encoded, write_atomically

LEDGER_NAME = "ledger.json"

# Weights, and what a killed process left of files that it was writing.
_OURS = re.compile(
    r"\d{5,}-step-?\d+\.safetensors"
    r"|\.(\d{5,}-step-?\d+\.safetensors|ledger\.json)\.\d+\.part"
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU; safetensors opens none whose path is not UTF-8.

    Raises:
        ValueError: If it is damaged.
        OSError: If it cannot be read.
    """
    try:
        return load_file(path) if _is_utf8(path) else load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a file of tensors says of itself.

    Raises:
        SafetensorError: If it is none, or damaged.
    """
    if _is_utf8(path):
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    content = path.read_bytes()
    load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


class CheckpointFolder:
    """Files of one selection. Every file is written whole or not at all.

    One process writes to a folder at a time.

    Args:
        folder: Made if need be.

    Raises:
        OSError: If the folder cannot be made or read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _explain(
                error, self.folder, "the folder of checkpoints cannot be made"
            ) from error

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is, or will be."""
        return self.folder / LEDGER_NAME

    def leftovers(self, wanted: Collection[str]) -> list[Path]:
        """Files of this class's making that are not among the wanted names."""
        return sorted(
            path
            for path in self.folder.iterdir()
            if _OURS.fullmatch(path.name) and path.name not in wanted
        )

    def save(self, index: int, step: int, state: Mapping[str, Any]) -> str:
        """Write weights; returns the file's name.

        Raises:
            TypeError: If the state holds something that the format cannot.
            OSError: If it cannot be written; whatever the file held before is still there.
        """
        name = f"{index:05d}-step-{step}.safetensors"
        self._write(self.folder / name, packed(state, {"step": str(step)}))
        return name

    def load(self, name: str) -> dict[str, Tensor]:
        """Read weights, on the CPU."""
        return read_tensors(self.folder / name)

    def write_ledger(self, text: str) -> None:
        """Replace the ledger.

        Raises:
            OSError: If it cannot be written; the one before is still there.
        """
        self._write(self.ledger_path, encoded(text))

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise _explain(error, path, "not written; what was there before is kept") from error


def packed(state: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of a state, as of ``model.state_dict()``.

    Raises:
        TypeError: If the state holds something that the format cannot.
    """
    tensors = {name: _plain(name, value) for name, value in state.items()}
    try:
        return save(tensors, metadata=dict(metadata))
    except KeyError as error:
        names = [name for name, tensor in tensors.items() if tensor.dtype == error.args[0]]
        raise TypeError(f"{_of(names[0])} is of {error.args[0]}, which cannot be saved") from error


def _plain(name: str, value: Any) -> Tensor:
    """As the file format wants a tensor: contiguous, on the CPU, sharing no memory."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{_of(name)} is {type(value).__name__}, and only tensors are saved: pass "
            "model.state_dict() without extra state"
        )
    if is_lazy(value) or value.is_meta:
        raise TypeError(f"{_of(name)} has no values yet: run the model once before it is saved")
    if value.layout is not torch.strided or value.is_nested:
        raise TypeError(f"{_of(name)} is not dense, and only dense tensors are saved")
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _of(name: str) -> str:
    return f"state[{name!r}]"


def _explain(error: OSError, path: Path, what: str) -> OSError:
    # A full disk reports no file name. OSError picks the subclass by the number.
    reason = error.strerror or str(error)
    return OSError(error.errno or errno.EIO, f"{reason} ({what})", str(path))
