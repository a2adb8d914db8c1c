"""Which of two distorted versions is the better one, without the photograph: does the score know?

    python benchmarks/two_outputs.py --photos DIR [--weights NAME_OR_PATH …] [--count 24]
        [--out FILE.md]

Pairs of versions of one photograph, of four kinds:

- *strengths*: one operator at severities 0.3 and 0.7;
- *operators*: two different single distortions of any severity;
- *restored*: two pipelines of blur, noise, cleaning or sharpening, and compression;
- *composites*: two random composites of the whole bank.

Metrics that training never saw look at the photograph; where all of them agree which version is
the worse one, the score is asked, which is shown the two versions only. *Sure half*: of the pairs
of a kind with the larger scores. *Detail* takes the version of larger total variation for the
better one, and *distance* is shown the photograph: what there is to be known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from _common import command, photographs, provenance, show, table, told_apart
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss._pairs import distances, relations
from relqa_loss.distortions import DistortionEngine, Recipe, Step, operator_names
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS
from relqa_loss.training.panel import JUDGES, panel_values
from relqa_loss.training.pipelines import draw_pipeline
from relqa_loss.training.singles import draw_single

PAIRS = 8
"""Of each kind and photograph."""
WEAK, STRONG = 0.3, 0.7
ALL = "all"


class Answers(NamedTuple):
    """What was said of N pairs on which the judges agree, positive for the second version."""

    judges: Tensor
    score: Tensor
    distance: Tensor
    detail: Tensor


def _strengths(seed: int, generator: torch.Generator) -> tuple[Recipe, Recipe]:
    names = operator_names()
    name = names[int(torch.randint(len(names), (1,), generator=generator))]
    weak, strong = (Recipe((Step(name, at, "whole"),), seed) for at in (WEAK, STRONG))
    # Which one comes first says nothing.
    return (weak, strong) if float(torch.rand(1, generator=generator)) < 0.5 else (strong, weak)


def _operators(seed: int, generator: torch.Generator) -> tuple[Recipe, Recipe]:
    first = draw_single(operator_names(), seed, generator)
    others = [name for name in operator_names() if name != first.steps[0].operator]
    return first, draw_single(others, seed, generator)


def _restored(seed: int, generator: torch.Generator) -> tuple[Recipe, Recipe]:
    first, second = (draw_pipeline(operator_names(), seed, generator) for _ in range(2))
    return first, second


def _composites(seed: int, generator: torch.Generator) -> tuple[Recipe, Recipe]:
    engine = DistortionEngine()
    first, second = (int(torch.randint(1 << 31, (1,), generator=generator)) for _ in range(2))
    return engine.draw(first), engine.draw(second)


KINDS: dict[str, Callable[[int, torch.Generator], tuple[Recipe, Recipe]]] = {
    "strengths": _strengths,
    "operators": _operators,
    "restored": _restored,
    "composites": _composites,
}


def versions(photo: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """First and second versions of a photograph 3×H×W, of each of PAIRS pairs."""
    engine = DistortionEngine()
    generator = torch.Generator().manual_seed(seed)
    images = [
        torch.stack([engine.apply(photo, recipe).distorted for recipe in recipes])
        for recipes in zip(*(KINDS[kind](seed + n, generator) for n in range(PAIRS)), strict=True)
    ]
    first, second = map(eight_bit, images)
    return first, second


class Agreed(NamedTuple):
    """The N pairs on whose order all judges agree."""

    judges: Tensor
    """1 where the second version is the better one, else −1."""
    first: Tensor
    second: Tensor


def agreed(photo: Tensor, first: Tensor, second: Tensor) -> Agreed:
    """Those of some pairs on which the judges agree, who see the photograph."""
    worse = [panel_values(photo[None], images, JUDGES) for images in (first, second)]
    signs = (worse[0] - worse[1]).sign()
    clear = (signs == signs[:, :1]).all(1) & (signs[:, 0] != 0)
    return Agreed(signs[clear, 0], first[clear], second[clear])


@torch.no_grad()
def answers(network: ParityNetwork, photo: Tensor, pairs: Agreed) -> Answers:
    """What a network says of them."""
    judges, first, second = pairs
    if not len(judges):
        return Answers(*(torch.zeros(0) for _ in Answers._fields))
    away = [
        distances(network, images, photo.expand_as(images), None, None)
        for images in (first, second)
    ]
    return Answers(
        judges,
        relations(network, second, first, None, None).score,
        away[0] - away[1],
        _variation(second) - _variation(first),
    )


def _variation(images: Tensor) -> Tensor:
    return sum((images.diff(dim=side).abs().mean((1, 2, 3)) for side in (2, 3)), torch.zeros(()))


def row(kind: str, found: Answers, asked: int) -> list[object]:
    """A row of the table."""
    agree = (found.judges == found.score.sign()).double()
    sure = found.score.abs().argsort(descending=True)[: (len(agree) + 1) // 2]
    shares = (
        agree,
        agree[sure],
        (found.judges == found.detail.sign()).double(),
        (found.judges == found.distance.sign()).double(),
    )
    return [kind, f"{len(agree)} of {asked}", *(_share(each) for each in shares)]


def _share(right: Tensor) -> str:
    return f"{float(right.mean()):.3f}" if len(right) else "–"


def joined(parts: Sequence[Answers]) -> Answers:
    return Answers(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=[DEFAULT_WEIGHTS])
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--size", type=int, default=256, help="crop side")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    records = [find_weights(weights) for weights in arguments.weights]
    networks = [load_pretrained(weights) for weights in arguments.weights]
    photos = photographs(arguments.photos, arguments.size, arguments.count, seed=5)
    found: list[dict[str, list[Answers]]] = [{kind: [] for kind in KINDS} for _ in networks]
    for number, photo in enumerate(photos):
        for kind in KINDS:
            pairs = agreed(photo, *versions(photo, kind, seed=1000 * number))
            for network, columns in zip(networks, found, strict=True):
                columns[kind].append(answers(network, photo, pairs))
        print(f"{number + 1}/{len(photos)} photographs", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    asked = PAIRS * len(photos)
    parts = [
        f"{len(photos)} photographs of the `val` split at {arguments.size}². Judges: "
        f"{', '.join(JUDGES)}. `{command()}`. "
        + provenance(" and ".join(record.version for record in records))
    ]
    for name, columns in zip(told_apart(records), found, strict=True):
        kinds = {kind: joined(each) for kind, each in columns.items()}
        rows = [row(kind, each, asked) for kind, each in kinds.items()]
        rows.append(row(ALL, joined(list(kinds.values())), asked * len(kinds)))
        header = ("pairs", "judges agree", "score", "sure half", "detail", "distance")
        parts += [f"## {name}", table(header, rows)]
    show("\n\n".join(parts), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
