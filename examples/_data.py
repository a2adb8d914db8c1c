"""What the examples share: crops of photographs, with or without noise on top, and options.

Replace this file by your own data; the examples themselves stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from relqa_loss.demo import load_photographs
from relqa_loss.imageio import ImageReadError, read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
NOISE = 0.1  # standard deviation
CROP = 96


class Options(NamedTuple):
    """Of the command line."""

    photos: Path | None
    out: Path
    steps: int
    every: int


def options(description: str | None) -> Options:
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, help="folder of photographs; some come along")
    parser.add_argument("--out", type=Path, default=Path("runs/example"), help="a new folder")
    parser.add_argument("--steps", type=int, default=500, help="of training")
    parser.add_argument("--every", type=int, default=100, help="steps between validations")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists; choose another --out")
    if given.photos is not None and not given.photos.is_dir():
        parser.error(f"--photos {given.photos} is not a folder")
    return Options(given.photos, given.out, given.steps, given.every)


class Crops(Dataset[dict[str, Tensor]]):
    """``count`` crops; the same ones whenever they are asked for."""

    def __init__(self, photos: list[Tensor], count: int, seed: int) -> None:
        self.photos, self.count, self.seed = photos, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        photo = self.photos[index % len(self.photos)]
        top, left = (
            int(torch.randint(side - CROP + 1, (1,), generator=generator))
            for side in photo.shape[-2:]
        )
        return self.item(photo[:, top : top + CROP, left : left + CROP], generator)

    def item(self, clean: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"labels": clean}


class Noisy(Crops):
    """Crops with noise on top beside the clean ones."""

    def item(self, clean: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = NOISE * torch.randn(clean.shape, generator=generator)
        # The names are those that the Hugging Face Trainer takes for a model's arguments.
        return {"noisy": (clean + noise).clamp(0, 1), "labels": clean}


def _read(folder: Path) -> Iterator[Tensor]:
    for file in sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES):
        try:
            photo = read_image(file)
        except ImageReadError as error:
            print(f"skipped: {error}")
            continue
        if min(photo.shape[1:]) >= CROP:
            yield photo


def data(chosen: Options, batch: int, kind: type[Crops] = Noisy) -> tuple[Crops, Crops]:
    """Crops to train on, ``batch`` for each step, and 24 crops of other photographs."""
    if chosen.photos is None:
        found = load_photographs()
        train, rest = list(found.train.values()), [*found.select.values(), *found.show.values()]
    else:
        photos = list(_read(chosen.photos))
        if len(photos) < 2:
            raise SystemExit(f"{chosen.photos} needs two photographs of {CROP} pixels or more")
        cut = max(1, len(photos) // 5)
        train, rest = photos[cut:], photos[:cut]
    return kind(train, chosen.steps * batch, seed=0), kind(rest, 24, seed=1)
