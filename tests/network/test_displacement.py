"""What counts as a displacement: a move of all colours by one offset, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss.network import NetworkConfig, ParityNetwork
from relqa_loss.network.displacement import Displacement, Gradients, moved_share
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


def share(image: Tensor, reference: Tensor) -> Tensor:
    return moved_share(smooth_error(image - reference), Gradients().double()(reference))


def noise(seed: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(1, 3, 96, 96, generator=generator).double()


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (-1, 1)])
def test_a_moved_copy_is_told_from_other_errors(offset: tuple[int, int]) -> None:
    reference = scene(1)
    inside = (..., slice(2, -2), slice(2, -2))  # pixels come in at the border
    moved = share(reference.roll(offset, (-2, -1)), reference)[inside]
    assert moved.min() > 0.8
    blurred = F.avg_pool2d(F.pad(reference, (1, 1, 1, 1), mode="replicate"), 3, 1)
    for other in (reference + noise(2, 0.1), blurred, reference + 0.05):
        assert share(other, reference)[inside].mean() < 0.3


def test_fringes_of_one_colour_are_no_displacement() -> None:
    reference = scene(3).mean(1, keepdim=True).expand(1, 3, 96, 96)
    fringed = torch.cat([reference[:, :1].roll(1, -1), reference[:, 1:]], 1)
    assert share(fringed, reference).mean() < 0.4
    assert share(reference.roll(1, -1), reference).mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    factor=st.floats(1e-6, 1),
    moved=st.booleans(),
)
def test_the_share_does_not_depend_on_the_size_of_the_error(
    seed: int, factor: float, moved: bool
) -> None:
    reference = scene(seed)
    image = reference.roll(1, -1) if moved else reference + noise(seed, 0.1)
    whole = share(image, reference)
    part = share(reference + factor * (image - reference), reference)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-8)
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_the_share_is_that_of_a_least_squares_fit() -> None:
    reference, image = scene(4), scene(5)
    found = share(image, reference)
    around = F.pad(PixelPyramid().double().smooth(reference), (1, 1, 1, 1), mode="replicate")
    across = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    down = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    error = smooth_error(image - reference)
    for row, column in ((1, 1), (2, 3), (4, 2)):
        cells = (0, slice(None), *(slice(4 * n - 4, 4 * n + 8) for n in (row, column)))
        equations = torch.stack([across[cells].flatten(), down[cells].flatten()], 1)
        wanted = error[cells].flatten()[:, None]
        offset = torch.linalg.lstsq(equations, wanted).solution
        left = (wanted - equations @ offset).square().sum() / wanted.square().sum()
        # All but equal: flat parts are guarded by a small addend to the gradient's energy.
        torch.testing.assert_close(1 - left, found[0, 0, row, column], rtol=0, atol=1e-3)


def test_no_error_has_not_moved_and_has_a_gradient() -> None:
    reference = scene(6)
    image = reference.clone().requires_grad_()
    found = share(image, reference)
    found.sum().backward()
    assert torch.equal(found, torch.zeros_like(found))
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_factors_are_repeated_on_each_grid() -> None:
    reference = scene(7)
    displacement = Displacement().double()
    error, structure = smooth_error(noise(8, 0.1)), Gradients().double()(reference)
    with torch.no_grad():
        displacement.limit.copy_(torch.tensor([-9.0, 0.5, 9.0]).view(1, 3, 1, 1))
    fine, middle, coarse = displacement(error, structure)
    assert [each.shape for each in (fine, middle, coarse)] == [
        (1, 1, 24, 24),
        (1, 1, 12, 12),
        (1, 1, 6, 6),
    ]
    assert fine.max() < 1e-3
    assert coarse.min() > 0.999
    expected = torch.sigmoid(12 * (0.5 - moved_share(error, structure)))
    torch.testing.assert_close(middle[..., ::2, ::2], expected)
    torch.testing.assert_close(middle[..., 1::2, 1::2], expected)


def test_of_the_distance_a_displacement_takes_its_part_away() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ParityNetwork(NetworkConfig.base()).double()
    without = copy.deepcopy(network)
    without.error.displacement.limit.data.fill_(99.0)
    reference = scene(9)
    moved, noisy = reference.roll(1, -1), (reference + noise(10, 0.05)).clamp(0, 1)
    with torch.no_grad():
        encoding = network.encode(reference)
        ratios = {
            name: float(network.distance(encoding, image) / without.distance(encoding, image))
            for name, image in (("moved", moved), ("noisy", noisy))
        }
        plain = network.plain_distance(encoding, moved)
        assert network.distance(encoding, moved) > plain
    assert ratios["moved"] < 0.6
    assert ratios["noisy"] > 0.95
