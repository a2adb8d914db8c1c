"""Size, time and peak memory of forward + backward, beside other losses, in one run.

    python benchmarks/speed.py [--sizes 256 512] [--repeats 15] [--threads N] [--device cuda]

The gradient goes to the image alone, as in training a network. Repeats are interleaved, in an
order drawn anew each time, so that busy moments of the machine and what the largest contender
leaves of caches and memory hit every contender alike. LPIPS and DISTS stand for their
architectures, with random weights: time and memory do not depend on the weights' values, and
nothing needs to be downloaded. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from _common import command, keep, provenance, show, table
from _contenders import OURS, Contender, Loss, contenders
from torch import Tensor

from relqa_loss.network import find_weights

T = TypeVar("T")


class Measured(NamedTuple):
    """What one contender took at one size."""

    milliseconds: list[float]
    peak_mib: float


def step(loss: Loss, preds: Tensor, target: Tensor) -> None:
    """Forward and backward, with the gradient to ``preds`` alone."""
    preds.grad = None
    loss(preds, target).backward()


def milliseconds(loss: Loss, preds: Tensor, target: Tensor) -> float:
    """Wall time of one step."""
    _synchronise(preds.device)
    began = time.perf_counter()
    step(loss, preds, target)
    _synchronise(preds.device)
    return 1000 * (time.perf_counter() - began)


def peak_memory(loss: Loss, preds: Tensor, target: Tensor) -> float:
    """Most MiB that torch allocated during one step beyond what there was before it.

    On the CPU this leaves out the scratch space that convolution libraries allocate themselves.
    """
    step(loss, preds, target)
    preds.grad = None
    gc.collect()
    if preds.device.type == "cuda":
        torch.cuda.synchronize(preds.device)
        before = torch.cuda.memory_allocated(preds.device)
        torch.cuda.reset_peak_memory_stats(preds.device)
        step(loss, preds, target)
        torch.cuda.synchronize(preds.device)
        return (torch.cuda.max_memory_allocated(preds.device) - before) / 2**20
    return peak_on_cpu(lambda: step(loss, preds, target))


def peak_on_cpu(call: Callable[[], object]) -> float:
    """Most MiB that torch allocated during one call beyond what there was before it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    return _running_peak(profile) / 2**20


def _running_peak(profile: torch.profiler.profile) -> int:
    """Highest running sum of the allocator's events, which the profiler keeps in order of time."""
    results = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = [event for event in results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    field: Sequence[Contender], size: int, repeats: int, device: torch.device
) -> dict[str, Measured]:
    """Time and memory of every contender on one pair of ``size``² images."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, size, size, generator=generator)
    noise = 0.1 * torch.randn(target.shape, generator=generator)
    preds = (target + noise).clamp(0, 1).to(device).requires_grad_()
    target = target.to(device)
    memory = {each.name: peak_memory(each.loss, preds, target) for each in field}  # warms up, too
    times: dict[str, list[float]] = {each.name: [] for each in field}
    for each in shuffled(field, repeats):
        times[each.name].append(milliseconds(each.loss, preds, target))
    return {each.name: Measured(times[each.name], memory[each.name]) for each in field}


def shuffled(field: Sequence[T], repeats: int) -> Iterator[T]:
    """All of ``field``, over and over, in another order each time.

    In one order, one of them would always find memory and caches as the largest has left them.
    """
    generator = random.Random(0)
    for _ in range(repeats):
        yield from generator.sample(field, len(field))


def spread(values: Sequence[float]) -> str:
    """Median and quartiles."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def report(field: Sequence[Contender], results: dict[int, dict[str, Measured]]) -> str:
    """A markdown table: ratios to ours first, from repeats paired in time, then the values."""
    weighty = any(each.parameters for each in field)
    header = ["loss", "parameters"] if weighty else ["loss"]
    for size in results:
        header += [f"{size}² time ÷ ours", f"{size}² memory ÷ ours"]
    for size in results:
        header += [f"{size}² ms (quartiles)", f"{size}² MiB"]
    rows = []
    for each in field:
        row: list[object] = [each.name]
        if weighty:
            row.append(f"{each.parameters:,}" if each.parameters else "–")
        for measured in results.values():
            ours, theirs = measured[OURS], measured[each.name]
            pairs = zip(theirs.milliseconds, ours.milliseconds, strict=True)
            ratio = statistics.median(their / our for their, our in pairs)
            memory = theirs.peak_mib / ours.peak_mib if ours.peak_mib else float("nan")
            row += [f"{ratio:.2f}", f"{memory:.2f}"]
        for measured in results.values():
            theirs = measured[each.name]
            row += [spread(theirs.milliseconds), f"{theirs.peak_mib:.0f}"]
        rows.append(row)
    return table(header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="JSON file to write as well")
    parsed = parser.parse_args(arguments)
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    device = torch.device(parsed.device)
    torch.manual_seed(0)
    record = find_weights(parsed.weights)
    field = contenders(parsed.weights, device)
    results = {size: measure(field, size, parsed.repeats, device) for size in parsed.sizes}
    text = "\n".join(
        [
            "Forward + backward, batch 1, gradient to the image only; median of "
            f"{parsed.repeats} interleaved repeats on {device.type}; ratios above 1 are slower or "
            f"larger than {OURS}. LPIPS and DISTS: architectures with random weights.",
            "",
            report(field, results),
            "",
            f"Weights file: {record.path.stat().st_size / 2**20:.2f} MiB.",
            provenance(record.version, device),
        ]
    )
    show(text, parsed.out)
    content = {
        "weights": record.version,
        "command": command(),
        "weights_bytes": record.path.stat().st_size,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "provenance": provenance(record.version, device),
        "parameters": {each.name: each.parameters for each in field},
        "results": {
            str(size): {name: value._asdict() for name, value in measured.items()}
            for size, measured in results.items()
        },
    }
    keep(content, parsed.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
