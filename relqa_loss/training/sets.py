"""Ordinally ranked sets: several distorted versions of one photograph with a partly known order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import DistortionEngine, Recipe, Step, dense_maps, get_operator
from relqa_loss.training.facts import Pair, draw_pair
from relqa_loss.training.panel import PANEL, panel_values
from relqa_loss.training.pipelines import draw_pipeline, spoils
from relqa_loss.training.singles import draw_single

IMAGES_PER_SET = 8
MARGIN = 8
_LADDER = (0, 1, 2)
_EXTENDED = 3
_WHOLE, _MASKED = 4, 5
_FREE = (6, 7)
NO_ORDER = -1
_MOST_PAIRS = 8


class RankedSet(NamedTuple):
    """One photograph's crop and its distorted versions. 8-bit images, to be scaled by 1/255."""

    reference: Tensor
    """3×S×S, uint8."""
    images: Tensor
    """M×3×S×S, uint8."""
    maps: Tensor
    """M×K×S/4×S/4, int8: signed severity × 127."""
    panel: Tensor
    """M×P badness under each panel member."""
    order: Tensor
    """Q×2 indices (worse, better) of certain order; rows of −1 where there is none. Of facts, two
    that are alike in both orders."""
    worse: Tensor
    """M: 1 where the image is certainly worse than the reference, else 0."""
    taught: Tensor | None = None
    """M distances by a teacher, if the pool has one; not a part of the stored set."""


STORED = tuple(field for field in RankedSet._fields if field != "taught")
"""The parts of a set that a pool keeps, and that its seed decides."""


@dataclass(frozen=True)
class SetMaker:
    """Makes :class:`RankedSet` from a crop; the seed decides everything.

    Args:
        operators: Names to draw from.
        members: Members of the consensus panel.

    The images of a set are (0, 1, 2) a ladder of one operator at rising severities, (3) the
    ladder's middle with further distortions on top, (4, 5) one operator over the whole image and
    the same through a mask, (6, 7) free composites.
    """

    operators: tuple[str, ...]
    members: tuple[str, ...] = PANEL

    def __call__(self, crop: Tensor, seed: int) -> RankedSet:
        """Make the set of ``crop`` (3×S'×S' in [0, 1], 8-bit values; S' = S + ``MARGIN``)."""
        generator = torch.Generator().manual_seed(seed)
        engine = DistortionEngine(self.operators)
        recipes = self._recipes(engine, seed, generator)
        shown = _show(engine, crop, recipes, generator)
        panel = panel_values(shown.reference[None], shown.images, self.members)
        return _assemble(shown, recipes, panel, _certain_order(recipes, panel))

    @staticmethod
    def _recipes(engine: DistortionEngine, seed: int, rng: torch.Generator) -> list[Recipe]:
        ladder = engine.draw(4 * seed, steps=1)
        low, middle, high = _rising(rng)
        rungs = [ladder.at(low), ladder.at(middle), ladder.at(high)]
        further = [
            step
            for step in engine.draw(4 * seed + 1).steps
            if get_operator(step.operator).channel != get_operator(ladder.steps[0].operator).channel
        ]
        extended = replace(rungs[1], steps=rungs[1].steps + tuple(further))
        local = engine.draw(4 * seed + 2, steps=1)
        kind = engine.mask_kinds[
            1 + int(torch.randint(len(engine.mask_kinds) - 1, (1,), generator=rng))
        ]
        step = local.steps[0]
        severity = max(step.severity, 0.1)
        whole = replace(local, steps=(Step(step.operator, severity, "whole"),))
        masked = replace(local, steps=(Step(step.operator, severity, kind),))
        free = [engine.draw(4 * seed + 3), engine.draw(4 * seed + 2**40)]
        return [*rungs, extended, whole, masked, *free]


