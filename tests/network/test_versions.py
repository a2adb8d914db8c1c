"""What shipped weights say is fixed by their version: results in papers and logs name it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relqa_loss import CHANNELS, RelationalLoss, relate, relational_distance
from relqa_loss.network import find_weights

MAPS = {
    "sharpness": 0.04864,
    "noise": -0.1197,
    "blocking": -0.0278,
    "ringing": -0.08812,
    "luminance": -0.41186,
    "contrast": -0.08831,
    "saturation": 0.00435,
    "temperature": -0.00045,
    "tint": 0.00006,
    "banding": 0.04441,
    "geometry": 0.00856,
    "corruption": 0.04946,
    "chroma_bleed": -0.00934,
}
SAID = {
    "relqa-base@01fb8290": {
        "score": -4.38014,
        "loss": 45.10725,
        "spoilt": 5.77782,
        "moved": 3.29383,
        "blurred": 11.57078,
        "more contrast": 1.80228,
        "less contrast": 6.82124,
        "more, blurred": 1.71503,
        **MAPS,
    },
    "relqa-nano@3f2244e5": {
        "score": -4.48816,
        "loss": 45.37438,
        "spoilt": 6.04495,
        "moved": 3.73345,
        "blurred": 11.23924,
        "more contrast": 1.73861,
        "less contrast": 5.66376,
        "more, blurred": 1.51375,
        **MAPS,
    },
}
"""Distances of the images below; score, loss and means over the maps of the first of them. New
weights are to be written here; other figures of a version that is here mean that code has changed
what people have measured with it."""


def _target() -> Tensor:
    """Something drawn, 1×3×96×112: waves of many lengths, and edges."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(112.0), indexing="ij")
    colours = [
        0.5 + 0.25 * torch.sin(0.002 * x * y + shift) + 0.1 * torch.cos(0.9 * x + 0.3 * y)
        for shift in (0.0, 0.7, 1.9)
    ]
    target = torch.stack(colours)[None]
    target[..., 20:60, 30:70] += 0.1
    return target.clamp(0, 1)


def _blurred(image: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        for way in (-1, -2):
            image = (image.roll(1, way) + 2 * image + image.roll(-1, way)) / 4
    return image


def _images(target: Tensor) -> dict[str, Tensor]:
    spoilt = 0.9 * _blurred(target, 1)
    spoilt = spoilt + 0.04 * torch.sin(2.1 * torch.arange(112.0))
    spoilt[..., 70:86, 80:96] = 0.2
    return {
        "spoilt": spoilt,
        "moved": target.roll(1, -1),
        "blurred": _blurred(target, 4),
        "more contrast": (1.3 * (target - 0.5) + 0.5).clamp(0, 1),
        "less contrast": 0.7 * (target - 0.5) + 0.5,
        "more, blurred": (1.3 * (_blurred(target, 1) - 0.5) + 0.5).clamp(0, 1),
    }


@pytest.mark.parametrize("name", ["relqa-base", "relqa-nano"])
def test_a_version_says_what_it_said(name: str) -> None:
    target = _target()
    images = _images(target)
    relation = relate(images["spoilt"], target, weights=name)
    found = {
        "score": float(relation.score),
        "loss": float(RelationalLoss(weights=name)(images["spoilt"], target)),
    }
    found |= {
        kind: float(relational_distance(image, target, weights=name))
        for kind, image in images.items()
    }
    found |= zip(CHANNELS, relation.maps.mean((0, 2, 3)).tolist(), strict=True)
    version = find_weights(name).version
    assert version in SAID, str({key: round(value, 5) for key, value in found.items()})
    assert found == pytest.approx(SAID[version], rel=1e-3, abs=1e-4)
