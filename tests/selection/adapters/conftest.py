"""A tiny restorer and a few tiny images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from relqa_loss import RelationalLoss


class Tiny(nn.Module):
    """Brightens; starts too dark. Holds the loss, as users' modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((3, 1, 1), 0.5))
        self.loss = RelationalLoss(on_out_of_range="clamp")

    def forward(self, image: Tensor) -> Tensor:
        return (image * self.gain).clamp(0, 1)


@pytest.fixture
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture
def data() -> TensorDataset:
    """Five pairs of the degraded and the clean image."""
    clean = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return TensorDataset(clean * 0.8, clean)


@pytest.fixture
def loader(data: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(data, batch_size=2)
