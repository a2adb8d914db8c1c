"""Metrics for torchmetrics."""

from relqa_loss.metrics.preference import RelationalPreference, WinRateInterval
from relqa_loss.metrics.relational import (
    DistortionProfile,
    RelationalDistance,
    RelationalScore,
)

__all__ = [
    "DistortionProfile",
    "RelationalDistance",
    "RelationalPreference",
    "RelationalScore",
    "WinRateInterval",
]
