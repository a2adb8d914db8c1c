"""Four processes under torchrun give what one process gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import worker

pytestmark = pytest.mark.slow

NAMES = {"first.weight", "first.bias", "second.weight", "second.bias"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        return worker.alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process found."""
    size, folder = 4, tmp_path_factory.mktemp("processes")  # the last one has no image
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = ["--nproc-per-node", str(size), worker.__file__, str(folder)]
    subprocess.run([*launch, *options], check=True, timeout=300)
    return [torch.load(folder / f"rank-{rank}-of-{size}.pt") for rank in range(size)]


def test_metrics_with_uneven_shards(found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for one in found:
        for name, value in alone["metrics"].items():
            torch.testing.assert_close(one["metrics"][name], value, atol=1e-6, rtol=1e-6, msg=name)


def test_selection_with_uneven_shards(found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    expected = alone["selection"]
    assert [one["selection"]["reason"] for one in found] == [expected["reason"]] * len(found)
    first = found[0]["selection"]
    assert len(first["values"][0]) == worker.IMAGES  # one that was repeated counts once
    for mine, theirs in zip(first["values"], expected["values"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    for mine, theirs in zip(first["profile"], expected["profile"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    assert first["gain"] == expected["gain"] == torch.tensor(0.9)


@pytest.mark.parametrize("run", worker.RUNS)
def test_training_is_that_of_one_process(
    found: list[dict[str, Any]], alone: dict[str, Any], run: str
) -> None:
    expected = alone["train"]["parameters"]
    for one in found:
        for name, value in expected.items():
            torch.testing.assert_close(one[run]["parameters"][name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("run", worker.RUNS)
def test_optimiser_and_checkpoint_never_see_our_weights(
    found: list[dict[str, Any]], run: str
) -> None:
    count = sum(p.numel() for p in worker.Network().parameters())
    for one in found:
        for key in ("model_state", "plain_state"):
            names = one[run][key]
            assert len(names) == len(NAMES)
            assert {n.removeprefix("module.").removeprefix("network.") for n in names} == NAMES
        assert one[run]["optimiser_state"] == len(NAMES)
        sharded = run.startswith("fsdp")
        assert one[run]["optimised"] == count if not sharded else one[run]["optimised"] <= count


def test_two_passes_before_one_backward_pass(found: list[dict[str, Any]]) -> None:
    """DDP sends buffers around before every pass; that must not spoil the first one's gradients."""
    assert [one["two forwards"] for one in found] == [""] * len(found)
