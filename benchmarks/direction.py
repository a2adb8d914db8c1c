"""How often the score takes the distorted image for the better one, on pictures of several kinds.

    python benchmarks/direction.py --photos DIR [--weights NAME_OR_PATH …] [--count 12]
        [--out FILE.md]

Every operator of the bank that can only make an image worse is applied to the whole picture at
severity 0.6. The share of images whose score is above zero is given by channel, and for all. Kinds:

- *photograph*: as it is;
- *luma alone*: the photograph keeps its colours, and its luma alone is distorted, as by a
  super-resolver or a denoiser of luma (operators of colours and of geometry take no part);
- *grey*, *dark* (a quarter of the light), *small* (of half the size, sharp), *enlarged* (twice the
  size, soft): what the reference itself is like.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from _common import command, photographs, provenance, show, table, told_apart
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss._pairs import relations
from relqa_loss.distortions import DistortionEngine, Operator, Recipe, Step, list_operators
from relqa_loss.distortions.colour import luma
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS
from relqa_loss.training.colours import with_colours_of

ALL, LUMA = "all", "luma alone"
SEVERITY = 0.6
SIDE = 192
_OF_COLOUR = ("saturation", "temperature", "tint", "chroma_bleed", "geometry")
_VISIBLE = 1 / 255
"""Mean absolute error below which nothing has been done (colour noise of a grey picture)."""

References = Callable[[Tensor], Tensor]
REFERENCES: dict[str, References] = {
    "photograph": lambda photo: _centre(photo),
    "grey": lambda photo: _grey(_centre(photo)),
    "dark": lambda photo: _centre(photo) / 4,
    "small": lambda photo: F.interpolate(photo, scale_factor=0.5, mode="bicubic", antialias=True),
    "enlarged": lambda photo: F.interpolate(
        _centre(_centre(photo)), scale_factor=2.0, mode="bicubic"
    ),
}


class Verdicts(NamedTuple):
    """Of a kind of picture and a channel: images, and how many passed for the better one."""

    images: int
    better: int


def one_directional() -> list[Operator]:
    return [info for info in list_operators() if info.one_directional]


@torch.no_grad()
def verdicts(network: ParityNetwork, photos: list[Tensor]) -> dict[tuple[str, str], Verdicts]:
    """By kind of picture and channel; photographs are 3×2·SIDE×2·SIDE."""
    operators = one_directional()
    engine = DistortionEngine(tuple(info.name for info in operators))
    found: dict[tuple[str, str], Verdicts] = defaultdict(lambda: Verdicts(0, 0))

    def note(kind: str, distorted: Sequence[Operator], reference: Tensor, images: Tensor) -> None:
        scores = relations(network, images, reference.expand_as(images), None, None).score
        seen = (images - reference).abs().mean((1, 2, 3)) >= _VISIBLE
        better = (scores > 0).tolist()
        for info, is_seen, is_better in zip(distorted, seen.tolist(), better, strict=True):
            for channel in (info.channel, ALL) if is_seen else ():
                count, wrong = found[kind, channel]
                found[kind, channel] = Verdicts(count + 1, wrong + is_better)

    for number, photo in enumerate(photos):
        for kind, make in REFERENCES.items():
            reference = eight_bit(make(photo[None]))
            images = torch.cat(
                [
                    _distorted(engine, reference, info.name, seed=1000 * number + index)
                    for index, info in enumerate(operators)
                ]
            )
            if kind == "grey":
                images = eight_bit(_grey(images))
            note(kind, operators, reference, images)
            if kind == "photograph":
                kept = [k for k, info in enumerate(operators) if info.channel not in _OF_COLOUR]
                images = with_colours_of(reference, images[kept])
                note(LUMA, [operators[k] for k in kept], reference, images)
    return found


def _distorted(engine: DistortionEngine, reference: Tensor, operator: str, seed: int) -> Tensor:
    recipe = Recipe((Step(operator, SEVERITY, "whole"),), seed)
    return eight_bit(engine.apply(reference[0], recipe).distorted[None])


def _centre(photo: Tensor) -> Tensor:
    """Half of each side."""
    rows, columns = (slice(side // 4, side // 4 + side // 2) for side in photo.shape[-2:])
    return photo[..., rows, columns]


def _grey(images: Tensor) -> Tensor:
    return luma(images).expand(-1, 3, -1, -1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=[DEFAULT_WEIGHTS])
    parser.add_argument("--count", type=int, default=12, help="photographs")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    photos = photographs(arguments.photos, 2 * SIDE, arguments.count)
    kinds = ["photograph", LUMA, *(kind for kind in REFERENCES if kind != "photograph")]
    records = [find_weights(weights) for weights in arguments.weights]
    versions = " and ".join(record.version for record in records)
    parts = [
        f"{len(photos)} photographs of the `val` split, {SIDE}². `{command()}`. "
        + provenance(versions)
    ]
    channels = [ALL, *dict.fromkeys(info.channel for info in one_directional())]
    for name, weights in zip(told_apart(records), arguments.weights, strict=True):
        found = verdicts(load_pretrained(weights), photos)
        rows = [
            [channel, *(_share(found.get((kind, channel))) for kind in kinds)]
            for channel in channels
        ]
        parts += [f"## {name}", table(("channel", *kinds), rows)]
    show("\n\n".join(parts), arguments.out)
    return 0


def _share(verdict: Verdicts | None) -> str:
    return f"{verdict.better / verdict.images:.3f}" if verdict else "–"


if __name__ == "__main__":
    sys.exit(main())
