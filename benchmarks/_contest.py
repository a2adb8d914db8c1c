"""Losses that networks are trained with, and metrics that judge what comes out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss import RelationalLoss, SpatialMapWeightedLoss

Loss = Callable[[Tensor, Tensor], Tensor]

OURS = "RelationalLoss"
RIVALS = ("L1", "MS-SSIM + L1")
JUDGES: dict[str, bool] = {
    "MS-GMSD": False,
    "SR-SIM": True,
    "DSS": True,
    "VIFp": True,
    "IW-SSIM": True,
}
"""Metrics that had no part in training our weights (MDSI, HaarPSI, VSI and FSIM had) nor, but for
IW-SSIM's likeness to MS-SSIM, in training a network; and whether higher is better."""


class Unavailable(Exception):
    """A loss whose weights are not on this machine."""


class MixedMsSsim(nn.Module):
    """.84 (1 − MS-SSIM) + .16 L1, after Zhao et al. (2017), over as many scales as crops allow."""

    SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        import piq

        # The 11-tap window must fit into the coarsest scale.
        count = sum((min(preds.shape[-2:]) - 1) // 2**i >= 10 for i in range(5))
        scales = torch.tensor(self.SCALES[:count], device=preds.device)
        # piq refuses values out of range; L1 brings them back.
        similarity = piq.multi_scale_ssim(preds.clamp(0, 1), target, scale_weights=scales)
        return 0.84 * (1 - similarity) + 0.16 * F.l1_loss(preds, target)


class WithL1(nn.Module):
    """A loss plus so much of L1."""

    def __init__(self, loss: nn.Module, amount: float) -> None:
        super().__init__()
        self.loss = loss
        self.amount = amount

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss(preds, target) + self.amount * F.l1_loss(preds, target)
        return value


class Ramped(nn.Module):
    """So much of L1 from the first step on, and a distance that comes in by and by."""

    def __init__(self, distance: nn.Module, amount: float) -> None:
        super().__init__()
        self.distance = distance
        self.amount = amount
        self.share = 1.0
        """Of the distance; set from outside as training goes on."""

    @property
    def version(self) -> str:
        return f"{self.distance.version}, ramped with {self.amount:g} L1"

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.amount * F.l1_loss(preds, target)
        return value + self.share * self.distance(preds, target) if self.share else value


class _Lpips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        require_trunk("alexnet")
        import lpips

        self.loss = lpips.LPIPS(net="alex", verbose=False).requires_grad_(False)

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss(2 * preds - 1, 2 * target - 1).mean()
        return value


def require_trunk(name: str) -> None:
    """Raise unless torchvision's weights are in torch's cache: benchmarks download nothing."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not any(folder.glob(f"{name}-*.pth")):
        raise Unavailable(f"no {name}-*.pth in {folder}; put torchvision's weights there")


def build_loss(name: str, weights: str | os.PathLike[str]) -> nn.Module:
    """A loss by the name that stands in the tables.

    Raises:
        Unavailable: If it needs weights that are not on this machine.
        ValueError: For an unknown name.
    """
    return loss_maker(name, weights)()


def loss_maker(name: str, weights: str | os.PathLike[str]) -> Callable[[], nn.Module]:
    """What builds a loss, whose name is known to be one.

    Raises:
        ValueError: For an unknown name.
    """
    ours = {"weights": weights, "on_out_of_range": "ignore"}
    makers: dict[str, Callable[[], nn.Module]] = {
        "L1": nn.L1Loss,
        "L2": nn.MSELoss,
        "MS-SSIM + L1": MixedMsSsim,
        OURS: lambda: RelationalLoss(**ours),
        "distance alone": lambda: RelationalLoss(pixel_weight=0.0, **ours),
        "SpatialMapWeightedLoss": lambda: SpatialMapWeightedLoss(**ours),
        "LPIPS + L1": lambda: WithL1(_Lpips(), 1.0),
    }
    mixed = re.fullmatch(rf"{OURS} \+ ([0-9.]+) L1(, ramped)?", name)
    if mixed:
        amount = float(mixed[1])
        if mixed[2]:
            return lambda: Ramped(RelationalLoss(pixel_weight=0.0, **ours), amount)
        return lambda: RelationalLoss(pixel_weight=amount, **ours)
    if name not in makers:
        raise ValueError(
            f"unknown loss {name!r}; known: {', '.join(makers)}, {OURS} + NUMBER L1[, ramped]"
        )
    return makers[name]


def is_ours(name: str) -> bool:
    """Whether a loss depends on the weights under test."""
    return name.startswith(("Relational", "SpatialMap", "distance"))


class Judged(NamedTuple):
    """Values of one image."""

    psnr: float
    judges: dict[str, float]


def judge(image: Tensor, reference: Tensor) -> Judged:
    """PSNR and the independent metrics of one 3×H×W image in [0, 1], sides ≥ 161."""
    import piq

    x, y = image[None], reference[None]
    values = {
        "MS-GMSD": piq.multi_scale_gmsd(x, y),
        "SR-SIM": piq.srsim(x, y),
        "DSS": piq.dss(x, y),
        "VIFp": piq.vif_p(x, y),
        "IW-SSIM": piq.information_weighted_ssim(x, y),
    }
    error = float((x - y).square().mean().clamp(min=1e-12))
    return Judged(
        float(-10 * torch.log10(torch.tensor(error))),
        {name: float(value) for name, value in values.items()},
    )
