"""Checkpoints of a training run: written atomically, resumed exactly."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from relqa_loss._files import write_atomically
from relqa_loss.training.config import TrainConfig

_DATA = {"train": "photographs to train on", "val": "photographs to validate on"}


def checkpoint_path(out: Path) -> Path:
    """Where the run that writes ``out`` keeps its state."""
    return out.with_suffix(".ckpt")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside ``path``, then rename: a kill at any moment leaves the old or the new file.

    Raises:
        OSError: If it cannot be written, as to a full disk; the one before is still there.
    """
    # Not by torch.save to the disk: of one that is full it speaks of positions in an archive.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(
    path: Path,
    config: dict[str, Any],
    data: dict[str, Any] | None = None,
    weights: dict[str, str | None] | None = None,
) -> dict[str, Any]:
    """Read a checkpoint for the run described by ``config``.

    Args:
        path: As given to :func:`save_checkpoint`.
        config: Settings of the run.
        data: What the run is fed with: fingerprints of photographs, number of processes. Not
            checked if ``None``.
        weights: Hashes of the weights that the run builds on, by their option; ``None`` for an
            option that is not given. Names will not do: a file may have been replaced. Not checked
            if ``None``, nor in checkpoints from before they were stored.

    Raises:
        ValueError: If it is damaged or belongs to a run with other settings, data or weights.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to start anew") from error
    # What was no setting yet when the checkpoint was written was as it is by default.
    defaults = TrainConfig().to_dict()
    settings = defaults | state["config"]
    settings["objective"] = defaults["objective"] | settings["objective"]
    if settings != config:
        changed = sorted(
            key for key in {*config, *settings} if config.get(key) != settings.get(key)
        )
        raise ValueError(
            f"{path} belongs to a run with other settings ({', '.join(changed)} differ); resume "
            "with the same settings or choose another --out"
        )
    before: dict[str, Any] = state.get("data", data) or {}
    if data is not None and before != data:
        differing = "; ".join(
            f"{_DATA.get(name, name)} {str(before.get(name))[:12]}, now {str(data.get(name))[:12]}"
            for name in {**before, **data}
            if before.get(name) != data.get(name)
        )
        raise ValueError(
            f"{path} belongs to a run on other data: {differing}; resume with the same photographs "
            "and number of processes, or choose another --out"
        )
    known = state.get("weights", {})
    for option, now in (weights or {}).items():
        if known.get(option, now) != now:
            raise ValueError(
                f"{path} belongs to a run with other weights ({option} {known[option] or 'none'}, "
                f"now {now or 'none'}); resume with the same --{option} or choose another --out"
            )
    return state
