"""Large batches on a CPU: worked out a few images at a time, as they are, and all at once.

    python benchmarks/batches.py [--sizes 256 512 1024] [--batches 8 16] [--repeats 5] [--threads N]

Repeats are interleaved; ratios are of repeats that were neighbours in time. Memory is what torch
allocated at most beyond what there was before, and leaves out the scratch space of libraries.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _common import command, provenance, show, table
from speed import peak_on_cpu, shuffled, spread, step
from speed_matrix import Cell, images, timed
from torch import Tensor

from relqa_loss import RelationalLoss, _parts, relate
from relqa_loss.network import find_weights

AS_IT_IS, AT_ONCE = _parts.PIXELS, 2**60
CPU = torch.device("cpu")
Step = Callable[[Tensor, Tensor], object]


def training(weights: str) -> Step:
    """Forward and backward of a loss, with the gradient to the image."""
    return partial(step, RelationalLoss(weights=weights))


def validation(preds: Tensor, target: Tensor) -> object:
    """What a metric does: maps, score and distance."""
    with torch.no_grad():
        return relate(preds, target)


STEPS: dict[str, Step] = {
    "RelationalLoss": training("relqa-base"),
    "RelationalLoss, relqa-nano": training("relqa-nano"),
    "metrics": validation,
}


def called(what: Step, pixels: int, pair: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """One call with parts of so many pixels."""

    def call() -> object:
        _parts.PIXELS = pixels
        return what(*pair)

    return call


def measure(what: Step, count: int, size: int, repeats: int) -> list[object]:
    pair = images(Cell(size, count), CPU)
    calls = {way: called(what, way, pair) for way in (AS_IT_IS, AT_ONCE)}
    memory = []
    for call in calls.values():  # warms up, too
        pair[0].grad = None
        memory.append(peak_on_cpu(call))
    times: dict[int, list[float]] = {way: [] for way in calls}
    for way in shuffled([*calls], repeats):
        times[way].append(timed(calls[way], CPU))
    pairs = zip(times[AT_ONCE], times[AS_IT_IS], strict=True)
    ratio = statistics.median(once / parts for once, parts in pairs)
    spreads = map(spread, times.values())
    return [f"{ratio:.2f}", f"{memory[1] / memory[0]:.2f}", *spreads, *map(round, memory)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows: list[list[object]] = []
    for name, what in STEPS.items():
        for size in arguments.sizes:
            for count in arguments.batches:
                row = measure(what, count, size, arguments.repeats)
                rows.append([name, f"{size}² × {count}", *row])
    header = ("what", "images", "time at once ÷ as it is", "memory at once ÷ as it is")
    header += ("ms (quartiles)", "at once, ms", "MiB", "at once, MiB")
    versions = ", ".join(find_weights(name).version for name in ("relqa-base", "relqa-nano"))
    report = f"{table(header, rows)}\n\n`{command()}`. {provenance(versions)}"
    show(report, arguments.out)


if __name__ == "__main__":
    main()
