"""Photographs that scikit-image carries inside its package, and what the demo does to them."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.imageio import read_image

# Colour photographs only, split by photograph. All have been inside scikit-image's wheels since
# 0.22, so nothing is downloaded.
TRAIN = ("astronaut.png", "rocket.jpg", "motorcycle_left.png", "ihc.png")
SELECT = "coffee.png"
SHOW = "chelsea.png"

BLUR = (0.6, 1.4)
"""Standard deviation of the blur, in pixels: the range trained on."""
NOISE = (0.02, 0.07)
"""Standard deviation of the noise: the range trained on."""
TEST_BLUR, TEST_NOISE = 1.0, 0.05


class Photographs(NamedTuple):
    """Clean photographs, 3×H×W in [0, 1], by their part in the demo."""

    train: dict[str, Tensor]
    select: dict[str, Tensor]
    """The metric chooses the checkpoint on these."""
    show: dict[str, Tensor]
    """Neither trained on nor chosen on."""


def load_photographs() -> Photographs:
    """Read the photographs from the installed scikit-image.

    Raises:
        ImportError: If scikit-image or Pillow is not installed.
        ValueError: If this version of scikit-image carries too few of them.

    Example:
        >>> from relqa_loss.demo import load_photographs
        >>> photographs = load_photographs()
        >>> list(photographs.show), len(photographs.train) > 1
        (['chelsea'], True)
    """
    try:
        import skimage
    except ImportError as error:
        raise ImportError(
            "the demo's photographs come with scikit-image, which is not installed: "
            "pip install 'relqa-loss[demo]'"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    train = [name for name in TRAIN if (folder / name).is_file()]
    missing = [name for name in (SELECT, SHOW) if not (folder / name).is_file()]
    if missing or not train:
        raise ValueError(
            f"scikit-image {version('scikit-image')} does not carry {missing or TRAIN}; "
            "install another version (0.22 and 0.26 do)"
        )
    read = {name: read_image(folder / name) for name in (*train, SELECT, SHOW)}
    return Photographs(
        {_stem(name): read[name] for name in train},
        {_stem(SELECT): read[SELECT]},
        {_stem(SHOW): read[SHOW]},
    )


def _stem(name: str) -> str:
    return Path(name).stem.removesuffix("_left")


def degrade(images: Tensor, blur: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, then add Gaussian noise, each image with its own strength.

    Args:
        images: N×3×H×W in [0, 1], on the CPU.
        blur: N standard deviations in pixels, positive.
        noise: N standard deviations, as fractions of white.
        generator: Source of the noise.

    Returns:
        N×3×H×W in [0, 1], rounded to 8 bits as a camera would.

    Raises:
        ValueError: For other shapes.

    Example:
        >>> import torch
        >>> from relqa_loss.demo import degrade
        >>> images = torch.rand(2, 3, 32, 32)
        >>> strengths = torch.tensor([0.8, 1.2]), torch.tensor([0.02, 0.05])
        >>> degrade(images, *strengths, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be N×3×H×W, got shape {tuple(images.shape)}")
    if blur.shape != images.shape[:1] or noise.shape != images.shape[:1]:
        raise ValueError("blur and noise must have one value per image")
    count, channels = images.shape[:2]
    radius = max(1, math.ceil(3 * float(blur.max())))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / blur[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    # All images as channels of one, so that each is convolved with its own kernel.
    flat = images.reshape(1, count * channels, *images.shape[2:])
    flat = F.pad(flat, (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    pattern = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    noisy = flat.reshape(images.shape) + noise[:, None, None, None] * pattern
    return (noisy.clamp(0, 1) * 255).round() / 255


def degrade_for_test(photograph: Tensor, seed: int) -> Tensor:
    """The one fixed degradation of a 3×H×W photograph that validation and report use."""
    generator = torch.Generator().manual_seed(seed)
    strengths = torch.tensor([TEST_BLUR]), torch.tensor([TEST_NOISE])
    return degrade(photograph[None], *strengths, generator)[0]


def training_batch(
    photographs: list[Tensor], size: int, crop: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random crops, flipped and turned, and their degraded versions: two N×3×crop×crop."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    crops = []
    for _ in range(size):
        photo = photographs[int(torch.randint(len(photographs), (1,), generator=generator))]
        top = int(torch.randint(photo.shape[-2] - crop + 1, (1,), generator=generator))
        left = int(torch.randint(photo.shape[-1] - crop + 1, (1,), generator=generator))
        flip, turn = torch.randint(4, (2,), generator=generator).tolist()
        piece = torch.rot90(photo[:, top : top + crop, left : left + crop], turn, (1, 2))
        crops.append(piece.flip(2) if flip % 2 else piece)
    clean = torch.stack(crops)
    return clean, degrade(clean, draw(*BLUR), draw(*NOISE), generator)
