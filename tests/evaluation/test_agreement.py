"""Agreement with metrics: the columns that are compared, and the correlation itself."""

from __future__ import annotations

import piq
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions import operator_names
from relqa_loss.evaluation import agreement
from relqa_loss.evaluation.agreement import badness_columns, rank_agreement
from relqa_loss.network import load_pretrained
from relqa_loss.training.panel import panel_values


@pytest.fixture
def reference() -> Tensor:
    """Of a photograph: what is none, the score need not know."""
    pixels = skimage.data.astronaut()[20:84, 180:260]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


def test_columns_are_what_they_are_called(reference: Tensor) -> None:
    noise = torch.randn(2, *reference.shape, generator=torch.Generator().manual_seed(1))
    images = (reference + torch.tensor([0.05, 0.2]).view(2, 1, 1, 1) * noise).clamp(0, 1)
    network = load_pretrained()
    with torch.no_grad():
        found = {name: of(reference[None], images) for name, of in badness_columns(network).items()}
        relation = network(reference.expand_as(images), images)
    torch.testing.assert_close(found["distance"], relation.distance)
    torch.testing.assert_close(found["score"], -relation.score)
    half = [F.avg_pool2d(x, 2) for x in (images, reference.expand_as(images))]
    torch.testing.assert_close(found["SSIM"], 1 - piq.ssim(*half, reduction="none"))
    error = (images - reference).square().mean((1, 2, 3))
    torch.testing.assert_close(found["PSNR"], 10 * error.log10())
    for name, values in found.items():
        assert values[0] < values[1], f"{name} takes more noise for better"


def test_agreement_is_spearmans_correlation_over_all_photographs(reference: Tensor) -> None:
    seen: list[tuple[int, int]] = []

    def itself(reference: Tensor, images: Tensor) -> Tensor:
        return panel_values(reference, images, ("mdsi",))[:, 0]

    found = rank_agreement(
        {
            "itself": itself,
            "rising": lambda *pair: itself(*pair).exp(),
            "falling": lambda *pair: -itself(*pair),
        },
        [reference, reference.flip(-1)],
        operator_names()[:12],
        ("mdsi",),
        per_photo=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found["itself"]["mdsi"] == pytest.approx(1)
    assert found["rising"]["mdsi"] == pytest.approx(1)
    assert found["falling"]["mdsi"] == pytest.approx(-1)
    assert seen == [(1, 2), (2, 2)]


def test_what_is_compared(reference: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []

    def error(reference: Tensor, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        shown.append(images)
        return (images - reference).square().mean((1, 2, 3))

    def two(reference: Tensor, images: Tensor, metrics: tuple[str, ...]) -> Tensor:
        values = (images - reference).square().mean((1, 2, 3))
        return torch.stack([values, -values], 1)

    monkeypatch.setattr(agreement, "panel_values", two)
    for seed in (0, 0, 7):
        found = rank_agreement(
            {"error": error},
            [reference, reference],
            ["brighten"],
            ("rising", "falling"),
            per_photo=3,
            seed=seed,
        )
        assert found == {"error": {"rising": pytest.approx(1), "falling": pytest.approx(-1)}}
    first, second, again, _, other, _ = shown
    assert len(first) == 3
    assert torch.equal(first, again)
    # Neither photographs nor seeds share their distortions, nor do images of one photograph.
    images = torch.cat([first, second, other])
    assert len(images.flatten(1).unique(dim=0)) == 9
    assert torch.equal(images, images.mul(255).round().div(255))
    assert bool((images >= reference - 1e-6).all())  # by no other operator
