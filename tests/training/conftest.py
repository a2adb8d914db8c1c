"""A folder of photographs and a small pool of ranked sets, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
from panels import QUICK
from PIL import Image
from torch import Tensor

from relqa_loss.training.photos import find_photos
from relqa_loss.training.pool import Pool, PoolSpec
from relqa_loss.training.sets import MARGIN

CROP = 64  # the least that training takes; the panel's members work at half of it


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs to train on and one to validate on, with a manifest."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["file,split"]
    for name, split in (("astronaut", "train"), ("chelsea", "train"), ("coffee", "val")):
        pixels = getattr(skimage.data, name)()[80:240, 120:300]
        Image.fromarray(pixels).save(folder / f"{name}.png")
        rows.append(f"{name}.png,{split}")
    (folder / "MANIFEST.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def crop() -> Tensor:
    """Something drawn, 3×S×S with 8-bit values, that leaves 64×64 pixels of a set."""
    axis = torch.linspace(0, 9, CROP + MARGIN)
    ramp = 0.5 + 0.4 * torch.sin(axis[:, None] * axis[None])
    return ramp.expand(3, -1, -1).mul(255).round().div(255)


@pytest.fixture(scope="session")
def pool(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Two shards of ranked sets, with a few quick operators."""
    found = find_photos(photos, "train")
    spec = PoolSpec(
        photos=tuple(str(path) for path in found.files),
        fingerprint=found.fingerprint,
        operators=("gaussian_blur", "white_noise", "jpeg", "hsv_saturation_up", "haze"),
        held_out=("haze", "hsv_saturation_up"),
        members=QUICK,
        crop=CROP,
    )
    pool = Pool(spec, tmp_path_factory.mktemp("pool"), 64)
    pool.fill(workers=2)
    return pool
