"""What the comparison of trained networks rests on: pairing, equal starts, runs found again."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("piq")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def runs() -> ModuleType:
    import _runs

    return _runs


def photographs(count: int = 3, side: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 24])
def test_photographs_of_the_sheet_are_among_those_that_are_there(count: int) -> None:
    from restoration import pictured

    numbers = pictured(count)
    assert numbers
    assert len(numbers) == len(set(numbers)) <= 2
    assert set(numbers) <= set(range(count))
    assert pictured(24) == [2, 12]


def test_differences_are_paired_and_point_to_the_better() -> None:
    from restoration import difference

    hard = np.random.default_rng(1).normal(0, 10, (3, 24))
    better = difference(hard + 0.5, hard)
    assert better == pytest.approx((0.5, 0.5, 0.5))
    assert better.verdict == "better"
    assert difference(hard + 0.5, hard, higher=False).verdict == "worse"
    assert difference(hard, hard).verdict == "–"
    with pytest.raises(ValueError, match="finite"):
        difference([[math.nan]], [[0.0]])


def test_seeds_that_disagree_widen_the_interval() -> None:
    from restoration import difference

    noise = np.random.default_rng(2).normal(0, 0.1, (3, 40))
    none = np.zeros_like(noise)
    alike = difference(noise + 1, none)
    apart = difference(noise + np.array([[3.0], [0.0], [0.0]]), none)
    assert alike.low > 0.9
    assert apart.mean == pytest.approx(alike.mean, abs=0.1)
    assert apart.low < 0.2 < apart.high
    assert apart.verdict == "–"


def test_tables_count_the_judges(runs: ModuleType) -> None:
    from _contest import JUDGES
    from restoration import contest_table

    figures = {
        name: {key: [[value] * 4] * 2 for key in ("PSNR", *JUDGES)}
        for name, value in (("L1", 0.5), ("RelationalLoss", 0.75))
    }
    text, found = contest_table(figures)
    lower = sum(not higher for higher in JUDGES.values())
    assert f"{len(JUDGES) - lower} / {lower} of {len(JUDGES)}" in text
    assert found["L1"]["MS-GMSD"].mean == -0.25
    assert found["L1"]["PSNR"].verdict == "better"


def test_losses_see_the_same_batches_and_first_weights(runs: ModuleType, tmp_path: Path) -> None:
    class Watch(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale
            self.seen: list[Tensor] = []

        def forward(self, preds: Tensor, target: Tensor) -> Tensor:
            self.seen += [preds.detach().clone(), target.clone()]
            return self.scale * (preds - target).square().mean()

    settings = runs.Settings("denoise", "L1", seed=3, steps=2, width=4, blocks=1, crop=32)
    first, second = Watch(1.0), Watch(-1.0)
    runs.train(settings, photographs(), tmp_path / "a", weights="relqa-base", loss=first)
    runs.train(settings, photographs(), tmp_path / "b", weights="relqa-base", loss=second)
    images, targets, later, later_targets = range(4)
    for same in (images, targets, later_targets):
        assert torch.equal(first.seen[same], second.seen[same])
    assert not torch.equal(first.seen[targets], first.seen[later_targets])
    assert not torch.equal(first.seen[later], second.seen[later])


def test_finished_runs_are_found_again(runs: ModuleType, tmp_path: Path) -> None:
    settings = runs.Settings("upscale", "L1", seed=0, steps=1, width=4, blocks=1, crop=32)
    run = runs.train(settings, photographs(), tmp_path, weights="relqa-base")
    before = torch.load(run / "network.pt", weights_only=True)

    def explode(*_: Tensor) -> Tensor:
        raise AssertionError("trained again")

    again = runs.train(
        settings, photographs(), tmp_path, weights="relqa-base", loss=_Raise(explode)
    )
    assert again == run
    loaded, network = runs.load_network(run)
    assert loaded == settings
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    for change in ({"seed": 1}, {"steps": 2}, {"loss": "L2"}, {"weights": "0123"}):
        assert replace(settings, **change).key != settings.key
    assert replace(settings, bits=2.0).key == settings.key  # nothing to compress here


class _Raise(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, *images: Tensor) -> Tensor:
        return self.function(*images)  # type: ignore[operator,no-any-return]


def test_only_our_runs_depend_on_our_weights(runs: ModuleType, tmp_path: Path) -> None:
    settings = runs.Settings("denoise", "L1", seed=0, steps=1, width=4, blocks=1, crop=32)
    keys = {}
    for name in ("L1", "RelationalLoss"):
        run = runs.train(
            replace(settings, loss=name), photographs(), tmp_path, weights="relqa-base"
        )
        record = json.loads((run / "record.json").read_text("utf-8"))
        keys[name] = record["settings"]["weights"]
        assert record["finite"]
    assert keys["L1"] == ""
    assert len(keys["RelationalLoss"]) == 8


def test_figures_are_of_the_right_images(runs: ModuleType, tmp_path: Path) -> None:
    settings = runs.Settings("denoise", "L1", seed=0, steps=1, width=4, blocks=1, crop=32, rate=0.0)
    run = runs.train(settings, photographs(), tmp_path, weights="relqa-base")
    # With a rate of zero the network is still the identity: 20 dB of white noise of σ .1.
    tests = [photo.float() / 510 + 0.25 for photo in photographs(2, 192)]
    values = runs.evaluate(run, tests, "relqa-base", "x")
    assert values["PSNR"] == pytest.approx([20.0, 20.0], abs=0.1)
    assert {len(each) for each in values.values()} == {2}
    assert min(values["distance"]) > 0
    assert values == runs.evaluate(run, tests, "relqa-base", "x")
    # As many others of the same size: a photograph of the split was replaced.
    others = [tests[0], 0.5 * tests[1]]
    assert runs.evaluate(run, others, "relqa-base", "x")["VIFp"] != values["VIFp"]
    assert runs.evaluate(run, others, "relqa-base", "x")["distance"] != values["distance"]
    given = runs.given_image("denoise", tests[0], 0)
    assert torch.equal(given, runs.given_image("denoise", tests[0], 0))
    assert not torch.equal(given, runs.given_image("denoise", tests[0], 1))


def test_the_rate_is_held(runs: ModuleType) -> None:
    control = runs.RateControl(0.5)
    rate, seen = 2.7, []
    for _ in range(1000):  # a codec that follows the weight of its rate, with a delay
        control(torch.tensor(1.0), torch.tensor(rate))
        rate += 0.01 * (0.5 * math.exp(-2 - control.exponent) - rate)
        seen.append(rate)
    assert seen[-1] == pytest.approx(0.5, rel=0.05)
    assert min(seen) > 0.3  # it does not starve on the way
    first = control.exponent
    control(torch.tensor(1.0), torch.tensor(0.25))
    assert control.exponent < first


def test_the_rate_is_held_whatever_the_unit_of_the_loss(runs: ModuleType) -> None:
    one = torch.tensor(1.0)
    first, second = (runs.RateControl(0.5) for _ in range(2))
    for value in (3.0, 2.0, 1.0):
        a = first(torch.tensor(value), one)
        b = second(torch.tensor(1000 * value), one)
        assert float(a) == pytest.approx(float(b))


def test_a_codec_is_trained_at_its_rate(runs: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("compressai")
    settings = runs.Settings("codec", "L1", seed=0, steps=3, width=4, blocks=1, crop=32)
    run = runs.train(settings, photographs(), tmp_path, weights="relqa-base")
    _, network = runs.load_network(run)
    _, bits = runs.restore(network, photographs(1)[0].float() / 255)
    assert 0 < bits < 24
    assert replace(settings, bits=2.0).key != settings.key


def test_losses_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from _contest import Unavailable, build_loss

    image, other = torch.rand(2, 1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    for name in ("L1", "MS-SSIM + L1", "RelationalLoss", "distance alone"):
        loss = build_loss(name, "relqa-base")
        assert float(loss(image, image)) == pytest.approx(0, abs=1e-5)
        assert float(loss(other, image)) > 0.1
        assert loss(other * 1.2, image).isfinite()  # outputs overshoot while training
    apart = [
        float(build_loss(f"RelationalLoss + {amount} L1", "relqa-base")(other, image))
        for amount in (0, 1)
    ]
    assert apart[1] - apart[0] == pytest.approx(float((other - image).abs().mean()), rel=1e-4)
    with pytest.raises(ValueError, match="unknown loss"):
        build_loss("L3", "relqa-base")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(Unavailable, match="alexnet"):
        build_loss("LPIPS + L1", "relqa-base")


def test_sharpness_and_cleanness_are_told_apart() -> None:
    from steering import fine_detail, flat_noise
    from torch.nn.functional import avg_pool2d

    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(3, 64, 128, generator=generator)
    photo[..., :64] = 0.5  # flat on the left
    assert fine_detail(photo, photo) == pytest.approx(1)
    assert flat_noise(photo, photo) == 0
    soft = avg_pool2d(photo, 3, 1, 1, count_include_pad=False)
    noisy = photo + 0.05 * torch.randn(photo.shape, generator=generator)
    assert fine_detail(soft, photo) < 0.6
    assert flat_noise(soft, photo) < 0.5
    assert fine_detail(noisy, photo) == pytest.approx(1, abs=0.05)
    # Luma of three independent channels, less a mean over 25 pixels.
    expected = 255 * 0.05 * (0.299**2 + 0.587**2 + 0.114**2) ** 0.5 * (24 / 25) ** 0.5
    assert flat_noise(noisy, photo) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("script", "names", "message"),
    [
        ("restoration", ["--losses", "L1", "L3"], "unknown loss 'L3'; known: L1"),
        ("steering", ["--parts", "curve", "other"], "invalid choice: 'other'"),
        ("ablation", ["--only", "panel of 4", "other"], "no variant is called other; known are"),
    ],
)
def test_names_that_are_not_known_are_refused_before_anything_is_read_or_trained(
    script: str,
    names: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--photos", str(tmp_path / "none"), *names])
    with pytest.raises(SystemExit):
        importlib.import_module(script).main()
    assert message in capsys.readouterr().err
