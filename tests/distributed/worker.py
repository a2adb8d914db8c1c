"""What every process of a distributed run does; alone, it gives the values to compare with.

    torchrun --nproc-per-node N worker.py FOLDER

writes one file of results per process. Everything runs in one launch, as starting costs most.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from relqa_loss import RelationalLoss
from relqa_loss.metrics import (
    DistortionProfile,
    RelationalDistance,
    RelationalPreference,
    RelationalScore,
)
from relqa_loss.selection import ImageScores
from relqa_loss.selection.shared import SharedSelection

IMAGES, STEPS = 8, 3


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        change: Tensor = self.second(torch.tanh(self.first(image)))
        return image + 0.1 * change


class WithLoss(nn.Module):
    """A network that returns its loss, as users of sharded training like to write it."""

    def __init__(self, reduction: Any) -> None:
        super().__init__()
        self.network = Network()
        self.loss = RelationalLoss(on_out_of_range="ignore", reduction=reduction)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss(self.network(image), target)
        return value


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(IMAGES, 3, 9, 9, generator=generator)
    clean = nn.functional.interpolate(small, size=40, mode="bilinear")
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean


def shard(rank: int, size: int, even: bool) -> list[int]:
    """Images of a process; uneven ones differ in number, and the last process may have none."""
    if even:
        return list(range(rank, IMAGES, size))
    cuts = {1: (0, 8), 4: (0, 5, 7, 8, 8)}[size]
    return list(range(cuts[rank], cuts[rank + 1]))


def metrics(rank: int, size: int) -> dict[str, Any]:
    degraded, clean = data()
    found: dict[str, Any] = {}
    mine = shard(rank, size, even=False)
    for metric in (
        RelationalDistance(),
        RelationalScore(),
        DistortionProfile(),
        RelationalPreference(),
    ):
        for at in mine:
            part = slice(at, at + 1)
            if isinstance(metric, RelationalPreference):
                worse = 0.9 * degraded[part] if at % 3 else clean[part]
                metric.update(preds=degraded[part], baseline=worse, target=clean[part])
            else:
                metric.update(degraded[part], clean[part])
        found[type(metric).__name__] = metric.compute()
    return found


def selection(rank: int, size: int, folder: Path) -> dict[str, Any]:
    degraded, clean = data()
    shared = SharedSelection(folder / f"selection-{size}", ImageScores(), keep=2)
    assert not shared.begun()
    for step, gain in enumerate((0.6, 0.9, 0.8)):
        mine = shard(rank, size, even=False)
        # As samplers pad: the first image of the run once more.
        keys = [*mine, *([0] if 0 not in mine else [])]
        for at in keys:
            shared.scores.add(gain * degraded[[at]], clean[[at]], [at])
        shared.decide(step, {"gain": torch.tensor(gain)})
    assert shared.begun()
    assert (shared.selector is not None) == (rank == 0)
    assert shared.decision is not None
    found: dict[str, Any] = {"reason": shared.decision.reason}
    if shared.selector is not None:
        found["values"] = [entry.values for entry in shared.selector.entries]
        found["profile"] = [entry.profile for entry in shared.selector.entries]
        found["gain"] = shared.selector.load()["gain"]
    return found


def train(
    wrap: str, inside: bool, even: bool, accumulate: bool, rank: int, size: int
) -> dict[str, Any]:
    """Parameters after some steps, and all that optimiser and checkpoint hold."""
    torch.manual_seed(0)
    # Every process sums over its images; averaging over processes then needs this factor.
    factor = size / IMAGES
    whole = WithLoss("sum")
    outside = RelationalLoss(on_out_of_range="ignore", reduction="sum")
    model: Any = whole if inside else whole.network
    if wrap == "ddp":
        model = DistributedDataParallel(model)
    elif wrap == "fsdp":
        mesh = init_device_mesh("cpu", (size,))
        fully_shard(whole.network.first, mesh=mesh)
        model = fully_shard(model, mesh=mesh)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    degraded, clean = data()
    mine = shard(rank, size, even)
    parts = [mine[::2], mine[1::2]] if accumulate else [mine]

    def loss(rows: list[int]) -> Tensor:
        image, target = degraded[rows], clean[rows]
        if not rows:  # every process takes part in every step, with nothing to add
            image, target = degraded[:1], clean[:1]
        value = model(image, target) if inside else outside(model(image), target)
        return value * (factor if rows else 0.0)

    for _ in range(STEPS):
        optimiser.zero_grad()
        for at, rows in enumerate(parts):
            with without_sync(model, wrap, last=at == len(parts) - 1):
                loss(rows).backward()
        optimiser.step()
    parameters: dict[str, Tensor] = {}
    for name, parameter in whole.network.named_parameters():
        full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        parameters[name] = full.detach().clone()
    state = get_optimizer_state_dict(model, optimiser)
    return {
        "parameters": parameters,
        "optimised": sum(p.numel() for g in optimiser.param_groups for p in g["params"]),
        "optimiser_state": len(state["state"]),
        "model_state": sorted(get_model_state_dict(model)),
        "plain_state": sorted(model.state_dict()),
    }


@contextlib.contextmanager
def without_sync(model: Any, wrap: str, last: bool) -> Iterator[None]:
    """The framework's way of gathering gradients only after the last part of a step."""
    if wrap == "ddp" and not last:
        with model.no_sync():
            yield
        return
    if wrap == "fsdp":
        model.set_requires_gradient_sync(last)
    yield


RUNS: dict[str, tuple[str, bool, bool, bool]] = {
    # name: wrapper, loss inside, even shards, accumulation
    "ddp, loss outside": ("ddp", False, True, False),
    "ddp, loss inside": ("ddp", True, True, False),
    "ddp, uneven": ("ddp", True, False, False),
    "ddp, accumulation": ("ddp", True, True, True),
    "fsdp, loss outside": ("fsdp", False, True, False),
    "fsdp, loss inside": ("fsdp", True, True, False),
    "fsdp, accumulation": ("fsdp", True, True, True),
}


def alone(folder: Path) -> dict[str, Any]:
    """What one process gets without any wrapper."""
    return {
        "metrics": metrics(0, 1),
        "selection": selection(0, 1, folder),
        "train": train("none", inside=True, even=True, accumulate=False, rank=0, size=1),
    }


def two_forwards() -> str:
    """Two passes before one backward pass, as in adversarial training."""
    torch.manual_seed(0)
    model = DistributedDataParallel(WithLoss("mean"))
    degraded, clean = data()
    first, second = model(degraded, clean), model(clean, degraded)
    try:
        (first + second).backward()
    except RuntimeError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank, size = dist.get_rank(), dist.get_world_size()
    found: dict[str, Any] = {
        "metrics": metrics(rank, size),
        "selection": selection(rank, size, folder),
        "two forwards": two_forwards(),
    }
    for name, (wrap, inside, even, accumulate) in RUNS.items():
        found[name] = train(wrap, inside, even, accumulate, rank, size)
    torch.save(found, folder / f"rank-{rank}-of-{size}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
