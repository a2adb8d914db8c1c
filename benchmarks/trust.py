"""Is it a loss? Recovery by gradient descent on the distance alone, as losses have it; line scans.

    python benchmarks/trust.py --photos DIR [--weights NAME_OR_PATH …] [--out FILE.md]

Several weights can be compared in one run. L1 and SSIM are run beside them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _common import command, keep, photographs, provenance, show, table
from torch import Tensor

from relqa_loss import RelationalLoss
from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.evaluation.trust import (
    STARTS,
    Distance,
    is_monotone,
    line_scan,
    recover,
    starting_point,
)
from relqa_loss.network import find_weights


def ours(weights: str) -> Distance:
    """What is minimised, but for the pixel term."""
    return RelationalLoss(
        weights=weights, pixel_weight=0, reduction="none", on_out_of_range="ignore"
    )


def l1(preds: Tensor, target: Tensor) -> Tensor:
    return (preds - target).abs().mean((1, 2, 3))


def ssim(preds: Tensor, target: Tensor) -> Tensor:
    import piq

    return 1 - piq.ssim(preds, target, reduction="none")  # type: ignore[operator]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["relqa-base"])
    parser.add_argument("--count", type=int, default=4, help="photographs to recover")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--scans", type=int, default=6, help="photographs for line scans")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures of the first weights as JSON")
    arguments = parser.parse_args()
    if arguments.count < 2:
        parser.error("--count must be at least 2: one start is another photograph")

    losses: dict[str, Distance] = {
        find_weights(weights).version: ours(weights) for weights in arguments.weights
    }
    versions = ", ".join(losses)
    losses |= {"L1": l1, "1 − SSIM (piq)": ssim}
    photos = torch.stack(photographs(arguments.photos, 128, arguments.count))
    if len(photos) < 2:  # it would start from itself, and be recovered at once
        parser.error("one start is another photograph, and the `val` split has 1: give more")
    recovery = []
    for name, distance in losses.items():
        row: list[object] = [name]
        for kind in STARTS:
            found = []
            for seed in range(arguments.seeds):
                generator = torch.Generator().manual_seed(seed)
                if kind == "other":
                    start = photos.roll(1 + seed % max(1, len(photos) - 1), 0)
                else:
                    starts = [starting_point(kind, photo, generator) for photo in photos]
                    start = torch.stack(starts)
                found.append(recover(distance, photos, start, steps=arguments.steps))
            row.append(sum(each.psnr for each in found) / len(found))
            print(f"{name}, {kind}: {row[-1]:.1f} dB", file=sys.stderr)
        recovery.append(row)

    scanned = photographs(arguments.photos, 128, arguments.scans, seed=2)
    scans = []
    for name, distance in losses.items():
        monotone: dict[str, list[bool]] = {}
        for operator in operator_names():
            for seed, photo in enumerate(scanned):
                generator = torch.Generator().manual_seed(seed)
                distorted = get_operator(operator)(photo[None], 0.8, generator)[0]
                _, values = line_scan(distance, photo, distorted)
                monotone.setdefault(operator, []).append(is_monotone(values))
        shares = {operator: sum(each) / len(each) for operator, each in monotone.items()}
        worst = sorted(shares.items(), key=lambda item: item[1])[:3]
        scans.append(
            [
                name,
                sum(shares.values()) / len(shares),
                ", ".join(f"{operator} {share:.2f}" for operator, share in worst if share < 1)
                or "none below 1",
            ]
        )
        print(f"{name}, scans: {scans[-1][1:]}", file=sys.stderr)

    report = "\n\n".join(
        [
            f"{len(photos)} photographs of the `val` split at 128², {arguments.seeds} seeds, "
            f"{arguments.steps} steps of Adam. " + provenance(versions),
            "#### Recovery: mean PSNR in dB after gradient descent on the loss alone\n\n"
            + table(("loss", *(f"from {kind}" for kind in STARTS)), recovery),
            f"#### Line scans: share monotone, every operator, {len(scanned)} photographs\n\n"
            + table(("loss", "monotone", "lowest operators"), scans),
        ]
    )
    show(report, arguments.out)
    figures = {
        "weights": recovery[0][0],
        "command": command(),
        "recovery dB": dict(zip(STARTS, recovery[0][1:], strict=True)),
        "monotone line scans": scans[0][1],
    }
    keep(figures, arguments.json)


if __name__ == "__main__":
    main()
