"""The functional interface."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relqa_loss
from relqa_loss import (
    CHANNELS,
    RelationalLoss,
    SpatialMapWeightedLoss,
    distortion_maps,
    distortion_profile,
    functional,
    load_pretrained,
    relate,
    relational_distance,
    relational_loss,
    relational_score,
    spatial_map_weighted_loss,
)
from relqa_loss.metrics import DistortionProfile, RelationalDistance
from relqa_loss.network import find_weights, shared
from relqa_loss.network.pretrained import WeightsRecord, load_record
from relqa_loss.selection import ImageScores

REDUCED = (relational_distance, relational_loss, relational_score, spatial_map_weighted_loss)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    preds, target = torch.rand(2, 3, 3, 45, 61, generator=torch.Generator().manual_seed(0))
    return preds, target


def test_factors_are_as_exact_as_the_images(pair: tuple[Tensor, Tensor]) -> None:
    preds, target = (image.double() for image in pair)
    network = load_pretrained().double()
    factors = torch.ones(len(CHANNELS), dtype=torch.float64)
    factors[CHANNELS.index("noise")] = 0.1
    expected = network.distance(network.encode(target), preds, factors)
    found = relational_distance(preds, target, channel_weights={"noise": 0.1}, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_maps_and_distances_without_scores_are_those_of_relate(pair: tuple[Tensor, Tensor]) -> None:
    options: dict[str, Any] = {
        "data_range": 1.0,
        "weights": "relqa-base",
        "channel_weights": {"noise": 2.0},
        "on_out_of_range": "raise",
    }
    whole = relate(*pair, **options)
    with torch.autocast("cpu", torch.bfloat16):
        found = functional.maps_and_distance(*pair, **options)
    torch.testing.assert_close(found, (whole.maps, whole.distance))
    for wrong, said in (({"data_range": 0.0}, "data_range"), ({"on_out_of_range": "cut"}, "cut")):
        with pytest.raises(ValueError, match=said):
            functional.maps_and_distance(*pair, **(options | wrong))


def test_public_names_exist() -> None:
    assert all(hasattr(relqa_loss, name) for name in relqa_loss.__all__)


def test_relate_gives_what_the_network_gives(pair: tuple[Tensor, Tensor]) -> None:
    preds, target = pair
    with torch.no_grad():
        expected = load_pretrained()(target, preds)
    for one, other in zip(relate(preds, target), expected, strict=True):
        assert torch.equal(one, other)


def test_order_of_arguments(pair: tuple[Tensor, Tensor]) -> None:
    preds, target = pair
    assert torch.equal(relate(preds, target).maps, -relate(target, preds).maps)
    assert relational_score(preds, target) == -relational_score(target, preds)
    assert relational_distance(preds, target) != relational_distance(target, preds)


@pytest.mark.parametrize("function", REDUCED)
def test_reductions_agree(function: object, pair: tuple[Tensor, Tensor]) -> None:
    each, mean, total = (
        function(*pair, reduction=kind)  # type: ignore[operator]
        for kind in ("none", "mean", "sum")
    )
    assert each.shape == (3,)
    torch.testing.assert_close(mean, each.mean())
    torch.testing.assert_close(total, each.sum())
    assert torch.equal(function(*pair), mean)  # type: ignore[operator]


@pytest.mark.parametrize("function", [*REDUCED, distortion_maps, relate])
def test_a_misspelt_treatment_of_the_range_is_refused(
    function: object, pair: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ValueError, match="on_out_of_range must be one of"):
        function(*pair, on_out_of_range="clip")  # type: ignore[operator]


def test_score_is_that_of_the_relation_with_all_options(pair: tuple[Tensor, Tensor]) -> None:
    options = {
        "channel_weights": {"noise": 3.0, "tint": 0.0},
        "weight": torch.rand(3, 1, 45, 61, generator=torch.Generator().manual_seed(1)),
        "weights": "relqa-nano",
        "data_range": 0.8,
        "on_out_of_range": "clamp",
    }
    score = relational_score(*pair, reduction="none", **options)  # type: ignore[arg-type]
    assert torch.equal(score, relate(*pair, **options).score)  # type: ignore[arg-type]


def test_the_weighted_score_is_that_of_the_weighted_place() -> None:
    """Noise on the left of one image, on the right of the other."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.linspace(0.2, 0.8, 128).expand(1, 3, 128, 128)
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    left = (torch.arange(128) < 64).expand(1, 1, 128, 128)
    preds, target = torch.where(left, noisy, clean), torch.where(left, clean, noisy)
    assert relational_score(preds, target, weight=left) < 0
    assert relational_score(preds, target, weight=~left) > 0


