"""Whether it matters where an error lies on the grid of pixels.

    python benchmarks/grids.py --photos DIR [--weights NAME_OR_PATH …] [--count 24] [--out FILE.md]

Networks with strides see an image in cells, and blocks of a codec or of a transposed convolution
often lie in step with them. The same pair is cropped at sixteen offsets; what changes from one to
the next is the grid and next to nothing else. Printed are, over unseen ``val`` photographs, the
medians of the distance in step with the cells and of the least one, both over the mean of all.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

import torch
from _common import command, photographs, provenance, show, table
from torch import Tensor

from relqa_loss.distortions import get_operator
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.network.model import MAP_STRIDE, ParityNetwork
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS

BLOCKS = (
    "jpeg",
    "dct_quantisation",
    "block_average",
    "pixelate",
    "checkerboard",
    "block_dropouts",
    "local_block_intensity",
    "jpeg_transmission",
)
SIDE = 256
SEVERITY = 0.5


@torch.no_grad()
def distances(network: ParityNetwork, photo: Tensor, image: Tensor) -> list[float]:
    """Of the same pair, 3×H×W each, at all offsets on the grid; the first one is in step."""
    height, width = (side - MAP_STRIDE for side in photo.shape[-2:])
    found = []
    for top, left in product(range(MAP_STRIDE), repeat=2):
        window = (..., slice(top, top + height), slice(left, left + width))
        encoding = network.encode(photo[window][None])
        found.append(float(network.distance(encoding, image[window][None])))
    return found


def shares(network: ParityNetwork, photos: list[Tensor]) -> dict[str, list[tuple[float, float]]]:
    """By operator: in step over the mean, and the least over the mean, for each photograph."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number, photo in enumerate(photos):
        for name in BLOCKS:
            generator = torch.Generator().manual_seed(number)
            image = get_operator(name)(photo[None], SEVERITY, generator)[0]
            seen = distances(network, photo, image)
            mean = statistics.fmean(seen)
            if mean:
                found[name].append((seen[0] / mean, min(seen) / mean))
    return found


def median(values: list[float]) -> float:
    """Not a number where an operator changed no photograph."""
    return statistics.median(values) if values else math.nan


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=[DEFAULT_WEIGHTS, "relqa-nano"])
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    photos = photographs(arguments.photos, SIDE + MAP_STRIDE, arguments.count)
    versions = [find_weights(name).version for name in arguments.weights]
    found = [shares(load_pretrained(name), photos) for name in arguments.weights]
    rows = [
        [name, *(median([row[k] for row in each[name]]) for each in found for k in (0, 1))]
        for name in BLOCKS
    ]
    header = [f"{version}, {what}" for version in versions for what in ("in step", "least")]
    text = (
        f"{len(photos)} photographs at {SIDE}², severity {SEVERITY}. `{command()}`. "
        f"{provenance(', '.join(versions))}\n\n" + table(("", *header), rows)
    )
    show(text, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
