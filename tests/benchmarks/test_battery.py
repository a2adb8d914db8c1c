"""The measurements of the trust battery, on cases whose outcome is known."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def battery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import _battery

    return _battery


def images(count: int, side: int = 128, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def l2(preds: Tensor, target: Tensor) -> Tensor:
    return (preds - target).square().mean((1, 2, 3))


def lattice(stride: int, side: int = 128) -> Tensor:
    """A dot on every crossing of a grid: power at all frequencies of the grid."""
    pattern = torch.zeros(1, 1, side, side)
    pattern[..., ::stride, ::stride] = 1
    return pattern


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_grids_are_found_at_their_stride(battery: ModuleType, stride: int) -> None:
    noise = 0.2 * images(16)
    assert battery.spectrum_peak(noise, stride) < 2
    assert battery.spectrum_peak(noise + 0.2 * lattice(stride), stride) > 4
    if stride > 2:
        # A cosine of the coarse period alone leaves the finer grid's frequencies as they are.
        x = torch.arange(128)
        wave = torch.cos(2 * math.pi * x / stride)[None, :].expand(128, 128)
        assert battery.spectrum_peak(noise + 0.2 * wave, stride) > 4
        assert battery.spectrum_peak(noise + 0.2 * wave, 2) < 2


def test_a_checkerboard_is_a_peak_at_nyquist(battery: ModuleType) -> None:
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    board = 0.05 * ((x + y) % 2)
    assert battery.spectrum_peak(0.2 * images(16) + board, 2) > 4
    with pytest.raises(ValueError, match="multiples of 2"):
        battery.spectrum_peak(torch.rand(1, 3, 31, 64), 2)


def test_valleys_are_counted(battery: ModuleType) -> None:
    t = torch.linspace(0, 1, 65)
    assert battery.local_minima(t) == 0
    assert battery.local_minima(t.square()) == 0
    assert battery.local_minima((t - 0.5).square()) == 1
    assert battery.local_minima(t + 0.3 * torch.sin(6 * math.pi * t)) == 3
    assert battery.local_minima(torch.tensor([0.0, 1.0, 0.5, 0.5, 1.0])) == 1  # a flat valley
    ripple = t + 1e-5 * torch.sin(400 * t)
    assert battery.local_minima(ripple) == 0
    assert battery.local_minima(ripple, tolerance=0) == battery.local_minima(ripple, 1e-9)


def test_descent_on_squares_goes_straight_home(battery: ModuleType) -> None:
    target = images(3, 32)
    preds = images(3, 32, seed=1)
    slope = battery.gradient(l2, preds, target)
    torch.testing.assert_close(battery.homeward(slope, preds, target), torch.ones(3))
    torch.testing.assert_close(battery.homeward(-slope, preds, target), -torch.ones(3))


def test_drift_is_of_the_mean(battery: ModuleType) -> None:
    target = images(2, 32)
    shifted = target.clone()
    shifted[:, 1] += 3 / 255
    shifted[:, 2] -= 5 / 255
    assert battery.colour_drift(shifted, target) == pytest.approx(5, abs=1e-3)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    noise = noise - noise.mean((2, 3), keepdim=True)
    assert battery.colour_drift(target + 0.1 * noise, target) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_unguarded_root_is_caught(battery: ModuleType, dtype: torch.dtype) -> None:
    def root(preds: Tensor, target: Tensor) -> Tensor:
        return l2(preds, target).sqrt()  # infinite slope at identity

    def refuses(preds: Tensor, target: Tensor) -> Tensor:
        if preds.min() < 0:
            raise ValueError("out of range")
        return l2(preds, target)

    found = battery.finiteness(root, dtype, 32)
    assert found.bad == pytest.approx(3 / 7)  # identical, black, white
    assert found.refused == ()
    assert battery.finiteness(l2, dtype, 32) == (0.0, ())
    assert battery.finiteness(refuses, dtype, 32) == (0.0, ("out of range",))


def test_attacks_stay_close_and_go_the_right_way(battery: ModuleType) -> None:
    target, preds = images(2, 32), images(2, 32, seed=1)
    for sign in (-1.0, 1.0):
        changed = battery.attack(l2, preds, target, radius=2 / 255, sign=sign)
        assert float((changed - preds).abs().max()) <= 2 / 255 + 1e-6
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
        assert ((l2(changed, target) > l2(preds, target)) == (sign > 0)).all()
    still = battery.attack(l2, target, target, radius=1 / 255, sign=1.0)
    assert (l2(still, target) > 0).all()


def test_images_of_equal_error(battery: ModuleType) -> None:
    # A distance that sees the left half only: least error there, or all of it there.
    def left(preds: Tensor, target: Tensor) -> Tensor:
        return l2(preds[..., :16], target[..., :16])

    target = 0.25 + 0.5 * images(1, 32)
    start = target + 0.05 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    least, most = (battery.same_error(left, start, target, sign=sign) for sign in (-1.0, 1.0))
    for image in (least, most):
        torch.testing.assert_close(
            battery.psnr(image, target), battery.psnr(start, target), rtol=0, atol=0.05
        )
    assert left(least, target) < 0.2 * left(start, target)
    assert left(most, target) > 1.7 * left(start, target)


def test_the_battery_runs_on_a_loss_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("piq")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import loss_trust

    photos = images(2, 64)
    found = loss_trust.scans(l2, photos, loss_trust.ATTACKED[:2])
    assert found == {"monotone": 1.0, "minima": 0, "failing": []}
    assert loss_trust.gradients(l2, photos)["cosine"] == pytest.approx(1, abs=1e-4)
    shifts = loss_trust.attacks(l2, photos)
    assert shifts["lowered 2/255"] > shifts["lowered 1/255"] > 0
    assert shifts["flips 1/255"] <= shifts["flips 2/255"]


def test_nothing_is_so_many_times_what_is_below_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import loss_trust

    assert loss_trust.over_best({"most": 0.75, "least": 0.25}) == "3.0"
    # 1 − VIF of an image of more contrast than its reference.
    assert loss_trust.over_best({"most": 0.86, "least": -0.08}) == "– (0.86 / -0.08)"
    assert loss_trust.over_best({"most": 0.5, "least": 0.0}) == "– (0.50 / 0.00)"
