"""Maps of one run and the distance of another, in one file: they share no parameters.

    python -m relqa_loss.training.join --maps runs/maps.safetensors \
        --distance runs/distance.safetensors --out runs/final.safetensors
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import WeightsRecord, find_weights, save_weights
from relqa_loss.training.objectives import MAP_PARTS


def join(maps: Path, distance: Path, out: Path, command: str = "") -> WeightsRecord:
    """Write the maps (and the score's direction) of one file and the distance of another.

    Args:
        maps: Weights written by ``relqa train``.
        distance: The same; its settings and scale are kept.
        out: File to write (``.safetensors``), with its manifest beside it.
        command: Recorded in the manifest.

    Raises:
        ValueError: If ``out`` exists, or the files do not fit each other.
    """
    from safetensors.torch import load_file

    if out.exists():
        raise ValueError(f"{out} exists; choose another --out")
    parts = {name: find_weights(path) for name, path in (("maps", maps), ("distance", distance))}
    config = parts["distance"].config
    prefixes = tuple(part.removeprefix("network.") for part in MAP_PARTS)
    tensors = {
        name: value
        for record, wanted in ((parts["maps"], True), (parts["distance"], False))
        for name, value in load_file(record.path).items()
        if name.startswith(prefixes) == wanted
    }
    network = ParityNetwork(config)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{maps} and {distance} do not fit each other: {error}") from error
    training: dict[str, Any] = {
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "torch": torch.__version__,
        # What neither half has seen.
        "held_out_operators": [
            name
            for name in parts["maps"].training.get("held_out_operators", [])
            if name in parts["distance"].training.get("held_out_operators", [])
        ],
        "joined": {
            name: {"file": record.path.name, "sha256": record.sha256, "training": record.training}
            for name, record in parts.items()
        },
    }
    return save_weights(network, out, config, training)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("maps", "distance", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parsed = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "relqa_loss.training.join", *given])
    try:
        record = join(parsed.maps, parsed.distance, parsed.out, command)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"join: {error}\n")
        return 2
    sys.stderr.write(f"joined: {record.version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
