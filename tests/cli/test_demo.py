"""``relqa demo`` at a tiny size."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relqa_loss import demo
from relqa_loss.cli.demo import _command
from relqa_loss.cli.main import build_parser, main
from relqa_loss.demo import DemoConfig, Photographs, Restorer, degrade, train_restorer, training
from relqa_loss.demo.charts import ticks
from relqa_loss.demo.data import degrade_for_test
from relqa_loss.demo.training import Validation, psnr, restore
from relqa_loss.distortions._pillow import to_pillow
from relqa_loss.imageio import read_image
from relqa_loss.network import load_pretrained
from relqa_loss.plotting import colourise, strongest_channels, symmetric_limit
from relqa_loss.selection.best import BestCheckpoint
from relqa_loss.words import describe


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Photographs:
    """The real photographs, cut small."""
    whole = demo.load_photographs()
    cut = Photographs(
        *({name: photo[:, 60:157, 80:209] for name, photo in part.items()} for part in whole)
    )
    monkeypatch.setattr(demo, "load_photographs", lambda: cut)
    return cut


def run(out: Path, weights: str, *more: str) -> int:
    small = ("--steps", "3", "--crop", "32", "--batch", "2", "--device", "cpu")
    return main(["demo", "--out", str(out), *small, "--weights", weights, *more])


def test_report_is_complete_and_self_contained(
    tmp_path: Path,
    weights: str,
    small: Photographs,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    out = tmp_path / "out"
    assert run(out, weights) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert str(out / "report.html") in lines[1]
    report = (out / "report.html").read_text("utf-8")
    record = json.loads((out / "figures.json").read_text("utf-8"))

    assert not re.search(r'(src|href)="(?!data:)', report)
    assert "http" not in report
    assert "$" not in report
    shown = record["photographs"][0]
    for text in (
        shown["before"]["words"],
        shown["after"]["words"],
        shown["change"],
        f"{shown['before']['psnr']:.1f} → {shown['after']['psnr']:.1f} dB",
        record["command"],
        "relqa demo --out",
        "--steps 3 --seed 0",
        record["versions"]["torch"],
        "tiny@",
        "linear-gradient",
        "less than the reference",
        "more than the reference",
        "<svg",
        "chosen: ",
        "prefers-color-scheme: dark",
    ):
        assert text in report, text
    # Three images, three details, and five channels before and after.
    assert report.count('src="data:image/png') == 16
    alternatives = re.findall(r'<img[^>]* alt="(.*?)"', report)
    assert len(set(alternatives)) == len(alternatives) == 16
    # Scrolled by itself, not with the page, where the screen is narrow.
    tables = report.count('<table class="figures">')
    assert 1 == tables == report.count('<div class="wide"><table class="figures">')
    assert ".wide { overflow-x: auto; }" in report
    for name in ("before", "after", "reference", "maps-before", "maps-after", "curve"):
        assert Image.open(out / f"{name}.png").width > 100
    assert Image.open(out / "before.png").size == (129, 97)
    history = record["history"]
    assert history[0]["loss"] is None  # NaN is not JSON
    assert all(entry["loss"] > 0 for entry in history[1:])
    assert [entry["step"] for entry in history] == [0, 1, 2, 3]
    best = min(history, key=lambda entry: entry["distance"])
    assert record["chosen_step"] == best["step"]
    assert BestCheckpoint(out / "best.safetensors", resume=True).step == best["step"]
    assert shown["name"] not in (*small.train, *small.select)


def test_maps_in_the_report_are_the_networks(
    tmp_path: Path, weights: str, small: Photographs
) -> None:
    out = tmp_path / "out"
    assert run(out, weights) == 0
    report = (out / "report.html").read_text("utf-8")
    network = load_pretrained(weights)
    reference, before, after = (
        read_image(out / f"{name}.png")[None] for name in ("reference", "before", "after")
    )
    relations = [network(reference, image) for image in (before, after)]
    maps = torch.cat([relation.maps for relation in relations])
    shown, chosen_on = json.loads((out / "figures.json").read_text("utf-8"))["photographs"]
    assert (shown["part"], chosen_on["part"]) == ("show", "select")
    for stage, image, relation in zip(("before", "after"), (before, after), relations, strict=True):
        assert shown[stage]["distance"] == pytest.approx(float(relation.distance), rel=1e-4)
        assert shown[stage]["score"] == pytest.approx(float(relation.score), rel=1e-3)
        assert shown[stage]["psnr"] == pytest.approx(psnr(image, reference))
        assert shown[stage]["words"] == describe(relation.maps[0], reference[0])
    change = network(before, after)
    assert shown["change"] == describe(change.maps[0], reference[0])
    assert shown["score_after_against_before"] == pytest.approx(float(change.score), rel=1e-3)
    named = strongest_channels(maps, 5)
    assert re.findall(r'class="name"><b>([^<]+)', report) == [n.replace("_", " ") for n in named]
    index = [network.channels.index(name) for name in named]
    limit = symmetric_limit(maps[:, index])
    assert f"−{limit:.2f} less than the reference" in report
    table = report[report.index('<table class="maps">') :]
    drawn = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)
        for content in re.findall(r"base64,([^\"]+)", table)
    ]
    assert len(drawn) == 10
    for position, picture in enumerate(drawn):
        values = maps[position % 2, index[position // 2]]
        expected = np.asarray(to_pillow(colourise(values, limit))).astype(int)
        assert np.abs(picture - expected).max() <= 1


def test_the_chosen_weights_are_the_ones_used(
    tmp_path: Path, weights: str, small: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(model, tests, config, step, seconds, loss):  # type: ignore[no-untyped-def]
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return Validation(step, seconds, abs(step - 2) + 1.0, 0.0, 20.0, loss)

    kept: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(training, "_validate", validate)
    config = DemoConfig(steps=4, crop=32, batch=2, weights=weights)
    result = train_restorer(small, config, tmp_path / "b.safetensors")
    assert result.chosen.step == 2
    final = result.model.state_dict()
    assert all(torch.equal(final[name], kept[2][name]) for name in final)
    assert any(not torch.equal(final[name], kept[4][name]) for name in final)


def test_same_steps_same_result_and_no_overwriting(
    tmp_path: Path,
    weights: str,
    small: Photographs,
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(first, weights) == 0
    assert run(second, weights) == 0
    records = [json.loads((out / "figures.json").read_text("utf-8")) for out in (first, second)]
    assert records[0]["photographs"] == records[1]["photographs"]
    checkpoints = [
        BestCheckpoint(out / "best.safetensors", resume=True).load() for out in (first, second)
    ]
    assert all(torch.equal(checkpoints[0][name], checkpoints[1][name]) for name in checkpoints[0])
    report = (first / "report.html").read_bytes()
    capsys.readouterr()
    assert run(first, weights) == 2
    assert "exists" in capsys.readouterr().err
    assert (first / "report.html").read_bytes() == report
    checkpoint = (first / "best.safetensors").read_bytes()
    for mistake in (("--weights", "relqa-bass"), ("--seed", str(1 << 64))):
        assert run(first, weights, "--force", *mistake) == 2
        assert mistake[1] in capsys.readouterr().err
        assert (first / "best.safetensors").read_bytes() == checkpoint
    assert run(first, weights, "--force", "--seed", "1") == 0
    assert (first / "report.html").read_bytes() != report


def test_budget_in_seconds(tmp_path: Path, weights: str, small: Photographs) -> None:
    config = DemoConfig(seconds=1.0, crop=32, batch=2, validations=2, weights=weights)
    seen: list[float] = []
    result = train_restorer(
        small, config, tmp_path / "b.safetensors", lambda done, _: seen.append(done)
    )
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert 1.0 <= result.seconds < 20
    assert result.history[-1].step == len(seen) - len(result.history)


def test_training_lowers_the_loss(tmp_path: Path, weights: str, small: Photographs) -> None:
    config = DemoConfig(steps=30, crop=32, batch=2, validations=2, weights=weights)
    result = train_restorer(small, config, tmp_path / "b.safetensors")
    assert result.chosen.distance < result.history[0].distance
    assert result.chosen.distance == min(entry.distance for entry in result.history)
    assert math.isnan(result.history[0].loss)
    restored = result.model(torch.rand(1, 3, 33, 35))
    assert restored.shape == (1, 3, 33, 35)


def test_the_start_is_the_degraded_photograph_and_nobody_elses_numbers_are_drawn(
    tmp_path: Path, weights: str, small: Photographs
) -> None:
    config = DemoConfig(steps=1, crop=32, batch=2, seed=3, weights=weights)
    state = torch.random.get_rng_state()
    start = train_restorer(small, config, tmp_path / "b.safetensors").history[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    [photo] = small.select.values()
    degraded = degrade_for_test(photo, 3)  # an untrained restorer changes nothing
    relation = load_pretrained(weights)(photo[None], degraded[None])
    assert start.distance == pytest.approx(float(relation.distance), rel=1e-4)
    assert start.score == pytest.approx(float(relation.score), rel=1e-3)
    assert start.psnr == pytest.approx(psnr(degraded, photo))


def test_restored_images_are_those_of_a_file() -> None:
    model = Restorer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    restored = restore(model, torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)))
    assert not restored.requires_grad
    assert restored.max() == 1  # beyond which it would be
    assert torch.equal((255 * restored).round() / 255, restored)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--seconds", "2.5", "--force"],
        ["--steps", "7", "--seed", "3", "--weights", "my weights.safetensors"],
        ["--out", "a folder", "--device", "cpu", "--crop", "64", "--batch", "2"],
    ],
)
def test_the_command_of_the_report_says_all_options(arguments: list[str]) -> None:
    parser = build_parser()
    given = parser.parse_args(["demo", *arguments])
    name, *words = shlex.split(_command(given))
    assert name == "relqa"
    assert vars(parser.parse_args(words)) == vars(given)


def test_options_reach_the_training(
    tmp_path: Path, weights: str, small: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(photographs, config, checkpoint, on_progress):  # type: ignore[no-untyped-def]
        seen.append((config, checkpoint))
        raise ValueError("enough")

    seen: list[tuple[DemoConfig, Path]] = []
    monkeypatch.setattr(demo, "train_restorer", train)
    options = ("--seconds", "2.5", "--batch", "3", "--crop", "64", "--seed", "5", "--device", "cpu")
    assert main(["demo", "--out", str(tmp_path / "out"), *options, "--weights", weights]) == 2
    config = DemoConfig(2.5, batch=3, crop=64, seed=5, device="cpu", weights=weights)
    assert seen == [(config, tmp_path / "out" / "best.safetensors")]


def test_photographs_are_split_and_bundled() -> None:
    photographs = demo.load_photographs()
    names = [name for part in photographs for name in part]
    assert len(names) == len(set(names)) >= 4
    for part in photographs:
        for photo in part.values():
            assert photo.shape[0] == 3
            assert bool((photo[0] != photo[2]).any())  # in colour


def test_degradation() -> None:
    images = torch.rand(2, 3, 48, 48)
    blur, noise = torch.tensor([0.5, 2.0]), torch.tensor([0.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    mild, strong = degrade(images, blur, noise, generator)
    assert float((mild - images[0]).abs().mean()) < float((strong - images[1]).abs().mean())
    flat = torch.full((2, 3, 64, 64), 0.5)
    spread = degrade(flat, blur, torch.tensor([0.02, 0.06]), generator).std((1, 2, 3))
    assert spread.tolist() == pytest.approx([0.02, 0.06], rel=0.1)
    # Each image with its own kernel, as if alone.
    alone = degrade(images[1:], blur[1:], noise[1:], generator)
    assert torch.allclose(alone[0], strong, atol=1.5 / 255)
    assert torch.equal((255 * alone).round() / 255, alone)
    with pytest.raises(ValueError, match="one value per image"):
        degrade(images, blur[:1], noise, generator)


def test_blurs_are_gaussian() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    blurred = degrade(images, torch.tensor([0.6, 1.4]), torch.zeros(2), torch.Generator())
    for image, found, sigma in zip(images, blurred, (0.6, 1.4), strict=True):
        expected = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), mode="mirror")
        torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=0.6 / 255)


def test_settings_are_checked(tmp_path: Path, small: Photographs, weights: str) -> None:
    for options in ({"steps": 0}, {"seconds": 0.0}, {"crop": 33}, {"seconds": math.inf}):
        with pytest.raises(ValueError, match=next(iter(options))):
            DemoConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smaller than the crop"):
        train_restorer(small, DemoConfig(steps=1, crop=512, weights=weights), tmp_path / "b")


def test_parts() -> None:
    image = torch.rand(2, 3, 31, 34)
    assert torch.equal(Restorer()(image), image)
    assert psnr(image, image) == math.inf
    assert psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)) == pytest.approx(20, abs=1e-4)
    assert ticks(0, 40) == [0, 10, 20, 30, 40]
    assert ticks(0.111, 0.187) == [0.12, 0.14, 0.16, 0.18]
