"""Pairs of different scenes."""

from __future__ import annotations

import numpy as np
import pytest

from relqa_loss.evaluation.cross_scene import pair_table, share_ordered


def test_pairs_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    judged = generator.normal(size=(24, 2))
    scenes = [k % 4 for k in range(24)]
    kinds = ["blur" if k < 12 else "noise" for k in range(24)]
    values = judged.mean(1) + 0.5 * generator.normal(size=24)
    for same_kind in (True, False):
        asked, right, count = 0, 0, 0
        for i in range(24):
            for j in range(i):
                if scenes[i] == scenes[j] or (kinds[i] == kinds[j]) != same_kind:
                    continue
                asked += 1
                signs = np.sign(judged[i] - judged[j])
                if abs(signs.sum()) == 2:
                    count += 1
                    right += int(np.sign(values[i] - values[j]) == signs[0])
        table = pair_table(judged, scenes, kinds, same_kind=same_kind)
        assert (table.asked, table.count) == (asked, count)
        assert share_ordered(values, table).value == pytest.approx(right / count)


def test_a_metric_with_scene_offsets_is_found_out() -> None:
    # Right within every scene, but it calls each scene by another scale.
    generator = np.random.default_rng(0)
    truth = generator.uniform(size=96)
    scenes = np.repeat(np.arange(12), 8)
    judged = np.repeat(truth[:, None], 3, axis=1)
    offset = generator.normal(size=12)[scenes]
    table = pair_table(judged, scenes.tolist(), [0] * 96, same_kind=True)
    fair, unfair = share_ordered(truth, table), share_ordered(truth + 3 * offset, table)
    assert fair.value == 1
    assert unfair.value < 0.7
    assert unfair.low < unfair.value < unfair.high < 0.8


def test_ties_count_half_and_intervals_repeat() -> None:
    table = pair_table([[1], [2], [3], [4]], "abcd", "abcd", same_kind=False)
    assert share_ordered([0, 0, 0, 0], table).value == 0.5
    values = [1, 3, 2, 4]
    assert share_ordered(values, table, seed=1) == share_ordered(values, table, seed=1)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_ends_are_percentiles_of_resampled_scenes(level: float) -> None:
    judged, values = np.random.default_rng(0).random((2, 20))
    scenes = np.arange(20) // 4
    table = pair_table(judged[:, None], scenes.tolist(), [0] * 20, same_kind=True)
    shares = []
    for row in np.random.default_rng(3).integers(0, 5, (50, 5)):
        images = np.concatenate([np.flatnonzero(scenes == scene) for scene in row])
        pairs = [(i, j) for i in images for j in images if table.order[i, j] > 0]
        if pairs:
            shares.append(np.mean([values[i] > values[j] for i, j in pairs]))
    expected = np.percentile(shares, [50 - 50 * level, 50 + 50 * level])
    found = share_ordered(values, table, samples=50, seed=3, level=level)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    ("judged", "scenes", "sentence"),
    [
        ([1, 2], "ab", "N×J"),
        ([[1], [2]], "abc", "2 images, 3 scenes"),
        ([[1], [float("nan")]], "ab", "finite"),
    ],
)
def test_wrong_pairs(judged: list, scenes: str, sentence: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=sentence):
        pair_table(judged, scenes, "xx", same_kind=True)


def test_wrong_values() -> None:
    table = pair_table([[1], [2]], "ab", "xx", same_kind=True)
    with pytest.raises(ValueError, match="expected 2 values"):
        share_ordered([1, 2, 3], table)
    with pytest.raises(ValueError, match="finite"):
        share_ordered([1, float("inf")], table)
    empty = pair_table([[1], [2]], "aa", "xx", same_kind=True)
    with pytest.raises(ValueError, match="no pair is left"):
        share_ordered([1, 2], empty)
