"""Maps of one run and the distance of another, in one file: they share no parameters.

    python -m relqa_loss.training.join --maps runs/maps.safetensors \
        --distance runs/distance.safetensors --out runs/final.safetensors

``--network`` gives the distance the present shape of ``relqa-base`` or ``relqa-nano``: both weigh
moves, blurs and what is confined to a small part of the image by formula, and the former has
nothing learned at stride 16. No weight that is kept changes.
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

from relqa_loss.network.config import NetworkConfig
from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import (
    WeightsRecord,
    find_weights,
    provenance,
    read_tensors,
    save_weights,
)
from relqa_loss.training.objectives import MAP_PARTS

_STRIDES = ("encoder.stages.", "error.stages.", "error.judgements.")
"""Of the parameters that belong to one stride, the beginnings of their names; a number follows."""


def join(
    maps: Path,
    distance: Path,
    out: Path,
    command: str = "",
    *,
    network: NetworkConfig | None = None,
) -> WeightsRecord:
    """Write the maps (and the score's direction) of one file and the distance of another.

    Args:
        maps: Weights written by ``relqa train``.
        distance: The same; its settings and scale are kept.
        out: File to write (``.safetensors``), with its manifest beside it.
        command: Recorded in the manifest.
        network: Shape of the result, in place of the distance's own; what was learned at coarser
            strides than it has is left out.

    Raises:
        ValueError: If ``out`` or its manifest exists, or ``out`` is no ``.safetensors``, or the
            files fit neither each other nor the shape.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, got {out}")
    for path in (out, out.with_suffix(".json")):
        if path.exists():
            raise ValueError(f"{path} exists; choose another --out")
    parts = {name: find_weights(path) for name, path in (("maps", maps), ("distance", distance))}
    config = network or parts["distance"].config
    prefixes = tuple(part.removeprefix("network.") for part in MAP_PARTS)
    tensors = {
        name: value
        for record, wanted in ((parts["maps"], True), (parts["distance"], False))
        for name, value in read_tensors(record).items()
        if name.startswith(prefixes) == wanted
    }
    joined = ParityNetwork(config)
    fitting = joined.state_dict().keys()
    left_out = [name for name in tensors if name not in fitting and name.startswith(_STRIDES)]
    for name in left_out:
        del tensors[name]
    try:
        joined.load_state_dict(tensors)
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
    }
    if parts["maps"].sha256 == parts["distance"].sha256:
        training["initial"] = provenance(parts["maps"])
    else:
        training["joined"] = {
            name: of_part(provenance(record), name) for name, record in parts.items()
        }
    if left_out:
        training["left_out"] = sorted(left_out)
    return save_weights(joined, out, config, training)


def of_part(origin: dict[str, Any], part: str) -> dict[str, Any]:
    """Where a part of some weights came from, without the history of the other.

    Args:
        origin: As :func:`~relqa_loss.network.pretrained.provenance` has it.
        part: ``"maps"`` or ``"distance"``.
    """
    training = dict(origin["training"])
    if training.get("initial"):
        training["initial"] = of_part(training["initial"], part)
    if "joined" in training:
        training["joined"] = {part: of_part(training["joined"][part], part)}
    return {**origin, "training": training}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("maps", "distance", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--network", choices=("base", "nano"))
    parsed = parser.parse_args(arguments)
    network = None if parsed.network is None else getattr(NetworkConfig, parsed.network)()
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "relqa_loss.training.join", *given])
    try:
        record = join(parsed.maps, parsed.distance, parsed.out, command, network=network)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"join: {error}\n")
        return 2
    sys.stderr.write(f"joined: {record.version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
