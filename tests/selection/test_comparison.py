"""Comparing candidates on images of which some may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relqa_loss.selection.comparison import Comparison, Measured, compare
from relqa_loss.selection.statistics import paired_interval

CHANNELS = ("noise", "ringing")


def results(values: Mapping[str, float] | list[float], ringing: float = 0.0) -> dict[str, Measured]:
    rows = values if isinstance(values, Mapping) else {str(i): v for i, v in enumerate(values)}
    return {key: Measured(v, (0.0, ringing), (0.1, abs(ringing))) for key, v in rows.items()}


def ranking(found: Comparison) -> list[str]:
    return [standing.name for standing in found.standings]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 50).map(lambda v: v / 8), min_size=4, max_size=4),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(["min", "max"]),
)
def test_without_gaps_the_ranking_is_that_of_the_means(
    values: list[list[float]], mode: str
) -> None:
    candidates = {f"c{i}": results(row) for i, row in enumerate(values)}
    found = compare(candidates, list("0123"), CHANNELS, mode=mode, resamples=20)  # type: ignore[arg-type]
    sign = 1 if mode == "min" else -1
    # Eighths add up without rounding, so ties are ties; they go to the earlier one.
    expected = sorted(candidates, key=lambda name: (sign * sum(values[int(name[1:])]), name))
    assert ranking(found) == expected
    assert found.recommended == expected[0]
    for first, row in found.duels.items():
        for second, duel in row.items():
            assert duel.rate + found.duels[second][first].rate == pytest.approx(1)
            assert duel.lead == pytest.approx(-found.duels[second][first].lead)


def test_a_missing_hard_image_wins_nothing() -> None:
    """The mean of what is there would recommend the candidate that lacks the hard image."""
    found = compare(
        {
            "whole": results([1.0, 1.0, 9.0]),
            "gap": results({"0": 1.25, "1": 1.25}),
        },
        ["0", "1", "2"],
        CHANNELS,
        coverage=0.5,
    )
    assert found.standings[1].mean < found.standings[0].mean
    assert ranking(found) == ["whole", "gap"]
    assert found.recommended == "whole"
    assert found.standings[1].shared == found.duels["whole"]["gap"].images == 2
    assert found.standings[1].gain is not None
    assert found.standings[1].gain.mean == -0.25
    assert found.reason.endswith("better than gap by 0.25 [0.25, 0.25] (95%, 2 images)")


def test_the_recommended_one_may_lack_images_that_others_have() -> None:
    candidates = {"whole": results([2.0, 3.0, 9.0]), "gap": results([1.0, 1.0])}
    found = compare(candidates, ["0", "1", "2"], CHANNELS, coverage=0.5)
    assert found.recommended == "gap"
    assert (found.standings[1].images, found.standings[1].shared) == (3, 2)
    assert found.standings[1].gain is not None
    assert found.standings[1].gain.mean == -1.5


@pytest.mark.parametrize("mode", ["min", "max"])
def test_gains_are_paired_intervals_under_the_options_given(mode: Literal["min", "max"]) -> None:
    good, bad = [0.5, 0.25, 1.0, 0.75, 0.0], [1.0, 1.25, 1.5, 0.5, 0.75]
    if mode == "max":
        good, bad = [-v for v in good], [-v for v in bad]
    options = {"confidence": 0.5, "resamples": 7, "seed": 3}
    found = compare(
        {"good": results(good), "bad": results(bad)},
        list("01234"),
        CHANNELS,
        mode=mode,
        **options,  # type: ignore[arg-type]
    )
    sign = -1 if mode == "min" else 1
    expected = paired_interval(
        [sign * v for v in bad],
        [sign * v for v in good],
        **options,  # type: ignore[arg-type]
    )
    assert found.recommended == "good"
    assert found.standings[1].gain == expected
    assert found.reason.endswith(
        f"better than bad by {-expected.mean:.2g} [{-expected.high:.2g}, {-expected.low:.2g}] "
        "(50%, 5 images)"
    )
    assert found.duels["good"]["bad"].lead == -expected.mean
    assert found.duels["good"].keys() == {"bad"}
    # Each lead is over both of them, itself included.
    assert [s.lead for s in found.standings] == [-expected.mean / 2, expected.mean / 2]


def test_who_has_too_few_images_is_no_candidate() -> None:
    candidates = {"whole": results([1.0] * 10), "part": results([0.5] * 8), "none": {}}
    found = compare(candidates, [str(i) for i in range(10)], CHANNELS)
    assert ranking(found) == ["part", "whole", "none"]
    # One that is no candidate is no rival, however good its scores.
    assert (found.recommended, found.rival) == ("whole", None)
    reasons = {standing.name: standing.rejected for standing in found.standings}
    assert reasons["part"] == "not a candidate: 8 of 10 images can be used"
    assert reasons["none"] == "not a candidate: 0 of 10 images can be used"
    assert math.isnan(found.standings[2].mean)
    # One image is needed even where any share of them will do.
    assert compare(candidates, ["0"], CHANNELS, coverage=0).standings[2].rejected is not None
    nobody = compare({"none": {}}, ["0"], CHANNELS, coverage=0)
    assert nobody.recommended is None
    assert nobody.reason.startswith("no candidate is recommended: all of 1 are ruled out")


def test_a_veto_prevents_a_known_bad_choice() -> None:
    candidates = {
        "start": results([3.0, 4.0], 0.01),
        "sober": results([2.0, 3.0], 0.02),
        "ringing": results([1.0, 2.0], 0.2),
    }
    free = compare(candidates, ["0", "1"], CHANNELS)
    assert (free.recommended, free.baseline) == ("ringing", None)
    found = compare(candidates, ["0", "1"], CHANNELS, veto={"ringing": 0.05})
    assert (found.recommended, found.rival, found.baseline) == ("sober", "ringing", "start")
    assert found.reason == (
        "sober is recommended: mean distance 2.5, the best of 3 candidates (1 ruled out); worse "
        "than ringing by 1 [1, 1] (95%, 2 images), but ringing is vetoed: more ringing than start "
        "by 0.19 (tolerance 0.05)"
    )
    other = compare(candidates, ["0", "1"], CHANNELS, veto={"ringing": 0.05}, baseline="ringing")
    assert other.recommended == "ringing"
    # One without images has no profile to compare with.
    empty = compare({"none": {}, **candidates}, ["0", "1"], CHANNELS, veto={"ringing": 0.05})
    assert (empty.recommended, empty.baseline) == ("sober", "start")


def test_a_veto_goes_by_the_images_that_both_have() -> None:
    """One that lacks the image with most ringing may ring no more for it on the others."""
    start = results([3.0, 4.0], 0.0) | results({"2": 5.0}, 0.9)
    candidates = {"start": start, "gap": results([1.0, 2.0], 0.2)}
    for order in (candidates, dict(reversed(candidates.items()))):
        found = compare(
            order, list("012"), CHANNELS, coverage=0.5, veto={"ringing": 0.05}, baseline="start"
        )
        assert (found.recommended, found.rival) == ("start", "gap")
        assert found.standings[0].rejected == (
            "vetoed: more ringing than start by 0.2 (tolerance 0.05)"
        )


def test_the_rival_is_the_one_to_be_told_apart_from() -> None:
    """A vetoed one only if its scores are better; without a recommendation there is none."""
    candidates = {
        "start": results([3.0, 4.0], 0.01),
        "sober": results([2.0, 3.0], 0.02),
        "ringing": results([5.0, 6.0], 0.2),
    }
    veto = {"ringing": 0.05}
    found = compare(candidates, ["0", "1"], CHANNELS, veto=veto)
    assert (found.recommended, found.rival) == ("sober", "start")
    del candidates["start"]
    found = compare(candidates, ["0", "1"], CHANNELS, veto=veto)
    assert (found.recommended, found.rival) == ("sober", None)
    assert found.reason == (
        "sober is recommended: mean distance 2.5, the best of 2 candidates (1 ruled out)"
    )
    # The baseline itself may lack images.
    candidates = {"part": results([1.0]), "whole": results([2.0, 2.0], 0.5)}
    found = compare(candidates, ["0", "1"], CHANNELS, veto=veto)
    assert (found.recommended, found.rival) == (None, None)
    assert found.standings[1].rejected == ("vetoed: more ringing than part by 0.5 (tolerance 0.05)")


@pytest.mark.parametrize(("ringing", "vetoed"), [(0.25, False), (0.26, True), (math.nan, True)])
def test_a_limit_may_be_reached_but_not_passed(ringing: float, vetoed: bool) -> None:
    candidates = {"start": results([1.0, 1.0]), "better": results([0.5, 0.5], ringing)}
    found = compare(candidates, ["0", "1"], CHANNELS, veto={"ringing": 0.25})
    assert found.recommended == ("start" if vetoed else "better")


def test_nan_never_wins() -> None:
    for bad in (math.nan, -math.inf, math.inf):
        found = compare(
            {"bad": results([bad, 0.0]), "good": results([1.0, 1.0])}, ["0", "1"], CHANNELS
        )
        assert found.recommended == "good"
        assert ranking(found) == ["good", "bad"]
        assert "1 of 2 scores are not finite" in str(found.standings[1].rejected)
    both = {"bad": results([math.inf, -math.inf]), "good": results([1.0, 1.0])}
    assert compare(both, ["0", "1"], CHANNELS).recommended == "good"


def test_the_earliest_within_the_noise() -> None:
    candidates = {
        "early": results([1.0, 2.1, 2.9, 4.1]),
        "late": results([1.1, 2.0, 3.0, 3.9]),
        "last": results([0.9, 1.99, 2.89, 4.0]),
    }
    keys = list("0123")
    assert compare(candidates, keys, CHANNELS).recommended == "last"
    found = compare(candidates, keys, CHANNELS, rule="earliest")
    # "early" is worse than "last" on every image, "late" is so only on average.
    assert (found.recommended, found.rival) == ("late", "last")
    assert "the earliest within the noise of last of 3 candidates" in found.reason
    # One that is ruled out had no better scores than the best one: that is still the rival.
    lower = {"lower": results([0.9, 2.0, 2.9, 4.0], 0.5)}
    found = compare(candidates | lower, keys, CHANNELS, rule="earliest", veto={"ringing": 0.1})
    assert ranking(found)[:2] == ["last", "lower"]
    assert (found.recommended, found.rival) == ("late", "last")
    # Of two within the noise it is the earlier one, whichever of them has the better mean.
    lately = {"later": results([1.2, 2.0, 3.0, 3.9])}
    for more in (candidates | lately, lately | candidates):
        found = compare(more, keys, CHANNELS, rule="earliest")
        assert found.recommended == next(name for name in more if name in ("late", "later"))
    del candidates["late"]
    assert compare(candidates, keys, CHANNELS, rule="earliest").recommended == "last"


@pytest.mark.parametrize("shared", [0, 1])
def test_noise_is_not_told_from_fewer_than_two_images(shared: int) -> None:
    candidates = {
        "early": results({"2": 2.0, **dict.fromkeys("01"[:shared], 2.0)}),
        "late": results({"0": 1.0, "1": 1.0}),
        "bridge": results({"0": 1.5, "1": 1.5, "2": 1.5}),
    }
    found = compare(candidates, list("012"), CHANNELS, rule="earliest", coverage=0)
    assert found.recommended == "late"


def test_a_single_candidate_and_strangers() -> None:
    alone = compare({"only": results([1.0])}, ["0"], CHANNELS, coverage=1)
    assert alone.reason == "only is recommended, as the only candidate: mean distance 1"
    # Nothing in common: nothing to compare, and the one with the more images leads by default.
    found = compare(
        {"a": results({"0": 1.0}), "b": results({"1": 2.0})}, ["0", "1"], CHANNELS, coverage=0.5
    )
    assert found.recommended == "a"
    assert math.isnan(found.duels["a"]["b"].rate)
    assert found.standings[1].gain is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "up"}, "mode must be"),
        ({"rule": "last"}, "rule must be"),
        ({"coverage": 2.0}, "coverage must be between"),
        ({"confidence": 1.0}, "confidence must be"),
        ({"veto": {"rings": 0.1}}, "no channel named 'rings'"),
        ({"veto": {"ringing": -1}}, "not negative"),
        ({"veto": {"ringing": 0.1}, "baseline": "z"}, "'z' is no candidate with images"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare({"a": results([1.0])}, ["0"], CHANNELS, **options)  # type: ignore[arg-type]
    if "baseline" in options:
        empty = {"a": results([1.0]), "z": {}}
        with pytest.raises(ValueError, match=message):
            compare(empty, ["0"], CHANNELS, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no candidates"):
        compare({}, ["0"], CHANNELS)