@dataclass(frozen=True)
class PipelineSetMaker:
    """Makes sets of restoration pipelines, each beside the same without its last step.

    Args:
        operators: Names to draw from.

    They are not judged by a panel. Images 2i and 2i + 1 are pipeline i and what it was before its
    last step: pairs of them show what cleaning, sharpening or compressing did to an image that was
    not pristine.
    """

    operators: tuple[str, ...]

    def __call__(self, crop: Tensor, seed: int) -> RankedSet:
        """Make the set of ``crop``, as :class:`SetMaker` does."""
        generator = torch.Generator().manual_seed(seed)
        engine = DistortionEngine(self.operators)
        recipes: list[Recipe] = []
        for number in range(IMAGES_PER_SET // 2):
            recipe = draw_pipeline(self.operators, 4 * seed + number, generator)
            recipes += [recipe, replace(recipe, steps=recipe.steps[:-1])]
        shown = _show(engine, crop, recipes, generator)
        pairs = [
            (index, index + 1) for index in range(0, IMAGES_PER_SET, 2) if spoils(recipes[index])
        ]
        return _assemble(shown, recipes, torch.zeros(len(recipes), 0), pairs)


@dataclass(frozen=True)
class SingleSetMaker:
    """Makes sets of single distortions of the whole bank, see :mod:`.singles`.

    Args:
        operators: Names to draw from.

    They are not judged by a panel, and no order is known among them.
    """

    operators: tuple[str, ...]

    def __call__(self, crop: Tensor, seed: int) -> RankedSet:
        """Make the set of ``crop``, as :class:`SetMaker` does."""
        generator = torch.Generator().manual_seed(seed)
        engine = DistortionEngine(self.operators)
        recipes = [
            draw_single(self.operators, IMAGES_PER_SET * seed + number, generator)
            for number in range(IMAGES_PER_SET)
        ]
        shown = _show(engine, crop, recipes, generator)
        return _assemble(shown, recipes, torch.zeros(len(recipes), 0), ())


@dataclass(frozen=True)
class FactSetMaker:
    """Makes sets of pairs whose order psychophysics is sure of, see :mod:`.facts`.

    Args:
        operators: Names to draw from.

    They are not judged by a panel and have no maps. Images 2i and 2i + 1 are a pair, the worse one
    first, unless they are alike.
    """

    operators: tuple[str, ...]

    def __call__(self, crop: Tensor, seed: int) -> RankedSet:
        """Make the set of ``crop``, as :class:`SetMaker` does."""
        generator = torch.Generator().manual_seed(seed)
        pairs = IMAGES_PER_SET // 2
        drawn: list[Pair] = []
        for _ in range(3 * pairs):  # not every photograph admits every fact
            if len(drawn) == pairs:
                break
            found = draw_pair(crop[None], self.operators, generator)
            if found is not None:
                drawn.append(found)
        order = [(2 * index, 2 * index + 1) for index in range(len(drawn))]
        # Of two that are alike, neither may be the worse one by a clear step.
        order += [(2 * index + 1, 2 * index) for index, pair in enumerate(drawn) if pair.alike]
        drawn += [Pair(crop[None], crop[None], alike=True)] * (pairs - len(drawn))
        images = torch.cat([torch.cat(pair[:2]) for pair in drawn])
        side = crop.shape[-1] - MARGIN
        window = _window(side, generator)
        maps = torch.zeros(IMAGES_PER_SET, len(CHANNELS), side // 4, side // 4)
        shown = _Shown(crop[window], images[window], maps)
        none = [Recipe((), seed)] * IMAGES_PER_SET
        return _assemble(shown, none, torch.zeros(IMAGES_PER_SET, 0), order)


class _Shown(NamedTuple):
    reference: Tensor
    images: Tensor
    maps: Tensor


def _show(
    engine: DistortionEngine, crop: Tensor, recipes: Sequence[Recipe], rng: torch.Generator
) -> _Shown:
    samples = [engine.apply(crop, recipe) for recipe in recipes]
    # Distort, then crop: else every block grid would start at the corner of the image.
    window = _window(crop.shape[-1] - MARGIN, rng)
    images = torch.stack([sample.distorted[window] for sample in samples])
    maps = [dense_maps(sample.recipe, sample.masks[window]) for sample in samples]
    return _Shown(crop[window], eight_bit(images), torch.stack(maps))


def _window(side: int, rng: torch.Generator) -> tuple[EllipsisType, slice, slice]:
    """Where a crop is cut from what was distorted, at random; every other time at the corner.

    There block grids start where those of whole images do: in step with the cells of a network
    that sees patches, which random offsets are in one of sixteen cases.
    """
    top, left = torch.randint(MARGIN, (2,), generator=rng).tolist()
    if float(torch.rand(1, generator=rng)) < 0.5:
        top = left = 0
    return ..., slice(top, top + side), slice(left, left + side)


def _assemble(
    shown: _Shown, recipes: Sequence[Recipe], panel: Tensor, pairs: Sequence[tuple[int, int]]
) -> RankedSet:
    reference, images = shown.reference, shown.images
    error = (images - reference).abs().mean((1, 2, 3))
    # Near the threshold, rounding to 8 bits can make two rungs equal.
    kept = [(w, b) for w, b in pairs if not torch.equal(images[w], images[b]) and error[w] > 0]
    kept += [(NO_ORDER, NO_ORDER)] * (_MOST_PAIRS - len(kept))
    return RankedSet(
        reference=_bytes(reference),
        images=_bytes(images),
        maps=shown.maps.mul(127).round().to(torch.int8),
        panel=panel.float(),
        order=torch.tensor(kept),
        worse=torch.tensor([float(_certainly_worse(recipe)) for recipe in recipes]),
    )


def _rising(generator: torch.Generator) -> tuple[float, float, float]:
    # Half of the ladders stay near the threshold.
    top = 1.0 if float(torch.rand(1, generator=generator)) < 0.5 else 0.45
    cuts = torch.rand(3, generator=generator).sort().values * (top - 0.04)
    low, middle, high = (0.02 + cuts + torch.tensor([0.0, 0.02, 0.04]) * top).tolist()
    return min(low, 1.0), min(middle, 1.0), min(high, 1.0)


def _certainly_worse(recipe: Recipe) -> bool:
    return any(get_operator(step.operator).one_directional for step in recipe.steps)


def _certain_order(recipes: Sequence[Recipe], panel: Tensor) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    if get_operator(recipes[0].steps[0].operator).one_directional:
        pairs += [(1, 0), (2, 1), (2, 0)]
    # A further distortion can hide the first (blur over noise), hence only where the panel does
    # not unanimously say the opposite.
    added = recipes[_EXTENDED].steps[1:]
    if (
        added
        and any(get_operator(step.operator).one_directional for step in added)
        and bool((panel[_EXTENDED] > panel[1]).any())
    ):
        pairs.append((_EXTENDED, 1))
    if get_operator(recipes[_WHOLE].steps[0].operator).one_directional:
        pairs.append((_WHOLE, _MASKED))
    return pairs


def _bytes(image: Tensor) -> Tensor:
    return image.mul(255).round().to(torch.uint8)