@pytest.mark.parametrize("function", [*REDUCED, distortion_maps, distortion_profile, relate])
def test_autocast_changes_nothing(function: object, pair: tuple[Tensor, Tensor]) -> None:
    plain = function(*pair)  # type: ignore[operator]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = function(*pair)  # type: ignore[operator]
    torch.testing.assert_close(mixed, plain, atol=0, rtol=0)


@pytest.mark.parametrize("function", [*REDUCED, distortion_maps, distortion_profile])
def test_wrong_options_are_refused(function: object, pair: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="reduction"):
        function(*pair, reduction="avg")  # type: ignore[operator]
    with pytest.raises(ValueError, match="data_range"):
        function(*pair, data_range=0)  # type: ignore[operator]
    with pytest.raises(ValueError, match="must lie in"):
        function(2 * pair[0], pair[1])  # type: ignore[operator]
    with pytest.raises(ValueError, match="no weights named"):
        function(*pair, weights="none")  # type: ignore[operator]
    with pytest.raises(TypeError, match="must be a tensor"):
        function(1.0, pair[1])  # type: ignore[operator]


@pytest.mark.parametrize("function", [*REDUCED, distortion_maps, distortion_profile])
def test_the_range_only_scales(function: object, pair: tuple[Tensor, Tensor]) -> None:
    byte = [(255 * image).round().to(torch.uint8) for image in pair]
    unit = [image.float() / 255 for image in byte]
    torch.testing.assert_close(
        function(*byte, data_range=255),  # type: ignore[operator]
        function(*unit),  # type: ignore[operator]
    )


def test_float64_stays_float64(pair: tuple[Tensor, Tensor]) -> None:
    double = relational_distance(*(image.double() for image in pair))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), relational_distance(*pair))


def test_half_precision_images_give_float32(pair: tuple[Tensor, Tensor]) -> None:
    half = [image.bfloat16() for image in pair]
    assert relational_distance(*half).dtype == torch.float32
    assert torch.equal(
        relational_distance(*half), relational_distance(*(image.float() for image in half))
    )


def test_sizes_and_reductions_of_maps(pair: tuple[Tensor, Tensor]) -> None:
    grid = distortion_maps(*pair)
    assert grid.shape == (3, len(CHANNELS), 12, 16)
    full = distortion_maps(*pair, size="input")
    assert full.shape == (3, len(CHANNELS), 45, 61)
    assert torch.equal(full[..., ::4, ::4], grid)
    torch.testing.assert_close(distortion_maps(*pair, reduction="mean"), grid.mean(0))
    torch.testing.assert_close(distortion_maps(*pair, reduction="sum"), grid.sum(0))
    with pytest.raises(ValueError, match="size must be"):
        distortion_maps(*pair, size="full")  # type: ignore[arg-type]


def test_the_profile_is_the_mean_of_the_maps_as_the_metric_gives_it(
    pair: tuple[Tensor, Tensor],
) -> None:
    maps, profile = distortion_maps(*pair), distortion_profile(*pair)
    torch.testing.assert_close(profile, DistortionProfile()(*pair))
    each = distortion_profile(*pair, reduction="none")
    total = distortion_profile(*pair, reduction="sum")
    for k, channel in enumerate(CHANNELS):
        for kind, values in (("signed", maps[:, k]), ("absolute", maps[:, k].abs())):
            name = f"{channel}_{kind}"
            torch.testing.assert_close(each[name], values.mean((1, 2)))
            torch.testing.assert_close(profile[name], each[name].mean())
            torch.testing.assert_close(total[name], each[name].sum())


def test_channel_weights_steer_the_distance(pair: tuple[Tensor, Tensor]) -> None:
    plain = relational_distance(*pair)
    assert torch.equal(relational_distance(*pair, channel_weights={}), plain)
    more = relational_distance(*pair, channel_weights={"noise": 3.0})
    less = relational_distance(*pair, channel_weights=dict.fromkeys(CHANNELS, 0.0))
    assert less < plain < more
    with pytest.raises(ValueError, match="unknown channels"):
        relational_distance(*pair, channel_weights={"hue": 1.0})


