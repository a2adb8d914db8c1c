"""Whether a small move hides what came with it.

    python benchmarks/moved.py --photos DIR [--weights NAME_OR_PATH] [--count 24] [--out FILE.md]

A copy that has moved by a pixel counts for little, as people do not see it. One that is distorted
*and* moved should be about as far as one that is distorted in place: the distance of the former
over that of the latter, on unseen ``val`` photographs.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from _common import command, photographs, provenance, show, table
from torch import Tensor

from relqa_loss.evaluation.stimuli import Stimuli, Stimulus
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS

COMPANIONS = (
    Stimulus("JPEG quality 10"),
    Stimulus("JPEG quality 30"),
    Stimulus("JPEG 2000", 28.0),
    Stimulus("Gaussian blur of σ 1"),
    Stimulus("Gaussian blur", 28.0),
)
NOISE = (Stimulus("white noise", 26.0), Stimulus("white noise", 32.0))
SIDE = 384


@torch.no_grad()
def ratios(network: ParityNetwork, photos: list[Tensor]) -> dict[str, list[float]]:
    """By what came with the move: one ratio for each photograph on which there is such an image."""
    found: dict[str, list[float]] = defaultdict(list)
    for number, photo in enumerate(photos):
        stimuli, reference = Stimuli(photo, seed=number), photo[None]
        encoding = network.encode(reference)
        for companion in (*COMPANIONS, *NOISE):
            image = stimuli[companion]
            if image is None:
                continue
            there = image.view_as(reference)
            # Noise comes from the camera: it does not move with the scene.
            moved = (
                (_moved(reference) + there - reference).clamp(0, 1)
                if companion in NOISE
                else _moved(there)
            )
            ratio = network.distance(encoding, moved) / network.distance(encoding, there)
            found[str(companion)].append(float(ratio))
    return found


def _moved(image: Tensor) -> Tensor:
    return image.roll(1, -1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    found = ratios(
        load_pretrained(arguments.weights), photographs(arguments.photos, SIDE, arguments.count)
    )
    rows = [
        [name, len(values), *(f"{np.quantile(values, q):.2f}" for q in (0.0, 0.1, 0.5))]
        for name, values in found.items()
    ]
    text = f"`{command()}`. {provenance(find_weights(arguments.weights).version)}\n\n" + table(
        ("moved by a pixel and", "photographs", "least", "lowest tenth", "median"), rows
    )
    show(text, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
