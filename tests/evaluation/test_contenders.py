"""Metrics by name: each gets images on the scale that it is meant for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.evaluation.contenders import Contender, find_contender
from relqa_loss.network import find_weights

functional = pytest.importorskip("torchmetrics.functional.image")


@pytest.fixture
def target() -> Tensor:
    small = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return F.interpolate(small, (96, 96), mode="bicubic").clamp(0, 1)[0]


@pytest.fixture
def noisy(target: Tensor) -> Tensor:
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    return (target + 0.1 * noise).clamp(0, 1)


def test_vif_of_torchmetrics_is_that_of_piq(target: Tensor, noisy: Tensor) -> None:
    # Of grey images: piq takes the luminance, torchmetrics the mean over channels.
    pytest.importorskip("piq")
    grey = [image[:1].expand(3, -1, -1) for image in (noisy, target)]
    expected = find_contender("piq:vif_p")(*grey)
    for name in ("vif", "visual_information_fidelity"):
        assert find_contender(f"torchmetrics:{name}")(*grey) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "uqi",
        "error_relative_global_dimensionless_synthesis",
        "relative_average_spectral_error",
        "spatial_correlation_coefficient",
        "spectral_angle_mapper",
        "spectral_distortion_index",
    ],
)
def test_functions_without_a_range_do_not_need_one(
    target: Tensor, noisy: Tensor, name: str
) -> None:
    found = find_contender(f"torchmetrics:{name}")
    assert found(255 * noisy, 255 * target) == pytest.approx(found(noisy, target), rel=1e-2)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, AttributeError, OSError])
def test_whatever_a_metric_raises_is_named(
    monkeypatch: pytest.MonkeyPatch, target: Tensor, error: type[Exception]
) -> None:
    found = raising(monkeypatch, error)
    with pytest.raises(ValueError, match=rf"my_metric:fails failed: {error.__name__}: .*why"):
        found(target, target)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_no_fault_of_a_metric_passes(
    monkeypatch: pytest.MonkeyPatch, target: Tensor, error: type[BaseException]
) -> None:
    found = raising(monkeypatch, error)
    with pytest.raises(error):
        found(target, target)


@pytest.mark.parametrize("value", [10**400, torch.tensor(1j), "a", None])
def test_what_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, target: Tensor, value: object
) -> None:
    found = user_metric(monkeypatch, lambda *pair: value)
    with pytest.raises(ValueError, match=r"my_metric:fails gave a .* not a number"):
        found(target, target)


def test_an_evaluation_goes_on_with_the_weights_that_it_began_with(
    target: Tensor, noisy: Tensor, tmp_path: Path
) -> None:
    path, found = tmp_path / "mine.safetensors", []
    for name in ("relqa-base", "relqa-nano"):
        record = find_weights(name)
        path.write_bytes(record.path.read_bytes())
        entry = {"sha256": record.sha256, "architecture": record.config.to_dict()}
        path.with_suffix(".json").write_text(json.dumps(entry))
        found.append(find_contender("relqa:distance", weights=path))
        assert found[0](noisy, target) == find_contender("relqa:distance")(noisy, target)
    assert found[1](noisy, target) != found[0](noisy, target)


def raising(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> Contender:
    def fails(preds: Tensor, target: Tensor) -> float:
        raise error("why")

    return user_metric(monkeypatch, fails)


def user_metric(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[Tensor, Tensor], object]
) -> Contender:
    module = ModuleType("my_metric")
    module.fails = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_metric", module)
    return find_contender("my_metric:fails")
