"""Choosing checkpoints: decisions, reasons, retention, restarts and failures."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from relqa_loss.metrics import DistortionProfile
from relqa_loss.selection import CheckpointSelector, Decision, ImageScores, paired_interval
from relqa_loss.selection.ledger import Entry, Ledger
from relqa_loss.selection.store import read_metadata

RUNS = st.lists(
    st.lists(
        st.one_of(
            st.integers(0, 4).map(lambda n: n / 4), st.sampled_from([math.nan, math.inf, -math.inf])
        ),
        min_size=3,
        max_size=3,
    ),
    min_size=1,
    max_size=8,
)


def state(value: float) -> dict[str, Tensor]:
    return {"w": torch.full((2,), float(value))}


def weights_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


# --- Decisions -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(RUNS, st.sampled_from(["min", "max"]), st.integers(1, 3))
def test_best_is_the_first_of_the_best_finite_means(
    run: list[list[float]], mode: Any, keep: int
) -> None:
    selector = CheckpointSelector(mode=mode, keep=keep, resamples=20)
    for step, values in enumerate(run):
        decision = selector.update(step, values)
        means = {
            at: sum(row) / 3
            for at, row in enumerate(run[: step + 1])
            if all(map(math.isfinite, row))
        }
        order = sorted(means, key=lambda at: (means[at] if mode == "min" else -means[at], at))
        expected = order[0] if order else None
        assert decision.chosen_step == decision.best_step == expected
        assert decision.chosen == (expected == step)
        # A repeated row counts once: it is the same step only if the step is the same too.
        assert [e.step for e in selector.entries if e.kept] == sorted(order[:keep])


@settings(deadline=None, max_examples=40)
@given(RUNS)
def test_earliest_kept_checkpoint_within_the_noise(run: list[list[float]]) -> None:
    selector = CheckpointSelector(rule="earliest", keep=None, resamples=50)
    for step, values in enumerate(run):
        selector.update(step, values)
    finite = {at: row for at, row in enumerate(run) if all(map(math.isfinite, row))}
    if not finite:
        assert selector.chosen is None
        return
    best = min(finite, key=lambda at: (sum(finite[at]), at))
    within = [
        at
        for at, row in finite.items()
        if at == best or paired_interval(row, finite[best], resamples=50).covers_zero
    ]
    assert selector.chosen is not None
    assert selector.chosen.step == min(within)


def test_earliest_prefers_an_early_equal_and_names_it() -> None:
    generator = random.Random(0)
    start = [generator.uniform(0.4, 0.6) for _ in range(40)]
    good = [value - 0.2 for value in start]
    hair = [value - 1e-4 + generator.gauss(0, 0.01) for value in good]
    hair = [value - (sum(hair) - sum(good)) / 40 - 1e-5 for value in hair]
    by_rule = {}
    for rule in ("best", "earliest"):
        selector = CheckpointSelector(rule=rule)  # type: ignore[arg-type]
        for step, values in enumerate((start, good, hair)):
            by_rule[rule] = selector.update(step, values)
    assert by_rule["best"].chosen_step == 2
    assert "within the noise" in by_rule["best"].reason
    assert by_rule["earliest"].chosen_step == 1
    assert by_rule["earliest"].best_step == 2
    assert by_rule["earliest"].reason.endswith(
        "; step 1 stays chosen, the earliest kept within the noise of step 2"
    )
    with pytest.raises(ValueError, match="at least 2 images"):
        CheckpointSelector(rule="earliest").update(0, [1.0])


def test_pairing_is_by_key_whatever_the_order() -> None:
    first = CheckpointSelector()
    second = CheckpointSelector()
    rows: list[dict[str, float]] = [{"a": 0.5, "b": 0.9, "c": 0.7}, {"a": 0.4, "b": 0.8, "c": 0.7}]
    for step, row in enumerate(rows):
        one = first.update(step, row)
        other = second.update(step, dict(reversed(row.items())))
        assert one == other
    mixed = CheckpointSelector()
    mixed.update(0, rows[0])
    assert mixed.update(1, dict(reversed(rows[1].items()))) == one
    assert mixed.entries == first.entries
    assert first._ledger.images == ("a", "b", "c")
    assert first.entries[0].values == (0.5, 0.9, 0.7)
    for wrong, message in (
        ({"a": 1, "b": 1}, r"1 of the first checkpoint's are missing \['c'\], 0 are new \[\]"),
        ({"a": 1, "b": 1, "d": 1}, r"missing \['c'\], 1 are new \['d'\]"),
        ([1, 1, 1], "had 3 by key, this one has 3 by position"),
    ):
        with pytest.raises(ValueError, match=rf"same images: .*{message}"):
            first.update(9, wrong)
    with pytest.raises(ValueError, match="3 by key, this one has 2 by position"):
        first.update(9, [1, 1])
    assert len(first.entries) == 2
    placed = CheckpointSelector()
    placed.update(0, [0.5, 0.9])
    # Without a mean it would be compared with nothing, and be kept in the ledger.
    for values in ([0.4, 0.8, 0.7], [math.nan]):
        with pytest.raises(ValueError, match=rf"had 2 by position, this one has {len(values)} by"):
            placed.update(1, values)


def test_sentences() -> None:
    selector = CheckpointSelector()
    values = [0.0127 + 0.0001 * (i % 3) for i in range(48)]
    assert selector.update(900, values).reason == (
        "step 900: mean loss 0.0128, the first candidate (48 images)"
    )
    assert selector.reason == "step 900 is chosen: mean loss 0.0128, the best of 1 checkpoints"
    better = [value - 0.0004 - 0.0002 * math.sin(i) for i, value in enumerate(values)]
    reason = selector.update(1200, torch.tensor(better, dtype=torch.float64)).reason
    assert reason == (
        "step 1200: mean loss 0.01239, better than step 900 by 0.00041 [0.00037, 0.00045] "
        "(95%, 48 images)"
    )
    reason = selector.update(1300, values).reason
    assert "worse than step 1200 by 0.00041 [0.00037, 0.00045]" in reason
    assert reason.endswith("(95%, 48 images); step 1200 stays chosen")
    assert "a tie with step 1200" in selector.update(1400, better).reason
    worst = [math.nan, *better[1:]]
    assert selector.update(1500, worst).reason == (
        "step 1500: mean loss nan, not a candidate: 1 of 48 scores are not finite "
        "(first: image 0 has nan); step 1200 stays chosen"
    )
    assert selector.reason.startswith(
        "step 1200 is chosen: mean loss 0.01239, the best of 5 checkpoints (1 ruled out); "
        "better than step 900 by 0.00041 ["
    )


def test_a_choice_is_not_compared_with_a_first_checkpoint_that_broke_down() -> None:
    selector = CheckpointSelector()
    selector.update(0, [math.nan, 0.5])
    selector.update(1, [0.25, 0.5])
    assert selector.reason == (
        "step 1 is chosen: mean loss 0.375, the best of 2 checkpoints (1 ruled out)"
    )


def test_outputs_that_are_nan_are_refused_or_recorded() -> None:
    clean = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    diverged = torch.stack([clean[0], torch.full_like(clean[1], math.nan)])
    with pytest.raises(ValueError, match="preds contains NaN"):
        ImageScores().add(diverged, clean)
    selector = CheckpointSelector()
    for step, preds in enumerate([clean, diverged]):
        scores = ImageScores(on_out_of_range="clamp")
        scores.add(preds, clean)
        reason = selector.update(step, scores.values, profile=scores.profile).reason
    assert reason.endswith(
        "1 of 2 scores are not finite (first: image 1 has nan); step 0 stays chosen"
    )


@pytest.mark.parametrize("rule", ["best", "earliest"])
def test_the_earlier_of_two_is_that_of_the_lower_step(rule: Any) -> None:
    # As where a training goes back and validates steps that it had passed over.
    selector = CheckpointSelector(rule=rule, keep=None)
    selector.update(20, [0.5, 0.25])
    decision = selector.update(10, [0.5, 0.25])
    assert (decision.chosen_step, decision.best_step) == (10, 10)
    assert selector.update(30, [0.5, 0.25]).reason.endswith("step 10 stays chosen")
    # Worse on one image and better on the other: that is within the noise of two.
    decision = selector.update(5, [0.25, 0.625])
    assert (decision.chosen_step, decision.best_step) == (10 if rule == "best" else 5, 10)


def test_a_new_best_may_turn_the_choice_to_one_before_it() -> None:
    selector = CheckpointSelector(rule="earliest", keep=None)
    selector.update(0, [0.5, 0.5])
    assert selector.update(1, [0.375, 0.375]).chosen
    # Better on average, and so uneven that the first one may be as good.
    decision = selector.update(2, [0.0, 0.625])
    assert (decision.chosen_step, decision.best_step) == (0, 2)
    assert decision.reason.endswith(
        "; step 0 is now chosen, the earliest kept within the noise of step 2"
    )


def test_score_of_one_image_has_no_interval() -> None:
    selector = CheckpointSelector(mode="max", metric="score")
    selector.update(0, [-0.5])
    decision = selector.update(1, [-0.25])
    assert decision.chosen
    assert decision.reason == (
        "step 1: mean score -0.25, better than step 0 by 0.25 (1 image: noise unknown)"
    )


def test_intervals_are_under_the_options_given() -> None:
    first, gain = np.random.default_rng(0).random((2, 20))
    options = {"confidence": 0.5, "resamples": 7, "seed": 3}
    selector = CheckpointSelector(**options)  # type: ignore[arg-type]
    selector.update(0, first)
    reason = selector.update(1, first - gain).reason
    found = paired_interval(gain, 0 * gain, **options)  # type: ignore[arg-type]
    assert reason.endswith(
        f"better than step 0 by {found.mean:.2g} [{found.low:.2g}, {found.high:.2g}] "
        "(50%, 20 images)"
    )


def test_scores_too_large_for_a_mean_never_win() -> None:
    for mode in ("min", "max"):
        selector = CheckpointSelector(mode=mode)  # type: ignore[arg-type]
        reason = selector.update(0, [1e308, 1e308]).reason
        assert "not a candidate: the mean of its scores is not finite" in reason
        assert selector.update(1, [0.5, 0.5]).chosen


# --- Vetoes --------------------------------------------------------------------------------------


def test_veto_prevents_the_choice_that_the_mean_would_make() -> None:
    profiles = [
        {"ringing": r, "sharpness": s} for r, s in ((0.1, 0), (0.2, 0), (0.11, -0.3), (0, 0))
    ]
    means = (0.5, 0.1, 0.2, 0.3)
    cases: tuple[tuple[dict[str, float], int], ...] = (
        ({}, 1),
        ({"ringing": 0.02}, 2),
        ({"ringing": 0.02, "-sharpness": 0.1}, 3),
        ({"-sharpness": 0.1}, 1),
    )
    for veto, expected in cases:
        selector = CheckpointSelector(veto=veto)
        reasons = [
            selector.update(step, [mean, mean], profile=profile).reason
            for step, (mean, profile) in enumerate(zip(means, profiles, strict=True))
        ]
        assert selector.chosen is not None
        assert selector.chosen.step == expected
    assert "vetoed: blurrier than step 0 by 0.3 (tolerance 0.1)" in reasons[2]
    against = CheckpointSelector(
        veto={"ringing": 0.02}, baseline={"ringing_signed": torch.tensor(0)}
    )
    assert "than the baseline by 0.1" in against.update(0, [0.5], profile=profiles[0]).reason
    assert against.chosen is None
    assert against.update(3, [0.9], profile=profiles[3]).chosen


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.one_of(st.floats(-1, 1, width=32), st.just(math.nan))),
        min_size=1,
        max_size=8,
    ),
    st.floats(0, 0.5),
)
def test_the_chosen_one_never_exceeds_a_limit(
    run: list[tuple[int, float]], tolerance: float
) -> None:
    selector = CheckpointSelector(veto={"noise": tolerance}, resamples=10)
    finite = [noise for _, noise in run if math.isfinite(noise)]
    for step, (score, noise) in enumerate(run):
        selector.update(step, [float(score)], profile={"noise": noise})
    chosen = selector.chosen
    assert (chosen is None) == (not finite)
    if chosen is not None:
        assert run[chosen.step][1] - finite[0] <= tolerance
        allowed = [s for s, noise in run if math.isfinite(noise) and noise - finite[0] <= tolerance]
        assert chosen.mean == min(allowed)


def test_the_metric_gives_the_profile() -> None:
    metric = DistortionProfile()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    selector = CheckpointSelector(veto={"noise": 0.05})
    selector.update(0, [0.0], profile=metric(image, image))
    noisy = (image + 0.3 * torch.randn(image.shape)).clamp(0, 1)
    profile = metric(noisy, image)
    selector.update(1, [-1.0], profile=profile)
    stored = selector.entries[1].profile
    assert stored is not None
    assert set(stored) == set(metric.channels)
    assert stored["noise"] == float(profile["noise_signed"])


def test_veto_refusals() -> None:
    with pytest.raises(ValueError, match="'-noise'"):
        CheckpointSelector(veto={"noise": -0.1})
    selector = CheckpointSelector(veto={"ringing": 0.1})
    with pytest.raises(ValueError, match=r"'ringing' needs.*no profile"):
        selector.update(0, [1.0])
    with pytest.raises(ValueError, match=r"'ringing' needs.*empty one.*maps=True"):
        selector.update(0, [1.0], profile={})
    with pytest.raises(ValueError, match="one of noise"):
        selector.update(0, [1.0], profile={"noise_signed": 0.0, "noise_absolute": 0.1})
    with pytest.raises(ValueError, match="finite"):
        CheckpointSelector(veto={"noise": 0.1}, baseline={"noise": math.nan})
    with pytest.raises(ValueError, match=r"'noise' needs .*, got one of ringing"):
        CheckpointSelector(veto={"noise": 0.1}, baseline={"ringing": 0.0})
    CheckpointSelector(veto={"noise": 0})
    for tolerance in (math.inf, math.nan):
        with pytest.raises(ValueError, match="are finite and not negative"):
            CheckpointSelector(veto={"noise": tolerance})


# --- Files ---------------------------------------------------------------------------------------


def test_keeps_the_best_few_and_the_chosen_one(tmp_path: Path) -> None:
    selector = CheckpointSelector(tmp_path, keep=2)
    for step, value in enumerate((0.5, 0.4, 0.9, 0.3, math.nan, 0.35)):
        selector.update(step, [value, value], state=state(step))
        document = json.loads(selector._store.ledger_path.read_text())  # type: ignore[union-attr]
        files = [line["file"] for line in document["checkpoints"] if line["file"]]
        assert weights_in(tmp_path) == files
    assert weights_in(tmp_path) == ["00003-step-3.safetensors", "00005-step-5.safetensors"]
    assert read_metadata(tmp_path / "00003-step-3.safetensors") == {"step": "3"}
    assert torch.equal(selector.load()["w"], state(3)["w"])
    assert torch.equal(selector.load(5)["w"], state(5)["w"])
    with pytest.raises(FileNotFoundError, match=r"step 2 are kept.*steps \[3, 5\]"):
        selector.load(2)
    with pytest.raises(FileNotFoundError, match="no weights of a chosen"):
        CheckpointSelector().load()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_tied_and_strided_weights_are_saved_and_restored(
    tmp_path: Path, order: torch.memory_format
) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 2, bias=False).to(memory_format=order)  # type: ignore[call-overload]
            self.second = nn.Conv2d(3, 3, 2, bias=False)
            self.second.weight = self.first.weight

    model = Tied()
    selector = CheckpointSelector(tmp_path)
    selector.update(0, [0.5], state=model.state_dict())
    before = model.first.weight.detach().clone()
    nn.init.zeros_(model.first.weight)
    model.load_state_dict(selector.load())
    assert torch.equal(model.first.weight, before)
    with pytest.raises(TypeError, match=r"state\['x'\] is int"):
        selector.update(1, [0.1], state={"x": 1})
    assert len(selector.entries) == 1


def test_ledger_is_read_back_to_the_last_bit_and_is_plain_json(tmp_path: Path) -> None:
    selector = CheckpointSelector(tmp_path, veto={"noise": 0.5})
    selector.update(0, {"ä": 0.1 + 0.2, "b": math.inf}, profile={"noise": 1 / 3})
    selector.update(1, {"ä": 1e-300, "b": -0.0}, profile={"noise": math.nan})
    selector.update(2, {"ä": 1e-300, "b": -0.0}, profile={"noise": 0.1})
    text = (tmp_path / "ledger.json").read_text("utf-8")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    document = json.loads(text, parse_constant=refuse)
    assert document["version"] == 1
    assert document["chosen_step"] == 2
    assert document["last_decision"] == selector.entries[-1].decision.reason
    assert len([line for line in text.splitlines() if '"step"' in line]) == 3
    again = Ledger.from_json(text)
    assert repr(again) == repr(Ledger(again.settings, selector._ledger.images, selector.entries))
    assert again.to_json() == text


def test_the_best_is_not_always_the_chosen_one_in_a_ledger() -> None:
    decision = Decision(2, 0.5, False, 1, 0, "a reason")
    entry = Entry(2, (0.5,), 0.5, None, None, True, None, decision)
    text = Ledger({}, 1, (entry,)).to_json()
    [line] = json.loads(text)["checkpoints"]
    assert (line["chosen_step"], line["best_step"]) == (1, 0)
    assert Ledger.from_json(text).entries == (entry,)


def test_images_may_be_named_by_files_whose_names_are_not_utf8(tmp_path: Path) -> None:
    values = {os.fsdecode(b"caf\xe9.png"): 0.5, "a.png": 0.25}
    selector = CheckpointSelector(tmp_path)
    selector.update(0, values, state=state(0))
    resumed = CheckpointSelector(tmp_path, resume=True)
    assert resumed.entries == selector.entries
    assert resumed.update(1, values).chosen_step == 0


def test_existing_folders_are_refused_or_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    selector = CheckpointSelector(folder)
    selector.update(0, [0.5], state=state(0))
    with pytest.raises(FileExistsError, match="resume=True"):
        CheckpointSelector(folder)
    others: dict[str, Any] = {
        "mode": "max",
        "rule": "earliest",
        "veto": {"noise": 0.5},
        "baseline": {"noise": 0.5},
        "keep": 2,
        "metric": "distance",
        "confidence": 0.5,
        "resamples": 7,
        "seed": 1,
    }
    for name, value in others.items():
        with pytest.raises(
            ValueError, match=rf"begun with {name}=.*, not {re.escape(repr(value))}"
        ):
            CheckpointSelector(folder, resume=True, **{name: value})
    resumed = CheckpointSelector(folder, resume=True)
    assert resumed.entries == selector.entries
    assert torch.equal(resumed.load()["w"], state(0)["w"])
    ledger = folder / "ledger.json"
    text = ledger.read_text()
    document = json.loads(text)
    [line] = document["checkpoints"]
    for wrong, message in (
        ("hello", "not a relqa"),
        ("{}", "not a relqa"),
        (text[: len(text) // 2], "not a relqa"),
        (text.replace('"version": 1', '"version": 99'), "update relqa-loss"),
        (text.replace('"values"', '"other"'), "damaged"),
        # Read as one of no checkpoints, it would have the weights cleared away.
        (json.dumps({**document, "checkpoints": {}}), "damaged"),
        (json.dumps({**document, "settings": []}), "damaged"),
        (json.dumps({**document, "images": "all"}), "damaged"),
        *(
            (json.dumps({**document, "checkpoints": [{**line, **wrong}]}), "damaged")
            for wrong in ({"file": 0}, {"profile": []}, {"values": []}, {"kept": "yes"})
        ),
    ):
        ledger.write_text(wrong)
        with pytest.raises(ValueError, match=rf"ledger\.json: .*{message}"):
            CheckpointSelector(folder, resume=True)
        assert ledger.read_text() == wrong
    ledger.write_text(text)
    (folder / "00000-step-0.safetensors").rename(folder / "mine.safetensors")
    with pytest.raises(FileNotFoundError, match="bring it back"):
        CheckpointSelector(folder, resume=True)
    assert CheckpointSelector(tmp_path / "new", resume=True).chosen is None


def test_other_peoples_files_stay(tmp_path: Path) -> None:
    # Copies of what was kept are the user's own.
    mine = ("model.safetensors", "notes.txt", ".hidden.part", "of-00000-step-0.safetensors.old")
    for name in mine:
        (tmp_path / name).write_text("mine")
    selector = CheckpointSelector(tmp_path)
    for step, value in enumerate((0.5, 0.4, 0.3)):
        selector.update(step, [value], state=state(step))
    assert {(tmp_path / name).read_text() for name in mine} == {"mine"}
    (tmp_path / "ledger.json").unlink()
    with pytest.raises(FileExistsError, match="without a ledger"):
        CheckpointSelector(tmp_path, resume=True)
    assert weights_in(tmp_path) == ["00002-step-2.safetensors", "model.safetensors"]


# --- Restarts ------------------------------------------------------------------------------------


Offer = tuple[int, list[float], dict[str, float]]


def offers(count: int) -> list[Offer]:
    """A run that improves and then breaks down, with noise, NaN and ringing."""
    generator = random.Random(1)
    hard = [generator.uniform(0, 1) for _ in range(12)]
    found = []
    for step in range(count):
        level = 0.3 * abs(step / count - 0.6)
        values = [value + level + generator.gauss(0, 0.02) for value in hard]
        if step % 7 == 3:
            values[step % 12] = math.nan
        found.append((10 * step, values, {"ringing": generator.uniform(0, 0.1)}))
    return found


OPTIONS: list[dict[str, Any]] = [
    {"rule": rule, "keep": keep, "veto": {"ringing": 0.05}, "resamples": 200}
    for rule in ("best", "earliest")
    for keep in (1, 3)
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['rule']}-{o['keep']}")
def test_resuming_anywhere_changes_no_decision(tmp_path: Path, options: dict[str, Any]) -> None:
    run = offers(12)
    whole = CheckpointSelector(tmp_path / "whole", **options)
    expected = [whole.update(s, v, state=state(s), profile=p) for s, v, p in run]
    assert len({decision.chosen_step for decision in expected}) > 2
    for cut in range(len(run)):
        folder = tmp_path / str(cut)
        selector = CheckpointSelector(folder, **options)
        for step, values, profile in run[:cut]:
            selector.update(step, values, state=state(step), profile=profile)
        resumed = CheckpointSelector(folder, resume=True, **options)
        # Training goes back to its own last checkpoint and repeats some steps.
        back = max(0, cut - 3)
        again = [resumed.update(s, v, state=state(s), profile=p) for s, v, p in run[back:]]
        assert repr(again) == repr(expected[back:])
        assert (folder / "ledger.json").read_bytes() == (
            tmp_path / "whole" / "ledger.json"
        ).read_bytes()
        assert weights_in(folder) == weights_in(tmp_path / "whole")


def test_a_step_repeated_with_other_scores_is_a_further_checkpoint(tmp_path: Path) -> None:
    selector = CheckpointSelector(tmp_path, keep=None)
    selector.update(100, [0.5, 0.5], state=state(1))
    assert selector.update(100, [0.25, 0.25], state=state(2)).chosen
    assert not selector.update(100, [0.5, 0.5], state=state(3)).reason.count("tie")
    assert len(selector.entries) == 2
    assert torch.equal(selector.load()["w"], state(2)["w"])
    assert torch.equal(selector.load(100)["w"], state(2)["w"])
    # Of those before as well, under a name of their own.
    first, _ = (entry.file for entry in selector.entries)
    assert torch.equal(load_file(tmp_path / str(first))["w"], state(1)["w"])


def check_folder(folder: Path, options: dict[str, Any], expected: list[Decision]) -> int:
    """Whatever the moment of a kill, the folder is whole; returns how far it came."""
    selector = CheckpointSelector(folder, resume=True, **options)
    done = len(selector.entries)
    assert repr([entry.decision for entry in selector.entries]) == repr(expected[:done])
    for entry in selector.entries:
        assert entry.kept == (entry.file is not None)
        if entry.kept:
            assert (selector.load(entry.step)["w"] == entry.step).all()
    assert weights_in(folder) == [entry.file for entry in selector.entries if entry.kept]
    assert not list(folder.glob(".*.part"))
    return done


def decisions_of(run: list[Offer], options: dict[str, Any]) -> list[Decision]:
    selector = CheckpointSelector(**options)
    return [selector.update(s, v, profile=p) for s, v, p in run]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_survives_a_kill_at_every_file_operation(tmp_path: Path) -> None:
    run, options = offers(6), OPTIONS[2]
    expected = decisions_of(run, options)
    finished = False
    for fatal in range(100):
        folder = tmp_path / str(fatal)
        child = os.fork()
        if child == 0:
            try:
                _run_until_operation(fatal, folder, run, options)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        check_folder(folder, options, expected)
        resumed = CheckpointSelector(folder, resume=True, **options)
        again = [resumed.update(s, v, state=state(s), profile=p) for s, v, p in run]
        assert repr(again) == repr(expected)
        assert check_folder(folder, options, expected) == len(run)
        if os.WIFEXITED(status):
            finished = True
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert finished
    assert fatal > 20


def _run_until_operation(
    fatal: int, folder: Path, run: list[Offer], options: dict[str, Any]
) -> None:
    """Die before file operation number ``fatal``, or half-way through it if it writes."""
    count = 0
    write, replace, unlink = Path.write_bytes, Path.replace, Path.unlink

    def die(half: Callable[[], object] = lambda: None) -> None:
        nonlocal count
        if count == fatal:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def killing_write(path: Path, data: bytes) -> int:
        die(lambda: write(path, data[: len(data) // 2]))
        return write(path, data)

    def killing_replace(path: Path, target: Path) -> Path:
        die()
        return replace(path, target)

    def killing_unlink(path: Path, missing_ok: bool = False) -> None:
        die()
        unlink(path, missing_ok)

    Path.write_bytes, Path.replace, Path.unlink = killing_write, killing_replace, killing_unlink  # type: ignore[method-assign, assignment]
    selector = CheckpointSelector(folder, resume=True, **options)
    for step, values, profile in run:
        selector.update(step, values, state=state(step), profile=profile)


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_selector import OPTIONS, offers
import torch
from relqa_loss.selection import CheckpointSelector
selector = CheckpointSelector(sys.argv[2], resume=True, **OPTIONS[2])
for step, values, profile in offers(40):
    # Large enough that a kill often falls into the writing of a file.
    weights = {"w": torch.full((1_000_000,), float(step))}
    selector.update(step, values, state=weights, profile=profile)
    print(step, flush=True)
"""


