"""Whether there are waves that a metric does not see.

    python benchmarks/gratings.py --photos DIR [--weights NAME_OR_PATH …] [--count 8]
        [--out FILE.md]

Grey waves of one energy are added to unseen ``val`` photographs, along an axis and along a
diagonal, and each metric's badness is printed over that of waves of eight pixels. What people see
falls smoothly from there to shorter waves (Campbell and Robson, J. Physiol. 197, 1968). *Dip* is
the least badness over the smaller of those of the waves next to it, and at which length: 1 where
there is none; *one of 4* is the same for the phase and direction of waves of four pixels that is
seen least, since these lie on the grid of pixels in one way only. Members of the training panel see
images at half resolution, as in training.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from _common import command, photographs, provenance, show, table
from torch import Tensor

from relqa_loss import relational_distance
from relqa_loss.network import find_weights
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS
from relqa_loss.training.panel import PANEL, panel_values

Badness = Callable[[Tensor, Tensor], Tensor]

LENGTHS = (16.0, 12.0, 8.0, 6.0, 5.0, 4.5, 4.0, 3.5, 3.0, 2.7, 2.3)
UNIT = LENGTHS.index(8.0)
ANGLES = {"along an axis": (0.0, math.pi / 2), "along a diagonal": (math.pi / 4, 3 * math.pi / 4)}
PHASES = 4
AMPLITUDE = 0.04
SIDE = 192


def wave(length: float, angle: float, phase: float, side: int = SIDE) -> Tensor:
    """side×side, of standard deviation 1 over many periods; ``phase`` in turns."""
    place = torch.arange(side, dtype=torch.float64)
    along = place * math.cos(angle) + place[:, None] * math.sin(angle)
    return math.sqrt(2) * (2 * math.pi * (along / length + phase)).cos().float()


def field(weights: Sequence[str]) -> dict[str, Badness]:
    """Metrics by name, each ``(reference 1×3×H×W, images N×3×H×W) -> N``."""
    import piq

    def ours(name: str) -> Badness:
        return lambda r, x: relational_distance(
            x, r.expand_as(x), weights=name, reduction="none", on_out_of_range="clamp"
        )

    def member(name: str) -> Badness:
        return lambda r, x: panel_values(r, x, (name,))[:, 0]

    return {
        **{find_weights(name).version: ours(name) for name in weights},
        **{f"{name} (panel)": member(name) for name in PANEL},
        "SSIM": lambda r, x: 1 - piq.ssim(x, r.expand_as(x), reduction="none"),
        "MS-SSIM": lambda r, x: 1 - piq.multi_scale_ssim(x, r.expand_as(x), reduction="none"),
        "GMSD": lambda r, x: piq.gmsd(x, r.expand_as(x), reduction="none"),
    }


@torch.no_grad()
def responses(badness: Badness, photos: Sequence[Tensor], angles: Sequence[float]) -> Tensor:
    """The badness of waves of each length (rows), over the mean of those of eight pixels."""
    found = []
    for length in LENGTHS:
        waves = torch.stack(
            [
                AMPLITUDE * wave(length, angle, (number + 0.5) / PHASES)
                for angle in angles
                for number in range(PHASES)
            ]
        )
        # Half of the range, so that no wave is cut.
        values = [
            badness(reference, reference + waves[:, None].expand(-1, 3, -1, -1))
            for reference in (0.25 + 0.5 * photo[None] for photo in photos)
        ]
        found.append(torch.stack(values).mean(0))
    return torch.stack(found) / found[UNIT].mean()


def dip(values: Sequence[float]) -> tuple[float, float]:
    """How deep the deepest gap between neighbours is, at most 1, and at which length."""
    inner = range(1, len(LENGTHS) - 1)
    depth, length = min((values[at] / _beside(values, at), LENGTHS[at]) for at in inner)
    return min(depth, 1.0), length


def least(found: Tensor, length: float) -> float:
    """The least of the waves of a length, over the smaller mean of the waves next to it."""
    at = LENGTHS.index(length)
    worst = max(float(found[at].min()), 0.0)  # of what is rounded to a little below zero
    return worst / _beside(found.mean(1).tolist(), at)


def _beside(values: Sequence[float], at: int) -> float:
    return max(min(values[at - 1], values[at + 1]), 1e-9)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=[DEFAULT_WEIGHTS, "relqa-nano"])
    parser.add_argument("--count", type=int, default=8, help="photographs")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    photos = photographs(arguments.photos, SIDE, arguments.count)
    versions = ", ".join(find_weights(name).version for name in arguments.weights)
    parts = [
        f"{len(photos)} photographs at {SIDE}², waves of a root mean square of {AMPLITUDE}. "
        f"`{command()}`. {provenance(versions)}"
    ]
    metrics = field(arguments.weights)
    for title, angles in ANGLES.items():
        rows = []
        for name, badness in metrics.items():
            found = responses(badness, photos, angles)
            values = found.mean(1).tolist()
            depth, length = dip(values)
            where = f"{depth:.2f}" + (f" at {length:g}" if depth < 1 else "")
            one = f"{least(found, 4.0):.2f}"
            rows.append([name, *(f"{value:.2f}" for value in values), where, one])
        header = ("pixels", *(f"{length:g}" for length in LENGTHS), "dip", "one of 4")
        parts.append(f"## Waves {title}\n\n{table(header, rows)}")
    show("\n\n".join(parts), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
