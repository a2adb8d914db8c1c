"""What counts as a move or a blur, and what either does to the distance."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss.network import NetworkConfig, ParityNetwork
from relqa_loss.network.derivatives import Derivatives, Shares, Weighed, Weighing, explained
from relqa_loss.network.pyramid import PixelPyramid


def smooth_error(error: Tensor) -> Tensor:
    return PixelPyramid().double()(error)[-1]


def scene(seed: int, side: int = 96) -> Tensor:
    """1×3×side×side in [0, 1], with detail at every scale, as photographs have it."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(1, 3, side, side, dtype=torch.float64)
    for scale in (1, 2, 4, 8, 16):
        layer = torch.rand(1, 3, side // scale, side // scale, generator=generator).double()
        found += scale * F.interpolate(layer, (side, side), mode="bicubic", align_corners=False)
    return (found - found.min()) / (found.max() - found.min())


def shares(image: Tensor, reference: Tensor) -> Shares:
    return explained(smooth_error(image - reference), Derivatives().double()(reference))


def blur(image: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)


def noise(seed: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(1, 3, 96, 96, generator=generator).double()


INSIDE = (..., slice(2, -2), slice(2, -2))
"""Without the border, where pixels come in from elsewhere."""


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (-1, 1)])
def test_a_moved_copy_is_told_from_other_errors(offset: tuple[int, int]) -> None:
    reference = scene(1)
    moved, blurred = shares(reference.roll(offset, (-2, -1)), reference)
    assert moved[INSIDE].min() > 0.8
    assert blurred[INSIDE].abs().max() < 0.5
    for other in (reference + noise(2, 0.1), blur(reference), reference + 0.05):
        assert shares(other, reference).moved[INSIDE].mean() < 0.3


def test_a_blur_is_told_from_other_errors_and_from_its_opposite() -> None:
    reference = scene(1)
    soft = blur(reference)
    assert shares(soft, reference).blurred[INSIDE].min() > 0.6
    assert shares(2 * reference - soft, reference).blurred[INSIDE].max() < -0.6
    for other in (reference + noise(2, 0.1), reference + 0.05):
        assert shares(other, reference).blurred[INSIDE].abs().mean() < 0.4


def test_fringes_of_one_colour_are_no_displacement() -> None:
    reference = scene(3).mean(1, keepdim=True).expand(1, 3, 96, 96)
    fringed = torch.cat([reference[:, :1].roll(1, -1), reference[:, 1:]], 1)
    assert shares(fringed, reference).moved.mean() < 0.4
    assert shares(reference.roll(1, -1), reference).moved.mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    factor=st.floats(1e-6, 1),
    moved=st.booleans(),
)
def test_shares_do_not_depend_on_the_size_of_the_error(
    seed: int, factor: float, moved: bool
) -> None:
    reference = scene(seed)
    image = reference.roll(1, -1) if moved else reference + noise(seed, 0.1)
    whole = shares(image, reference)
    part = shares(reference + factor * (image - reference), reference)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-8)
    assert whole.moved.min() >= 0
    assert whole.moved.max() <= 1
    assert whole.blurred.abs().max() <= 1


def test_shares_are_those_of_least_squares_fits() -> None:
    reference, image = scene(4), scene(5)
    found = shares(image, reference)
    around = F.pad(PixelPyramid().double().smooth(reference), (1, 1, 1, 1), mode="replicate")
    across = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    down = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).double().expand(3, 1, 3, 3)
    laplacian = F.conv2d(around, kernel, groups=3)
    error = smooth_error(image - reference)
    for row, column in ((1, 1), (2, 3), (4, 2)):
        cells = (0, slice(None), *(slice(4 * n - 4, 4 * n + 8) for n in (row, column)))
        equations = torch.stack([across[cells].flatten(), down[cells].flatten()], 1)
        wanted = error[cells].flatten()[:, None]
        offset = torch.linalg.lstsq(equations, wanted).solution
        left = (wanted - equations @ offset).square().sum() / wanted.square().sum()
        cosine = F.cosine_similarity(laplacian[cells].flatten(), error[cells].flatten(), 0)
        # All but equal: flat parts are guarded by a small addend to the derivatives' energy.
        torch.testing.assert_close(found.moved[0, 0, row, column], 1 - left, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.blurred[0, 0, row, column], cosine, rtol=0, atol=1e-3)


def test_no_error_is_of_no_kind_and_has_a_gradient() -> None:
    reference = scene(6)
    image = reference.clone().requires_grad_()
    moved, blurred = shares(image, reference)
    (moved + blurred).sum().backward()
    assert torch.equal(moved, torch.zeros_like(moved))
    assert torch.equal(blurred, torch.zeros_like(blurred))
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_each_stride_is_weighed_on_its_own_grid() -> None:
    reference = scene(7)
    weighing = Weighing().double()
    error, structure = smooth_error(noise(8, 0.1)), Derivatives().double()(reference)
    with torch.no_grad():
        weighing.moved.copy_(torch.tensor([-9.0, 0.5, 9.0]).view(1, 3, 1, 1))
        weighing.gain.copy_(torch.tensor([9.0, 0.7, -99.0]).view(1, 3, 1, 1))
    densities = [torch.rand(1, 1, side, side).double() for side in (24, 12, 6)]
    fine, middle, coarse = (
        weighed(density)
        for weighed, density in zip(weighing(error, structure), densities, strict=True)
    )
    assert fine.max() < 1e-3
    torch.testing.assert_close(coarse, densities[2])
    moved, blurred = (F.interpolate(each, scale_factor=2.0) for each in explained(error, structure))
    gain = F.softplus(torch.tensor(0.7).double()) * torch.sigmoid(12 * (blurred - 0.5))
    square = densities[1].square()
    raised = densities[1] * (1 + gain * square / (square + 0.2**2 + 1e-4))
    torch.testing.assert_close(middle, torch.sigmoid(12 * (0.5 - moved)) * raised)


@given(gain=st.floats(0, 9), strong=st.floats(1e-4, 1))
def test_more_density_is_more_whatever_is_learned(gain: float, strong: float) -> None:
    kept, raised, square = torch.tensor([0.5, gain, strong]).double()
    found = Weighed(kept, raised, square)(torch.linspace(0, 3, 300).double())
    assert found[0] == 0
    assert bool((found.diff() > 0).all())


def test_of_the_distance_a_move_takes_its_part_away_and_a_blur_adds_one() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ParityNetwork(NetworkConfig.base()).double()
    without = copy.deepcopy(network)
    without.error.weighing.moved.data.fill_(99.0)
    without.error.weighing.gain.data.fill_(-99.0)
    reference = scene(9)
    images = {
        "moved": reference.roll(1, -1),
        "blurred": blur(blur(blur(reference))),
        "noisy": (reference + noise(10, 0.05)).clamp(0, 1),
    }
    with torch.no_grad():
        encoding = network.encode(reference)
        ratios = {
            name: float(network.distance(encoding, image) / without.distance(encoding, image))
            for name, image in images.items()
        }
        plain = network.plain_distance(encoding, images["moved"])
        assert network.distance(encoding, images["moved"]) > plain
    assert ratios["moved"] < 0.6
    assert ratios["blurred"] > 1.1
    assert 0.95 < ratios["noisy"] < 1.05
