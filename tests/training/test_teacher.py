"""A teacher's distances of a pool's images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relqa_loss import RelationalLoss
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.training.batches import Batches, Quantiles, collate
from relqa_loss.training.config import TrainConfig
from relqa_loss.training.pool import SETS_PER_SHARD, Pool
from relqa_loss.training.sets import NO_ORDER
from relqa_loss.training.teacher import TeacherLessons


def _distances(images: Tensor, reference: Tensor) -> Tensor:
    return RelationalLoss(pixel_weight=0, reduction="none")(images, reference.expand_as(images))


@pytest.fixture
def lessons(pool: Pool) -> TeacherLessons:
    lessons = TeacherLessons(pool, find_weights())
    lessons.fill(torch.device("cpu"), lambda done, total: None)
    return lessons


def test_they_are_the_teachers_distances_as_losses_minimise_them(
    pool: Pool, lessons: TeacherLessons
) -> None:
    scale = load_pretrained().scale
    for index in (0, SETS_PER_SHARD + 5):
        each = pool[index]
        images = each.images.float() / 255
        reference = each.reference.float() / 255
        wanted = _distances(images, reference) / scale
        torch.testing.assert_close(lessons.of(index), wanted)


def test_what_is_there_is_not_worked_out_again(
    lessons: TeacherLessons, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    lessons.fill(torch.device("cpu"), lambda *done: calls.append(done))
    assert calls == []
    path = lessons.pool.beside(1, f"{lessons.record.sha256[:12]}-learned")
    before = path.read_bytes()
    path.unlink()
    lessons.fill(torch.device("cpu"), lambda *done: calls.append(done))
    assert calls == [(2, 2)]
    assert path.read_bytes() == before


def test_a_damaged_file_is_named(lessons: TeacherLessons) -> None:
    path = lessons.pool.beside(1, f"{lessons.record.sha256[:12]}-learned")
    whole = path.read_bytes()
    path.write_bytes(b"")
    try:
        with pytest.raises(ValueError, match=r"learned-00001\.safetensors is damaged"):
            lessons.of(SETS_PER_SHARD)
    finally:
        path.write_bytes(whole)  # of all tests


def test_batches_bring_them(pool: Pool, lessons: TeacherLessons) -> None:
    taught = Pool(pool.spec, pool.folder.parent, len(pool))
    taught.lessons = lessons
    batch = Batches(taught, 3, seed=0, facts=(taught, 2))[4]
    plain = Batches(pool, 3, seed=0)[4]
    assert plain.taught is None
    assert torch.equal(batch.images, plain.images)
    assert batch.taught is not None
    every = torch.stack([lessons.of(index) for index in range(len(pool))])
    assert all(bool((every == row).all(1).any()) for row in batch.taught)
    assert batch.facts is not None
    assert batch.facts.taught is not None
    assert batch.facts.taught.shape == (2, 8)
    assert batch.lessons is None
    with_lessons = Batches(pool, 3, seed=0, unjudged=(taught, 2))[4]
    assert with_lessons.taught is None
    lesson = with_lessons.lessons
    assert lesson is not None
    for reference, images, row in zip(*lesson, strict=True):
        wanted = _distances(images, reference)
        # They are flipped, and taught as they were.
        torch.testing.assert_close(row, wanted / load_pretrained().scale, rtol=0.1, atol=0.05)
    moved = batch.to(torch.device("meta"))
    assert moved.taught is not None
    assert moved.taught.is_meta
    assert moved.pairs.maps.is_meta


def test_a_teacher_gives_way_to_what_is_known_to_be_alike(pool: Pool) -> None:
    none = [NO_ORDER, NO_ORDER]
    orders = torch.tensor([[[1, 0], [0, 1], [3, 2]], [[1, 0], [3, 2], none]])
    sets = [
        one._replace(order=order, taught=torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]))
        for one, order in zip((pool[0], pool[1]), orders, strict=True)
    ]
    each = pool[2]
    quantiles = Quantiles(each.panel)
    facts = collate([each], quantiles, torch.Generator(), fact_sets=sets).facts
    assert facts is not None
    assert facts.taught is not None
    assert facts.taught.tolist() == [[0, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]]


def test_a_teacher_has_nothing_to_say_about_maps() -> None:
    with pytest.raises(ValueError, match="a teacher teaches distances"):
        TrainConfig(learn="maps", teacher="relqa-base")
