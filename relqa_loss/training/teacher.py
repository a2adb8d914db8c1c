"""A teacher's distances of the images in a pool: worked out once, kept beside the pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from relqa_loss._files import write_atomically
from relqa_loss.network.pretrained import WeightsRecord, load_record
from relqa_loss.training.pool import SETS_PER_SHARD, Pool, read_shard


class TeacherLessons:
    """What frozen weights say about every image of a pool.

    Args:
        pool: A filled pool.
        record: The teacher's weights.
    """

    def __init__(self, pool: Pool, record: WeightsRecord) -> None:
        self.pool = pool
        self.record = record
        self._loaded: dict[int, Tensor] = {}

    @torch.no_grad()
    def fill(self, device: torch.device, progress: Callable[[int, int], None]) -> None:
        """Work out what is missing; safe to interrupt and call again.

        Args:
            device: Where the teacher works.
            progress: Called with (shards done, shards in all) after each one.
        """
        network = load_record(self.record).to(device)
        for shard in range(self.pool.shards):
            path = self._path(shard)
            if path.is_file():
                continue
            rows = []
            for index in range(shard * SETS_PER_SHARD, (shard + 1) * SETS_PER_SHARD):
                each = self.pool[index]
                images = each.images.to(device).float() / 255
                pixels = each.reference[None].to(device).float() / 255
                # Without what metrics add by formula: a student that has the formula adds it, too.
                reference = network.encode(pixels, structure=False)
                # In the teacher's own unit, where the least distances that matter are alike.
                rows.append((network.distance(reference, images) / network.scale).cpu())
            write_atomically(path, save({"distance": torch.stack(rows)}))
            progress(shard + 1, self.pool.shards)

    def of(self, index: int) -> Tensor:
        """M distances of the images of set number ``index``."""
        shard, row = divmod(index, SETS_PER_SHARD)
        if shard not in self._loaded:
            self._loaded[shard] = read_shard(self._path(shard))["distance"]
        return self._loaded[shard][row]

    def _path(self, shard: int) -> Path:
        return self.pool.beside(shard, f"{self.record.sha256[:12]}-learned")