def _by_hand(
    preds: Tensor, target: Tensor, gain: float, factor: float, weights: dict[str, float]
) -> Tensor:
    maps = distortion_maps(preds, target)
    amount = sum(
        weights.get(name, 1.0) * maps[:, index].abs() for index, name in enumerate(CHANNELS)
    )
    assert isinstance(amount, Tensor)
    total = torch.zeros(len(preds))
    height, width = preds.shape[-2:]
    for row in range(height):
        for column in range(width):
            error = (preds - target)[:, :, row, column].abs().mean(1)
            total += error * (1 + gain * amount[:, row // 4, column // 4])
    loss = RelationalLoss(pixel_weight=0, reduction="none", channel_weights=weights)
    return total / (height * width) + factor * loss(preds, target)


@pytest.mark.parametrize(("gain", "factor"), [(1.0, 1.0), (2.5, 0.0), (0.0, 0.3), (0.0, 0.0)])
def test_weighted_loss_is_its_formula(
    pair: tuple[Tensor, Tensor], gain: float, factor: float
) -> None:
    weights = {"noise": 3.0, "tint": 0.0}
    value = spatial_map_weighted_loss(
        *pair,
        base="l1",
        reduction="none",
        map_gain=gain,
        relational_weight=factor,
        channel_weights=weights,
    )
    torch.testing.assert_close(value, _by_hand(*pair, gain, factor, weights))


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("l1", lambda d: d.abs()),
        ("l2", lambda d: d * d),
        ("charbonnier", lambda d: (d * d + 1e-6).sqrt() - 1e-3),
        (lambda p, t: F.smooth_l1_loss(p, t, reduction="none"), None),
        (lambda p, t: (p - t).double().abs().mean(1, keepdim=True), lambda d: d.abs()),
    ],
)
def test_bases(base: object, expected: object, pair: tuple[Tensor, Tensor]) -> None:
    value = spatial_map_weighted_loss(*pair, base=base, map_gain=0, relational_weight=0)  # type: ignore[arg-type]
    want = expected or (lambda d: F.smooth_l1_loss(d, 0 * d, reduction="none"))
    torch.testing.assert_close(value, want(pair[0] - pair[1]).mean())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"base": "l3"}, ValueError, "base must be one of"),
        ({"base": 1}, TypeError, "callable"),
        ({"base": F.l1_loss}, ValueError, "error per pixel"),
        ({"base": lambda preds, target: 0.5}, TypeError, "must return a tensor.*got float"),
        ({"base": lambda preds, target: (preds - target)[:1]}, ValueError, "error per pixel"),
        ({"base": lambda preds, target: (preds - target)[..., :1]}, ValueError, "error per pixel"),
        ({"map_gain": -1.0}, ValueError, "map_gain"),
        ({"relational_weight": float("nan")}, ValueError, "relational_weight"),
        (
            {"relational_weight": "3e-3"},
            TypeError,
            "must be a number, got '3e-3'",
        ),
        ({"map_gain": None}, TypeError, "map_gain must be a number, got None"),
        (
            {"channel_weights": {"noise": "2"}},
            TypeError,
            "must be numbers, got .*'2'",
        ),
    ],
)
def test_wrong_parts_are_refused(
    options: dict[str, object],
    error: type[Exception],
    message: str,
    pair: tuple[Tensor, Tensor],
) -> None:
    with pytest.raises(error, match=message):
        spatial_map_weighted_loss(*pair, **options)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        SpatialMapWeightedLoss(**options)(*pair)  # type: ignore[arg-type]