@pytest.mark.slow
def test_survives_being_killed_from_outside(tmp_path: Path) -> None:
    run, options = offers(40), OPTIONS[2]
    expected = decisions_of(run, options)
    generator = random.Random(0)
    folder = tmp_path / "run"
    for lines in (3, 20, None):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if lines is not None:
            for _ in range(lines):
                assert process.stdout.readline()
            time.sleep(generator.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.wait()
        assert process.returncode == (0 if lines is None else -signal.SIGKILL)
        done = check_folder(folder, options, expected)
        assert done >= (lines or len(run))


# --- Failures ------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot be made") as caught:
        CheckpointSelector(tmp_path / "file" / "runs")
    assert caught.value.filename == str(tmp_path / "file" / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_found_out_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    CheckpointSelector(folder).update(0, [0.5], state=state(0))
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"ledger\.json"):
            CheckpointSelector(folder, resume=True)
    finally:
        folder.chmod(0o700)


# The kernel refuses to write past the limit, as it does on a full disk, in the middle of a file.
FULL = """
import resource, sys
import torch
from relqa_loss.selection import CheckpointSelector
selector = CheckpointSelector(sys.argv[1])
selector.update(0, [0.5, 0.5], state={"w": torch.zeros(8)})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
before = selector.entries
try:
    selector.update(1, [0.1, 0.1], state={"w": torch.zeros(int(sys.argv[3]))})
except OSError as error:
    print(error)
    assert selector.entries == before
    assert selector.load()["w"].numel() == 8
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sys.exit(0 if selector.update(1, [0.1, 0.1]).chosen else 2)
sys.exit(3)
"""


@pytest.mark.parametrize(
    ("limit", "size", "file"),
    [(4096, 100_000, "00001-step-1.safetensors"), (600, 8, "ledger.json")],
    ids=["weights", "ledger"],
)
def test_a_full_disk_raises_and_keeps_what_was_there(
    tmp_path: Path, limit: int, size: int, file: str
) -> None:
    pytest.importorskip("resource", reason="needs POSIX limits")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit), str(size)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / file) in done.stdout
    assert "what was there before is kept" in done.stdout
    # The update without weights that followed dropped those of step 0.
    assert weights_in(tmp_path) == []


