"""What networks are trained for by ``restoration.py`` and ``steering.py``, and small networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.demo import degrade
from relqa_loss.demo.model import Restorer

Degrade = Callable[[Tensor, torch.Generator, bool], Tensor]
"""``(clean N×3×H×W, generator, is a test) -> N×3×H×W``; a test has one fixed strength."""


class Task(NamedTuple):
    """What is done to an image before a network is asked to undo it."""

    title: str
    degrade: Degrade
    compresses: bool = False


def _strengths(
    count: int, low: float, high: float, test: float | None, g: torch.Generator
) -> Tensor:
    drawn = low + (high - low) * torch.rand(count, generator=g)
    return drawn if test is None else torch.full((count,), test)


def _noisy(clean: Tensor, generator: torch.Generator, test: bool) -> Tensor:
    sigma = _strengths(len(clean), 0.04, 0.14, 0.1 if test else None, generator)
    noise = torch.randn(clean.shape, generator=generator)
    return _to_8_bits(clean + sigma[:, None, None, None] * noise)


def _small(clean: Tensor, generator: torch.Generator, test: bool) -> Tensor:
    size = clean.shape[-2:]
    half = (size[0] // 2, size[1] // 2)
    small = _to_8_bits(F.interpolate(clean, half, mode="bicubic", antialias=True))
    return F.interpolate(small, size, mode="bicubic").clamp(0, 1)


def _blurred(clean: Tensor, generator: torch.Generator, test: bool) -> Tensor:
    sigma = _strengths(len(clean), 0.8, 2.0, 1.4 if test else None, generator)
    return degrade(clean, sigma, torch.full((len(clean),), 0.01), generator)


def _unchanged(clean: Tensor, generator: torch.Generator, test: bool) -> Tensor:
    return clean


def _to_8_bits(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round() / 255


TASKS = {
    "denoise": Task("denoiser: white noise of σ .04 to .14, tested at .1", _noisy),
    "upscale": Task("×2 super-resolution of a bicubic reduction", _small),
    "deblur": Task("deblurring: Gaussian of σ .8 to 2, tested at 1.4, noise of .01", _blurred),
    "codec": Task("learned codec with a factorised entropy model", _unchanged, compresses=True),
}


class Output(NamedTuple):
    """What a network makes of a batch."""

    images: Tensor
    rate: Tensor | None = None
    """Bits per pixel of each image, for codecs."""


class RestorerTask(nn.Module):
    """The demo's residual network: the identity before training."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.network = Restorer(width, blocks)

    def forward(self, images: Tensor) -> Output:
        return Output(self.network(images))


class Codec(nn.Module):
    """Three strided convolutions each way, and CompressAI's factorised entropy model between.

    Ballé et al., "Variational image compression with a scale hyperprior" (ICLR 2018), section 2,
    with SiLU in place of GDN. The rate is that of the model's likelihoods, not of a bit stream.
    """

    def __init__(self, width: int, latents: int) -> None:
        super().__init__()
        try:
            from compressai.entropy_models import EntropyBottleneck
        except ImportError as error:
            raise ImportError(
                "the codec's entropy model comes from CompressAI: pip install 'relqa-loss[codec]'"
            ) from error

        def down(before: int, after: int) -> nn.Module:
            return nn.Conv2d(before, after, 5, stride=2, padding=2)

        def up(before: int, after: int) -> nn.Module:
            wide = nn.Conv2d(before, 4 * after, 3, padding=1)
            return nn.Sequential(wide, nn.PixelShuffle(2))

        self.analysis = nn.Sequential(
            down(3, width), nn.SiLU(), down(width, width), nn.SiLU(), down(width, latents)
        )
        self.synthesis = nn.Sequential(
            up(latents, width), nn.SiLU(), up(width, width), nn.SiLU(), up(width, 3)
        )
        self.entropy = EntropyBottleneck(latents)

    def forward(self, images: Tensor) -> Output:
        coded, likelihoods = self.entropy(self.analysis(images - 0.5) * _LATENT_GAIN)
        bits = -torch.log2(likelihoods).flatten(1).sum(1)
        pixels = images.shape[-2] * images.shape[-1]
        return Output(self.synthesis(coded / _LATENT_GAIN) + 0.5, bits / pixels)


_LATENT_GAIN = 8.0  # latents start on the scale of the quantiser's unit step


def network_for(task: Task, width: int, blocks: int) -> nn.Module:
    """A network with fresh weights; draws from torch's global generator."""
    return Codec(width, width) if task.compresses else RestorerTask(width, blocks)


def crops(photos: list[Tensor], count: int, side: int, generator: torch.Generator) -> Tensor:
    """Random crops of 8-bit photographs (3×H×W), flipped and turned: N×3×side×side in [0, 1]."""

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    found = []
    for _ in range(count):
        photo = photos[draw(len(photos))]
        top, left = draw(photo.shape[-2] - side + 1), draw(photo.shape[-1] - side + 1)
        piece = torch.rot90(photo[:, top : top + side, left : left + side], draw(4), (1, 2))
        found.append(piece.flip(2) if draw(2) else piece)
    return torch.stack(found).float() / 255
