"""Put trained weights under a shipped name: file, manifest entry, and measured figures.

    python -m relqa_loss.training.publish runs/final.safetensors --name relqa-base \
        --into pretrained --figures runs/accuracy.json

Maps ship in half precision, in which they are learned: nine tenths of all weights are theirs.
Distances, which are compared down to the threshold of visibility, ship as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save

from relqa_loss._files import encoded, write_atomically
from relqa_loss.network.pretrained import (
    MANIFEST_NAME,
    SUFFIX,
    WeightsRecord,
    find_weights,
    read_entry,
    read_tensors,
)
from relqa_loss.training.objectives import MAP_PARTS


def publish(weights: Path, name: str, into: Path, figures: Sequence[Path] = ()) -> dict[str, Any]:
    """Write ``weights`` to ``into/NAME.safetensors`` and describe them in its manifest.

    Args:
        weights: A file written by ``relqa train``, with its ``.json`` beside it, or one that has
            been published.
        name: The name under which users load them, and that of the file.
        into: The folder of shipped weights.
        figures: JSON files written by the benchmarks, stored under their file names' stems. They
            are of what ships: publish without figures, measure, and publish again.

    Returns:
        The manifest's entry.

    Raises:
        ValueError: If the file does not match its own manifest, the name is that of no file, or
            the figures were measured on other weights.
        FileNotFoundError: If a file is missing.
    """
    # Whose own manifest would be that of the folder, in any case where file systems ignore it.
    taken = Path(MANIFEST_NAME).stem
    file = f"{name}{SUFFIX}"
    if name.lower() in {"", taken} or Path(file).name != file or name.endswith(SUFFIX):
        raise ValueError(
            f"name must be that of a file in {into}, without folders and {SUFFIX}, and not "
            f"{taken!r}, got {name!r}"
        )
    shipped = _shipped(find_weights(weights))
    digest = hashlib.sha256(shipped).hexdigest()
    entry = read_entry(weights)
    measured = {}
    for path in figures:
        content = json.loads(path.read_text("utf-8"))
        digits = str(content.get("weights", "")).rpartition("@")[2]
        if not digits or not digest.startswith(digits):
            raise ValueError(
                f"{path} was measured on {content.get('weights')!r}, not on {name}@{digest[:8]}, "
                f"which is what ships; publish without figures and run the benchmark on {name}"
            )
        measured[path.stem] = content
    entry |= {"file": file, "sha256": digest, "figures": measured}
    manifest = into / MANIFEST_NAME
    content = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {"weights": {}}
    content["weights"][name] = entry
    write_atomically(into / file, shipped)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(manifest, encoded(text))
    return entry


def _shipped(record: WeightsRecord) -> bytes:
    """The file with its maps in half precision; loading them brings back single precision."""
    parts = tuple(part.removeprefix("network.") for part in MAP_PARTS)
    tensors = {
        name: value.half() if name.startswith(parts) else value
        for name, value in read_tensors(record).items()
    }
    with safe_open(record.path, "pt") as file:
        return save(tensors, file.metadata())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--into", type=Path, default=Path("pretrained"))
    parser.add_argument("--figures", type=Path, nargs="*", default=[])
    parsed = parser.parse_args(arguments)
    try:
        entry = publish(parsed.weights, parsed.name, parsed.into, parsed.figures)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"publish: {error}\n")
        return 2
    sys.stderr.write(f"published {parsed.name}: SHA-256 {entry['sha256']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
