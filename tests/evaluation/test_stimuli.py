"""Versions of equal PSNR."""

from __future__ import annotations

import math

import pytest
import skimage.data
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from relqa_loss.distortions._filters import to_ycbcr
from relqa_loss.evaluation import stimuli as module
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


def test_a_kind_has_one_pattern_at_every_level_and_no_other_kinds(photo: Tensor) -> None:
    flat = torch.full_like(photo, 128 / 255)
    stimuli = Stimuli(flat)

    def pattern(kind: str, level: float) -> Tensor:
        stimulus = Stimulus(kind, level)
        image = stimuli[stimulus]
        assert image is not None
        assert stimuli[stimulus] is image
        return (image - flat).flatten()

    patterns = pattern("white noise", 27.0), pattern("white noise", 30.0)
    assert torch.corrcoef(torch.stack(patterns))[0, 1] > 0.9
    # On a plain picture, noise in flat parts is white noise.
    patterns = pattern("white noise", 27.0), pattern("noise in flat parts", 27.0)
    assert abs(torch.corrcoef(torch.stack(patterns))[0, 1]) < 0.1


@pytest.mark.parametrize(("kind", "luma"), [("luma blur", True), ("chroma blur", False)])
def test_blurs_of_luma_and_chroma_leave_the_other(photo: Tensor, kind: str, luma: bool) -> None:
    image = Stimuli(photo)[Stimulus(kind, 33.0)]
    assert image is not None
    change = (to_ycbcr(image[None]) - to_ycbcr(photo[None])).abs().mean((2, 3))[0]
    blurred, kept = (change[0], change[1:]) if luma else (change[1:].max(), change[:1])
    assert float(blurred) > 5 * float(kept.max())


@pytest.mark.parametrize("what", ["contrast", "saturation"])
def test_gains_are_gains_and_losses_are_losses(photo: Tensor, what: str) -> None:
    half = 0.5 + 0.5 * (photo - 0.5)  # with room for both
    stimuli = Stimuli(half.mul(255).round() / 255)
    spread = []
    for kind in ("loss", "gain"):
        image = stimuli[Stimulus(f"{what} {kind}", 33.0)]
        assert image is not None
        parts = to_ycbcr(torch.stack([stimuli.photo, image]))
        part = parts[:, :1] if what == "contrast" else parts[:, 1:]
        before, after = part.flatten(2).std(2).mean(1).tolist()
        spread.append(after / before)
    assert spread[0] < 0.98 < 1.02 < spread[1]


@pytest.mark.parametrize("grey", [0.25, 0.75])
def test_an_alien_block_is_one_whole_block_of_the_other_colour(grey: float) -> None:
    plain = torch.full((3, 96, 128), grey).mul(255).round() / 255
    corners = set()
    for seed in range(4):
        image = Stimuli(plain, seed)[Stimulus("one alien block", 25.0)]
        assert image is not None
        change = (image - plain).abs().amin(0)
        rows, columns = change.amax(1).nonzero()[:, 0], change.amax(0).nonzero()[:, 0]
        (top, bottom), (left, right) = ((int(x[0]), int(x[-1])) for x in (rows, columns))
        assert bottom - top == right - left
        assert bool((change[top:bottom, left:right] > 0.7).all())
        assert change.count_nonzero() == (bottom - top + 1) ** 2
        corners.add((top, left))
    assert len({top for top, _ in corners}) > 1
    assert len({left for _, left in corners}) > 1


def test_fixed_kinds_are_what_they_are_called(photo: Tensor) -> None:
    stimuli = Stimuli(photo)

    def version(kind: str) -> Tensor:
        image = stimuli[Stimulus(kind)]
        assert image is not None
        return image

    for kind, sign in (("mean 14 levels up", 1), ("mean 14 levels down", -1)):
        expected = (photo + sign * 14 / 255).clamp(0, 1)
        torch.testing.assert_close(version(kind), expected, atol=1e-5, rtol=0)
    assert torch.equal(version("one-pixel shift")[..., :1], photo[..., :1])
    # 192 pixels are 64 blocks of three.
    blocks, whole = (
        image.unfold(1, 3, 3).unfold(2, 3, 3).flatten(3)
        for image in (version("nearest × 3"), photo)
    )
    assert torch.equal(blocks.amin(3), blocks.amax(3))
    torch.testing.assert_close(blocks[..., 0], whole.mean(3), atol=1 / 255, rtol=0)
    nearest, bilinear, lanczos = (
        psnr(version(f"{how} × 3"), photo) for how in ("nearest", "bilinear", "Lanczos")
    )
    assert lanczos > max(nearest, bilinear)
    assert nearest != bilinear
    blurred = torch.from_numpy(gaussian_filter(photo.numpy(), (0, 1, 1)))[:, 8:-8, 8:-8]
    found = version("Gaussian blur of σ 1")[:, 8:-8, 8:-8]
    torch.testing.assert_close(found, blurred, atol=2 / 255, rtol=0)


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


def test_files_of_equal_size_are_all_but_as_large(
    photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decode = module._decode

    def noting(stream: bytes, photo: Tensor) -> Tensor:
        sizes.append(len(stream))
        return decode(stream, photo)

    monkeypatch.setattr(module, "_decode", noting)
    stimuli = Stimuli(photo)
    for kind, like in (
        ("4:4:4 of the size of 4:2:0 at quality 15", "4:2:0 at quality 15"),
        ("JPEG 2000 of the size of JPEG quality 10", "JPEG quality 10"),
    ):
        assert stimuli[Stimulus(kind)] is not None
        assert stimuli[Stimulus(like)] is not None
        assert 0.85 * sizes[-1] < sizes[-2] <= sizes[-1]
    halved, full = (stimuli[Stimulus(f"4:{k} at quality 10")] for k in ("2:0", "4:4"))
    assert halved is not None
    assert full is not None
    assert psnr(halved, photo) < psnr(full, photo)


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
