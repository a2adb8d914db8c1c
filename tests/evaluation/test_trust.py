"""Recovery by gradient descent: the acceptance test of any weights that ship."""

from __future__ import annotations

from statistics import fmean

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.evaluation.stimuli import psnr
from relqa_loss.evaluation.trust import (
    is_monotone,
    line_scan,
    recover,
    recover_image,
    starting_point,
)
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
def test_descent_on_the_distance_recovers_the_reference(
    network: ParityNetwork, photos: Tensor
) -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = ("noise", "blur", "jpeg", "tone")
    start = torch.stack(
        [starting_point(kind, photo, generator) for kind in kinds for photo in photos]
    )
    # All at once: what becomes of an image does not depend on the others.
    references = photos.repeat(len(kinds), 1, 1, 1)
    encoded = network.encode(references)
    _, found = recover_image(lambda x, _: network.distance(encoded, x), references, start)
    for row, kind in enumerate(kinds):
        own = slice(row * len(photos), (row + 1) * len(photos))
        assert fmean(map(psnr, start[own], photos)) < LEAST_PSNR - 5, kind
        assert fmean(map(psnr, found[own], photos)) >= LEAST_PSNR, kind


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


def test_descent_is_what_it_was_asked_for(photos: Tensor) -> None:
    calls = []

    def squares(preds: Tensor, target: Tensor) -> Tensor:
        calls.append(bool((preds >= 0).all() and (preds <= 1).all()))
        return (preds - target).square().mean((1, 2, 3))

    start = (photos + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)).clamp(max=1)
    before = start.clone()
    found = recover(squares, photos, start, steps=30, rate=0.02)
    assert len(calls) == 30
    assert torch.equal(start, before)
    errors = (start - photos).square().mean((1, 2, 3))
    assert found.start_psnr == pytest.approx(float(-10 * errors.log10().mean()), rel=1e-4)
    assert found.psnr > found.start_psnr + 10
    assert 0 < found.ratio < 0.1
    still = recover(squares, photos, start, steps=3, rate=1e-9)
    assert still.psnr == pytest.approx(found.start_psnr, rel=1e-4)
    assert still.ratio == pytest.approx(1, rel=1e-3)
    assert recover(squares, photos, photos, steps=2, rate=1e-9).ratio == 0
    # Of a reference that lies outside, an image comes as near as an image can.
    _, image = recover_image(squares, photos + 2, start, steps=60, rate=0.1)
    assert all(calls)
    assert float(image.max()) == 1


@pytest.mark.parametrize("kind", ["noise", "blur", "jpeg", "tone"])
def test_starts_are_far_from_the_reference(photos: Tensor, kind: str) -> None:
    start = starting_point(kind, photos[0], torch.Generator().manual_seed(0))
    assert start.shape == photos[0].shape
    error = (start - photos[0]).square().mean()
    assert float(-10 * error.log10()) < 25
    if kind == "tone":  # of the colours and of the contrast
        spread = start.flatten(1).std(1).mean() / photos[0].flatten(1).std(1).mean()
        assert float(spread) < 0.9
        assert float((start - photos[0]).mean((1, 2)).diff().abs().max()) > 0.02
    with pytest.raises(ValueError, match="unknown start 'other'"):
        starting_point("other", photos[0], torch.Generator())


def test_line_scans_go_from_the_reference_to_the_image(photos: Tensor) -> None:
    def size(preds: Tensor, target: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return (preds - target).abs().mean((1, 2, 3))

    places, values = line_scan(size, photos[0], photos[1], points=5)
    assert places.tolist() == [0, 0.25, 0.5, 0.75, 1]
    whole = float((photos[0] - photos[1]).abs().mean())
    assert values.tolist() == pytest.approx([whole * k / 4 for k in range(5)], abs=1e-6)


def test_is_monotone_sees_a_dip() -> None:
    # It is measured against the range of the values.
    assert is_monotone(torch.tensor([0.0, 99.95, 99.9, 100.0]))
    assert not is_monotone(torch.tensor([0.0, 0.00101, 0.0009, 0.002]))
    assert is_monotone(torch.tensor([0.0, 0.5, 1.0]))
    assert not is_monotone(torch.tensor([0.0, 0.6, 0.5, 1.0]))