def test_a_failed_write_leaves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selector = CheckpointSelector(tmp_path)
    selector.update(0, [0.5], state=state(0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for culprit in ("ledger.json", "00001-step-1.safetensors"):

        def fail(self: Path, data: bytes, culprit: str = culprit) -> int:
            with self.open("wb") as file:
                written = file.write(data[: len(data) // 2] if culprit in self.name else data)
            if culprit in self.name:
                raise OSError(28, "No space left on device")
            return written

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", fail)
            with pytest.raises(OSError, match="No space left") as caught:
                selector.update(1, [0.1], state=state(1))
        assert caught.value.filename == str(tmp_path / culprit)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert selector.chosen is not None
        assert selector.chosen.step == 0
    assert selector.update(1, [0.1], state=state(1)).chosen


def test_refusals() -> None:
    for options, message in (
        ({"mode": "lower"}, "'min' or 'max'"),
        ({"rule": "last"}, "'best' or 'earliest'"),
        ({"keep": 0}, "at least 1"),
        ({"confidence": 1.5}, "confidence"),
    ):
        with pytest.raises(ValueError, match=message):
            CheckpointSelector(**options)  # type: ignore[arg-type]
    selector = CheckpointSelector()
    for values in ([], 0.5, [[0.5]]):
        with pytest.raises(ValueError, match="one score per image"):
            selector.update(0, values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ as text"):
        selector.update(0, {1: 0.5, "1": 0.5})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        selector.update(0.5, [0.5])  # type: ignore[arg-type]
    assert selector.entries == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_may_be_a_list_of_tensors(dtype: torch.dtype) -> None:
    # As a loop over images leaves them.
    values = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in (0.5, 0.25)]
    selector = CheckpointSelector()
    assert selector.update(0, values).mean == 0.375
    with pytest.raises(ValueError, match=r"one score per image, got shape \(2, 1\)"):
        selector.update(1, [value[None] for value in values])


@pytest.mark.parametrize("name", ["keep", "resamples", "seed"])
def test_whole_numbers_are_asked_for_before_the_training(tmp_path: Path, name: str) -> None:
    # As YAML reads 1.0e+3. They failed at the second validation.
    with pytest.raises(TypeError, match=rf"{name} must be an integer, got 1000\.0"):
        CheckpointSelector(tmp_path, **{name: 1e3})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"{name} must be at least [01]"):
        CheckpointSelector(tmp_path, **{name: -1})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    numbers: dict[str, Any] = {name: np.int64(3), "confidence": np.float32(0.5)}
    CheckpointSelector(tmp_path, **numbers)
    CheckpointSelector(tmp_path, **{name: 3, "confidence": 0.5}, resume=True)  # type: ignore[arg-type]
