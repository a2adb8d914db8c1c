"""The consensus panel and its judges."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.training.panel import JUDGES, PANEL, panel_values

MEMBERS = (*PANEL, *JUDGES, "gmsd", "vif")
SIZE = 96  # judges need at least this; the panel itself works from 64


@pytest.fixture(scope="module")
def photo() -> Tensor:
    pixels = skimage.data.astronaut()[:SIZE, 180 : 180 + SIZE]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def test_judges_have_no_part_in_the_panel() -> None:
    assert len(JUDGES) >= 2
    assert not set(JUDGES) & set(PANEL)


@pytest.mark.parametrize("member", MEMBERS)
def test_zero_at_identity_and_rising_with_noise(photo: Tensor, member: str) -> None:
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    images = torch.cat([(photo + sigma * noise).clamp(0, 1) for sigma in (0, 0.02, 0.08, 0.25)])
    values = panel_values(photo, images, (member,))[:, 0]
    assert abs(float(values[0])) < 1e-5
    assert bool((values.diff() > 1e-4).all()), values


def test_one_column_per_member_and_one_row_per_image(photo: Tensor) -> None:
    images = photo * torch.tensor([1.0, 0.9, 0.5]).view(3, 1, 1, 1)
    values = panel_values(photo, images)
    assert values.shape == (3, len(PANEL))
    torch.testing.assert_close(values[1:2], panel_values(photo, images[1:2]))
    torch.testing.assert_close(values[:, :1], panel_values(photo, images, PANEL[:1]))


def test_works_at_the_least_crop_that_training_takes(photo: Tensor) -> None:
    small = photo[..., :64, :64]
    values = panel_values(small, (small * 0.8).clamp(0, 1))
    assert bool(torch.isfinite(values).all())
    assert bool((values > 0).all())


@pytest.mark.parametrize("member", MEMBERS)
def test_an_image_does_not_depend_on_its_batch(photo: Tensor, member: str) -> None:
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    images = torch.cat([(photo + sigma * noise).clamp(0, 1) for sigma in (0.02, 0.25)])
    together = panel_values(photo, images, (member,))
    alone = torch.cat([panel_values(photo, image[None], (member,)) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def _chequered(photo: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """A photograph without and with squares, lighter and darker by turns, of so many pixels."""
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(SIZE, SIZE)
    squares = signs.repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)[:SIZE, :SIZE]
    inside = photo.clamp(0.1, 0.9)
    return inside, inside + 0.1 * squares


@pytest.mark.parametrize("member", MEMBERS)
def test_what_half_resolution_does_not_show_is_not_seen(photo: Tensor, member: str) -> None:
    assert abs(float(panel_values(*_chequered(photo, 1), (member,)))) < 1e-4
    assert float(panel_values(*_chequered(photo, 6), (member,))) > 5e-4


def test_images_are_halved_once(photo: Tensor) -> None:
    seen = panel_values(*_chequered(photo, 2), ("mdsi", "haarpsi", "vif"))
    assert bool((seen > 1e-2).all()), seen


@pytest.mark.parametrize("member", MEMBERS)
def test_colour_is_seen_by_all_but_those_of_luminance(photo: Tensor, member: str) -> None:
    inside = photo.clamp(0.25, 0.75)
    waves = torch.linspace(0, 40, SIZE).sin() * torch.linspace(0, 30, SIZE).sin()[:, None]
    # Of no luminance: what red gains, green loses.
    colour = torch.tensor([1 / 0.299, -1 / 0.587, 0]).view(3, 1, 1) * 0.05 * waves
    value = float(panel_values(inside, inside + colour, (member,)))
    assert (value > 1e-3) == (member not in {"dss", "gmsd", "vif"}), value


def test_values_carry_no_gradient(photo: Tensor) -> None:
    assert not panel_values(photo, (photo * 0.8).requires_grad_(), PANEL[:1]).requires_grad


def test_unknown_member_is_named(photo: Tensor) -> None:
    with pytest.raises(ValueError, match=r"unknown panel members \['psnr'\]"):
        panel_values(photo, photo, ("mdsi", "psnr"))
