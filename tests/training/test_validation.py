"""Figures of validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from relqa_loss import CHANNELS
from relqa_loss.network.model import Relation
from relqa_loss.training.sets import NO_ORDER
from relqa_loss.training.validation import spearman, validate

RISING = torch.arange(1.0, 9.0) / 10
ELSEWHERE = torch.zeros(8, len(CHANNELS), 4, 4)
"""Sharpness where the second image, noisy on the left, has nothing."""
ELSEWHERE[1, CHANNELS.index("sharpness"), :, 3] = 1.0

FAINT = torch.zeros(8, len(CHANNELS), 4, 4)
"""Banding where there is little of the tint of another."""
FAINT[5, CHANNELS.index("banding"), 2] = 2.0


def truth() -> Tensor:
    """Maps of the eight images of a set, of which the numbers 1, 2, 4 and 5 are single."""
    maps = torch.zeros(8, len(CHANNELS), 4, 4)
    maps[1, CHANNELS.index("noise"), :, :2] = 0.8
    maps[2, CHANNELS.index("sharpness")] = -0.5
    maps[4, CHANNELS.index("banding")] = 0.2  # faint: not asked for its channel
    maps[5, CHANNELS.index("tint"), 1] = 0.4
    maps[5, CHANNELS.index("tint"), 2] = 0.1  # the edge of a soft mask
    maps[7, CHANNELS.index("ringing")] = 1.0  # a composite
    return maps


def figures(maps: Tensor, distance: Tensor = RISING, score: Tensor = -RISING) -> dict[str, float]:
    """Of two sets, about the first of which a network says what is given; all is right of the
    other."""
    batch = SimpleNamespace(
        reference=torch.zeros(1, 3, 16, 16),
        images=torch.ones(1, 8, 3, 16, 16),
        maps=truth()[None],
        # Members disagree; their mean is what counts.
        ranks=torch.stack([RISING.flip(0), 2 * RISING], -1).expand(1, -1, -1),
        order=torch.tensor([[[1, 0], [2, 1], [7, 3], [NO_ORDER, NO_ORDER]]]).expand(1, -1, -1),
        worse=torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0]).expand(1, -1),
    )
    answers = iter([Relation(maps, score, distance), Relation(truth(), -RISING, RISING)])

    class Network:
        training = True

        def eval(self) -> None:
            self.training = False

        def __call__(self, reference: Tensor, images: Tensor) -> Relation:
            assert not self.training
            assert not torch.is_grad_enabled()
            assert bool((images > reference).all())
            assert reference.shape == images.shape == (8, 3, 16, 16)
            return next(answers)

    asked: list[int] = []

    class Batches:
        def __getitem__(self, step: int) -> SimpleNamespace:
            asked.append(step)
            return batch

    batches: Any = Batches()
    network: Any = Network()
    found = validate(network, batches, 2, torch.device("cpu"))
    assert asked == [0, 1]
    return found


def test_all_is_right() -> None:
    right = {"srcc_panel", "ordered", "dominant", "sign", "direction"}
    assert figures(truth()) == pytest.approx({"map_mae": 0.0, **dict.fromkeys(right, 1.0)})


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        ({"maps": -truth()}, {"sign": 0.5, "map_mae": float(truth().abs().mean())}),
        (
            {"maps": truth().roll(1, dims=1)},
            {"dominant": 0.5, "sign": 0.5, "map_mae": float(truth().abs().mean())},
        ),
        # Another channel elsewhere does not matter, but as an error.
        (
            {"maps": truth() + 3.0 * ELSEWHERE},
            {"map_mae": 3.0 / 8 / len(CHANNELS) / 4 / 2},
        ),
        ({"maps": truth() + FAINT}, {"map_mae": 2.0 / 8 / len(CHANNELS) / 4 / 2}),
        # Nor do faint ones and composites.
        (
            {"maps": truth() * torch.tensor([1.0, 1, 1, 1, -1, 1, 1, 0])[:, None, None, None]},
            {"map_mae": (2 * 0.2 + 1.0) / 8 / len(CHANNELS) / 2},
        ),
        ({"distance": RISING.flip(0)}, {"ordered": 0.5, "srcc_panel": 0.0}),
        (
            {"distance": RISING[3].expand(8)},
            {
                "ordered": 0.5,
                "srcc_panel": spearmanr(
                    torch.cat([RISING[3].expand(8), RISING]), RISING.repeat(2)
                ).statistic,
            },
        ),
        ({"score": RISING}, {"direction": 0.5}),
        ({"score": RISING.where(RISING > 0.65, -RISING)}, {}),
    ],
)
def test_what_is_wrong_shows_in_its_figure(
    answer: dict[str, Tensor], changes: dict[str, float]
) -> None:
    found, right = figures(**{"maps": truth(), **answer}), figures(truth())
    assert found == pytest.approx({**right, **changes}, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
def test_spearman_equals_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    first, second = torch.tensor(pairs).double().T
    assume(len(first.unique()) > 1 and len(second.unique()) > 1)
    expected = spearmanr(first.numpy(), second.numpy()).statistic
    assert spearman(first, second) == pytest.approx(float(expected), abs=1e-9)
