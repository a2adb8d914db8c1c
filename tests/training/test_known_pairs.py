"""Pairs of equal PSNR whose order is known."""

from __future__ import annotations

import cmath
import math

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.distortions import operator_names
from relqa_loss.distortions._filters import to_ycbcr
from relqa_loss.training import facts
from relqa_loss.training.facts import EXTRA, FACTS, at_psnr, draw_pair
from relqa_loss.training.sets import IMAGES_PER_SET, MARGIN, NO_ORDER, STORED, FactSetMaker
from relqa_loss.training.terms import facts_loss

SIZE = 64


@pytest.fixture(scope="module")
def crop() -> Tensor:
    side = SIZE + MARGIN
    photo = skimage.data.astronaut()[20 : 20 + side, 190 : 190 + side]
    return torch.from_numpy(photo).permute(2, 0, 1).float().div(255)


def _psnr(image: Tensor, reference: Tensor) -> float:
    return -10 * math.log10(float((image - reference).double().square().mean()))


def test_facts_name_operators_that_exist() -> None:
    known = {*operator_names(), *EXTRA}
    for fact in FACTS:
        assert {*fact.worse, *fact.better} <= known
        assert fact.psnr is None or fact.psnr[0] < fact.psnr[1]
        assert fact.share > 0
        assert not {*fact.worse} & {*fact.better}
        assert fact.source


@pytest.mark.parametrize("name", ["white_noise", "gaussian_blur", "jpeg", *EXTRA])
def test_psnr_is_met_or_none_is_returned(name: str, crop: Tensor) -> None:
    met = 0
    for target in (22.0, 26.0, 30.0, 36.0):
        found = at_psnr(crop[None], name, target, seed=3)
        if found is not None:
            met += 1
            assert abs(_psnr(found, crop[None]) - target) < 0.3
            assert torch.equal(found, found.mul(255).round().div(255))
    assert met >= 1
    assert at_psnr(crop[None], name, 1.0, seed=3) is None


def test_a_whole_pixel_of_translation_moves_every_pixel_alike(crop: Tensor) -> None:
    # 1.5 pixels times two thirds, along an axis for this seed.
    for seed in range(40):
        moved = EXTRA["translation"](crop[None], 2 / 3, torch.Generator().manual_seed(seed))
        inner = moved[..., 8:-8, 8:-8]
        gaps = [
            float((inner - crop[None].roll(shift, (2, 3))[..., 8:-8, 8:-8]).abs().max())
            for shift in ((0, 1), (0, -1), (1, 0), (-1, 0))
        ]
        if min(gaps) < 1e-4:
            return
    pytest.fail("no seed moved the image by one pixel along an axis")


def test_pairs_have_equal_psnr_up_to_the_handicap(
    crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "FACTS", tuple(fact for fact in FACTS if fact.psnr is not None))
    generator = torch.Generator().manual_seed(0)
    most = max(fact.handicap for fact in FACTS)
    found = [draw_pair(crop[None], operator_names(), generator) for _ in range(40)]
    pairs = [pair for pair in found if pair is not None]
    assert len(pairs) > 15
    gaps = [_psnr(worse, crop[None]) - _psnr(better, crop[None]) for worse, better, _ in pairs]
    assert all(-0.6 < gap < most + 0.6 for gap in gaps)
    assert any(abs(gap) < 0.6 for gap in gaps)


