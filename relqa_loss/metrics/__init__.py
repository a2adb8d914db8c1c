"""Metrics for torchmetrics."""

from relqa_loss.metrics.relational import (
    DistortionProfile,
    RelationalDistance,
    RelationalScore,
)

__all__ = ["DistortionProfile", "RelationalDistance", "RelationalScore"]
