"""From sets to batches: a batch is a function of the seed, the step and the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relqa_loss.network.model import MAP_STRIDE
from relqa_loss.training.batch import PAIRS_PER_SET, Batch, Facts, Lessons, Pairs
from relqa_loss.training.colours import keep_colours, without_colours
from relqa_loss.training.pool import Pool
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER, RankedSet

_PRIME = 1_000_003
_FAINT = 0.02  # added to the chance of an image to be drawn for a pair
_CUT = 8  # pixels; where windows may start


class Quantiles:
    """Each panel member's empirical distribution in the pool, so that members can be compared."""

    def __init__(self, values: Tensor) -> None:
        # Some thousands of points are plenty, and keep look-ups short. An odd step, which comes by
        # all of the eight images of a set: each is of a kind of its own, the first the mildest.
        keep = max(1, len(values) // 8192) | 1
        self.sorted = values[::keep].T.contiguous().sort(1).values

    def __call__(self, values: Tensor) -> Tensor:
        """``…×P`` badness → quantiles in [0, 1], the same shape."""
        flat = values.reshape(-1, values.shape[-1]).T.contiguous()
        left = torch.searchsorted(self.sorted, flat)
        right = torch.searchsorted(self.sorted, flat, right=True)
        return ((left + right) / (2 * self.sorted.shape[1])).T.reshape(values.shape)


def collate(
    sets: Sequence[RankedSet],
    quantiles: Quantiles,
    generator: torch.Generator,
    *,
    pair_sets: Sequence[RankedSet] | None = None,
    fact_sets: Sequence[RankedSet] | None = None,
    window: int | None = None,
    luma_share: float = 0.0,
    grey_share: float = 0.0,
) -> Batch:
    """Stack sets, flip each one at random, and draw partners and pairs.

    Args:
        sets: Judged by the panel.
        quantiles: Of the panel's values.
        generator: Decides every draw.
        pair_sets: Sets that the pairs come from, judged or not; ``sets`` by default. If a teacher
            knows them, they are lessons as well.
        fact_sets: Sets of pairs whose order is known, if any.
        window: Side of the pairs' windows in pixels; whole crops by default.
        luma_share: Share of the pairs' sets, of those without a known order, whose images keep the
            colours of their reference.
        grey_share: Share of those sets that are grey.
    """
    flipped = [_flip(each, generator) for each in sets]
    count = IMAGES_PER_SET
    shift = torch.randint(1, count, (len(sets), 1), generator=generator)
    shares = luma_share, grey_share
    drawn = [_pairs(each, window, shares, generator) for each in (pair_sets or sets)]
    reference, images = _pixels(flipped)
    return Batch(
        reference=reference,
        images=images,
        maps=torch.stack([each.maps for each in flipped]).float() / 127,
        ranks=torch.stack([quantiles(each.panel) for each in flipped]),
        order=torch.stack([each.order for each in flipped]),
        worse=torch.stack([each.worse for each in flipped]),
        partner=(torch.arange(count)[None] + shift) % count,
        pairs=Pairs(*(torch.cat(parts) for parts in zip(*drawn, strict=True))),
        facts=_facts(fact_sets, generator) if fact_sets else None,
        taught=_taught(sets),
        lessons=_lessons(pair_sets, generator) if pair_sets else None,
    )


def _lessons(sets: Sequence[RankedSet], generator: torch.Generator) -> Lessons | None:
    taught = _taught(sets)
    if taught is None:
        return None
    return Lessons(*_pixels([_flip(each, generator) for each in sets]), taught)


def _facts(sets: Sequence[RankedSet], generator: torch.Generator) -> Facts:
    flipped = [_flip(each, generator) for each in sets]
    order = torch.stack([each.order for each in flipped])
    taught = _taught(sets)
    return Facts(*_pixels(flipped), order, None if taught is None else _firm(taught, order))


def _firm(taught: Tensor, order: Tensor) -> Tensor:
    """Lessons without those that a fact contradicts: of two images that are alike, the distance
    that is too small is set to 0, which teaches nothing."""
    sets, count = taught.shape
    valid = (order != NO_ORDER).all(-1)
    index = torch.arange(sets)[:, None].expand_as(valid)[valid]
    ordered = torch.zeros(sets, count, count, dtype=torch.bool)
    ordered[index, order[valid][:, 0], order[valid][:, 1]] = True
    alike = ordered & ordered.mT
    too_small = alike & (taught[:, :, None] < taught[:, None])
    return taught.masked_fill(too_small.any(-1), 0)


def _pixels(sets: Sequence[RankedSet]) -> tuple[Tensor, Tensor]:
    """References and images of sets, in [0, 1]."""
    reference = torch.stack([each.reference for each in sets])
    images = torch.stack([each.images for each in sets])
    return reference.float() / 255, images.float() / 255


def _taught(sets: Sequence[RankedSet]) -> Tensor | None:
    """Of the sets as they are stored: a flip or turn changes what a network says by next to
    nothing."""
    taught = [each.taught for each in sets if each.taught is not None]
    return torch.stack(taught) if taught else None


def _pairs(
    each: RankedSet,
    window: int | None,
    shares: tuple[float, float],
    generator: torch.Generator,
) -> Pairs:
    """A random window of some images of a set, the distorted ones first."""
    each = _flip(_cut(each, window, generator), generator)
    chosen = _choose(each, generator)
    images = each.images[chosen].float() / 255
    reference = (each.reference.float() / 255).expand_as(images)
    maps = each.maps[chosen].float() / 127
    worse = each.worse[chosen]
    # What is worse than what may be a matter of colour alone: only where no order is known.
    if any(shares) and bool((each.order == NO_ORDER).all()):
        lot, (luma_share, grey_share) = float(torch.rand(1, generator=generator)), shares
        if lot < luma_share:
            images, maps = keep_colours(reference, images, maps)
        elif lot < luma_share + grey_share:
            reference, images, maps, worse = without_colours(reference, images, maps, worse)
    between = _certainly_worse(each.order, int(chosen[1]), int(chosen[0]))
    return Pairs(
        reference=torch.cat([reference, images[:1]]),
        image=torch.cat([images, images[1:2]]),
        maps=torch.cat([maps, maps[1:2] - maps[:1]]),
        worse=torch.cat([worse, torch.tensor([between])]),
    )


def _choose(each: RankedSet, generator: torch.Generator) -> Tensor:
    """Numbers of the images that take part; every other time the first two have a known order."""
    strength = each.maps.abs().flatten(1).amax(1).float() / 127
    # Near-threshold images teach least about types, and there are most of them.
    chance = strength + _FAINT
    certain = each.order[(each.order != NO_ORDER).all(1)]
    row, coin = torch.rand(2, generator=generator).tolist()
    if coin < 0.5 and len(certain):
        first = certain[int(row * len(certain))]
        if coin < 0.25:
            first = first.flip(0)
        chance[first] = 0
        rest = torch.multinomial(chance, PAIRS_PER_SET - 3, generator=generator)
        return torch.cat([first, rest])
    return torch.multinomial(chance, PAIRS_PER_SET - 1, generator=generator)


def _certainly_worse(order: Tensor, image: int, other: int) -> float:
    """1 where ``image`` is certainly worse than ``other``, −1 where it is better, else 0."""
    known = {(worse, better) for worse, better in order.tolist()}
    return float((image, other) in known) - float((other, image) in known)


def _cut(each: RankedSet, window: int | None, generator: torch.Generator) -> RankedSet:
    side = each.reference.shape[-1]
    if window is None or window >= side:
        return each
    steps = (side - window) // _CUT + 1
    top, left = (_CUT * torch.randint(steps, (2,), generator=generator)).tolist()

    def apply(tensor: Tensor, stride: int) -> Tensor:
        rows, columns = (
            slice(start // stride, (start + window) // stride) for start in (top, left)
        )
        return tensor[..., rows, columns]

    return each._replace(
        reference=apply(each.reference, 1),
        images=apply(each.images, 1),
        maps=apply(each.maps, MAP_STRIDE),
    )


class Batches:
    """Batches of a pool by step number; the same step always gives the same batch.

    Args:
        pool: A filled pool.
        size: Sets per batch.
        seed: Decides order and augmentation.
        stride: Take every ``stride``-th set only (2 leaves the sets that are free of held-out
            operators).
        rank: This process, of ``world``; processes see disjoint parts of each step.
        world: Number of processes.
        window: Side of the windows that pairs are cut to, in pixels.
        unjudged: A pool without panel values that the pairs are drawn from, and how many of its
            sets at a step. Such sets cost a tenth of judged ones, so there can be many: maps
            overfit a small pool first.
        facts: A pool of pairs of known order, and how many of its sets at a step.
        luma_share: Share of the sets without a known order whose images keep the colours of their
            reference in pairs.
        grey_share: Share of those sets that are grey.
    """

    def __init__(
        self,
        pool: Pool,
        size: int,
        seed: int,
        *,
        stride: int = 1,
        rank: int = 0,
        world: int = 1,
        window: int | None = None,
        unjudged: tuple[Pool, int] | None = None,
        facts: tuple[Pool, int] | None = None,
        luma_share: float = 0.0,
        grey_share: float = 0.0,
    ) -> None:
        self.judged = _Source(pool, size, seed, stride, rank, world)
        self.unjudged: _Source | None = None
        if unjudged is not None:
            self.unjudged = _Source(*unjudged, seed, stride, rank, world)
        self.facts: _Source | None = None
        if facts is not None:
            self.facts = _Source(*facts, seed, stride, rank, world)
        self.seed, self.rank, self.window = seed, rank, window
        self.luma_share, self.grey_share = luma_share, grey_share
        # Of the sets that are read: what is held out is not even a measure for the others.
        values = pool.panel()
        by_set = values.view(len(pool), -1, values.shape[-1])
        self.quantiles = Quantiles(by_set[::stride].flatten(0, 1))

    def __getitem__(self, step: int) -> Batch:
        number = (self.seed * _PRIME + step) * _PRIME + self.rank
        generator = torch.Generator().manual_seed(number % 2**64)  # a date is a seed of 65 bits
        return collate(
            self.judged.at(step),
            self.quantiles,
            generator,
            pair_sets=None if self.unjudged is None else self.unjudged.at(step),
            fact_sets=None if self.facts is None else self.facts.at(step),
            window=self.window,
            luma_share=self.luma_share,
            grey_share=self.grey_share,
        )


def read_ahead(batches: Batches, steps: range) -> Iterator[Batch]:
    """The batches of ``steps``, each one read while the one before it is in use.

    A large pool does not stay in memory: most reads wait for the disk.
    """
    with ThreadPoolExecutor(1) as reader:
        upcoming: Future[Batch] | None = None
        for step in steps:
            batch = upcoming.result() if upcoming else batches[step]
            upcoming = reader.submit(batches.__getitem__, step + 1) if step + 1 in steps else None
            yield batch


@dataclass
class _Source:
    """The sets of one pool, step by step: a new permutation every epoch."""

    pool: Pool
    size: int
    seed: int
    stride: int
    rank: int
    world: int
    _epoch: int = -1
    _order: list[int] = field(default_factory=list)

    def at(self, step: int) -> list[RankedSet]:
        first = (step * self.world + self.rank) * self.size
        return [self.pool[self._index(place)] for place in range(first, first + self.size)]

    def _index(self, position: int) -> int:
        count = -(-len(self.pool) // self.stride)
        epoch, place = divmod(position, count)
        if self._epoch != epoch:
            generator = torch.Generator().manual_seed(self.seed * _PRIME + epoch)
            self._order = torch.randperm(count, generator=generator).tolist()
            self._epoch = epoch
        return self._order[place] * self.stride


def _flip(each: RankedSet, generator: torch.Generator) -> RankedSet:
    horizontal, vertical, turn = (torch.rand(3, generator=generator) < 0.5).tolist()

    def apply(tensor: Tensor) -> Tensor:
        axes = [axis for axis, on in ((-1, horizontal), (-2, vertical)) if on]
        tensor = tensor.flip(axes) if axes else tensor
        return tensor.transpose(-1, -2) if turn else tensor

    return each._replace(
        reference=apply(each.reference), images=apply(each.images), maps=apply(each.maps)
    )
