"""Small restorers trained for real, with trouble injected late, and their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import piq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss import relational_distance
from relqa_loss._files import write_atomically
from relqa_loss.demo import Restorer
from relqa_loss.distortions import get_operator

TASKS = ("denoise", "deblur", "enlarge", "deblock")
TROUBLES = (
    "none",
    "noise on the weights",
    "a spike of the rate",
    "two images only",
    "blurred targets",
    "sharpened targets",
)
WARM = "warm targets"
"""A trouble of its own, for the demonstration of a veto: the network learns a cast of colour."""
LOSSES = ("l1", "l2", "ours", "ms_ssim")
CHECKPOINTS = 10
TROUBLE_FROM = 6  # the checkpoint from which on something goes wrong
_CROP = 64
_BATCH = 4

State = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    trouble: str
    loss: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.task}-{self.trouble}-{self.loss}-{self.seed}".replace(" ", "-")


def runs(seeds: range) -> list[Run]:
    """Every task with every trouble; losses take turns."""
    found = []
    for seed, (i, task), (j, trouble) in product(seeds, enumerate(TASKS), enumerate(TROUBLES)):
        found.append(Run(task, trouble, LOSSES[(i + j + seed) % len(LOSSES)], seed))
    return found


def network() -> Restorer:
    return Restorer(width=16, blocks=2)


def degrade(images: Tensor, task: str, generator: torch.Generator) -> Tensor:
    """What a task starts from: N×3×H×W in [0, 1], the same size."""
    if task == "denoise":
        noise = torch.randn(images.shape, generator=generator)
        return (images + 0.08 * noise).clamp(0, 1)
    if task == "deblur":
        return torch.cat([get_operator("gaussian_blur").apply(x[None], 1.2, generator)
                          for x in images])  # fmt: skip
    if task == "enlarge":
        small = F.interpolate(images, scale_factor=0.5, mode="bicubic", antialias=True)
        return F.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)
    coded = [get_operator("jpeg")(x[None], 0.5, generator) for x in images]
    return torch.cat(coded)


def train(run: Run, photos: list[Tensor], steps: int) -> list[State]:
    """Weights at every checkpoint, ``steps`` apart; the first one is after the first part."""
    generator = torch.Generator().manual_seed(1000 * run.seed + 17)
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(run.seed)
    model = network()
    torch.random.set_rng_state(state)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    criterion = _criterion(run.loss)
    few = _crops(photos, generator)
    few = few[:2].repeat(2, 1, 1, 1)
    found = []
    for number in range(CHECKPOINTS):
        late = number >= TROUBLE_FROM
        for step in range(steps):
            trouble = run.trouble if late else "none"
            clean = few if trouble == "two images only" else _crops(photos, generator)
            spike = trouble == "a spike of the rate" and number == TROUBLE_FROM and step < 5
            for group in optimiser.param_groups:
                group["lr"] = 3e-2 if spike else 2e-3
            restored = model(degrade(clean, run.task, generator))
            loss = criterion(restored, _target(clean, trouble))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if late and run.trouble == "noise on the weights":
            for value in weights.values():
                value += (
                    0.04 * value.std().nan_to_num() * torch.randn(value.shape, generator=generator)
                )
        found.append(weights)
    return found


def _crops(photos: list[Tensor], generator: torch.Generator) -> Tensor:
    crops = []
    for _ in range(_BATCH):
        photo = photos[int(torch.randint(len(photos), (1,), generator=generator))]
        top, left = (
            int(torch.randint(side - _CROP + 1, (1,), generator=generator))
            for side in photo.shape[-2:]
        )
        crops.append(photo[:, top : top + _CROP, left : left + _CROP])
    return torch.stack(crops)


def _target(clean: Tensor, trouble: str) -> Tensor:
    if trouble == WARM:
        return (clean * torch.tensor([1.06, 1.0, 0.94])[:, None, None]).clamp(0, 1)
    if trouble not in ("blurred targets", "sharpened targets"):
        return clean
    soft = F.avg_pool2d(F.pad(clean, (1, 1, 1, 1), mode="replicate"), 3, 1)
    if trouble == "blurred targets":
        return 0.5 * (clean + soft)
    return (clean + 0.6 * (clean - soft)).clamp(0, 1)


def _criterion(name: str) -> nn.Module:
    if name == "ms_ssim":
        return _MultiScale()
    if name == "ours":
        return _Ours()
    return nn.L1Loss() if name == "l1" else nn.MSELoss()


class _MultiScale(nn.Module):
    """MS-SSIM over the three scales that crops have room for, and L1."""

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        similarity = piq.multi_scale_ssim(
            preds.clamp(0, 1), target, kernel_size=7, scale_weights=torch.tensor([0.3, 0.4, 0.3])
        )
        return 0.84 * (1 - similarity) + 0.16 * F.l1_loss(preds, target)


class _Ours(nn.Module):
    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        distance = relational_distance(preds, target, on_out_of_range="ignore")
        return F.l1_loss(preds, target) + 0.1 * distance


def save(path: Path, states: list[State]) -> None:
    """All checkpoints of a run in one file."""
    from safetensors.torch import save as as_bytes

    flat = {f"{k}/{name}": value for k, state in enumerate(states) for name, value in state.items()}
    write_atomically(path, as_bytes(flat))


def load(path: Path) -> list[State]:
    """Inverse of :func:`save`."""
    from safetensors.torch import load_file

    found: list[State] = [{} for _ in range(CHECKPOINTS)]
    for key, value in load_file(path).items():
        number, _, name = key.partition("/")
        found[int(number)][name] = value
    return found
