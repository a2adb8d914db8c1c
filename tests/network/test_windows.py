"""Means over overlapping windows, each of the ways in which they are worked out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from steps import images
from torch import Tensor

from relqa_loss.network import _windows
from relqa_loss.network._windows import coarser, plus_coarser_adjoint

WAYS = ("slices", "pooling", "one formula")
SIZES = [(2, 2), (2, 8), (16, 32), (48, 32)]


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next calls go this way, on any machine."""
    monkeypatch.setattr(_windows, "one_by_one_on_a_cpu", lambda _: way == "slices")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: way == "one formula")


def pooled(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 4, 2, 1, count_include_pad=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_means_are_over_what_each_window_has_inside(
    way: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images(0, 2, 3, *size).double()
    take(way, monkeypatch)
    found = coarser(image, many=True)
    torch.testing.assert_close(found, pooled(image))
    torch.testing.assert_close(coarser(torch.ones_like(image), many=True), torch.ones_like(found))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_the_transpose_is_that_of_the_means(
    way: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, band = images(1, 2, 2, 3, *size).double()
    cells = images(2, 2, 3, size[0] // 2, size[1] // 2).double()
    _, back = torch.func.vjp(pooled, image)
    expected = band + back(cells)[0]
    take(way, monkeypatch)
    with torch.no_grad():
        found = plus_coarser_adjoint(band.clone(), cells.clone(), many=True)
    torch.testing.assert_close(found, expected)
    # What gradients of the second order are made of overwrites nothing.
    learned = plus_coarser_adjoint(band, 1 * cells.requires_grad_(), many=True)
    torch.testing.assert_close(learned, expected)
