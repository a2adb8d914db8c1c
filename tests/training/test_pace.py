"""What counts as a step, and what as waiting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relqa_loss.training.pace import Pace


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_and_work_are_told_apart() -> None:
    clock = _Clock()

    def slow() -> Iterator[int]:
        for wait in (50.0, 1.0, 3.0):
            clock.now += wait
            yield 0

    pace = Pace(clock)
    for _ in pace.batches(slow()):
        clock.now += 4.0  # the step
        pace.step_done()
        clock.now += 1000.0  # validation: no step
    assert pace.seconds_per_step == pytest.approx((1 + 4 + 3 + 4) / 2)
    assert pace.waiting == pytest.approx((1 + 3) / 12)
    assert pace.to_dict() == {"seconds_per_step": pace.seconds_per_step, "waiting": pace.waiting}


@pytest.mark.parametrize("steps", [0, 1])
def test_nothing_is_said_of_too_few_steps(steps: int) -> None:
    pace = Pace()
    for _ in pace.batches(range(steps)):
        pace.step_done()
    assert pace.seconds_per_step is None
    assert pace.waiting is None
