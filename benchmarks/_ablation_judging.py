"""How the ablation's distances are judged: unseen photographs, left-out operators and metrics."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from _common import photographs
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.distortions import DistortionEngine, get_operator, operator_names
from relqa_loss.evaluation.facts import FACTS, judge
from relqa_loss.evaluation.stimuli import Stimuli
from relqa_loss.training.panel import panel_values
from relqa_loss.training.photos import find_photos, read_photo
from relqa_loss.training.split import HELD_OUT
from relqa_loss.training.validation import spearman

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(reference 1×3×H×W, images N×3×H×W) -> N``."""
RUNGS = (0.15, 0.3, 0.5, 0.75, 1.0)
WINDOWS = (256, 128)


@dataclass(frozen=True)
class Photo:
    """A photograph and its distorted versions."""

    reference: Tensor
    images: Tensor


@dataclass(frozen=True)
class Judged:
    """Versions of several photographs, and what the metrics say of them (images × metrics)."""

    photos: list[Photo]
    values: Tensor


class Bench:
    """All that distances are judged on; made once, since the metrics are what takes long.

    Args:
        folder: Photographs; the ``val`` split is read.
        metrics: Names, see :func:`relqa_loss.training.panel.panel_values`.
        count: Photographs for ranks; facts, ladders and windows take a quarter of them.
    """

    def __init__(self, folder: Path, metrics: tuple[str, ...], count: int) -> None:
        self.metrics = metrics
        trained = [name for name in operator_names() if name not in HELD_OUT]
        crops = photographs(folder, 192, count, seed=5)
        self.count = len(crops)  # the split may have fewer
        self.groups = {
            "trained": _judged(crops, trained, metrics),
            "held out": _judged(crops, list(HELD_OUT), metrics),
        }
        few = max(1, self.count // 4)
        self.ladders = [ladder for crop in crops[:few] for ladder in _ladders(crop)]
        self.stimuli = [
            Stimuli(photo, seed=number)
            for number, photo in enumerate(photographs(folder, 256, few, seed=6))
        ]
        self.wide = _wide(folder, few, trained)

    def figures(self, distance: Distance) -> dict[str, float]:
        """SRCC by group and metric, ladders, facts, and order in windows of the same images."""
        found: dict[str, float] = {}
        for group, judged in self.groups.items():
            ours = torch.cat([_ask(distance, photo) for photo in judged.photos])
            for column, metric in enumerate(self.metrics):
                found[f"{metric}, {group}"] = spearman(ours, judged.values[:, column])
        rises = [torch.diff(_ask(distance, ladder)) > 0 for ladder in self.ladders]
        found["ladders"] = float(torch.cat(rises).float().mean())
        firm = [fact for fact in FACTS if fact.firm]
        verdicts = [v for each in self.stimuli for v in judge(distance, each, firm)]
        found["facts"] = statistics.mean(verdict.holds for verdict in verdicts)
        whole = torch.cat([_ask(distance, photo) for photo in self.wide])
        for side in WINDOWS:
            part = torch.cat([_ask(distance, _window(photo, side)) for photo in self.wide])
            found[f"whole and {side}²"] = spearman(whole, part)
        return found


def _ask(distance: Distance, photo: Photo) -> Tensor:
    with torch.no_grad():
        parts = [distance(photo.reference[None], part) for part in photo.images.split(8)]
    return torch.cat(parts)


def _judged(crops: Sequence[Tensor], names: Sequence[str], metrics: tuple[str, ...]) -> Judged:
    engine = DistortionEngine(names)
    photos, values = [], []
    for row, crop in enumerate(crops):
        images = eight_bit(
            torch.stack([engine.sample(crop, 1000 * row + k).distorted for k in range(16)])
        )
        photos.append(Photo(crop, images))
        values.append(panel_values(crop[None], images, metrics))
        print(f"{row + 1}/{len(crops)} photographs", end="\r", file=sys.stderr, flush=True)
    return Judged(photos, torch.cat(values))


def _ladders(crop: Tensor) -> list[Photo]:
    """Every operator that only ever makes things worse, where it does something at all."""
    found = []
    for name in operator_names():
        operator = get_operator(name)
        if not operator.one_directional:
            continue
        rungs = [
            operator(crop[None], severity, torch.Generator().manual_seed(1)) for severity in RUNGS
        ]
        images = eight_bit(torch.cat(rungs))
        if all(not torch.equal(a, b) for a, b in itertools.pairwise(images)):
            found.append(Photo(crop, images))
    return found


def _wide(folder: Path, count: int, names: Sequence[str]) -> list[Photo]:
    """Whole photographs, each under a few operators everywhere."""
    files = find_photos(folder, "val", least_side=max(WINDOWS)).files
    found = []
    for row in range(min(count, len(files))):
        photo = read_photo(files[row * len(files) // count])
        generator = torch.Generator().manual_seed(row)
        picked = torch.randperm(len(names), generator=generator)[:16].tolist()
        images = [
            get_operator(names[pick])(
                photo[None], float(torch.rand(1, generator=generator)), generator
            )
            for pick in picked
        ]
        found.append(Photo(photo, eight_bit(torch.cat(images))))
    return found


def _window(photo: Photo, side: int) -> Photo:
    top, left = ((have - side) // 2 for have in photo.reference.shape[-2:])
    cut = (..., slice(top, top + side), slice(left, left + side))
    return Photo(photo.reference[cut], photo.images[cut])
