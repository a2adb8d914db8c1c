"""What is particular to these metrics; ``test_conformance.py`` has what all of them must do."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
from cases import CASES, mean_distance, mean_score, pairs, profile, triples, wilson_bound, win_rate
from tester import Case, assert_close, flat
from torch import nn
from torchmetrics import Metric, MetricCollection

from relqa_loss import CHANNELS, functional, relational_distance, relational_score
from relqa_loss.metrics import (
    DistortionProfile,
    RelationalDistance,
    RelationalPreference,
    RelationalScore,
)
from relqa_loss.network import find_weights

EACH_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@EACH_CASE
def test_print_out_names_the_weights(case: Case) -> None:
    metric: Any = case.build(channel_weights={"noise": 2.0})
    for text in (repr(metric), metric.version):
        assert find_weights().version in text
        assert "noise" in text


@EACH_CASE
def test_wrong_options_and_images_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="data_range"):
        case.build(data_range=0)
    with pytest.raises(ValueError, match="no weights named"):
        case.build(weights="none")
    with pytest.raises(ValueError, match="unknown channels"):
        case.build(channel_weights={"hue": 1.0})
    metric = case.build()
    batch = case.batches[0]
    with pytest.raises(ValueError, match="must lie in"):
        metric.update(*(255 * image for image in batch.values()))
    # What was refused leaves no trace.
    metric.update(**batch)
    assert_close(case.read(metric), case.expect([batch]), "after an error")


@EACH_CASE
def test_autocast_changes_nothing(case: Case) -> None:
    plain, mixed = case.filled(), case.build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in case.batches:
            mixed.update(**batch)
    assert case.read(mixed) == case.read(plain)


@EACH_CASE
def test_options_reach_the_network(case: Case) -> None:
    beyond = [{name: 4 * image for name, image in batch.items()} for batch in case.batches]
    with pytest.raises(ValueError, match="must lie in"):
        case.filled(beyond, data_range=2.0)
    wide = case.filled(beyond, data_range=4.0)
    assert_close(case.read(wide), case.read(case.filled()), "range")
    clamped = [{name: image.clamp(0, 1) for name, image in batch.items()} for batch in beyond]
    assert_close(
        case.read(case.filled(beyond, on_out_of_range="clamp")),
        case.read(case.filled(clamped)),
        "clamp",
    )


@pytest.mark.parametrize(
    ("kind", "function"),
    [(RelationalDistance, relational_distance), (RelationalScore, relational_score)],
)
def test_weights_reach_distance_and_score(kind: Any, function: Any) -> None:
    options = {"weights": "relqa-nano", "channel_weights": {"noise": 9.0}}
    batch = pairs()[0]
    value = kind(**options)(**batch)
    torch.testing.assert_close(value, function(**batch, **options))
    for name in options:
        without = {key: option for key, option in options.items() if key != name}
        assert not torch.allclose(value, function(**batch, **without), rtol=1e-3)


def test_channel_weights_reach_the_preference() -> None:
    class Recorder(Exception):
        pass

    batch = triples()[0]
    metric = RelationalPreference(channel_weights={"noise": 9.0})
    with pytest.MonkeyPatch.context() as patch:

        def record(*images: Any, **options: Any) -> Any:
            raise Recorder(options["channel_weights"])

        patch.setattr("relqa_loss.metrics.preference.relational_preference", record)
        with pytest.raises(Recorder, match=r"\{'noise': 9.0\}"):
            metric.update(**batch)


def test_a_collection_runs_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (RelationalDistance, RelationalScore, DistortionProfile)
    collection = MetricCollection([kind() for kind in kinds], prefix="val_")
    data = pairs()
    collection.update(**data[0])
    calls = []
    original = functional.relations

    def count(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(functional, "relations", count)
    for pair in data[1:]:
        collection.update(**pair)
    assert len(calls) == len(data) - 1
    result = collection.compute()
    expected = {
        "val_RelationalDistance": mean_distance(data)["value"],
        "val_RelationalScore": mean_score(data)["value"],
    } | {f"val_{name}": value for name, value in profile(data).items()}
    assert result.keys() == expected.keys()
    assert_close(flat(result), expected, "collection")


def test_a_collection_with_a_preference_takes_images_by_name() -> None:
    collection = MetricCollection([RelationalDistance(), RelationalScore(), RelationalPreference()])
    for batch in triples():
        collection.update(**batch)
    groups = sorted(sorted(names) for names in collection.compute_groups.values())
    assert groups == [["RelationalDistance", "RelationalScore"], ["RelationalPreference"]]
    expected = {
        "RelationalDistance": mean_distance(triples())["value"],
        "RelationalScore": mean_score(triples())["value"],
        "RelationalPreference": win_rate(triples())["value"],
    }
    assert_close(flat(collection.compute()), expected, "collection")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RelationalDistance, {"channel_weights": {"noise": 9}}),
        (RelationalPreference, {"channel_weights": {"noise": 9}}),
        (RelationalPreference, {"by": "score"}),
    ],
)
def test_a_perfect_first_batch_does_not_merge_different_metrics(
    kind: Any, options: dict[str, Any]
) -> None:
    collection = MetricCollection({"plain": kind(), "other": kind(**options)})
    image = torch.rand(1, 3, 32, 32)
    names = triples()[0] if kind is RelationalPreference else pairs()[0]
    collection.update(**dict.fromkeys(names, image))
    assert len(collection.compute_groups) == 2


@EACH_CASE
def test_sums_of_other_options_are_not_added(case: Case) -> None:
    filled, same, other = case.filled(), case.build(), case.build(channel_weights={"noise": 2.0})
    for metric in (filled, same, other):
        metric.persistent(True)
    saved = filled.state_dict()
    same.load_state_dict(saved)
    assert case.read(same) == case.read(filled)
    same.merge_state(filled)
    same.merge_state(filled)
    assert float(same.count) == 3 * float(filled.count)
    assert torch.equal(same.options, filled.options)  # so that it can be merged itself
    with pytest.raises(RuntimeError, match="other weights or options"):
        other.load_state_dict(saved)
    assert float(other.count) == 0
    for state in (filled, dict(saved)):
        fresh = case.build(channel_weights={"noise": 2.0})
        with pytest.raises(ValueError, match="other weights or options"):
            fresh.merge_state(state)
        assert float(fresh.count) == 0
    # A checkpoint between two validations holds nothing that could be mixed up.
    filled.reset()
    fresh = case.build(channel_weights={"noise": 2.0})
    options = fresh.options.clone()
    fresh.load_state_dict(filled.state_dict())
    assert torch.equal(fresh.options, options)


@EACH_CASE
def test_sums_are_saved_with_the_model_they_are_of(case: Case) -> None:
    def model(metric: Metric) -> nn.ModuleDict:
        metric.persistent(True)
        return nn.ModuleDict({"net": nn.Linear(1, 1), "val": metric})

    filled, same, other = case.filled(), case.build(), case.build(channel_weights={"noise": 2.0})
    saved = model(filled).state_dict()
    model(same).load_state_dict(saved)
    assert case.read(same) == case.read(filled)
    options = other.options.clone()  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=r"val\.options: the state is of other weights"):
        model(other).load_state_dict(saved)
    filled.reset()
    model(other).load_state_dict(model(filled).state_dict())
    assert float(other.count) == 0  # type: ignore[arg-type]
    assert torch.equal(other.options, options)  # type: ignore[arg-type]


@EACH_CASE
def test_sums_move_to_other_devices_in_their_precision(case: Case) -> None:
    metric = case.build()
    nn.ModuleList([metric]).to("meta", torch.float16)
    assert metric.count.device.type == "meta"  # type: ignore[union-attr]
    assert metric.count.dtype == torch.float64


def test_options_are_those_given_even_if_what_held_them_changes() -> None:
    factors = {"noise": 2.0}
    metric = RelationalDistance(channel_weights=factors)
    before = metric.version
    factors["noise"] = 9.0
    assert metric.version == before


def test_intervals_of_other_confidence() -> None:
    metric = CASES["RelationalPreference"].filled()
    count = int(metric.count)  # type: ignore[arg-type]
    rate = float(metric.compute())
    assert isinstance(metric, RelationalPreference)
    last = 0.0
    for confidence in (0.5, 0.9, 0.999):
        low, high = metric.interval(confidence)
        assert float(low) == pytest.approx(wilson_bound(rate, count, confidence, upper=False))
        assert float(high) == pytest.approx(wilson_bound(rate, count, confidence, upper=True))
        assert low < rate < high
        assert high - low > last
        last = float(high - low)
    for confidence in (0, 1, 95, float("nan")):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            metric.interval(confidence)


def test_an_interval_of_merged_images_does_not_warn_of_none() -> None:
    filled, merged = CASES["RelationalPreference"].filled(), RelationalPreference()
    with pytest.warns(UserWarning, match="no images"):
        merged.interval()
    merged.merge_state(filled)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert merged.interval() == filled.interval()  # type: ignore[operator]


def test_intervals_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    metric = RelationalPreference()
    for wins, count in ((0, 1), (3, 3), (7, 40), (500, 1000)):
        metric.wins = torch.tensor(float(wins), dtype=torch.float64)
        metric.count = torch.tensor(float(count), dtype=torch.float64)
        metric._update_count = 1
        expected = stats.binomtest(wins, count).proportion_ci(0.95, method="wilson")
        assert [float(bound) for bound in metric.interval()] == pytest.approx(list(expected))


def test_an_interval_is_not_remembered() -> None:
    first, second, *_ = triples()
    metric = RelationalPreference()
    metric.update(**first)
    before = metric.interval()
    metric.update(**second)
    assert metric.interval() != before
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(bound.isnan() for bound in metric.interval())


def test_preferences_by_an_unknown_figure_are_refused() -> None:
    with pytest.raises(ValueError, match="by must be one of"):
        RelationalPreference(by="maps")  # type: ignore[arg-type]


def test_profile_draws_its_values() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metric = DistortionProfile()
    metric.update(**pairs()[0])
    value = {name: float(number) for name, number in metric.compute().items()}
    opposite = {n: -v if n.endswith("_signed") else 2 * v for n, v in value.items()}
    for given, drawn in ((None, value), (opposite, opposite)):
        _, axes = metric.plot(given)
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == [name.replace("_", " ") for name in CHANNELS]
        signed = [drawn[f"{name}_signed"] for name in CHANNELS]
        absolute = [drawn[f"{name}_absolute"] for name in CHANNELS]
        pale, bars = axes.patches[: len(CHANNELS)], axes.patches[len(CHANNELS) :]
        assert [bar.get_width() for bar in bars] == pytest.approx(signed)
        for bar, value_drawn in zip(bars, signed, strict=True):
            red, _, blue, _ = bar.get_facecolor()
            assert (red > blue) == (value_drawn > 0)
        assert [bar.get_x() for bar in pale] == pytest.approx([-v for v in absolute])
        assert [bar.get_x() + bar.get_width() for bar in pale] == pytest.approx(absolute)
        low, high = axes.get_xlim()
        assert low == -high
        assert max(absolute) < high < 1.2 * max(absolute)
        first, last = (bars[at].get_y() for at in (0, -1))
        assert axes.transData.transform((0, first))[1] > axes.transData.transform((0, last))[1]
    plt.close("all")


def test_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = DistortionProfile()
    metric.update(**pairs()[0])
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        metric.plot()


@EACH_CASE
def test_channel_weights_are_the_same_in_any_order_and_type(case: Case) -> None:
    """As of a file of settings, which sorts them: sums that were saved were refused."""
    filled = case.filled(channel_weights={"ringing": 3.0, "noise": 2.0})
    same = case.build(channel_weights={"noise": 2, "ringing": 3})
    assert same.version == filled.version
    for metric in (filled, same):
        metric.persistent(True)
    same.load_state_dict(filled.state_dict())
    assert case.read(same) == case.read(filled)
    same.merge_state(filled)
    assert float(same.count) == 2 * float(filled.count)
