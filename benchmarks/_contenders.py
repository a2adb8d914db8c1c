"""What speed is measured of: our loss and the ones that users would pick instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss import RelationalLoss

Loss = Callable[[Tensor, Tensor], Tensor]
OURS = "RelationalLoss"
NANO = "RelationalLoss, relqa-nano"
_EPS = 1e-10


class Contender(NamedTuple):
    """A loss and what it weighs."""

    name: str
    loss: Loss
    parameters: int


class LpipsArchitecture(nn.Module):
    """LPIPS: five taps of a trunk, unit-normalised, squared differences, 1×1 weights, means."""

    def __init__(self, trunk: nn.Sequential, taps: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk[: max(taps) + 1]
        self.taps = frozenset(taps)
        self.heads = nn.ParameterList(torch.rand(1, width, 1, 1) for width in widths)
        self.requires_grad_(False)

    def features(self, image: Tensor) -> list[Tensor]:
        taken = []
        for index, layer in enumerate(self.trunk):
            image = layer(image)
            if index in self.taps:
                taken.append(image / (image.square().sum(1, keepdim=True).sqrt() + _EPS))
        return taken

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            references = self.features(target)
        layers = zip(self.features(preds), references, self.heads, strict=True)
        return torch.stack([((x - r).square() * w).sum(1).mean() for x, r, w in layers]).sum()


class DistsArchitecture(nn.Module):
    """DISTS: VGG16 with L2 pooling; statistics of the image and five taps, weighted."""

    TAPS = (3, 8, 15, 22, 29)

    def __init__(self, trunk: nn.Sequential) -> None:
        super().__init__()
        self.trunk = trunk[: max(self.TAPS) + 1]
        window = torch.hann_window(5, periodic=False)[1:-1]
        self.register_buffer("window", torch.outer(window, window) / window.sum() ** 2)
        self.weights = nn.Parameter(torch.rand(2, 3 + 64 + 128 + 256 + 512 + 512))
        self.requires_grad_(False)

    def _pool(self, image: Tensor) -> Tensor:
        channels = image.shape[1]
        kernel = self.window.expand(channels, 1, 3, 3)
        power = F.conv2d(image.square(), kernel, stride=2, padding=1, groups=channels)
        return (power + _EPS).sqrt()

    def features(self, image: Tensor) -> list[Tensor]:
        taken = [image]
        for index, layer in enumerate(self.trunk):
            image = self._pool(image) if isinstance(layer, nn.MaxPool2d) else layer(image)
            if index in self.TAPS:
                taken.append(image)
        return taken

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            references = self.features(target)
        structure, texture = [], []
        for x, r in zip(self.features(preds), references, strict=True):
            mean_x, mean_r = x.mean((2, 3)), r.mean((2, 3))
            texture.append((2 * mean_x * mean_r + 1e-6) / (mean_x**2 + mean_r**2 + 1e-6))
            var_x, var_r = x.var((2, 3), unbiased=False), r.var((2, 3), unbiased=False)
            covariance = (x * r).mean((2, 3)) - mean_x * mean_r
            structure.append((2 * covariance + 1e-6) / (var_x + var_r + 1e-6))
        weights = self.weights / self.weights.sum()
        return (
            1
            - (
                (torch.cat(texture, 1) * weights[0]).sum(1)
                + (torch.cat(structure, 1) * weights[1]).sum(1)
            ).mean()
        )


def contenders(weights: str, device: torch.device) -> list[Contender]:
    """Ours and its usual alternatives, ready on ``device``."""
    import piq
    from torchvision.models import alexnet, vgg16

    vgg = LpipsArchitecture(
        _out_of_place(vgg16(weights=None).features), (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)
    )
    alex = LpipsArchitecture(
        _out_of_place(alexnet(weights=None).features), (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)
    )
    return [
        _ready(OURS, RelationalLoss(weights=weights, on_out_of_range="ignore"), device),
        _ready(NANO, RelationalLoss(weights="relqa-nano", on_out_of_range="ignore"), device),
        _ready("piq SSIM", piq.SSIMLoss(), device),
        _ready("piq MS-SSIM", piq.MultiScaleSSIMLoss(), device),
        _ready("LPIPS-Alex architecture", alex, device),
        _ready("LPIPS-VGG architecture", vgg, device),
        _ready(
            "DISTS architecture",
            DistsArchitecture(_out_of_place(vgg16(weights=None).features)),
            device,
        ),
    ]


def further_contenders(device: torch.device) -> list[Contender]:
    """More of them, for those who ask; what is not installed is left out."""
    import piq
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )
    from torchvision.models import squeezenet1_1

    squeeze = LpipsArchitecture(
        _out_of_place(squeezenet1_1(weights=None).features),
        (1, 4, 7, 9, 10, 11, 12),
        (64, 128, 256, 384, 384, 512, 512),
    )
    found = [
        Contender(
            "torchmetrics SSIM",
            lambda x, r: 1 - structural_similarity_index_measure(x, r, data_range=1.0),
            0,
        ),
        Contender(
            "torchmetrics MS-SSIM",
            lambda x, r: 1 - multiscale_structural_similarity_index_measure(x, r, data_range=1.0),
            0,
        ),
        _ready("piq GMSD", piq.GMSDLoss(), device),
        _ready("piq MDSI", piq.MDSILoss(), device),
        _ready("LPIPS-Squeeze architecture", squeeze, device),
    ]
    try:
        from pytorch_msssim import MS_SSIM, SSIM
    except ImportError:
        pass
    else:
        for name, similarity in (("SSIM", SSIM), ("MS-SSIM", MS_SSIM)):
            module = similarity(data_range=1.0).to(device)
            found.append(Contender(f"pytorch-msssim {name}", lambda x, r, m=module: 1 - m(x, r), 0))
    if device.type == "cuda":
        try:
            from fused_ssim import fused_ssim
        except ImportError:
            pass
        else:
            found.append(Contender("fused-ssim", lambda x, r: 1 - fused_ssim(x, r), 0))
    return found


def _ready(name: str, module: nn.Module, device: torch.device) -> Contender:
    # A frozen loss keeps its weights in buffers, and functions of them, which are no weights.
    # Hand-made ones have none that count.
    named = () if name.startswith("piq") else (*module.named_parameters(), *module.named_buffers())
    weights = sum(value.numel() for key, value in named if "_settled" not in key)
    return Contender(name, module.eval().to(device), weights)


def _out_of_place(trunk: nn.Sequential) -> nn.Sequential:
    # As in piq: taps must not be overwritten by the next activation.
    for module in trunk.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return trunk
