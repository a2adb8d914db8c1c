"""All metrics do what metrics must do; and the checks notice those that do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES
from tester import CHECKS, Case, Values, check_distributed, run_distributed
from torch import Tensor, nn

from relqa_loss.metrics import RelationalDistance


def _never() -> bool:
    return False


class Unsynchronised(RelationalDistance):
    """Each process keeps to itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(distributed_available_fn=_never, **kwargs)


class MeanOfMeans(RelationalDistance):
    """Averages the processes' averages, whatever their numbers of images."""

    average: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        nothing = torch.tensor(torch.nan, dtype=torch.float64)
        self.add_state("average", default=nothing, dist_reduce_fx="mean")

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds, target)
        self.average = self.distance_sum / self.count

    def compute(self) -> Tensor:
        return self.average.float()


class Trainable(RelationalDistance):
    """Has a weight that an optimizer of the parent would find."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gain = nn.Parameter(torch.ones(()))


BROKEN = {
    kind.__name__: replace(CASES["RelationalDistance"], build=kind)
    for kind in (Unsynchronised, MeanOfMeans, Trainable)
}


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Values]]]:
    folder: Path = tmp_path_factory.mktemp("processes")
    return run_distributed(CASES | BROKEN, folder)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", CASES)
def test_metrics_pass(name: str, check: str) -> None:
    CHECKS[check](CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(
    name: str, distributed: list[dict[str, dict[str, Values]]]
) -> None:
    check_distributed(CASES[name], [results[name] for results in distributed])


def _failures(case: Case, found: list[dict[str, Values]]) -> dict[str, str]:
    failures = {}
    for name, check in CHECKS.items():
        try:
            check(case)
        except AssertionError as error:
            failures[name] = str(error)
    try:
        check_distributed(case, found)
    except AssertionError as error:
        failures["distributed"] = str(error)
    return failures


@pytest.mark.parametrize(
    ("name", "where", "why"),
    [
        ("Unsynchronised", {"distributed"}, "rank 0, uneven: value is"),
        # Averages of averages are wrong wherever torchmetrics joins states.
        ("MeanOfMeans", {"distributed", "forward", "collection", "merge"}, "rank 0, uneven"),
        ("Trainable", {"state"}, "a metric with parameters would be trained"),
    ],
)
def test_broken_metrics_are_noticed(
    name: str,
    where: set[str],
    why: str,
    distributed: list[dict[str, dict[str, Values]]],
) -> None:
    failures = _failures(BROKEN[name], [results[name] for results in distributed])
    assert failures.keys() == where
    assert any(why in message for message in failures.values())
