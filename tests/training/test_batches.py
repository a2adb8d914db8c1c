"""Batches: a function of seed, step and process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss.channels import CHANNELS as CHANNEL_NAMES
from relqa_loss.training.batch import PAIRS_PER_SET, Batch
from relqa_loss.training.batches import Batches, Quantiles, collate, read_ahead
from relqa_loss.training.sets import IMAGES_PER_SET, RankedSet

SIZE, CELLS, CHANNELS, MEMBERS = 16, 4, 13, 3


class _Pool:
    """Sets whose panel values and images tell their number; made in memory."""

    def __init__(self, sets: int) -> None:
        self.sets = [_set(index) for index in range(sets)]
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.sets)

    def __getitem__(self, index: int) -> RankedSet:
        self.read.append(index)
        return self.sets[index]

    def panel(self) -> Tensor:
        return torch.cat([each.panel for each in self.sets])


def _set(number: int) -> RankedSet:
    generator = torch.Generator().manual_seed(number)
    # Cells of one value each, so that maps and images can be compared after flips.
    cells = torch.randint(
        0, 128, (IMAGES_PER_SET, 1, CELLS, CELLS), generator=generator, dtype=torch.uint8
    )
    images = F.interpolate(cells, scale_factor=4.0).expand(-1, 3, -1, -1)
    return RankedSet(
        reference=images[0],
        images=images,
        maps=cells.to(torch.int8).expand(-1, CHANNELS, -1, -1),
        panel=torch.rand(IMAGES_PER_SET, MEMBERS, generator=generator) + number,
        order=torch.tensor([[1, 0], [-1, -1]]),
        worse=torch.ones(IMAGES_PER_SET),
    )


def _batches(pool: Any, size: int = 4, seed: int = 0, **options: Any) -> Batches:
    return Batches(pool, size, seed, **options)


def _numbers(batches: Batches, steps: range, source: str = "judged") -> list[int]:
    """Numbers of the sets that some steps read from a source."""
    pool: Any = getattr(batches, source).pool
    pool.read.clear()
    for step in steps:
        batches[step]
    return list(pool.read)


@pytest.fixture(scope="module")
def pool() -> _Pool:
    return _Pool(24)


def _equal(first: Batch, second: Batch) -> bool:
    pairs = zip(first.pairs, second.pairs, strict=True)
    return _equally_judged(first, second) and all(torch.equal(a, b) for a, b in pairs)


def _equally_judged(first: Batch, second: Batch) -> bool:
    tensors = [both for both in zip(first, second, strict=True) if torch.is_tensor(both[0])]
    return len(tensors) == 7 and all(torch.equal(a, b) for a, b in tensors)


def test_same_step_same_batch(pool: _Pool) -> None:
    first, second = _batches(pool), _batches(pool)
    for step in (7, 0, 100):  # in any order, in any epoch
        assert _equal(first[step], second[step])
    assert _equal(first[7], second[7])
    assert not _equal(first[0], first[1])
    assert not _equal(first[0], _batches(pool, seed=1)[0])


@pytest.mark.parametrize("seed", [20_261_129, 2**32 - 1, -(2**31)])
def test_large_seeds_are_seeds_like_others(pool: _Pool, seed: int) -> None:
    batch, again, other = (_batches(pool, seed=each)[3] for each in (seed, seed, seed + 1))
    assert torch.equal(batch.partner, again.partner)
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.images, other.images)


def test_neighbouring_seeds_steps_and_processes_draw_for_themselves(pool: _Pool) -> None:
    # 3, 2 and 1: one number less of one is not one more of another.
    numbers = [(3, 2, 1), (3, 2, 0), (4, 1, 1), (2, 3, 1), (3, 1, 2), (3, 3, 0), (2, 2, 2)]
    drawn = [_batches(pool, seed=s, rank=r, world=3)[step].partner for s, step, r in numbers]
    for index, partner in enumerate(drawn):
        assert not any(torch.equal(partner, other) for other in drawn[:index])


def test_an_epoch_sees_every_set_once(pool: _Pool) -> None:
    batches = _batches(pool)
    for epoch in range(3):
        assert sorted(_numbers(batches, range(6 * epoch, 6 * epoch + 6))) == list(range(24))
    assert _numbers(batches, range(6)) != _numbers(batches, range(6, 12))


every_source = pytest.mark.parametrize("source", ["judged", "unjudged", "facts"])


def _beside(source: str) -> dict[str, tuple[_Pool, int]]:
    """Options for a source of 24 sets, 4 a step, as the judged one has."""
    return {} if source == "judged" else {source: (_Pool(24), 4)}


@every_source
@pytest.mark.parametrize("world", [2, 3])
def test_processes_see_disjoint_parts(pool: _Pool, world: int, source: str) -> None:
    beside = _beside(source)
    ranks = [_batches(pool, rank=rank, world=world, **beside) for rank in range(world)]
    seen = [_numbers(each, range(24 // (4 * world)), source) for each in ranks]
    assert sorted(number for part in seen for number in part) == list(range(24))
    assert not _equal(ranks[0][0], ranks[1][0])


@every_source
def test_stride_leaves_even_sets_only(pool: _Pool, source: str) -> None:
    numbers = _numbers(_batches(pool, stride=2, **_beside(source)), range(6), source)
    assert sorted(numbers) == sorted([*range(0, 24, 2)] * 2)


def test_sets_that_are_left_out_are_no_measure_for_the_others(pool: _Pool) -> None:
    values = pool.sets[2].panel
    found = _batches(pool, stride=2).quantiles(values)
    for each in pool.sets[1::2]:
        each.panel.add_(100)
    assert torch.equal(_batches(pool, stride=2).quantiles(values), found)
    assert not torch.equal(_batches(pool).quantiles(values), found)


def test_stride_leaves_even_sets_of_an_odd_number() -> None:
    few: Any = _Pool(5)
    assert sorted(_numbers(_batches(few, size=1, stride=2), range(3))) == [0, 2, 4]


def test_fact_sets_come_along(pool: _Pool) -> None:
    others: Any = _Pool(24)
    plain, joined = _batches(pool), _batches(pool, facts=(others, 3))
    others.read.clear()
    batch = joined[2]
    assert plain[2].facts is None
    assert batch.facts is not None
    assert len(others.read) == 3
    assert batch.facts.images.shape[:2] == (3, IMAGES_PER_SET)
    moved = batch.to(torch.device("cpu"))
    assert moved.facts is not None
    for row, number in enumerate(others.read):
        assert torch.equal(moved.facts.order[row], others.sets[number].order)
        # Flipped, all of a set alike.
        pixels = others.sets[number].images.float().div(255)
        assert torch.equal(
            moved.facts.images[row].flatten(1).sort().values, pixels.flatten(1).sort().values
        )


def test_unjudged_sets_give_the_pairs(pool: _Pool) -> None:
    others: Any = _Pool(24)
    others.sets = [each._replace(panel=torch.zeros(IMAGES_PER_SET, 0)) for each in others.sets]
    plain, joined = _batches(pool), _batches(pool, unjudged=(others, 3))
    for step in (0, 5):
        others.read.clear()
        batch = joined[step]
        assert len(others.read) == 3
        assert batch.pairs.reference.shape[0] == 3 * PAIRS_PER_SET
        assert plain[step].pairs.reference.shape[0] == 4 * PAIRS_PER_SET
        assert _equally_judged(batch, plain[step])


def _cells(image: Tensor) -> Tensor:
    """The numbers that :func:`_set` wrote into an image and its maps alike."""
    return F.avg_pool2d(image[:, :1] * 255, 4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), window=st.sampled_from([8, 16, None]))
def test_pairs_keep_images_and_maps_together(seed: int, window: int | None) -> None:
    each = _set(0)
    each = each._replace(worse=torch.arange(float(IMAGES_PER_SET)))
    generator = torch.Generator().manual_seed(seed)
    pairs = collate([each, each], Quantiles(each.panel), generator, window=window).pairs
    side = window or SIZE
    rows = 2 * PAIRS_PER_SET
    assert pairs.image.shape == pairs.reference.shape == (rows, 3, side, side)
    assert pairs.maps.shape == (rows, CHANNELS, side // 4, side // 4)
    for first in (0, PAIRS_PER_SET):
        alone = slice(first, first + PAIRS_PER_SET - 1)
        between = first + PAIRS_PER_SET - 1
        torch.testing.assert_close(pairs.maps[alone, :1] * 127, _cells(pairs.image[alone]))
        numbers = pairs.worse[alone].tolist()
        assert len(set(numbers)) == PAIRS_PER_SET - 1  # no image twice
        # The last one compares two of the images: no pristine one takes part.
        assert torch.equal(pairs.reference[between], pairs.image[first])
        assert torch.equal(pairs.image[between], pairs.image[first + 1])
        assert torch.equal(pairs.maps[between], pairs.maps[first + 1] - pairs.maps[first])
        # Of image 1 and image 0, the order is certain.
        known = {(0.0, 1.0): 1, (1.0, 0.0): -1}.get((numbers[0], numbers[1]), 0)
        assert pairs.worse[between] == known


def test_many_pairs_have_a_known_order() -> None:
    each = _set(0)
    signs = [
        float(collate([each], Quantiles(each.panel), generator).pairs.worse[-1])
        for generator in (torch.Generator().manual_seed(seed) for seed in range(80))
    ]
    assert min(signs.count(-1.0), signs.count(1.0)) > 10
    assert signs.count(0.0) > 10


def test_windows_and_shares_are_those_asked_for() -> None:
    pool: Any = _Pool(4)
    still = torch.ones(CHANNELS, 1, 1, dtype=torch.int8)
    still[CHANNEL_NAMES.index("geometry")] = 0
    yellow = torch.tensor([1, 1, 0], dtype=torch.uint8)[:, None, None]
    pool.sets = [
        each._replace(
            reference=each.reference * yellow,
            images=each.images * yellow,
            maps=each.maps * still,
            order=torch.full_like(each.order, -1),
        )
        for each in pool.sets
    ]
    found = [
        _batches(pool, **options)[0].pairs
        for options in ({"window": 8}, {"luma_share": 1.0}, {"grey_share": 1.0})
    ]
    assert [pairs.image.shape[-1] for pairs in found] == [8, SIZE, SIZE]
    colour = CHANNEL_NAMES.index("saturation")
    assert [bool(pairs.maps[:, colour].any()) for pairs in found] == [True, False, False]
    assert [bool(pairs.reference[0, 2].any()) for pairs in found] == [False, False, True]


def test_every_known_order_takes_its_turn() -> None:
    known = [(1, 0), (4, 2), (7, 5)]
    each = _set(0)._replace(order=torch.tensor([*known, (-1, -1)]))
    each = each._replace(worse=torch.arange(float(IMAGES_PER_SET)))  # tells which image it is
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(120):
        generator = torch.Generator().manual_seed(seed)
        worse = collate([each], Quantiles(each.panel), generator).pairs.worse
        seen[tuple(sorted(worse[:2].int().tolist(), reverse=True))] += bool(worse[-1])
    assert set(+seen) == {*known}
    assert min(seen[pair] for pair in known) > 10


def test_pairs_prefer_distorted_images() -> None:
    each = _set(0)
    maps = each.maps.clone()
    maps[:4] = 0
    each = each._replace(maps=maps, order=torch.full_like(each.order, -1))
    shares = [
        float(
            (collate([each], Quantiles(each.panel), generator).pairs.maps[:-1] != 0)
            .any(1)
            .any(1)
            .any(1)
            .float()
            .mean()
        )
        for generator in (torch.Generator().manual_seed(seed) for seed in range(50))
    ]
    assert sum(shares) / len(shares) > 0.8


def test_reading_ahead_changes_nothing(pool: _Pool) -> None:
    batches = _batches(pool)
    for step, batch in zip(range(5, 9), read_ahead(batches, range(5, 9)), strict=True):
        assert _equal(batch, _batches(pool)[step])
    assert list(read_ahead(batches, range(4, 4))) == []


def test_what_is_known_of_a_set_stays_with_it(pool: _Pool) -> None:
    batches = _batches(pool)
    for step in (0, 9):
        pool.read.clear()
        batch = batches[step]
        for row, number in enumerate(pool.read):
            each = pool.sets[number]
            assert torch.equal(batch.order[row], each.order)
            assert torch.equal(batch.worse[row], each.worse)
            assert torch.equal(batch.ranks[row], batches.quantiles(each.panel))


def test_each_set_has_a_shift_to_partners_of_its_own(pool: _Pool) -> None:
    batches = _batches(pool)
    shifts = [
        (batches[step].partner - torch.arange(IMAGES_PER_SET)) % IMAGES_PER_SET
        for step in range(30)
    ]
    assert all(torch.equal(each, each[:, :1].expand_as(each)) for each in shifts)
    first, second = torch.stack(shifts)[:, :2, 0].unbind(1)
    assert set(first.tolist()) == set(range(1, IMAGES_PER_SET))
    assert 0 < int((first == second).sum()) < 15


def test_values_and_shapes(pool: _Pool) -> None:
    batch = _batches(pool)[0]
    assert batch.reference.shape == (4, 3, SIZE, SIZE)
    assert batch.images.shape == (4, IMAGES_PER_SET, 3, SIZE, SIZE)
    assert batch.maps.shape == (4, IMAGES_PER_SET, CHANNELS, CELLS, CELLS)
    for values in (batch.reference, batch.images, batch.ranks):
        assert values.dtype == torch.float32
        assert 0 <= float(values.min()) <= float(values.max()) <= 1
    partners = batch.partner
    assert bool((partners != torch.arange(IMAGES_PER_SET)).all())
    assert 0 <= int(partners.min()) <= int(partners.max()) < IMAGES_PER_SET


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_flips_move_maps_with_images(seed: int) -> None:
    each = _set(0)
    generator = torch.Generator().manual_seed(seed)
    batch = collate([each], Quantiles(each.panel), generator)
    cells = F.avg_pool2d(batch.images[0, :, :1] * 255, 4)
    torch.testing.assert_close(batch.maps[0, :, :1] * 127, cells)
    torch.testing.assert_close(batch.reference[0], batch.images[0, 0])


def test_every_flip_and_turn_occurs() -> None:
    each = _set(0)
    seen = {
        tuple(
            collate([each], Quantiles(each.panel), torch.Generator().manual_seed(seed))
            .reference[0, 0, ::4, ::4]
            .flatten()
            .tolist()
        )
        for seed in range(100)
    }
    assert len(seen) == 8


def test_windows_of_pairs_start_where_blocks_do_and_are_flipped_and_turned() -> None:
    each = _set(0)
    # Pixels that say where they are; the reference of a pair shows the window.
    rows = (torch.arange(32, dtype=torch.uint8) * 4)[:, None].expand(32, 32)
    reference = torch.stack([rows, rows.T, rows])
    images = reference.expand(IMAGES_PER_SET, -1, -1, -1)
    maps = torch.ones(IMAGES_PER_SET, CHANNELS, 8, 8, dtype=torch.int8)
    each = each._replace(reference=reference, images=images, maps=maps)
    corners, ways = set(), set()
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        shown = collate([each], Quantiles(each.panel), generator, window=16).pairs.reference[0]
        place = shown[:2].mul(255 / 4).round().int()
        top, left = place.flatten(1).amin(1).tolist()
        corners.add((top, left))
        ways.add(tuple((place - torch.tensor([top, left])[:, None, None])[:, 0, 1].tolist()))
    assert corners == {(top, left) for top in (0, 8, 16) for left in (0, 8, 16)}
    assert len(ways) == 8


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=50))
def test_quantiles_keep_order_and_range(values: list[float]) -> None:
    column = torch.tensor(values)[:, None]
    ranks = Quantiles(column)(column)[:, 0]
    assert 0 <= float(ranks.min()) <= float(ranks.max()) <= 1
    order = column[:, 0].argsort()
    assert bool((ranks[order].diff() >= 0).all())
    # Ties share a quantile.
    for value in column[:, 0].unique():
        assert len(ranks[column[:, 0] == value].unique()) == 1


@pytest.mark.parametrize("sets", [1024, 2048, 3072, 4096, 8192])
def test_quantiles_of_large_pools_are_of_every_image_of_a_set(sets: int) -> None:
    # The images of a set are ever the same kinds: the first is the mildest, and so on.
    kinds = torch.arange(float(IMAGES_PER_SET))[None, :, None]
    noise = torch.rand(sets, IMAGES_PER_SET, 2, generator=torch.Generator().manual_seed(sets))
    values = (kinds + 0.9 * noise).flatten(0, 1)
    exact = (values.argsort(0).argsort(0) + 0.5) / len(values)
    torch.testing.assert_close(Quantiles(values)(values), exact, rtol=0, atol=0.03)


def test_quantiles_are_taken_per_member() -> None:
    values = torch.stack([torch.arange(100.0), 1000 - torch.arange(100.0)], 1)
    quantiles = Quantiles(values)
    torch.testing.assert_close(quantiles(values).sum(1), torch.ones(100))
    assert quantiles(torch.tensor([[-1.0, 2000.0]])).tolist() == [[0.0, 1.0]]
    assert quantiles(values.view(10, 10, 2)).shape == (10, 10, 2)
