"""A pool of ranked sets on disk: made once, by several processes, then read many times.

Distorting, and above all judging by the panel, costs more than a training step; the pool pays for
it once. Set ``i`` depends on the seed, the photographs and ``i`` alone, so a pool can be made in
pieces, resumed, extended and shared.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from relqa_loss._files import write_atomically
from relqa_loss._workers import end_with_parent
from relqa_loss.distortions import list_operators
from relqa_loss.training.panel import PANEL
from relqa_loss.training.photos import random_crop, read_photo
from relqa_loss.training.sets import (
    MARGIN,
    STORED,
    FactSetMaker,
    PipelineSetMaker,
    RankedSet,
    SetMaker,
    SingleSetMaker,
)

SETS_PER_SHARD = 32
_OURS = "relqa_loss."
_CONTENT = 5
"""To be raised when a seed gives other sets than before: pools on disk are then made anew."""
_FACTS_CONTENT = 7
"""The same for pairs of known order, which change by themselves."""


@dataclass(frozen=True)
class PoolSpec:
    """Everything that a pool's content depends on."""

    photos: tuple[str, ...]
    fingerprint: str
    operators: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    """Never drawn in sets of even index, so that half of the pool is free of them."""
    members: tuple[str, ...] = PANEL
    crop: int = 160
    seed: int = 0
    pipelines: int = 0
    """Every so many shards, one holds sets of restoration pipelines; 0 for none."""
    facts: bool = False
    """Whether all of it are pairs of known order."""
    singles: int = 0
    """Every so many shards, one holds sets of single distortions, plain to see; 0 for none."""

    @property
    def key(self) -> str:
        """A short hash; the name of the pool's folder."""
        described = {name: value for name, value in asdict(self).items() if name != "photos"}
        if not self.singles:  # pools from before there were any keep their names
            del described["singles"]
        if others := _others(self.operators):
            described["others"] = others
        content = _FACTS_CONTENT if self.facts else _CONTENT
        text = json.dumps({**described, "content": content}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def make_set(self, index: int) -> RankedSet:
        """Set number ``index``."""
        seed = self.seed * 10_000_019 + index
        generator = torch.Generator().manual_seed(seed + 2**41)
        photo = read_photo(
            Path(self.photos[int(torch.randint(len(self.photos), (1,), generator=generator))])
        )
        left_out = set(self.held_out) if index % 2 == 0 else set()
        operators = tuple(name for name in self.operators if name not in left_out)
        crop = random_crop(photo, self.crop + MARGIN, generator)
        if self.facts:
            return FactSetMaker(operators)(crop, seed)
        shard = index // SETS_PER_SHARD
        if self.pipelines and shard % self.pipelines == self.pipelines - 1:
            return PipelineSetMaker(operators)(crop, seed)
        if self.singles and shard % self.singles == 0:
            return SingleSetMaker(operators)(crop, seed)
        return SetMaker(operators, self.members)(crop, seed)


class Lessons(Protocol):
    """What a teacher says about the images of a pool's sets."""

    def of(self, index: int) -> Tensor:
        """M distances of the images of set number ``index``."""
        ...


class Pool:
    """The sets of a :class:`PoolSpec` under a folder.

    Args:
        spec: What the pool holds.
        folder: Where pools are kept; this one goes to ``folder / spec.key``.
        sets: How many sets, rounded up to whole shards.
    """

    def __init__(self, spec: PoolSpec, folder: Path, sets: int) -> None:
        self.spec = spec
        self.folder = folder / spec.key
        self.shards = -(-sets // SETS_PER_SHARD)
        self.lessons: Lessons | None = None
        """A teacher's distances of the images; set it, and every set comes with them."""
        self._loaded: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.shards * SETS_PER_SHARD

    def missing(self) -> list[int]:
        """Numbers of the shards that are not on disk yet."""
        return [index for index in range(self.shards) if not self._path(index).is_file()]

    def fill(self, workers: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the missing shards with ``workers`` processes; safe to interrupt and call again.

        Args:
            workers: Processes, each on one thread; at least one.
            progress: Called with (shards done, shards in all) after each one.

        Raises:
            OSError: If a process dies, or a shard cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = self.missing()
        if not missing:
            return
        done = self.shards - len(missing)
        # Spawned, because forking a process whose thread pools are running can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start_worker) as executor:
            try:
                jobs = [  # of which the first may fail before the last is there
                    executor.submit(_make_shard, self.spec, index, self._path(index))
                    for index in missing
                ]
                for job in as_completed(jobs):
                    job.result()
                    done += 1
                    if progress is not None:
                        progress(done, self.shards)
            except BrokenProcessPool as error:
                raise OSError(
                    "a process that fills the pool died, perhaps for lack of memory: use fewer "
                    f"--workers; the shards in {self.folder} are kept for the next run"
                ) from error
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise

    def __getitem__(self, index: int) -> RankedSet:
        shard, row = divmod(index, SETS_PER_SHARD)
        if shard not in self._loaded:
            self._loaded[shard] = read_shard(self._path(shard))
        stored = RankedSet(*(self._loaded[shard][field][row] for field in STORED))
        return stored if self.lessons is None else stored._replace(taught=self.lessons.of(index))

    def panel(self) -> Tensor:
        """Panel values of every image in the pool, (sets·M)×P."""
        values = []
        for shard in range(self.shards):
            self[shard * SETS_PER_SHARD]
            values.append(self._loaded[shard]["panel"].flatten(0, 1))
        return torch.cat(values)

    def beside(self, shard: int, name: str) -> Path:
        """Where something else that is known of the sets of ``shard`` is kept."""
        return self.folder / f"{name}-{shard:05d}.safetensors"

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"


def _others(operators: Sequence[str]) -> dict[str, str]:
    """What operators of other packages are by now; the bank's changes are known by ``_CONTENT``."""
    found = {}
    for operator in list_operators():
        if operator.name in operators and not operator.apply.__module__.startswith(_OURS):
            try:
                source = inspect.getsource(operator.apply)
            except (OSError, TypeError):  # typed at a prompt, or no function
                source = ""
            found[operator.name] = f"{operator!r}\n{source}"
    return found


def read_shard(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of a pool, or beside one.

    Raises:
        ValueError: If it is damaged, as by a loss of power or an incomplete copy.
    """
    try:
        # Memory-mapped by safetensors: pages are read as they are used.
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it, and the next run makes it anew"
        ) from error


def _start_worker() -> None:
    end_with_parent()
    # A worker process of our own, not the user's: two threads a worker would only fight.
    torch.set_num_threads(1)


def _make_shard(spec: PoolSpec, shard: int, path: Path) -> None:
    first = shard * SETS_PER_SHARD
    sets = [spec.make_set(index) for index in range(first, first + SETS_PER_SHARD)]
    tensors = {field: torch.stack([getattr(each, field) for each in sets]) for field in STORED}
    write_atomically(path, save(tensors))
