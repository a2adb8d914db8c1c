"""Properties of masks: range, coverage, determinism, and what each kind follows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relqa_loss.distortions.masks import MASK_KINDS, gaussian_blur, sample_mask

PARTIAL = tuple(kind for kind in MASK_KINDS if kind != "whole")
SIZES = ((128, 128), (33, 47), (97, 64), (32, 200))
SEEDS = range(12)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(height: int = 96, width: int = 96) -> Tensor:
    """A smooth ramp on the left, noise on the right."""
    ramp = torch.linspace(0.2, 0.7, height)[:, None].expand(height, width)
    image = ramp[None].repeat(3, 1, 1)
    half = width // 2
    image[:, :, half:] = torch.rand(3, height, width - half, generator=generator(7))
    return image


def images(height: int, width: int) -> dict[str, Tensor]:
    return {
        "scene": scene(height, width),
        "noise": torch.rand(3, height, width, generator=generator(3)),
        "black": torch.zeros(3, height, width),
        "white": torch.ones(3, height, width),
        "grey": torch.full((3, height, width), 0.4),
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", PARTIAL)
def test_partial_masks_cover_a_fair_part_of_any_image(kind: str, size: tuple[int, int]) -> None:
    for name, image in images(*size).items():
        for seed in SEEDS:
            mask = sample_mask(kind, image, generator(seed))
            assert mask.shape == (1, *size)
            assert mask.dtype == image.dtype
            assert torch.isfinite(mask).all()
            assert mask.min() >= 0
            assert 0.9 <= mask.max() <= 1, (name, seed)
            covered = float((mask > 0.5).float().mean())
            assert 0.07 <= covered <= 0.62, (name, seed, covered)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_a_single_pixel_has_a_mask(kind: str) -> None:
    for seed in SEEDS:
        assert 0 <= sample_mask(kind, torch.rand(3, 1, 1), generator(seed)) <= 1


def test_whole_is_all_ones() -> None:
    mask = sample_mask("whole", scene(33, 47), generator(0))
    assert torch.equal(mask, torch.ones(1, 33, 47))


@pytest.mark.parametrize("kind", PARTIAL)
def test_same_seed_same_mask_and_other_seed_another(kind: str) -> None:
    image = scene()
    first = sample_mask(kind, image, generator(5))
    assert torch.equal(first, sample_mask(kind, image, generator(5)))
    others = [sample_mask(kind, image, generator(seed)) for seed in (6, 7, 8)]
    assert any(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_global_generator_and_image_are_left_alone(kind: str) -> None:
    image = scene()
    before, state = image.clone(), torch.get_rng_state()
    sample_mask(kind, image, generator(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_carry_no_gradient(kind: str) -> None:
    assert not sample_mask(kind, scene().requires_grad_(), generator(1)).requires_grad


def test_edges_are_found_along_rows_and_columns() -> None:
    for turned in (False, True):
        image = torch.full((3, 96, 96), 0.2)
        image[:, 40:] = 0.8
        mask = sample_mask("edges", image.mT if turned else image, generator(0))[0]
        mask = mask.mT if turned else mask
        assert mask[39:41].min() > 0.9
        assert mask[:20].mean() < 0.5


def test_rectangles_and_gradients_are_not_all_alike() -> None:
    masks = [sample_mask("rectangles", scene(), generator(seed))[0] for seed in range(30)]
    # One whole rectangle fills its bounding box, several do not.
    full = []
    for mask in masks:
        rows, columns = mask.amax(1).nonzero(), mask.amax(0).nonzero()
        height, width = (int(n.max() - n.min()) + 1 for n in (rows, columns))
        full.append(float(mask.sum()) == height * width)
    assert 3 < sum(full) < 27
    assert all(any(mask[y, x] for mask in masks) for y in (20, 48, 75) for x in (20, 48, 75))
    ramps = [sample_mask("gradient", scene(), generator(seed))[0] for seed in range(30)]
    # Highest at a border, or round a place inside, or lowest there.
    inside = [float(ramp[1:-1, 1:-1].max()) > float(ramp.max()) - 1e-6 for ramp in ramps]
    lowest = [float(ramp[1:-1, 1:-1].min()) < float(ramp.min()) + 1e-6 for ramp in ramps]
    assert 2 < sum(inside) < 20
    assert 2 < sum(lowest) < 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_dtype_of_the_image_is_kept(kind: str, dtype: torch.dtype) -> None:
    mask = sample_mask(kind, scene().to(dtype), generator(1))
    assert mask.dtype == dtype
    assert 0.9 <= mask.max() <= 1


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_autocast_changes_nothing(kind: str) -> None:
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(1))
    plain = sample_mask(kind, image, torch.Generator().manual_seed(4))
    with torch.autocast("cpu", torch.bfloat16):
        mask = sample_mask(kind, image, torch.Generator().manual_seed(4))
    assert torch.equal(mask, plain)


def test_edges_follow_detail_and_flat_avoids_it() -> None:
    image = scene()
    for seed in SEEDS:
        edges = sample_mask("edges", image, generator(seed))[0]
        flat = sample_mask("flat", image, generator(seed))[0]
        # The border of the noisy half is left out: both masks are soft.
        assert edges[:, 56:].mean() > edges[:, :40].mean() + 0.2
        assert flat[:, :40].mean() > flat[:, 56:].mean() + 0.2


def test_edges_find_the_outline_of_an_object() -> None:
    image = torch.full((3, 128, 128), 0.2)
    image[:, 40:88, 40:88] = 0.8
    mask = sample_mask("edges", image, generator(0))[0]
    assert mask[40, 40:88].min() > 0.9
    assert mask[40:88, 87].min() > 0.9


def test_segments_follow_the_objects() -> None:
    # Four quarters of plain colours: within a quarter a mask is cut by place alone, but its
    # outline must run along the border of the quarters, since no segment straddles it.
    image = torch.zeros(3, 128, 128)
    image[0, :64, :64] = image[1, :64, 64:] = image[2, 64:, :64] = 1
    steps = []
    for seed in SEEDS:
        mask = (sample_mask("segments", image, generator(seed))[0] > 0.5).float()
        across = (mask[:, 1:] - mask[:, :-1]).abs().mean(0)
        steps.append(across)
    mean = torch.stack(steps).mean(0)
    assert mean[62:65].max() > 3 * mean.mean()


def test_rectangles_are_hard_and_blobs_are_soft() -> None:
    image = scene()
    for seed in SEEDS:
        hard = sample_mask("rectangles", image, generator(seed))
        assert set(hard.unique().tolist()) == {0.0, 1.0}
        soft = sample_mask("blobs", image, generator(seed))
        assert ((soft > 0.1) & (soft < 0.9)).float().mean() > 0.02


def test_gradient_runs_from_zero_to_one_without_steps() -> None:
    for seed in SEEDS:
        mask = sample_mask("gradient", scene(128, 128), generator(seed))[0]
        assert mask.min() < 0.01
        assert mask.max() > 0.99
        values = mask.flatten().sort().values
        assert values.diff().max() < 0.25


def test_unknown_kind_is_refused_and_the_kinds_are_named() -> None:
    with pytest.raises(ValueError, match=r"blobs.*'circles'"):
        sample_mask("circles", scene(), generator(0))


def test_blur_keeps_constants_and_spreads_an_impulse_as_a_gaussian() -> None:
    constant = torch.full((2, 3, 21, 30), 0.3)
    torch.testing.assert_close(gaussian_blur(constant, 2.5), constant)
    impulse = torch.zeros(1, 1, 41, 41)
    impulse[..., 20, 20] = 1
    blurred = gaussian_blur(impulse, 2.0)[0, 0]
    x = torch.arange(41.0) - 20
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float((blurred.sum(0) * x * x).sum()) == pytest.approx(4, rel=0.05)
