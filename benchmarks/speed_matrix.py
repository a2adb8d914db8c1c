"""Time and memory over sizes, batches, precision, compilation and layout, in one run.

    python benchmarks/speed_matrix.py [--sizes 128 256 512 1024] [--batches 1 8 16]
        [--modes eager compiled graphed compiled+graphed] [--precisions float32 bf16]
        [--layouts contiguous channels_last] [--further] [--heavy] [--all] [--device cuda]
        [--seconds 2] --out FILE.md [--csv FILE] [--plot FILE]

``speed.py`` is the short table of the model card; this is the long one. Every contender is measured
at every size and batch in float32, eagerly, on contiguous images; our own losses in every other
combination, too (``--all`` asks that of the others). ``graphed`` replays a CUDA graph of the step.
Repeats are interleaved. Ratios come first, then our own times, what the machine reaches in a matrix
product and in a copy and how near our loss comes to it, and a straight line through time against
pixels.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _common import command, in_folder, provenance, show, table
from _contenders import NANO, OURS, Contender, contenders, further_contenders
from speed import peak_memory, shuffled
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from relqa_loss.network import find_weights

HEAVY = ("LPIPS-VGG architecture", "DISTS architecture")
_OWN = (OURS, NANO)
_MOST = 15  # repeats


class Cell(NamedTuple):
    """How images are given."""

    size: int
    batch: int
    precision: str = "float32"
    mode: str = "eager"
    layout: str = "contiguous"

    @property
    def pixels(self) -> int:
        return self.batch * self.size**2

    @property
    def plain(self) -> bool:
        return self[2:] == Cell(0, 0)[2:]


class Figures(NamedTuple):
    """Medians in milliseconds, with the quartiles of the second; peak in MiB beyond the images."""

    forward: float
    both: float
    low: float
    high: float
    peak: float


def images(cell: Cell, device: torch.device) -> tuple[Tensor, Tensor]:
    """A noisy image that wants a gradient, and its reference."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(cell.batch, 3, cell.size, cell.size, generator=generator)
    preds = (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    layout = torch.channels_last if cell.layout == "channels_last" else torch.contiguous_format
    preds, target = (each.to(device).contiguous(memory_format=layout) for each in (preds, target))
    return preds.requires_grad_(), target


def prepared(contender: Contender, cell: Cell, device: torch.device) -> Contender:
    """The contender as this cell wants it called."""
    loss = contender.loss
    if "compiled" in cell.mode:
        torch.compiler.reset()  # each cell gets its own code, and no limit on how many is met
        loss = torch.compile(loss)
    if cell.precision == "bf16":
        inner = loss

        def loss(preds: Tensor, target: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return inner(preds, target)

    return contender._replace(loss=loss)


def captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``step`` as a CUDA graph, to be called instead of it."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - began)


def measure(
    field: Sequence[Contender], cell: Cell, device: torch.device, seconds: float
) -> dict[str, Figures | str]:
    """Every contender in one cell, or why it could not be measured there."""
    preds, target = images(cell, device)
    found: dict[str, Figures | str] = {}
    ready: list[tuple[str, Callable[[], object], Callable[[], object]]] = []
    peaks: dict[str, float] = {}
    slowest = 0.0
    for each in field:
        loss = prepared(each, cell, device).loss

        def forward(loss: Callable[[Tensor, Tensor], Tensor] = loss) -> object:
            return loss(preds, target)

        def both(loss: Callable[[Tensor, Tensor], Tensor] = loss) -> object:
            preds.grad = None
            return loss(preds, target).backward()

        try:
            peaks[each.name] = peak_memory(loss, preds, target)  # warms up, and compiles
            calls = (forward, both)
            if "graphed" in cell.mode:
                calls = (captured(forward, device), captured(both, device))
            slowest += timed(calls[1], device)
        except (RuntimeError, ValueError, AssertionError) as error:
            # MS-SSIM has a least size, and some peers do not compile.
            found[each.name] = str(error).strip().splitlines()[0][:80]
            continue
        ready.append((each.name, *calls))
    repeats = max(3, min(_MOST, int(1000 * seconds / max(slowest, 1e-3))))
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name, *_ in ready}
    for name, forward, both in shuffled(ready, repeats):
        times[name][0].append(timed(forward, device))
        times[name][1].append(timed(both, device))
    for name, (ahead, whole) in times.items():
        low, middle, high = statistics.quantiles(whole, n=4, method="inclusive")
        found[name] = Figures(statistics.median(ahead), middle, low, high, peaks[name])
    return found


def peaks_of_machine(device: torch.device) -> tuple[float, float]:
    """Billions of operations per second of a matrix product, and GB/s of a copy, in float32."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.rand(side, side, device=device) for _ in range(2))
    source, sink = (torch.rand(2**26, device=device) for _ in range(2))
    for _ in range(2):
        left @ right
        sink.copy_(source)
    product = min(timed(lambda: left @ right, device) for _ in range(5))
    copy = min(timed(lambda: sink.copy_(source), device) for _ in range(5))
    return 2 * side**3 / product / 1e6, 2 * source.nbytes / copy / 1e6


def operations(contender: Contender, cell: Cell, device: torch.device) -> int:
    """Of convolutions and products, forward and backward."""
    preds, target = images(cell, device)
    with FlopCounterMode(display=False) as counter:
        contender.loss(preds, target).backward()
    return counter.get_total_flops()


def of_the_machine(results: Results, ours: Contender, device: torch.device) -> list[str]:
    """How near the largest plain call comes to what the machine can do, if there is one."""
    plain = [cell for cell in results if cell.plain]
    if not plain:
        return []
    largest = max(plain, key=lambda cell: cell.pixels)
    product_rate, copy_rate = peaks_of_machine(device)
    work = operations(ours, largest, device)
    figures = results[largest][ours.name]
    reached = work / figures.both / 1e6 if isinstance(figures, Figures) else float("nan")
    return [
        f"A matrix product reaches {product_rate:.0f} GFLOP/s here and a copy "
        f"{copy_rate:.1f} GB/s. At {largest.size}² × {largest.batch} ours does "
        f"{work / 1e9:.1f} GFLOP at {reached:.0f} GFLOP/s, {reached / product_rate:.0%} of "
        "the former."
    ]


def line(points: Iterable[tuple[float, float]]) -> tuple[float, float, float]:
    """Offset, slope and R² of a straight line of least relative squares."""
    x, y = np.array(list(points)).T
    design = np.stack([np.ones_like(x), x], 1)
    offset, slope = np.linalg.lstsq(design / y[:, None], np.ones_like(y), rcond=None)[0]
    rest = y - (offset + slope * x)
    return float(offset), float(slope), float(1 - rest.var() / y.var())


def cells(arguments: argparse.Namespace) -> list[Cell]:
    return [
        Cell(*each)
        for each in product(
            arguments.sizes,
            arguments.batches,
            arguments.precisions,
            arguments.modes,
            arguments.layouts,
        )
    ]


Results = dict[Cell, dict[str, Figures | str]]


def ratio_tables(results: Results, names: Sequence[str]) -> str:
    """Ratios to ours, a table for each way of calling in which others took part."""
    ways: dict[tuple[str, ...], list[Cell]] = {}
    for cell, found in results.items():
        if cell.plain or set(found).difference(_OWN):
            ways.setdefault(cell[2:], []).append(cell)
    tables = []
    for way, chosen in ways.items():
        tables += [f"{', '.join(way)}:", _ratios(results, names, chosen)]
    return "\n\n".join(tables)


def _ratios(results: Results, names: Sequence[str], chosen: Sequence[Cell]) -> str:
    header = ["time ÷ ours / memory ÷ ours", *(f"{c.size}² × {c.batch}" for c in chosen)]
    rows = []
    for name in names:
        row: list[object] = [name]
        for cell in chosen:
            ours, theirs = results[cell].get(OURS), results[cell].get(name)
            if isinstance(ours, Figures) and isinstance(theirs, Figures):
                row.append(f"{theirs.both / ours.both:.2f} / {theirs.peak / ours.peak:.2f}")
            else:
                row.append("–")
        rows.append(row)
    return table(header, rows)


def own_table(results: Results, name: str) -> str:
    """One of ours in every cell."""
    header = ("images", "forward, ms", "both, ms (quartiles)", "pairs per second", "MiB", "÷ eager")
    rows = []
    for cell, found in results.items():
        ours, plain = found.get(name), results.get(cell._replace(**_PLAIN), {}).get(name)
        label = f"{cell.size}² × {cell.batch}, {cell.precision}, {cell.mode}, {cell.layout}"
        if not isinstance(ours, Figures):
            rows.append((label, ours, "", "", "", ""))
            continue
        rows.append(
            (
                label,
                f"{ours.forward:.2f}",
                f"{ours.both:.2f} ({ours.low:.2f}–{ours.high:.2f})",
                f"{1000 * cell.batch / ours.both:.0f}",
                f"{ours.peak:.0f}",
                f"{ours.both / plain.both:.2f}" if isinstance(plain, Figures) else "–",
            )
        )
    return table(header, rows)


_PLAIN = {"precision": "float32", "mode": "eager", "layout": "contiguous"}


def scaling(results: Results, names: Sequence[str]) -> list[str]:
    """Time against pixels, if there are enough sizes for a line to mean anything."""
    rows = []
    for name in names:
        points = [
            (cell.pixels / 1e6, found[name].both)  # type: ignore[union-attr]
            for cell, found in results.items()
            if cell.plain and isinstance(found.get(name), Figures)
        ]
        if len({x for x, _ in points}) > 2:
            offset, slope, fit = line(points)
            rows.append((name, f"{offset:.2f}", f"{slope:.2f}", f"{fit:.3f}"))
    if not rows:
        return []
    header = ("loss", "ms whatever the size", "ms per megapixel", "R²")
    return ["Time against pixels (least relative squares):", table(header, rows)]


def write_csv(path: Path, results: Results) -> None:
    with in_folder(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*Cell._fields, "loss", *Figures._fields, "remark"))
        for cell, found in results.items():
            for name, figures in found.items():
                values = (*figures, "") if isinstance(figures, Figures) else ("",) * 5 + (figures,)
                writer.writerow((*cell, name, *values))


def plot(path: Path, results: Results, names: Sequence[str]) -> None:
    """Time and memory against pixels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name in names:
        points = sorted(
            (cell.pixels, found[name].both, found[name].peak)  # type: ignore[union-attr]
            for cell, found in results.items()
            if cell.plain and isinstance(found.get(name), Figures)
        )
        if points:
            x, times, peaks = zip(*points, strict=True)
            style = {"marker": "o", "lw": 2.5 if name in _OWN else 1, "label": name}
            axes[0].plot(x, times, **style)
            axes[1].plot(x, peaks, **style)
    for axis, label in zip(axes, ("ms, forward and backward", "peak MiB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="pixels of the batch", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(in_folder(path), dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16])
    # Anything else would be measured as the default is, under a name that says otherwise.
    known = ["float32", "bf16"]
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=known)
    known = ["eager", "compiled", "graphed", "compiled+graphed"]
    parser.add_argument("--modes", nargs="+", default=["eager"], choices=known)
    known = ["contiguous", "channels_last"]
    parser.add_argument("--layouts", nargs="+", default=["contiguous"], choices=known)
    parser.add_argument("--further", action="store_true", help="more contenders")
    parser.add_argument("--heavy", action="store_true", help="the VGG-sized ones, too")
    parser.add_argument("--all", action="store_true", help="everyone in every combination")
    parser.add_argument("--seconds", type=float, default=2.0, help="about, per combination")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path, help="picture of time and memory against pixels")
    parsed = parser.parse_args(arguments)
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    device = torch.device(parsed.device)
    field = contenders(parsed.weights, device)
    if not parsed.heavy:
        field = [each for each in field if each.name not in HEAVY]
    if parsed.further:
        field += further_contenders(device)
    names = [each.name for each in field]
    results: Results = {}
    for cell in cells(parsed):
        everyone = cell.plain or parsed.all
        taking_part = [each for each in field if everyone or each.name in _OWN]
        results[cell] = measure(taking_part, cell, device, parsed.seconds)
        sys.stderr.write(f"measured {cell}\n")
    text = "\n\n".join(
        [
            "Forward and backward, gradient to the image only; medians of interleaved repeats; "
            "ratios above 1 are slower or larger than ours. LPIPS and DISTS: architectures with "
            "random weights.",
            ratio_tables(results, names),
            *(part for name in _OWN for part in (f"{name}:", own_table(results, name))),
            *of_the_machine(results, field[0], device),
            *scaling(results, names),
            f"`{command()}`. {provenance(find_weights(parsed.weights).version, device)}",
        ]
    )
    show(text, parsed.out)
    if parsed.csv is not None:
        write_csv(parsed.csv, results)
    if parsed.plot is not None:
        plot(parsed.plot, results, names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
