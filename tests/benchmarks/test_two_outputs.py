"""The benchmark of two outputs counts what a network says, as judges do that see the photograph."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import two_outputs  # noqa: E402


class _Scored(NamedTuple):
    score: Tensor


class _Knows:
    """Scores by how far each image is from a photograph that it has seen, times a sign."""

    def __init__(self, photo: Tensor, sign: float) -> None:
        self.photo, self.sign = photo, sign

    def encode(self, images: Tensor, structure: bool = True) -> Tensor:
        return images

    def relate(self, reference: Tensor, image: Tensor, *_: None) -> _Scored:
        away = [(each - self.photo).square().mean((1, 2, 3)) for each in (reference, image)]
        return _Scored(self.sign * (away[0] - away[1]))

    def distance(self, reference: Tensor, image: Tensor, *_: None) -> Tensor:
        return self.sign * (image - reference).square().mean((1, 2, 3))


@pytest.fixture
def photo() -> Tensor:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, scale_factor=8, mode="bicubic")[0].clamp(0, 1)


def _blurred(photo: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    return torch.stack([F.avg_pool2d(photo, 2 * int(s) + 1, 1, int(s)) for s in sigmas])


@pytest.mark.parametrize(("sign", "share"), [(1.0, "1.000"), (-1.0, "0.000")])
def test_right_answers_are_counted(photo: Tensor, sign: float, share: str) -> None:
    first, second = _blurred(photo, (2, 6, 2)), _blurred(photo, (5, 2, 2))
    network = _Knows(photo, sign)
    pairs = two_outputs.agreed(photo, first, second)
    found = two_outputs.answers(network, photo, pairs)  # type: ignore[arg-type]
    assert found.judges.tolist() == [-1.0, 1.0]  # nobody prefers one of two that are equal
    shares = two_outputs.row("blurs", found, 3)
    assert shares == ["blurs", "2 of 3", share, share, "1.000", share]


def test_pairs_without_a_verdict_leave_nothing(photo: Tensor) -> None:
    same = _blurred(photo, (2, 3))
    pairs = two_outputs.agreed(photo, same, same)
    found = two_outputs.answers(_Knows(photo, 1.0), photo, pairs)  # type: ignore[arg-type]
    assert two_outputs.row("same", found, 2) == ["same", "0 of 2", *"––––"]


def test_the_sure_half_has_the_larger_scores() -> None:
    judges = torch.tensor([1.0, 1.0, 1.0, 1.0])
    score = torch.tensor([0.1, -0.2, 0.3, 0.4])
    found = two_outputs.Answers(judges, score, judges, -judges)
    assert two_outputs.row("some", found, 4)[2:] == ["0.750", "1.000", "0.000", "1.000"]


@pytest.mark.parametrize("kind", two_outputs.KINDS)
def test_versions_are_two_of_the_same_photograph(photo: Tensor, kind: str) -> None:
    first, second = two_outputs.versions(photo, kind, 7)
    assert first.shape == second.shape == (two_outputs.PAIRS, *photo.shape)
    again = two_outputs.versions(photo, kind, 7)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    differ = (first != second).flatten(1).any(1)
    assert differ.float().mean() > 0.5


def test_neither_place_is_that_of_the_weaker_version(photo: Tensor) -> None:
    first, second = two_outputs.versions(photo, "strengths", 7)
    away = [(each - photo).square().mean((1, 2, 3)) for each in (first, second)]
    assert len(set((away[0] < away[1]).tolist())) == 2
