"""How fast a run goes, and how much of its time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Pace:
    """Times the steps of a training loop, without what comes between them.

    The first step is left out: nothing was read ahead for it, and it warms up the machine.

    Args:
        clock: Seconds from any origin.

    Example:
        >>> ticks = iter([0.0, 9.0, 10.0, 10.25, 11.0, 11.0])
        >>> pace = Pace(clock=lambda: next(ticks))
        >>> for batch in pace.batches(["first", "second"]):
        ...     pace.step_done()
        >>> pace.seconds_per_step, pace.waiting
        (1.0, 0.25)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._steps = 0
        self._began = 0.0
        self._total = 0.0
        self._waited = 0.0
        self._wait = 0.0

    def batches(self, source: Iterable[T]) -> Iterator[T]:
        """``source``, with the time that each of its items lets the loop wait."""
        iterator = iter(source)
        while True:
            self._began = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._wait = self._clock() - self._began
            yield batch

    def step_done(self) -> None:
        """The step that the last batch was for is over."""
        if self._steps:
            self._total += self._clock() - self._began
            self._waited += self._wait
        self._steps += 1

    @property
    def seconds_per_step(self) -> float | None:
        """Mean, waiting included; ``None`` before the second step."""
        return self._total / (self._steps - 1) if self._steps > 1 else None

    @property
    def waiting(self) -> float | None:
        """Share of that time spent waiting for data, in [0, 1]; ``None`` before the second step."""
        return self._waited / self._total if self._total else None

    def to_dict(self) -> dict[str, float | None]:
        """For the manifest."""
        return {"seconds_per_step": self.seconds_per_step, "waiting": self.waiting}
