"""Probes of known distortions, and the figures made of them."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st

from relqa_loss.evaluation.probes import LEVELS, auroc, path_inconsistency, probe_operator
from relqa_loss.network import ParityNetwork, load_pretrained
from relqa_loss.training.validation import spearman


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    ones = [value for value, label in rows if label]
    zeros = [value for value, label in rows if not label]
    wins = sum((a > b) + 0.5 * (a == b) for a in ones for b in zeros)
    scores = torch.tensor([float(value) for value, _ in rows])
    labels = torch.tensor([label for _, label in rows])
    assert auroc(scores, labels) == pytest.approx(wins / (len(ones) * len(zeros)))


def test_auroc_without_one_class_is_nan() -> None:
    assert math.isnan(auroc(torch.rand(4), torch.ones(4, dtype=torch.bool)))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30))
def test_spearman_is_scipys(rows: list[tuple[int, int]]) -> None:
    a, b = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    if len(a.unique()) < 2 or len(b.unique()) < 2:
        return
    expected = scipy.stats.spearmanr(a.numpy(), b.numpy()).statistic
    assert spearman(a, b) == pytest.approx(expected, abs=1e-9)


def test_probe_of_a_brighter_image() -> None:
    photo = torch.from_numpy(skimage.data.astronaut()[:96, 160:256].copy()).permute(2, 0, 1) / 255
    network: ParityNetwork = load_pretrained()
    probes, ladder = probe_operator(network, photo, "brighten", seed=0)
    assert [probe.severity for probe in probes] == pytest.approx([*LEVELS, *LEVELS])
    assert {probe.mask for probe in probes[:5]} == {"whole"}
    assert "whole" not in {probe.mask for probe in probes[5:]}
    assert all(math.isnan(probe.auroc) for probe in probes[:5])
    assert ladder is not None
    assert ladder.distance_rises
    # The tone channels are the first that any training learns.
    assert all(probe.dominant and probe.sign for probe in probes[2:5])


def test_what_changes_nothing_is_left_out() -> None:
    photo = (
        torch.from_numpy(skimage.data.camera()[:64, 160:224].copy())[None].expand(3, -1, -1) / 255
    )
    network: ParityNetwork = load_pretrained()
    assert probe_operator(network, photo, "saturation_up", seed=0) == ([], None)
    probes, ladder = probe_operator(network, photo, "darken", seed=0)
    assert len(probes) == 2 * len(LEVELS)
    assert ladder is not None


def test_path_consistency_of_identical_ways_is_finite() -> None:
    maps, score = path_inconsistency(load_pretrained(), torch.rand(3, 64, 64), seed=0)
    assert math.isfinite(maps)
    assert math.isfinite(score)
    assert maps >= 0
