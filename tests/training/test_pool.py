"""Pools of ranked sets on disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from relqa_loss.distortions import Curve, DistortionEngine, register, unregister
from relqa_loss.distortions.operator import Apply
from relqa_loss.training import pool as pool_module
from relqa_loss.training.pool import SETS_PER_SHARD, Pool, PoolSpec
from relqa_loss.training.sets import IMAGES_PER_SET, STORED, RankedSet, SetMaker


def _equal(first: RankedSet, second: RankedSet) -> bool:
    return all(torch.equal(getattr(first, field), getattr(second, field)) for field in STORED)


def test_a_set_depends_on_its_index_alone(pool: Pool) -> None:
    # Made out of order and in another process than the pool's.
    last, first = pool.spec.make_set(37), pool.spec.make_set(0)
    assert _equal(first, pool[0])
    assert _equal(last, pool[37])
    assert not torch.equal(first.reference, last.reference)


def test_seed_changes_the_sets(pool: Pool) -> None:
    other = replace(pool.spec, seed=1)
    assert other.key != pool.spec.key
    assert not torch.equal(other.make_set(0).images, pool[0].images)


def test_key_follows_operators_of_one_s_own(pool: Pool) -> None:
    """Who changes one would else train on what it was before."""

    def key(curve: Curve, change: Apply) -> str:
        register("test_fade", channel="contrast", sign=-1, curve=curve)(change)
        try:
            return replace(pool.spec, operators=(*pool.spec.operators, "test_fade")).key
        finally:
            unregister("test_fade")

    def fade(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return images + strength * (0.5 - images)

    def dim(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return images + strength * (0.4 - images)

    before = pool.spec.key
    keys = {key(Curve(0.01, most), change) for most in (0.5, 0.6) for change in (fade, dim)}
    assert len({*keys, before}) == 5
    assert key(Curve(0.01, 0.5), fade) in keys
    register("test_fade", channel="contrast", sign=-1, curve=Curve(0.01, 0.5))(fade)
    try:
        assert pool.spec.key == before  # which has none of it
    finally:
        unregister("test_fade")


def test_seeds_are_no_numbers_of_sets(pool: Pool) -> None:
    spec = replace(pool.spec, held_out=(), members=())
    shifted = replace(spec, seed=1)
    assert not torch.equal(shifted.make_set(0).images, spec.make_set(1).images)


def test_key_follows_content_not_place(pool: Pool) -> None:
    spec = pool.spec
    assert replace(spec, photos=("elsewhere/astronaut.png",)).key == spec.key
    for change in (
        {"fingerprint": "other"},
        {"operators": spec.operators[:-1]},
        {"held_out": ()},
        {"crop": 96},
        {"members": spec.members[:-1]},
        {"pipelines": 4},
        {"singles": 2},
        {"facts": True},
    ):
        assert replace(spec, **change).key != spec.key  # type: ignore[arg-type]


def test_every_so_many_shards_hold_pipelines(pool: Pool) -> None:
    mixed = replace(pool.spec, members=(), pipelines=2)
    plain = replace(mixed, pipelines=0)
    assert _equal(mixed.make_set(SETS_PER_SHARD - 1), plain.make_set(SETS_PER_SHARD - 1))
    pipelines = mixed.make_set(SETS_PER_SHARD)
    assert not torch.equal(pipelines.images, plain.make_set(SETS_PER_SHARD).images)
    assert pipelines.panel.shape == (IMAGES_PER_SET, 0)


def test_every_so_many_shards_hold_single_distortions(pool: Pool) -> None:
    mixed = replace(pool.spec, members=(), pipelines=4, singles=2)
    plain = replace(mixed, singles=0)
    assert not torch.equal(mixed.make_set(0).images, plain.make_set(0).images)
    # Neither the shards between them nor those of pipelines change.
    for shard in (1, 3):
        index = shard * SETS_PER_SHARD
        assert _equal(mixed.make_set(index), plain.make_set(index))


def test_an_interrupted_pool_is_completed_identically(pool: Pool, tmp_path: Path) -> None:
    folder = tmp_path / pool.spec.key
    shutil.copytree(pool.folder, folder)
    lost, kept = sorted(folder.iterdir())
    whole = lost.read_bytes()
    lost.unlink()
    before = os.stat(kept)
    resumed = Pool(pool.spec, tmp_path, 2 * SETS_PER_SHARD)
    assert resumed.missing() == [0]
    calls: list[tuple[int, int]] = []
    resumed.fill(workers=1, progress=lambda done, total: calls.append((done, total)))
    assert resumed.missing() == []
    assert calls == [(2, 2)]
    assert lost.read_bytes() == whole
    after = os.stat(kept)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(folder.iterdir()) == [lost, kept]


class _Deadly(PoolSpec):
    def make_set(self, index: int) -> RankedSet:
        os._exit(1)


def test_a_process_that_dies_is_reported(pool: Pool, tmp_path: Path) -> None:
    deadly = Pool(_Deadly(**vars(pool.spec)), tmp_path, 1)
    with pytest.raises(OSError, match=r"died.*fewer --workers; the shards in .* are kept"):
        deadly.fill(workers=1)


def test_a_process_that_dies_while_work_is_handed_out_is_reported(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with pytest.raises(OSError, match="a process that fills the pool died"):
        Pool(pool.spec, tmp_path, 1).fill(workers=1)


_KILLED = """
import os, signal, sys, time
from pathlib import Path
from relqa_loss.selection.folders import Job, PoolMeasure
from relqa_loss.training.pool import Pool, PoolSpec

