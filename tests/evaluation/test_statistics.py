"""Figures of agreement, against SciPy and against what must hold."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from relqa_loss.evaluation.calibration import calibrate
from relqa_loss.evaluation.logistic import Logistic, fit_logistic
from relqa_loss.evaluation.statistics import (
    agreement,
    compare,
    srcc,
    two_alternative,
    williams,
)


def sample(seed: int, count: int = 60, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Values and opinions with many ties."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=count)
    y = x + noise * generator.normal(size=count)
    return np.round(x, 1), np.round(2 * y) / 2


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed: int) -> None:
    x, y = sample(seed)
    found = agreement(x, y, samples=10)
    assert found.srcc.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.krcc.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-9)
    mapped = found.logistic(x)
    assert found.plcc.value == pytest.approx(scipy.stats.pearsonr(mapped, y).statistic, abs=1e-12)
    assert found.rmse.value == pytest.approx(np.sqrt(np.mean((mapped - y) ** 2)))
    # The logistic can always be as good as a line.
    assert found.plcc.value >= scipy.stats.pearsonr(x, y).statistic - 1e-6
    assert found.count == 60


def test_more_pairs_than_a_block() -> None:
    x, y = sample(0, count=1300)
    found = agreement(x, y, samples=2)
    assert found.krcc.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-9)


@pytest.mark.parametrize("scenes", [False, True])
def test_resamples_are_what_they_stand_for(scenes: bool) -> None:
    """Multiplicities give the figures of the repeated sample."""
    x, y = sample(1, count=30)
    labels = [k // 5 for k in range(30)] if scenes else list(range(30))
    mapped = fit_logistic(x, y)(x)
    drawn = np.random.default_rng(3).integers(0, len(set(labels)), (4, len(set(labels))))
    figures: list[list[float]] = []
    for row in drawn:
        index = np.concatenate([np.flatnonzero(np.array(labels) == unit) for unit in row])
        figures.append(
            [
                scipy.stats.spearmanr(x[index], y[index]).statistic,
                scipy.stats.kendalltau(x[index], y[index]).statistic,
                scipy.stats.pearsonr(mapped[index], y[index]).statistic,
                np.sqrt(np.polyfit(mapped[index], y[index], 1, full=True)[1][0] / len(index)),
            ]
        )
    found = agreement(x, y, samples=4, seed=3, scenes=labels if scenes else None, level=0.999999)
    for k, figure in enumerate((found.srcc, found.krcc, found.plcc, found.rmse)):
        column = [row[k] for row in figures]
        assert figure.low == pytest.approx(min(column), abs=1e-5)
        assert figure.high == pytest.approx(max(column), abs=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_ends_are_percentiles_of_the_resamples(level: float) -> None:
    a, b, votes = np.random.default_rng(0).random((3, 30))
    right = np.where(a < b, 1 - votes, votes)
    drawn = np.random.default_rng(3).integers(0, 30, (200, 30))
    # Farther out than level says, by what is lost to means of their own, and to unknown spread.
    tail = norm.cdf(student.ppf(0.5 - level / 2, 29) * (30 / 29) ** 0.5)
    assert tail < 0.5 - level / 2
    expected = np.quantile(right[drawn].mean(1), [tail, 1 - tail])
    figure = two_alternative(a, b, votes, samples=200, seed=3, level=level)
    assert (figure.low, figure.high) == pytest.approx(tuple(expected))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=5, max_size=40))
def test_invariant_under_monotone_maps(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, float).T
    if len(set(x)) < 2 or len(set(y)) < 2:
        return
    plain = agreement(x, y, samples=20)
    bent = agreement(np.exp(x / 20), y**3, samples=20)
    turned = agreement(-x, y, samples=20)
    for name in ("srcc", "krcc"):
        one, two = getattr(plain, name), getattr(bent, name)
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))
        assert getattr(turned, name).value == pytest.approx(-one.value)
        assert -1 <= one.low <= one.high <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_logistic_does_not_care_for_the_unit(seed: int) -> None:
    # Of samples that decide the four parameters; a few points on a step fit many curves.
    x, y = sample(seed)
    plain, scaled = (agreement(values, y, samples=2) for values in (x, 3 * x + 7))
    assert plain.plcc.value == pytest.approx(scaled.plcc.value, abs=1e-6)


def test_the_interval_covers_the_truth_and_shrinks() -> None:
    truth = 6 / np.pi * np.arcsin(0.8 / 2)  # Spearman's correlation of a normal pair with r = 0.8
    generator = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(60):
        x, y = generator.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=80).T
        figure = agreement(x, y, samples=200).srcc
        covered += figure.low <= truth <= figure.high
        widths.append(figure.high - figure.low)
    assert 50 <= covered <= 60
    x, y = generator.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=1280).T
    figure = agreement(x, y, samples=200).srcc
    assert figure.high - figure.low < 0.4 * np.mean(widths)


def test_scenes_widen_the_interval() -> None:
    """Pairs of a scene repeat each other: as many as there are, they count as one."""
    generator = np.random.default_rng(0)
    x, y = generator.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=20).T
    x, y = np.repeat(x, 30), np.repeat(y, 30)
    alone = agreement(x, y, samples=200).srcc
    together = agreement(x, y, samples=200, scenes=np.repeat(np.arange(20), 30).tolist()).srcc
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_scenes_of_any_kind() -> None:
    x, y = sample(0)
    numbers = np.arange(60) // 6
    expected = agreement(x, y, scenes=[f"scene {k}" for k in numbers], samples=20)
    for scenes in (numbers, torch.from_numpy(numbers), tuple(numbers)):
        assert agreement(x, y, scenes=scenes, samples=20) == expected
        assert calibrate(x, y, scenes=scenes, samples=2) == calibrate(
            x, y, scenes=numbers.tolist(), samples=2
        )
    unknown = np.where(numbers < 9, numbers, np.nan)  # each image for itself
    alone = [int(k) if k < 9 else f"image {i}" for i, k in enumerate(numbers)]
    assert agreement(x, y, scenes=unknown, samples=20) == agreement(x, y, scenes=alone, samples=20)


def test_seed_decides() -> None:
    x, y = sample(2)
    assert agreement(x, y, samples=50) == agreement(x, y, samples=50)
    assert agreement(x, y, samples=50, seed=1).srcc != agreement(x, y, samples=50).srcc


def test_constants_have_no_correlation() -> None:
    found = agreement([0.1] * 6, [1, 2, 3, 4, 5, 6], samples=10)
    assert np.isnan([found.srcc.value, found.krcc.value, found.plcc.value]).all()
    assert found.rmse.value == pytest.approx(np.std([1, 2, 3, 4, 5, 6]))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], "one length"),
        ([1, 2, 3, 4], [1, 2, 3, 4], "at least 5 pairs, got 4"),
        ([1, 2, 3, 4, np.inf], [1, 2, 3, 4, 5], "finite"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, np.nan], "finite"),
    ],
)
def test_wrong_input(x: list[float], y: list[float], message: str) -> None:
    for function in (agreement, srcc):
        with pytest.raises(ValueError, match=message):
            function(x, y)


def test_wrong_options() -> None:
    x, y = sample(0)
    with pytest.raises(ValueError, match="expected 60 scenes, got 2"):
        agreement(x, y, scenes=[1, 2])
    with pytest.raises(ValueError, match="samples must be at least 1"):
        agreement(x, y, samples=0)
    assert agreement(x, y, samples=1).count == 60
    for level in (95, 1, 0):
        with pytest.raises(ValueError, match="level must be in"):
            agreement(x, y, samples=2, level=level)


@pytest.mark.parametrize(("start", "end"), [(9, 1), (1, 9)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_logistic_is_found_again(start: float, end: float, scale: float) -> None:
    x = np.random.default_rng(0).gamma(1.5, size=300) * scale  # skewed, as distances are
    truth = Logistic(start, end, 1.2 * scale, 0.4 * scale)
    fit = fit_logistic(x, truth(x))
    assert np.allclose(fit(x), truth(x), atol=1e-3)
    assert fit.width > 0


def test_the_logistic_of_a_line_and_of_noise() -> None:
    x = np.linspace(-1, 1, 40)
    assert np.allclose(fit_logistic(x, 5 - 2 * x)(x), 5 - 2 * x, atol=1e-3)
    noise = np.random.default_rng(0).normal(size=40)
    assert np.std(noise - fit_logistic(x, noise)(x)) <= np.std(noise)
    with pytest.raises(ValueError, match="4 or more"):
        fit_logistic([1, 2, 3], [1, 2, 3])


def test_two_alternatives() -> None:
    votes = [0.0, 0.8, 1.0, 0.5]
    assert two_alternative([1, 2, 3, 1], [2, 1, 3, 1], votes).value == pytest.approx(
        (1 + 0.8 + 0.5 + 0.5) / 4
    )
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 400))
    sure = (b < a).astype(float)
    assert two_alternative(a, b, sure).value == 1
    assert two_alternative(b, a, sure).value == 0
    chance = two_alternative(a, b, generator.random(400))
    assert chance.value == pytest.approx(0.5, abs=0.05)
    assert chance.value - 0.05 < chance.low < chance.value < chance.high < chance.value + 0.05
    with pytest.raises(ValueError, match="preferences must be in"):
        two_alternative([1], [2], [1.5])


def test_differences() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=400)
    good, bad = y + 0.3 * generator.normal(size=400), y + 1.0 * generator.normal(size=400)
    clear = compare(good, bad, y, samples=400)
    assert clear.srcc.low > 0
    assert clear.srcc.value == pytest.approx(srcc(good, y) - srcc(bad, y))
    assert clear.p_bootstrap < 0.01
    assert clear.p_williams < 0.01
    same = compare(good, np.exp(good), y, samples=400)
    assert (same.srcc.value, same.p_bootstrap, same.p_williams) == (0, 1, 1)
    turned = compare(bad, good, y, samples=400)
    assert turned.srcc.value == pytest.approx(-clear.srcc.value)
    assert turned.p_bootstrap == pytest.approx(clear.p_bootstrap)


@pytest.mark.parametrize("constant", [0, 1, 2])
def test_a_constant_differs_from_nothing_for_sure(constant: int) -> None:
    three = list(np.random.default_rng(0).normal(size=(3, 40)))
    three[constant] = np.ones(40)
    found = compare(*three, samples=50)
    assert np.isnan([found.srcc.value, found.srcc.low, found.srcc.high]).all()
    assert np.isnan([found.p_bootstrap, found.p_williams]).all()


def test_resamples_without_a_correlation_do_not_count() -> None:
    """A metric with one value of its own is constant in a third of the resamples."""
    y = np.arange(20.0)
    found = compare(y, np.where(y == 10, 1.0, 0.0), y, samples=400)
    assert found.srcc.low > 0
    rarest = [2 / 301, 2 / 201]  # of all resamples none is below zero, of which so many count
    low, high = 2 * student.cdf(norm.ppf([p / 2 for p in rarest]) * (19 / 20) ** 0.5, 19)
    assert low < found.p_bootstrap < high


@pytest.mark.parametrize("seed", range(20))
def test_interval_and_p_agree(seed: int) -> None:
    generator = np.random.default_rng(seed)
    y = generator.normal(size=12)
    first, second = y + 0.7 * generator.normal(size=(2, 12))
    p = compare(first, second, y, samples=300).p_bootstrap
    for level in (0.5, 0.8, 0.95):
        found = compare(first, second, y, samples=300, level=level).srcc
        # One is added to each count.
        assert (found.low <= 0 <= found.high) == (p > 1 - level) or abs(p - 1 + level) < 0.02


def test_intervals_of_few_cover_the_truth() -> None:
    """Plain percentiles do so in 87% of these cases."""
    generator = np.random.default_rng(0)
    covered = 0
    for votes in generator.random((300, 5)):
        figure = two_alternative(np.zeros(5), np.ones(5), votes, samples=300)
        covered += figure.low <= 0.5 <= figure.high
    assert covered > 0.88 * 300
    alone = two_alternative([0.0], [1.0], [0.2], samples=20)
    assert (alone.low, alone.value, alone.high) == (0.8, 0.8, 0.8)


def test_rates_of_false_alarms() -> None:
    """Two metrics equally good by construction: both tests cry wolf about once in twenty."""
    generator = np.random.default_rng(1)
    bootstrap = williams_ = 0
    for _ in range(100):
        y = generator.normal(size=60)
        a, b = y + generator.normal(size=(2, 60))
        found = compare(a, b, y, samples=200)
        bootstrap += found.p_bootstrap < 0.05
        williams_ += found.p_williams < 0.05
    assert bootstrap <= 12
    assert williams_ <= 12


@pytest.mark.parametrize(
    "r", [(0.4, 0.5, 0.1, 103), (0.9, 0.85, 0.95, 30), (-0.2, 0.3, 0.0, 8), (0.4, 0.5, 0.1, 4)]
)
def test_williams_by_its_matrix(r: tuple[float, float, float, int]) -> None:
    """The statistic written with the determinant, its distribution by SciPy."""
    a, b, ab, n = r
    determinant = np.linalg.det([[1, a, b], [a, 1, ab], [b, ab, 1]])
    t = (a - b) * np.sqrt(
        (n - 1)
        * (1 + ab)
        / (2 * (n - 1) / (n - 3) * determinant + ((a + b) / 2) ** 2 * (1 - ab) ** 3)
    )
    assert williams(*r) == pytest.approx(2 * scipy.stats.t.sf(abs(t), n - 3))


def test_a_metric_and_its_opposite_differ_for_sure() -> None:
    x, y = sample(0)
    assert compare(x, -x, y, samples=2).p_williams == 0
    assert williams(0.5, -0.5, -1.0, 30) == 0


def test_williams_refuses_what_is_no_correlation() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        williams(0.1, 0.2, 0.3, 3)
    with pytest.raises(ValueError, match="must be in"):
        williams(0.1, 1.2, 0.3, 30)
    assert np.isnan(williams(0.1, np.nan, 0.3, 30))


@pytest.mark.parametrize(
    "figure",
    [
        lambda: two_alternative([0.1, 0.2], [0.2, 0.1], [0.3, 0.4]),
        lambda: compare(range(6), range(6), range(6)),
        lambda: williams(0.4, 0.5, 0.1, 103),
    ],
)
def test_without_scipy_it_is_said_what_to_install(
    figure: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'relqa-loss\[train\]'"):
        figure()
