"""From sets to batches: a batch is a function of the seed, the step and the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relqa_loss.training.objectives import Batch
from relqa_loss.training.pool import Pool
from relqa_loss.training.sets import IMAGES_PER_SET, RankedSet

_PRIME = 1_000_003


class Quantiles:
    """Each panel member's empirical distribution in the pool, so that members can be compared."""

    def __init__(self, values: Tensor) -> None:
        # Some thousands of points are plenty, and keep checkpoints and look-ups small.
        keep = max(1, len(values) // 8192)
        self.sorted = values[::keep].T.contiguous().sort(1).values

    def __call__(self, values: Tensor) -> Tensor:
        """``…×P`` badness → quantiles in [0, 1], the same shape."""
        flat = values.reshape(-1, values.shape[-1]).T.contiguous()
        left = torch.searchsorted(self.sorted, flat)
        right = torch.searchsorted(self.sorted, flat, right=True)
        return ((left + right) / (2 * self.sorted.shape[1])).T.reshape(values.shape)


def collate(sets: Sequence[RankedSet], quantiles: Quantiles, generator: torch.Generator) -> Batch:
    """Stack sets, flip each one at random, and draw partners."""
    flipped = [_flip(each, generator) for each in sets]
    count = IMAGES_PER_SET
    shift = torch.randint(1, count, (len(sets), 1), generator=generator)
    return Batch(
        reference=torch.stack([each.reference for each in flipped]).float() / 255,
        images=torch.stack([each.images for each in flipped]).float() / 255,
        maps=torch.stack([each.maps for each in flipped]).float() / 127,
        ranks=torch.stack([_quantiles(each.panel, quantiles) for each in flipped]),
        order=torch.stack([each.order for each in flipped]),
        worse=torch.stack([each.worse for each in flipped]),
        partner=(torch.arange(count)[None] + shift) % count,
    )


def _quantiles(panel: Tensor, quantiles: Quantiles) -> Tensor:
    if panel.shape[-1]:
        return quantiles(panel)
    # A set that no panel has judged: an order unknown, which the objectives leave out.
    return torch.full((len(panel), len(quantiles.sorted)), torch.nan)


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
        unjudged: A pool without panel values and how many of its sets join each batch. Such sets
            cost a tenth of judged ones, so there can be many: maps overfit a small pool first.
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
        unjudged: tuple[Pool, int] | None = None,
    ) -> None:
        self.sources = [_Source(pool, size, seed, stride, rank, world)]
        if unjudged is not None:
            self.sources.append(_Source(unjudged[0], unjudged[1], seed, stride, rank, world))
        self.seed, self.rank = seed, rank
        self.quantiles = Quantiles(pool.panel())

    def __getitem__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed((self.seed * _PRIME + step) * _PRIME + self.rank)
        sets = [each for source in self.sources for each in source.at(step)]
        return collate(sets, self.quantiles, generator)


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