def die():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)

class Spec(PoolSpec):
    def make_set(self, index):
        die()

if __name__ == "__main__":
    if sys.argv[1] == "train":
        Pool(Spec((), "", ()), Path(sys.argv[2]), 1).fill(workers=1)
    list(PoolMeasure(die, 1)([Job("", Path(), {})]))
"""


@pytest.mark.parametrize("command", ["train", "select"])
def test_processes_end_with_a_parent_that_is_killed(command: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_KILLED)
    # They have its output open: until they end, so does not this.
    run = subprocess.run(
        [sys.executable, str(script), command, str(tmp_path)], stdout=subprocess.PIPE, timeout=120
    )
    assert run.returncode == -signal.SIGKILL


@pytest.mark.parametrize("size", [0, 1000])
def test_a_damaged_shard_is_named(pool: Pool, size: int, tmp_path: Path) -> None:
    shutil.copytree(pool.folder, tmp_path / pool.spec.key)
    damaged = sorted((tmp_path / pool.spec.key).iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"is damaged .*; delete it") as error:
        Pool(pool.spec, tmp_path, 2 * SETS_PER_SHARD).panel()
    assert str(damaged) in str(error.value)


def test_a_filled_pool_is_not_made_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(pool_module, "ProcessPoolExecutor", fail)
    pool.fill(workers=1)


def test_length_is_rounded_up_to_shards(pool: Pool, tmp_path: Path) -> None:
    assert len(Pool(pool.spec, tmp_path, 1)) == SETS_PER_SHARD
    assert len(Pool(pool.spec, tmp_path, SETS_PER_SHARD + 1)) == 2 * SETS_PER_SHARD
    assert pool.panel().shape == (len(pool) * IMAGES_PER_SET, len(pool.spec.members))


@pytest.mark.parametrize(
    ("maker", "kind"),
    [
        ("SetMaker", {}),
        ("PipelineSetMaker", {"pipelines": 1}),
        ("SingleSetMaker", {"singles": 1}),
        ("FactSetMaker", {"facts": True}),
    ],
)
def test_held_out_operators_are_absent_from_even_sets(
    pool: Pool, maker: str, kind: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, ...]] = []

    def record(operators: tuple[str, ...], *_: object) -> object:
        drawn.append(operators)
        return lambda crop, seed: None

    monkeypatch.setattr(pool_module, maker, record)
    for index in range(4):
        replace(pool.spec, **kind).make_set(index)  # type: ignore[arg-type]
    held_out = set(pool.spec.held_out)
    assert held_out
    assert len(drawn) == 4
    for even in drawn[::2]:
        assert set(even) == set(pool.spec.operators) - held_out
    for odd in drawn[1::2]:
        assert set(odd) == set(pool.spec.operators)


def test_a_set_maker_draws_its_operators_only(pool: Pool) -> None:
    allowed = tuple(name for name in pool.spec.operators if name not in pool.spec.held_out)
    engine = DistortionEngine(allowed)
    used = set()
    for seed in range(100):
        for recipe in SetMaker._recipes(engine, seed, torch.Generator().manual_seed(seed)):
            used |= {step.operator for step in recipe.steps}
    assert used == set(allowed)
