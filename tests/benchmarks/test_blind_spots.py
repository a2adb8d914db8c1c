"""The benchmarks that look for errors which a distance does not see."""

from __future__ import annotations

import math
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from relqa_loss.network import load_pretrained
from relqa_loss.network.model import MAP_STRIDE

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gratings import LENGTHS, UNIT, dip, least, responses, wave  # noqa: E402
from grids import distances  # noqa: E402


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("angle", [0.0, math.pi / 4])
def test_waves_have_one_energy_and_their_length(length: float, angle: float) -> None:
    found = wave(length, angle, 0.3)
    assert float(found.std()) == pytest.approx(1, abs=0.1)
    row = torch.fft.rfft(found[0]).abs()
    cycles = len(found[0]) / length * math.cos(angle)
    assert int(row.argmax()) == pytest.approx(cycles, abs=1)


def test_a_metric_of_the_error_alone_has_no_dip() -> None:
    photo = torch.rand(3, 192, 192, generator=torch.Generator().manual_seed(0))

    def error(reference: Tensor, images: Tensor) -> Tensor:
        return (images - reference).square().mean((1, 2, 3))

    found = responses(error, [photo], (0.0,))
    values = found.mean(1).tolist()
    assert values == pytest.approx([1.0] * len(LENGTHS), abs=0.05)
    assert dip(values)[0] > 0.95
    assert least(found, 4.0) > 0.9

    def blind(reference: Tensor, images: Tensor) -> Tensor:
        # Differences of pixels four apart: nothing of a wave of four pixels is left.
        gap = images - reference
        return (gap - gap.roll(4, -1)).square().mean((1, 2, 3))

    depth, length = dip(responses(blind, [photo], (0.0,)).mean(1).tolist())
    assert depth < 0.1
    assert length == 4.0

    def blind_to_one(reference: Tensor, images: Tensor) -> Tensor:
        # Means of two pixels: nothing of a wave of four is left that changes its sign in each.
        gap = images - reference
        return (gap[..., ::2] + gap[..., 1::2]).square().mean((1, 2, 3))

    found = responses(blind_to_one, [photo], (0.0,))
    assert dip(found.mean(1).tolist())[0] > 0.5
    assert least(found, 4.0) < 0.1


def test_a_dip_is_what_both_neighbours_exceed() -> None:
    falling = [1 / (1 + number) for number in range(len(LENGTHS))]
    assert dip(falling)[0] == 1.0
    falling[6] = 0.25 * falling[7]
    assert dip(falling) == (pytest.approx(0.25), LENGTHS[6])
    assert LENGTHS[UNIT] == 8.0


def test_the_first_offset_is_in_step() -> None:
    network = load_pretrained()
    photo, image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = distances(network, photo, image)
    assert len(found) == MAP_STRIDE**2
    for index, (top, left) in enumerate(product(range(MAP_STRIDE), repeat=2)):
        window = (..., slice(top, top + 60), slice(left, left + 60))
        encoding = network.encode(photo[window][None])
        wanted = network.distance(encoding, image[window][None])
        assert found[index] == pytest.approx(float(wanted), rel=1e-6)
