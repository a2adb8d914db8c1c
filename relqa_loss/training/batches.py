"""From sets to batches: a batch is a function of the seed, the step and the process."""

from __future__ import annotations

from collections.abc import Sequence

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
        ranks=quantiles(torch.stack([each.panel for each in flipped])),
        order=torch.stack([each.order for each in flipped]),
        worse=torch.stack([each.worse for each in flipped]),
        partner=(torch.arange(count)[None] + shift) % count,
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
    """

    def __init__(
        self, pool: Pool, size: int, seed: int, *, stride: int = 1, rank: int = 0, world: int = 1
    ) -> None:
        self.pool, self.size, self.seed = pool, size, seed
        self.stride, self.rank, self.world = stride, rank, world
        self.count = -(-len(pool) // stride)
        self.quantiles = Quantiles(pool.panel())

    def __getitem__(self, step: int) -> Batch:
        first = (step * self.world + self.rank) * self.size
        indices = [self._index(position) for position in range(first, first + self.size)]
        generator = torch.Generator().manual_seed((self.seed * _PRIME + step) * _PRIME + self.rank)
        return collate([self.pool[index] for index in indices], self.quantiles, generator)

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self.count)
        if getattr(self, "_epoch", None) != epoch:
            generator = torch.Generator().manual_seed(self.seed * _PRIME + epoch)
            self._order = torch.randperm(self.count, generator=generator).tolist()
            self._epoch = epoch
        return int(self._order[place]) * self.stride


def _flip(each: RankedSet, generator: torch.Generator) -> RankedSet:
    horizontal, vertical, turn = (torch.rand(3, generator=generator) < 0.5).tolist()

    def apply(tensor: Tensor) -> Tensor:
        axes = [axis for axis, on in ((-1, horizontal), (-2, vertical)) if on]
        tensor = tensor.flip(axes) if axes else tensor
        return tensor.transpose(-1, -2) if turn else tensor

    return each._replace(
        reference=apply(each.reference), images=apply(each.images), maps=apply(each.maps)
    )
