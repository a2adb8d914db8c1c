"""Learning rate and averaged weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from relqa_loss.training.schedule import WARM_UP, AveragedWeights, learning_rate


@given(steps=st.integers(1, 20_000), peak=st.floats(1e-6, 1.0))
def test_rate_stays_between_zero_and_its_peak(steps: int, peak: float) -> None:
    for step in {0, steps // 3, steps // 2, steps - 1, steps}:
        assert 0 < learning_rate(step, steps, peak) <= peak * (1 + 1e-9)


@pytest.mark.parametrize(("steps", "warm"), [(1000, 100), (20 * WARM_UP, WARM_UP)])
def test_rate_rises_then_falls_to_a_hundredth_and_stays(steps: int, warm: int) -> None:
    rates = [learning_rate(step, steps, 1.0) for step in range(steps + 1)]
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm - 1] == rates[warm] == max(rates) == 1.0
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    assert rates[steps] == pytest.approx(0.01)
    assert learning_rate(2 * steps, steps, 1.0) == rates[steps]


def test_average_of_constant_weights_is_the_weights() -> None:
    module = nn.Linear(3, 2)
    averaged = AveragedWeights(module, 0.9)
    for step in range(5):
        averaged.update(module, step)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(averaged.state[name], value)


def test_average_follows_slowly_and_forgets_its_start() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    averaged = AveragedWeights(module, 0.99)
    nn.init.ones_(module.weight)
    assert float(averaged.state["weight"]) == 0  # a copy, not the module's own tensor
    values = []
    for step in range(200):
        averaged.update(module, step)
        values.append(float(averaged.state["weight"]))
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.9)
    assert values[-1] == pytest.approx(1, abs=1e-3)
    nn.init.zeros_(module.weight)
    averaged.update(module, 100_000)
    assert float(averaged.state["weight"]) == pytest.approx(0.99, abs=1e-3)


def test_average_is_restored() -> None:
    module = nn.Linear(2, 2)
    averaged = AveragedWeights(module, 0.9)
    saved = {name: value + 1 for name, value in averaged.state.items()}
    averaged.load(saved)
    assert all(torch.equal(averaged.state[name], saved[name]) for name in saved)
    # And goes on without a change of what it was restored from.
    before = {name: value.clone() for name, value in saved.items()}
    averaged.update(module, 10)
    assert all(torch.equal(before[name], saved[name]) for name in saved)
