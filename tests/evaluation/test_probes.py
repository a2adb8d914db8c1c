"""Probes of known distortions, and the figures made of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import skimage.data
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss import CHANNELS
from relqa_loss.distortions import DistortionEngine, Recipe, Step, get_operator
from relqa_loss.evaluation.probes import (
    LEVELS,
    Ladder,
    auroc,
    path_inconsistency,
    probe_bank,
    probe_operator,
)
from relqa_loss.network import ParityNetwork, load_pretrained
from relqa_loss.network.model import Relation
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


class Fake:
    """Sees where a picture is lighter or darker, and makes of it what it is told to."""

    channels = CHANNELS

    def __init__(self, factor: float = 1.0, outside: float = 0.0) -> None:
        self.factor, self.outside = factor, outside

    def __call__(self, reference: Tensor, images: Tensor) -> Relation:
        change = F.avg_pool2d((images - reference).mean(1, keepdim=True), 4)
        maps = torch.zeros(len(images), len(CHANNELS), *change.shape[-2:])
        maps[:, CHANNELS.index(get_operator("brighten").channel)] = self.factor * change[:, 0]
        # As strong a distortion of another kind, where nothing was done.
        maps[:, CHANNELS.index("noise")] = self.outside * (change[:, 0] == 0)
        size = (images - reference).square().mean((1, 2, 3))
        return Relation(maps, -self.factor * size, size)


@pytest.mark.parametrize("operator", ["brighten", "darken"])
@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_probes_are_of_the_masked_part(operator: str, factor: float) -> None:
    photo = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    network: Any = Fake(factor, outside=9.0)
    kinds = set()
    for seed in range(4):
        probes, ladder = probe_operator(network, photo, operator, seed)
        kinds.add(probes[-1].mask)
        assert all(probe.dominant for probe in probes)
        assert all(probe.sign is (factor > 0) for probe in probes)
        assert all(probe.auroc > 0.9 for probe in probes[len(LEVELS) :])
        right = factor > 0
        assert ladder == Ladder(operator, True, right, float(right))
    assert len(kinds) > 1
    silent: Any = Fake(0.0)
    for probe in probe_operator(silent, photo, operator, 0)[0]:
        step = Step(operator, probe.severity, probe.mask)
        truth = DistortionEngine([operator]).apply(photo, Recipe((step,), 0)).maps
        assert probe.error == pytest.approx(float(truth.abs().mean()))
        assert not probe.sign


def test_a_bank_has_a_seed_for_every_photograph() -> None:
    photo, seen = torch.rand(3, 64, 64) * 0.2 + 0.4, []
    network: Any = Fake()
    probes, ladders = probe_bank(
        network, [photo, photo], ["brighten", "darken"], lambda *done: seen.append(done)
    )
    assert [ladder.operator for ladder in ladders] == 2 * ["brighten", "darken"]
    assert seen == [(1, 2), (2, 2)]
    masks = [probe.mask for probe in probes[-1 :: -2 * len(LEVELS)]]
    assert len(set(masks)) > 2  # 0, 1, 7 and 8 are not one kind, nor two


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_a_detour_that_adds_up_is_no_inconsistency(factor: float) -> None:
    photo = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))

    def adding(reference: Tensor, images: Tensor) -> Relation:
        change = factor * (images - reference)
        return Relation(change, change.mean((1, 2, 3)), change.abs().mean((1, 2, 3)))

    def constant(reference: Tensor, images: Tensor) -> Relation:
        same = torch.full((1,), factor)
        return Relation(same[:, None, None, None], same, same)

    for network, expected in ((adding, 0.0), (constant, 1.0)):
        found = path_inconsistency(network, photo, seed=0)  # type: ignore[arg-type]
        assert found == pytest.approx((expected, expected), abs=1e-4)


def test_path_consistency_of_identical_ways_is_finite() -> None:
    maps, score = path_inconsistency(load_pretrained(), torch.rand(3, 64, 64), seed=0)
    assert math.isfinite(maps)
    assert math.isfinite(score)
    assert maps >= 0
