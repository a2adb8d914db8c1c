"""Versions of equal PSNR."""

from __future__ import annotations

import math

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.evaluation.stimuli import FIXED, GRADED, TOLERANCE, Stimuli, Stimulus, psnr


@pytest.fixture(scope="module")
def photo() -> Tensor:
    pixels = skimage.data.astronaut()[0:192, 130:322]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize("kind", GRADED)
def test_every_kind_meets_its_psnr(photo: Tensor, kind: str) -> None:
    level = 38.0 if kind == "one alien block" else 27.0
    image = Stimuli(photo)[Stimulus(kind, level)]
    if kind == "chroma blur":  # which this photograph does not admit
        level = 33.0
        image = Stimuli(photo)[Stimulus(kind, level)]
    assert image is not None
    assert image.shape == photo.shape
    assert abs(psnr(image, photo) - level) <= TOLERANCE
    assert torch.equal(image, image.mul(255).round().div(255))
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1


@pytest.mark.parametrize("kind", FIXED)
def test_fixed_kinds_change_the_image(photo: Tensor, kind: str) -> None:
    image = Stimuli(photo)[Stimulus(kind)]
    assert image is not None
    assert image.shape == photo.shape
    assert 15 < psnr(image, photo) < 45


def test_the_psnr_of_another_kind(photo: Tensor) -> None:
    stimuli = Stimuli(photo)
    shifted = stimuli[Stimulus("one-pixel shift")]
    noisy = stimuli[Stimulus("white noise", "one-pixel shift")]
    assert shifted is not None
    assert noisy is not None
    assert abs(psnr(noisy, photo) - psnr(shifted, photo)) <= TOLERANCE
    assert torch.equal(shifted[:, :, 1:], photo[:, :, :-1])


def test_equal_seeds_give_equal_patterns_and_no_global_randomness_is_used(photo: Tensor) -> None:
    state = torch.get_rng_state()
    noise = Stimulus("impulse noise", 27.0)
    first, again, other = Stimuli(photo, 1)[noise], Stimuli(photo, 1)[noise], Stimuli(photo, 2)
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other[noise])  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_photograph_does_not_admit() -> None:
    grey = torch.full((3, 64, 64), 128 / 255)
    stimuli = Stimuli(grey)
    for kind in ("Gaussian blur", "saturation loss", "contrast loss", "misplaced patches"):
        assert stimuli[Stimulus(kind, 27.0)] is None, kind
    assert stimuli[Stimulus("one-pixel shift")] is None
    assert stimuli[Stimulus("white noise", "one-pixel shift")] is None


def test_noise_goes_where_it_should(photo: Tensor) -> None:
    half = photo.clone()
    half[:, :96] = 0.4
    stimuli = Stimuli(half.mul(255).round() / 255)
    for kind, flat_has_more in (("noise in flat parts", True), ("noise in texture", False)):
        image = stimuli[Stimulus(kind, 30.0)]
        assert image is not None
        change = (image - stimuli.photo).abs()
        assert (float(change[:, :80].mean()) > float(change[:, 112:].mean())) is flat_has_more


def test_files_of_equal_size_are_no_larger(photo: Tensor) -> None:
    # 4:4:4 has to pay for its colour with a lower quality.
    stimuli = Stimuli(photo)
    less, full = (
        stimuli[Stimulus(kind)]
        for kind in ("4:4:4 of the size of 4:2:0 at quality 15", "4:2:0 at quality 15")
    )
    assert less is not None
    assert full is not None
    assert psnr(less, photo) < psnr(full, photo)


def test_psnr() -> None:
    image = torch.zeros(3, 8, 8)
    assert psnr(image, image) == math.inf
    assert psnr(image + 0.1, image) == pytest.approx(20)


@pytest.mark.parametrize(
    ("stimulus", "sentence"),
    [
        (Stimulus("fog", 27.0), "unknown kind 'fog'"),
        (Stimulus("white noise"), "takes a PSNR, got level None"),
        (Stimulus("one-pixel shift", 27.0), "takes no PSNR, got level 27.0"),
        (Stimulus("white noise", "JPEG"), "a kind without one, got 'JPEG'"),
    ],
)
def test_wrong_stimuli(photo: Tensor, stimulus: Stimulus, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Stimuli(photo)[stimulus]


def test_wrong_photographs(photo: Tensor) -> None:
    with pytest.raises(ValueError, match="sides of at least 48"):
        Stimuli(photo[:, :40])
    with pytest.raises(ValueError, match="3×H×W"):
        Stimuli(photo[None])
