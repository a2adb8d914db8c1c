"""Small networks for the examples, each with the same first weights in every run.

Replace this file by your own; the examples themselves stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.demo import Restorer


def denoiser() -> Restorer:
    torch.manual_seed(0)
    return Restorer(width=24, blocks=2)


def upscaler() -> Upscaler:
    torch.manual_seed(0)
    return Upscaler()


def codec() -> Codec:
    torch.manual_seed(0)
    return Codec()


class Upscaler(nn.Module):
    """Twice the height and width: bicubic interpolation, and what the residual network adds."""

    def __init__(self) -> None:
        super().__init__()
        self.restorer = Restorer(width=24, blocks=2)

    def forward(self, small: Tensor) -> Tensor:
        wide: Tensor = self.restorer(F.interpolate(small, scale_factor=2, mode="bicubic"))
        return wide


class Codec(nn.Module):
    """Three strided convolutions each way, with a logistic distribution for each latent channel.

    Latents are rounded where images are coded, and get uniform noise in training, as in Ballé et
    al., "End-to-end optimized image compression" (ICLR 2017). The rate is that of the model, not
    of a bit stream. CompressAI has entropy models for serious use.
    """

    def __init__(self, width: int = 32, latents: int = 16) -> None:
        super().__init__()
        self.analysis = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(width, latents, 5, stride=2, padding=2),
        )
        self.synthesis = nn.Sequential(
            *_doubled(latents, width),
            nn.SiLU(),
            *_doubled(width, width),
            nn.SiLU(),
            *_doubled(width, 3),
        )
        self.centre = nn.Parameter(torch.zeros(latents, 1, 1))
        self.spread = nn.Parameter(torch.zeros(latents, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """N×3×H×W → what is decoded, N×3×H×W, and the rate in bits per pixel, N."""
        latents = GAIN * self.analysis(images - 0.5)
        coded = latents + torch.rand_like(latents) - 0.5 if self.training else latents.round()
        scale = F.softplus(self.spread) + 0.01
        above, below = (torch.sigmoid((coded + end - self.centre) / scale) for end in (0.5, -0.5))
        bits = -(above - below).clamp(min=1e-6).log2().flatten(1).sum(1)
        height, width = images.shape[-2:]
        decoded = self.synthesis(coded / GAIN)[..., :height, :width] + 0.5
        return decoded, bits / (height * width)


GAIN = 8.0  # latents start on the scale of the quantiser's unit step


def _doubled(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2)