def test_functions_equal_modules(pair: tuple[Tensor, Tensor], structureless: Path) -> None:
    weights = {"ringing": 2.0}
    mask = torch.rand(3, 1, 45, 61)
    assert torch.equal(
        relational_distance(*pair, channel_weights=weights, weight=mask, reduction="none"),
        RelationalLoss(channel_weights=weights).relation(*pair, mask).distance,
    )
    loss = RelationalLoss(channel_weights=weights, pixel_weight=0, weights=structureless)
    assert torch.equal(
        relational_distance(*pair, channel_weights=weights, weight=mask, weights=structureless),
        loss(*pair, mask),
    )
    assert torch.equal(
        spatial_map_weighted_loss(*pair, channel_weights=weights, weight=mask),
        SpatialMapWeightedLoss(channel_weights=weights)(*pair, mask),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pixel_weight": 0.0},
        {"pixel_weight": 30.0, "channel_weights": {"noise": 0.5}, "reduction": "none"},
        {"weights": "relqa-nano", "reduction": "sum"},
        {"on_out_of_range": "clamp"},
        {"data_range": 2.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_the_function_of_the_loss_equals_the_module(
    options: dict[str, Any], masked: bool, pair: tuple[Tensor, Tensor]
) -> None:
    preds, target = pair
    if options.get("on_out_of_range") == "clamp":
        preds = 1.5 * preds
    mask = torch.rand(3, 1, 45, 61) if masked else None
    leaves = [preds.clone().requires_grad_() for _ in range(2)]
    found = relational_loss(leaves[0], target, weight=mask, **options)
    expected = RelationalLoss(**options)(leaves[1], target, mask)
    assert torch.equal(found, expected)
    for value in (found, expected):
        value.sum().backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_the_loss_has_its_pixel_term_unless_told_otherwise(pair: tuple[Tensor, Tensor]) -> None:
    alone, error = relational_loss(*pair, pixel_weight=0), (pair[0] - pair[1]).abs().mean()
    torch.testing.assert_close(relational_loss(*pair), alone + 600 * error)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="pixel_weight"):
            relational_loss(*pair, pixel_weight=wrong)


def test_gradient_reaches_both_images(pair: tuple[Tensor, Tensor]) -> None:
    preds, target = (image.clone().requires_grad_() for image in pair)
    relational_distance(preds, target).backward()
    for image in (preds, target):
        assert image.grad is not None
        assert image.grad.isfinite().all()
        assert image.grad.abs().max() > 0


def test_one_network_is_loaded_even_by_many_threads(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    loads = []

    def count(record: WeightsRecord) -> object:
        loads.append(record)
        time.sleep(0.05)  # long enough for every thread to arrive
        return load_record(record)

    monkeypatch.setattr(shared, "load_record", count)
    monkeypatch.setattr(shared, "_networks", {})
    results: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: results.append(relational_distance(*pair)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, results[0]) for result in results)
    assert len(loads) == 1
    relational_distance(*(image.double() for image in pair))
    assert len(loads) == 2


def test_the_users_random_numbers_are_not_consumed(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(shared, "_networks", {})
    before = torch.get_rng_state()
    relational_distance(*pair)
    RelationalLoss()
    load_pretrained()
    assert torch.equal(torch.get_rng_state(), before)


def test_first_use_in_inference_mode_does_not_spoil_training(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(shared, "_networks", {})
    with torch.inference_mode():
        relational_distance(*pair)
        loss = RelationalLoss(channel_weights={"noise": 2.0})
    image = pair[0].clone().requires_grad_()
    (relational_distance(image, pair[1]) + loss(image, pair[1])).backward()
    assert image.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_use_may_be_within_a_transform(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    preds, target = (image.to(dtype) for image in pair)
    leaf = preds.clone().requires_grad_()
    expected = relational_distance(leaf, target, reduction="none")
    expected.sum().backward()

    def distance(preds: Tensor, target: Tensor) -> Tensor:
        return relational_distance(preds[None], target[None])

    monkeypatch.setattr(shared, "_networks", {})
    torch.testing.assert_close(torch.func.vmap(distance)(preds, target), expected.detach())
    monkeypatch.setattr(shared, "_networks", {})
    found = torch.func.vmap(torch.func.grad(distance))(preds, target)
    torch.testing.assert_close(found, leaf.grad, atol=1e-5, rtol=1e-4)
    # What it leaves for later calls is a network like any other.
    assert torch.equal(relational_distance(preds, target, reduction="none"), expected)


def test_default_device_and_dtype_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    expected, loss = relational_distance(*pair), RelationalLoss()(*pair)
    monkeypatch.setattr(shared, "_networks", {})
    with torch.device("meta"):
        assert torch.equal(relational_distance(*pair), expected)
        assert torch.equal(RelationalLoss()(*pair), loss)
        assert not any(buffer.is_meta for buffer in load_pretrained().buffers())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_the_default_dtype_does_not_round_the_weights(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor], weights: str, dtype: torch.dtype
) -> None:
    # As Lightning sets it around each step with precision="bf16-true".
    expected, buffers = relate(*pair, weights=weights), list(load_pretrained(weights).buffers())
    monkeypatch.setattr(shared, "_networks", {})
    torch.set_default_dtype(dtype)
    try:
        relate(*pair, weights=weights)
        loss, network = RelationalLoss(weights=weights), load_pretrained(weights)
    finally:
        torch.set_default_dtype(torch.float32)
    for loaded in (network, loss.network):
        for one, other in zip(loaded.buffers(), buffers, strict=True):
            assert one.dtype == torch.float32
            assert torch.equal(one, other)
    for one, other in zip(relate(*pair, weights=weights), expected, strict=True):
        assert torch.equal(one, other)


def test_a_file_that_is_written_anew_is_read_anew(
    tmp_path: Path, pair: tuple[Tensor, Tensor]
) -> None:
    path = tmp_path / "mine.safetensors"
    seen = []
    for name in ("relqa-base", "relqa-nano"):
        record = find_weights(name)
        path.write_bytes(record.path.read_bytes())
        entry = {
            "sha256": record.sha256,
            "architecture": record.config.to_dict(),
        }
        path.with_suffix(".json").write_text(json.dumps(entry))
        expected = relational_distance(*pair, weights=name)
        assert torch.equal(relational_distance(*pair, weights=path), expected)
        metric = RelationalDistance(weights=path)
        metric.update(*pair)
        scores = ImageScores("distance", weights=path)
        seen.append((metric, expected, find_weights(path), scores))
    (first, distance, old, scores), _ = seen
    # The metric that knows the older one goes on with it, and so does its version.
    first.update(*pair)
    torch.testing.assert_close(first.compute(), distance)
    assert first.compute() > 1.05 * seen[1][1]
    assert first.version.startswith(old.version)
    for each in (scores, scores.gathered([scores])):
        assert each.version.startswith(old.version)
        assert float(each.measure(*pair)[:, 0].mean()) == pytest.approx(float(distance))
    assert torch.equal(relational_distance(*pair, weights=old), distance)
    path.unlink()
    assert torch.equal(relational_distance(*pair, weights=old), distance)
    assert torch.equal(relational_distance(*pair, weights=path), seen[1][1])


def test_weights_that_were_replaced_before_their_first_use_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(shared, "_networks", {})
    path = tmp_path / "mine.safetensors"
    record = find_weights()
    path.write_bytes(record.path.read_bytes())
    entry = {"sha256": record.sha256, "architecture": record.config.to_dict()}
    path.with_suffix(".json").write_text(json.dumps(entry))
    metric = RelationalDistance(weights=path)
    path.write_bytes(find_weights("relqa-nano").path.read_bytes())
    with pytest.raises(ValueError, match="SHA-256"):
        metric.update(*pair)


def test_a_function_compiles_once_its_network_is_loaded(pair: tuple[Tensor, Tensor]) -> None:
    expected = relational_distance(*pair)
    compiled = torch.compile(relational_distance, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*pair), expected)


def test_compiling_a_function_before_its_first_use(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    expected = relational_distance(*pair)
    for whole in (True, False):
        monkeypatch.setattr(shared, "_networks", {})
        torch._dynamo.reset()
        compiled = torch.compile(relational_distance, fullgraph=whole, backend="aot_eager")
        if whole:
            with pytest.raises(Exception, match="call the function once before compiling"):
                compiled(*pair)
        else:
            torch.testing.assert_close(compiled(*pair), expected)


IMPORT = """
import sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
import relqa_loss
spent = time.perf_counter() - start
new = set(sys.modules) - before
heavy = {"torchmetrics", "PIL", "piq", "lightning", "matplotlib", "torchvision", "rich", "scipy"}
print(spent, sorted(heavy & new))
"""


def test_import_is_light() -> None:
    best = 9.0
    for _ in range(3):  # the least of three: the machine may be busy
        done = subprocess.run(
            [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
        )
        spent, heavy = done.stdout.split(" ", 1)
        assert heavy.strip() == "[]"
        best = min(best, float(spent))
        if best < 0.5:
            break
    assert best < 0.5


@pytest.mark.parametrize("wrong", ["noise", "", ["noise"], 2.0, 0, torch.ones(2)])
def test_channel_weights_without_names_are_refused(wrong: Any) -> None:
    images = torch.rand(2, 1, 3, 32, 32)
    said = "channel_weights must be factors by channel"
    with pytest.raises(TypeError, match=said):
        relational_distance(*images, channel_weights=wrong)
    with pytest.raises(TypeError, match=said):
        RelationalLoss(channel_weights=wrong)
    with pytest.raises(TypeError, match=said):
        RelationalDistance(channel_weights=wrong)
