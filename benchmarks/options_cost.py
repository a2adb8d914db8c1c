"""What options of the losses cost, beside ``RelationalLoss`` as it is, in one run.

    python benchmarks/options_cost.py [--sizes 96 256] [--repeats 15] [--threads N] [--device cuda]

Forward and backward as in ``speed.py``, whose settings are these as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _common import command, provenance, show
from _contenders import OURS, Contender, Loss
from speed import measure, report
from torch import Tensor, nn

from relqa_loss import PreferenceLoss, RelationalLoss, SpatialMapWeightedLoss
from relqa_loss.network import find_weights
from relqa_loss.network.model import Encoding


def field(weights: str, device: torch.device) -> list[Contender]:
    """The losses, ready on ``device``."""

    def ready(kind: type[nn.Module], **options: object) -> Any:
        return kind(weights=weights, on_out_of_range="ignore", **options).to(device)

    plain = ready(RelationalLoss)
    preference = ready(PreferenceLoss)

    def masked(preds: Tensor, target: Tensor) -> Tensor:
        return plain(preds, target, torch.ones_like(target[:, :1]))

    def against_baseline(preds: Tensor, target: Tensor) -> Tensor:
        return preference(preds, 0.9 * target, target)

    losses: dict[str, Loss] = {
        OURS: plain,
        "with `pixel_weight=0`": ready(RelationalLoss, pixel_weight=0.0),
        "with `weight`, a mask": masked,
        "of a reference encoded before": _encoded_before(plain),
        "with `channel_weights` below 1": ready(RelationalLoss, channel_weights={"ringing": 0.5}),
        "with `channel_weights` above 1": ready(RelationalLoss, channel_weights={"ringing": 2.0}),
        "`PreferenceLoss`": against_baseline,
        "`SpatialMapWeightedLoss`": ready(SpatialMapWeightedLoss),
        "the same without the distance": ready(SpatialMapWeightedLoss, relational_weight=0.0),
        "the same, `detach_maps=False`": ready(SpatialMapWeightedLoss, detach_maps=False),
    }
    return [Contender(name, loss, 0) for name, loss in losses.items()]


def _encoded_before(loss: RelationalLoss) -> Loss:
    encodings: dict[Tensor, Encoding] = {}

    def of_encoding(preds: Tensor, target: Tensor) -> Tensor:
        if target not in encodings:
            encodings[target] = loss.encode(target)
        return loss.distance_to(encodings[target], preds)

    return of_encoding


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 256])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parsed = parser.parse_args(arguments)
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    device = torch.device(parsed.device)
    losses = field(parsed.weights, device)
    results = {size: measure(losses, size, parsed.repeats, device) for size in parsed.sizes}
    text = "\n\n".join(
        [
            "Forward + backward, batch 1, gradient to the image only; median of "
            f"{parsed.repeats} interleaved repeats on {device.type}.",
            report(losses, results),
            f"`{command()}`. {provenance(find_weights(parsed.weights).version, device)}",
        ]
    )
    show(text, parsed.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
