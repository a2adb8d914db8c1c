"""Random weights, real files: the commands do not depend on what ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relqa_loss.network import NetworkConfig, ParityNetwork
from relqa_loss.network.pretrained import save_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = NetworkConfig()
        network = ParityNetwork(config)
    save_weights(network, path, config, {})
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with ``reference/{a,b}.png`` and ``image/{a.jpg,b.png}``."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        small = generator.integers(0, 256, (8, 10, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC)
        for folder in ("reference", "image"):
            (tmp_path / folder).mkdir(exist_ok=True)
        picture.save(tmp_path / "reference" / f"{name}.png")
        suffix = "jpg" if name == "a" else "png"
        picture.point(lambda v: int(v * 0.8)).save(tmp_path / "image" / f"{name}.{suffix}")
    return tmp_path
