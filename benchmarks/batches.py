"""Large batches on a CPU: worked out a few images at a time, as they are, and all at once.

    python benchmarks/batches.py [--sizes 256 512 1024] [--batches 8 16] [--repeats 5] [--threads N]

Repeats are interleaved; ratios are of repeats that were neighbours in time. Memory is what torch
allocated at most beyond what there was before, and leaves out the scratch space of libraries.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _common import command, provenance, table
from speed import running_peak, shuffled, spread
from torch import Tensor

from relqa_loss import RelationalLoss, _parts, relate
from relqa_loss.network import find_weights

AS_IT_IS, AT_ONCE = _parts.PIXELS, 2**60
Step = Callable[[Tensor, Tensor], object]


def training(weights: str) -> Step:
    """Forward and backward of a loss, with the gradient to the image."""
    loss = RelationalLoss(weights=weights)

    def step(preds: Tensor, target: Tensor) -> None:
        preds.grad = None
        loss(preds, target).backward()
        preds.grad = None

    return step


def validation(preds: Tensor, target: Tensor) -> object:
    """What a metric does: maps, score and distance."""
    with torch.no_grad():
        return relate(preds, target)


STEPS: dict[str, Step] = {
    "RelationalLoss": training("relqa-base"),
    "RelationalLoss, relqa-nano": training("relqa-nano"),
    "metrics": validation,
}


def milliseconds(step: Step, pixels: int, images: tuple[Tensor, Tensor]) -> float:
    _parts.PIXELS = pixels
    began = time.perf_counter()
    step(*images)
    return 1000 * (time.perf_counter() - began)


def mebibytes(step: Step, pixels: int, images: tuple[Tensor, Tensor]) -> float:
    _parts.PIXELS = pixels
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step(*images)
    return running_peak(profile) / 2**20


def measure(step: Step, count: int, size: int, repeats: int) -> list[object]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(count, 3, size, size, generator=generator)
    noise = 0.1 * torch.randn(target.shape, generator=generator)
    images = (target + noise).clamp(0, 1).requires_grad_(), target
    ways = (AS_IT_IS, AT_ONCE)
    memory = [mebibytes(step, way, images) for way in ways]  # warms up, too
    times: dict[int, list[float]] = {way: [] for way in ways}
    for way in shuffled(ways, repeats):
        times[way].append(milliseconds(step, way, images))
    pairs = zip(times[AT_ONCE], times[AS_IT_IS], strict=True)
    ratio = statistics.median(once / parts for once, parts in pairs)
    spreads = [spread(times[way]) for way in ways]
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
    for name, step in STEPS.items():
        for size in arguments.sizes:
            for count in arguments.batches:
                row = measure(step, count, size, arguments.repeats)
                rows.append([name, f"{size}² × {count}", *row])
    header = ("what", "images", "time at once ÷ as it is", "memory at once ÷ as it is")
    header += ("ms (quartiles)", "at once, ms", "MiB", "at once, MiB")
    versions = ", ".join(find_weights(name).version for name in ("relqa-base", "relqa-nano"))
    report = f"{table(header, rows)}\n\n`{command()}`. {provenance(versions)}"
    print(report)
    if arguments.out:
        arguments.out.write_text(report + "\n", "utf-8")


if __name__ == "__main__":
    main()
