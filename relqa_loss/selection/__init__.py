"""Choosing checkpoints for a stated reason."""

from relqa_loss.selection.best import BestCheckpoint
from relqa_loss.selection.ledger import Decision
from relqa_loss.selection.scores import ImageScores
from relqa_loss.selection.selector import CheckpointSelector
from relqa_loss.selection.statistics import Interval, paired_interval

__all__ = [
    "BestCheckpoint",
    "CheckpointSelector",
    "Decision",
    "ImageScores",
    "Interval",
    "paired_interval",
]
