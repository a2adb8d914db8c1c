"""Recovery by gradient descent: the acceptance test of any weights that ship."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.evaluation.trust import is_monotone, line_scan, recover, starting_point
from relqa_loss.network import ParityNetwork, load_pretrained

LEAST_PSNR = 35.0  # dB


@pytest.fixture(scope="module")
def network() -> ParityNetwork:
    return load_pretrained()


@pytest.fixture(scope="module")
def photos() -> Tensor:
    pixels = (skimage.data.astronaut()[20:84, 190:254], skimage.data.coffee()[100:164, 250:314])
    return torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1) for p in pixels]) / 255


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "blur", "jpeg", "tone"])
def test_descent_on_the_distance_recovers_the_reference(
    network: ParityNetwork, photos: Tensor, kind: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.stack([starting_point(kind, photo, generator) for photo in photos])
    encoded = network.encode(photos)
    found = recover(lambda x, _: network.distance(encoded, x), photos, start)
    assert found.start_psnr < LEAST_PSNR - 5
    assert found.psnr >= LEAST_PSNR


def test_recovery_tells_a_distance_with_metamers(photos: Tensor) -> None:
    # Blind to everything but the mean colour, so descending it recovers nothing.
    def blind(preds: Tensor, target: Tensor) -> Tensor:
        return (preds.mean((2, 3)) - target.mean((2, 3))).abs().sum(1)

    start = torch.rand(photos.shape, generator=torch.Generator().manual_seed(0))
    assert recover(blind, photos, start, steps=50).psnr < 20


@pytest.mark.parametrize("seed", [None, 0])
def test_line_scans_rise_for_every_operator(
    network: ParityNetwork, photos: Tensor, seed: int | None
) -> None:
    # With random weights as well: it is the architecture that promises it.
    if seed is not None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ParityNetwork()
    for name in operator_names():
        generator = torch.Generator().manual_seed(1)
        distorted = get_operator(name)(photos[:1], 0.8, generator)[0]
        _, values = line_scan(
            lambda x, r: network.distance(network.encode(r), x), photos[0], distorted, points=9
        )
        assert is_monotone(values), name


def test_is_monotone_sees_a_dip() -> None:
    assert is_monotone(torch.tensor([0.0, 0.5, 1.0]))
    assert not is_monotone(torch.tensor([0.0, 0.6, 0.5, 1.0]))