def test_squares_and_blur_are_of_the_same_enlargement(
    crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = tuple(fact for fact in FACTS if "nearest_enlarged" in fact.worse)
    monkeypatch.setattr(facts, "FACTS", squares)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        pair = draw_pair(crop[None], (), generator)
        assert pair is not None
        changes = [float((each.diff(dim=-1) != 0).float().mean()) for each in pair[:2]]
        # Nearest repeats pixels two to four times, so most neighbours are equal.
        assert changes[0] < 0.55 < 0.8 < changes[1]
        small = [torch.nn.functional.avg_pool2d(each, 16) for each in pair[:2]]
        assert float((small[0] - small[1]).abs().mean()) < 0.02


def test_shares_decide_how_often_a_fact_is_drawn(
    crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[facts.Fact] = []
    monkeypatch.setattr(
        facts, "_draw", lambda fact, *_: asked.append(fact) or facts.Pair(crop, crop, False)
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(4000):
        draw_pair(crop[None], (), generator)
    total = sum(fact.share for fact in FACTS)
    for fact in FACTS:
        assert asked.count(fact) / 4000 == pytest.approx(fact.share / total, abs=0.02)


def test_without_operators_there_are_no_pairs(crop: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    found = [draw_pair(crop[None], (), generator) for _ in range(60)]
    # Only the facts that have both sides outside the bank are left.
    left = [fact for fact in FACTS if set(fact.worse) & {*EXTRA} and set(fact.better) & {*EXTRA}]
    share = sum(fact.share for fact in left) / sum(fact.share for fact in FACTS)
    assert sum(pair is not None for pair in found) / 60 == pytest.approx(share, abs=0.12)


def test_sets_say_which_images_are_pairs(crop: Tensor) -> None:
    operators = operator_names()
    made = [FactSetMaker(operators)(crop, seed) for seed in range(4)]
    known = 0
    for each in made:
        assert each.images.shape == (IMAGES_PER_SET, 3, SIZE, SIZE)
        assert each.panel.shape == (IMAGES_PER_SET, 0)
        assert not bool(each.maps.any())
        for worse, better in each.order[(each.order != NO_ORDER).all(1)].tolist():
            known += 1
            assert {worse, better} == {worse // 2 * 2, worse // 2 * 2 + 1}
            assert not torch.equal(each.images[worse], each.images[better])
    assert known >= 12
    again = FactSetMaker(operators)(crop, 0)
    assert all(torch.equal(getattr(again, field), getattr(made[0], field)) for field in STORED)


def _frequency(wave: Tensor) -> complex:
    """The strongest frequency of a square image, in cycles per pixel: columns + i · rows."""
    window = torch.hann_window(len(wave))
    power = torch.fft.rfft2(wave * window.outer(window), s=(1024, 1024)).abs()
    row, column = divmod(int(power.argmax()), power.shape[-1])
    return complex(column, (row + 512) % 1024 - 512) / 1024


def _waves(name: str) -> list[complex]:
    grey = torch.full((1, 3, 96, 96), 0.5)
    found = []
    for seed in range(60):
        image = EXTRA[name](grey, 1.0, torch.Generator().manual_seed(seed)) - grey
        assert 0.14 < float(image.abs().max()) < 0.41
        assert float(image.std(1).max()) < 1e-6  # grey
        found.append(_frequency(image[0, 0]))
    return found


def test_waves_differ_by_an_eighth_of_their_length() -> None:
    waves = _waves("wave")
    for wave, longer in zip(waves, _waves("longer_wave"), strict=True):
        assert 1 / 9.1 < abs(longer) < abs(wave) < 1 / 2.1
        assert abs(wave) / abs(longer) == pytest.approx(1.12, abs=0.03)
    axial = [wave for wave in waves if min(abs(wave.real), abs(wave.imag)) < 2 / 1024]
    assert 18 < len(axial) < 48
    # Of four pixels, which the panel misses, and of those exactly: whatever the phase.
    assert sum(1 / 4.6 < abs(wave) < 1 / 3.3 for wave in waves) > 30
    assert sum(abs(wave) == pytest.approx(0.25, abs=1e-3) for wave in axial) > 3


def test_turned_waves_are_as_long() -> None:
    for wave, turned in zip(_waves("wave"), _waves("turned_wave"), strict=True):
        assert abs(turned) == pytest.approx(abs(wave), abs=0.005)
        # Two that cross are a quarter turn apart, and either may be the stronger one.
        degrees = abs(math.degrees(cmath.phase(turned / wave))) % 90
        assert min(degrees, 90 - degrees) == pytest.approx(12, abs=1.5)


def test_two_that_are_alike_are_wrong_in_either_order(
    crop: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = tuple(fact for fact in FACTS if fact.alike)
    monkeypatch.setattr(facts, "FACTS", alike)
    order = FactSetMaker(operator_names())(crop, 0).order
    pairs = {(worse, better) for worse, better in order.tolist() if worse != NO_ORDER}
    assert pairs == {(b, a) for a, b in pairs}
    assert len(pairs) == IMAGES_PER_SET
    # Within a clear step nothing is to be gained, beyond it there is.
    for ratio, pull in ((1.0, 0.0), (1.3, 0.0), (1.5, 1.0), (1 / 1.5, -1.0)):
        distance = torch.ones(1, IMAGES_PER_SET)
        distance[:, ::2] = ratio
        distance.requires_grad_()
        loss = facts_loss(distance, order[None])
        (gradient,) = torch.autograd.grad(loss, distance)
        assert torch.equal(gradient[0, ::2].sign(), torch.full((4,), pull))


def test_blurred_planes_leave_the_others_alone(crop: Tensor) -> None:
    generator = torch.Generator()
    planes = to_ycbcr(crop[None])
    for name, kept, changed in (
        ("luma_blur", slice(1, 3), slice(0, 1)),
        ("chroma_blur", slice(0, 1), slice(1, 3)),
    ):
        moved = to_ycbcr(EXTRA[name](crop[None], 0.5, generator))
        torch.testing.assert_close(moved[:, kept], planes[:, kept], atol=1e-5, rtol=0)
        assert float((moved[:, changed] - planes[:, changed]).abs().mean()) > 1e-3


def test_coarse_codecs_differ_by_their_colours(crop: Tensor) -> None:
    generator = torch.Generator()
    full, halved = (
        EXTRA[name](crop[None], 0.5, generator) for name in ("coarse_444", "coarse_420")
    )
    errors = [(to_ycbcr(image) - to_ycbcr(crop[None])).abs() for image in (full, halved)]
    torch.testing.assert_close(errors[0][:, :1].mean(), errors[1][:, :1].mean(), rtol=0.1, atol=0)
    assert float(errors[1][:, 1:].mean()) > float(errors[0][:, 1:].mean())
