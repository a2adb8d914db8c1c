"""Time and memory of large images, whole and in tiles.

    python benchmarks/tiling.py [--sides 1024 2048 4096] [--tile 1024]

Each measurement runs in a process of its own; memory is the process's peak beyond what it held
before, images included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import torch
from _common import provenance, table

from relqa_loss import relate
from relqa_loss.network import find_weights
from relqa_loss.tiling import measure_in_tiles


def measure(side: int, tile: int) -> tuple[float, float, float]:
    """Seconds, megabytes, and the distance; the whole at once if ``tile`` is 0."""
    torch.set_num_threads(1)
    small = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    relate(small, small, data_range=255)  # loads the weights
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(256, (1, 3, side, side), dtype=torch.uint8, generator=generator)
    preds = target // 2 + 64
    began = time.perf_counter()
    with torch.no_grad():
        found = (
            measure_in_tiles(preds, target, tile=tile, data_range=255)
            if tile
            else relate(preds, target, data_range=255)
        )
    spent = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return spent, (peak - before) / 1024, float(found.distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--largest-whole", type=int, default=4096, help="larger ones only in tiles")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for side in arguments.sides:
        for tile in (0, arguments.tile):
            if not tile and side > arguments.largest_whole:
                continue
            with context.Pool(1) as pool:
                spent, memory, distance = pool.apply(measure, (side, tile))
            rows.append(
                [f"{side}²", f"tiles of {tile}²" if tile else "whole", spent, f"{memory:.0f}",
                 f"{distance:.6f}"]
            )  # fmt: skip
    torch.set_num_threads(1)  # as in the processes, and said above their figures
    print(provenance(find_weights("relqa-base").version))
    print()
    print(table(("image", "measured", "seconds", "MB", "distance"), rows))


if __name__ == "__main__":
    main()
