"""Metrics by name: each gets images on the scale that it is meant for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.evaluation.contenders import find_contender

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
