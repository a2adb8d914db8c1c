"""Paired bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relqa_loss.selection import statistics
from relqa_loss.selection.statistics import Interval, paired_interval

SCORES = st.lists(
    st.tuples(st.floats(-10, 10, width=32), st.floats(-10, 10, width=32)), min_size=2, max_size=30
)


@settings(deadline=None, max_examples=40)
@given(SCORES, st.sampled_from([0.5, 0.9, 0.95]))
def test_brackets_the_mean_and_stays_within_the_data(
    pairs: list[tuple[float, float]], confidence: float
) -> None:
    first, second = zip(*pairs, strict=True)
    differences = [a - b for a, b in pairs]
    interval = paired_interval(first, second, confidence=confidence, resamples=200)
    slack = 1e-9
    assert interval.mean == pytest.approx(math.fsum(differences) / len(differences), abs=slack)
    assert min(differences) - slack <= interval.low <= interval.high <= max(differences) + slack
    wider = paired_interval(first, second, confidence=0.99, resamples=200)
    assert wider.low - slack <= interval.low
    assert interval.high <= wider.high + slack


@settings(deadline=None, max_examples=20)
@given(SCORES, st.floats(-5, 5))
def test_pairing_cancels_what_images_share(pairs: list[tuple[float, float]], shift: float) -> None:
    second = [b for _, b in pairs]
    first = [b + shift for b in second]
    interval = paired_interval(first, second, resamples=50)
    assert interval.low == pytest.approx(shift, abs=1e-9)
    assert interval.high == pytest.approx(shift, abs=1e-9)


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        hard = generator.normal(0, 10, 40)
        gain = generator.normal(0.3, 1, 40)
        interval = paired_interval(hard + gain, hard, confidence=0.9, resamples=400)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.82 <= covered / 200 <= 0.96


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_ends_are_percentiles_of_resampled_means(confidence: float) -> None:
    first, second = np.random.default_rng(0).random((2, 12))
    drawn = np.random.default_rng(5).integers(12, size=(501, 12))
    means = np.mean((first - second)[drawn], axis=1)
    expected = np.percentile(means, [50 - 50 * confidence, 50 + 50 * confidence])
    found = paired_interval(first, second, confidence=confidence, resamples=501, seed=5)  # type: ignore[arg-type]
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_an_interval_that_ends_at_zero_covers_it() -> None:
    for low, high in ((-1, 0), (0, 1), (0, 0), (-1, 1)):
        assert Interval(0.0, low, high).covers_zero
    for low, high in ((0.1, 2), (-2, -0.1)):
        assert not Interval(0.0, low, high).covers_zero


def test_depends_on_its_arguments_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = np.random.default_rng(0).random((2, 30)).tolist()
    np.random.seed(7)  # noqa: NPY002 - the global state is what is looked at
    torch.manual_seed(7)
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    once = paired_interval(first, second, resamples=300)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002
    assert paired_interval(first, second, resamples=300) == once
    assert paired_interval(first, second, resamples=300, seed=1) != once
    # Blocks bound the memory and change nothing, with a rest at the end or smaller than a resample.
    for block in (70, 210, 7):
        monkeypatch.setattr(statistics, "_BLOCK", block)
        assert paired_interval(first, second, resamples=300) == once


def test_one_image_says_nothing_about_noise() -> None:
    assert paired_interval([1.0], [0.5]) == (0.5, -math.inf, math.inf)
    assert paired_interval([1.0], [0.5]).covers_zero


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        paired_interval([1, 2], [1])
    with pytest.raises(ValueError, match=r"\(0,\)"):
        paired_interval([], [])
    with pytest.raises(ValueError, match="finite"):
        paired_interval([1, math.nan], [1, 2])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 2\)"):
        paired_interval([[1, 2]], [[1, 2]])  # type: ignore[list-item]
    for confidence in (95, 1, 0):
        with pytest.raises(ValueError, match="confidence"):
            paired_interval([1], [1], confidence=confidence)
    with pytest.raises(ValueError, match="resamples"):
        paired_interval([1], [1], resamples=0)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        paired_interval([1], [1], seed=-1)
    assert paired_interval([3, 5], [1, 3], resamples=1) == (2, 2, 2)
