"""What agreement costs: time of a loss against its rank correlation with metrics kept out of it.

    python benchmarks/pareto.py --photos DIR [--count 32] [--size 256] [--out FILE.md] [--plot FILE]

Random composites of photographs of the ``val`` split are ranked by every contender and by the
judges: metrics that had no part in training ours. Judges and other contenders rank at half
resolution, the scale at which their authors report the best agreement with people. A member of the
training panel is marked, for ours was taught its order. LPIPS and DISTS are left out: their weights
are not at hand, and random ones agree with nobody. Time is that of forward and backward with one
pair, the gradient to the image only, repeats interleaved. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from _common import command, in_folder, keep, photographs, provenance, show, table, told_apart
from speed import milliseconds, spread
from speed_matrix import Cell, images
from torch import Tensor, nn

from relqa_loss import RelationalLoss
from relqa_loss.distortions import operator_names
from relqa_loss.evaluation.agreement import Column, rank_agreement
from relqa_loss.network import find_weights
from relqa_loss.training.panel import JUDGES

REFEREES = (*JUDGES, "vif")
PANEL = ("MDSI", "HaarPSI", "VSI", "FSIM")


class Point(NamedTuple):
    """One contender."""

    milliseconds: list[float]
    agreement: dict[str, float]

    @property
    def time(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def mean(self) -> float:
        return statistics.mean(map(abs, self.agreement.values()))


def contenders(weights: Sequence[str]) -> dict[str, nn.Module]:
    """Losses that give one value per image."""
    import piq

    names = told_apart([find_weights(each) for each in weights])
    ours = {
        name: RelationalLoss(
            weights=each, pixel_weight=0, reduction="none", on_out_of_range="ignore"
        )
        for name, each in zip(names, weights, strict=True)
    }
    return {
        **ours,
        "L1": _MeanError(),
        "SSIM": piq.SSIMLoss(reduction="none"),
        "MS-SSIM": piq.MultiScaleSSIMLoss(kernel_size=7, reduction="none"),
        "GMSD": piq.GMSDLoss(reduction="none"),
        "MDSI": piq.MDSILoss(reduction="none"),
        "HaarPSI": piq.HaarPSILoss(reduction="none"),
        "VSI": piq.VSILoss(reduction="none"),
        "FSIM": piq.FSIMLoss(reduction="none"),
    }


class _MeanError(nn.Module):
    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds - target).abs().mean((1, 2, 3))


def column(loss: nn.Module) -> Column:
    """The loss as :func:`rank_agreement` calls it."""

    def values(reference: Tensor, images: Tensor) -> Tensor:
        pair = images, reference.expand_as(images)
        if not isinstance(loss, RelationalLoss):
            pair = F.avg_pool2d(pair[0], 2), F.avg_pool2d(pair[1], 2)
        return loss(*pair)  # type: ignore[no-any-return]

    return values


def times(losses: Mapping[str, nn.Module], size: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of forward and backward, repeats interleaved."""
    preds, target = images(Cell(size, 1), torch.device("cpu"))
    found: dict[str, list[float]] = {name: [] for name in losses}
    for repeat in range(-2, repeats):
        for name, loss in losses.items():
            taken = milliseconds(lambda x, r, loss=loss: loss(x, r).sum(), preds, target)
            if repeat >= 0:  # the first ones warm up
                found[name].append(taken)
    return found


def front(points: Mapping[str, Point]) -> set[str]:
    """Those that no other one beats in both time and agreement."""
    return {
        name
        for name, own in points.items()
        if not any(other.time < own.time and other.mean > own.mean for other in points.values())
    }


def report(points: Mapping[str, Point]) -> str:
    best = front(points)
    rows = [
        [
            f"{name}{' (of the panel)' if name in PANEL else ''}",
            "yes" if name in best else "",
            f"{point.mean:.3f}",
            *(f"{abs(point.agreement[judge]):.3f}" for judge in REFEREES),
            spread(point.milliseconds),
        ]
        for name, point in sorted(points.items(), key=lambda item: -item[1].mean)
    ]
    header = ("loss", "on the front", "mean SRCC", *REFEREES, "ms (quartiles)")
    return table(header, rows)


def plot(path: Path, points: Mapping[str, Point], size: int) -> None:
    """Agreement against time, the front in bold."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    best = front(points)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, point in points.items():
        ours = name.startswith("relqa")
        axes.scatter(point.time, point.mean, s=60, color="tab:red" if ours else "tab:blue")
        axes.annotate(
            name,
            (point.time, point.mean),
            xytext=(6, 4),
            textcoords="offset points",
            weight="bold" if name in best else "normal",
        )
    axes.set(
        xscale="log",
        xlabel=f"ms, forward and backward at {size}²",
        ylabel="mean SRCC with judges kept out of training",
    )
    axes.margins(x=0.15, y=0.1)  # room for the names
    axes.grid(alpha=0.3)
    figure.savefig(in_folder(path), dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["relqa-base", "relqa-nano"])
    parser.add_argument("--count", type=int, default=32, help="photographs")
    parser.add_argument("--size", type=int, default=256, help="side of the crops, and of the pair")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="picture to write")
    parsed = parser.parse_args(arguments)
    losses = contenders(parsed.weights)
    taken = times(losses, parsed.size, parsed.repeats)
    photos = photographs(parsed.photos, parsed.size, parsed.count, seed=2)
    columns = {name: column(loss) for name, loss in losses.items()}
    agreement = rank_agreement(columns, photos, operator_names(), REFEREES)
    points = {name: Point(taken[name], agreement[name]) for name in losses}
    versions = ", ".join(find_weights(each).version for each in parsed.weights)
    text = "\n\n".join(
        [
            f"{len(photos)} unseen photographs at {parsed.size}², 16 random composites each; "
            "Spearman's correlation with metrics that had no part in training. On the front: no "
            "other one is both faster and in better agreement.",
            report(points),
            f"`{command()}`. {provenance(versions)}",
        ]
    )
    show(text, parsed.out)
    content = {
        "weights": versions,
        "command": command(),
        "points": {name: point._asdict() for name, point in points.items()},
    }
    keep(content, parsed.json)
    if parsed.plot is not None:
        plot(parsed.plot, points, parsed.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
