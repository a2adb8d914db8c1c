"""Processes that torchrun has started, which share one command's work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Group(NamedTuple):
    """This process among those that torchrun has started; outside of it, the only one."""

    rank: int
    size: int

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def gather(self, part: Any) -> list[Any] | None:
        """Everybody's part on the first process, ``None`` on the others."""
        if self.size == 1:
            return [part]
        import torch.distributed as dist

        parts: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(part, parts)
        return parts


@contextmanager
def process_group() -> Iterator[Group]:
    """The processes of this command, as long as they work together."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        yield Group(0, 1)
        return
    import datetime

    import torch.distributed as dist

    # Those that are done wait for the slowest: after a resume, for as long as all images take.
    dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    try:
        yield Group(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
