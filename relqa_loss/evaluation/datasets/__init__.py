"""Data sets of human opinions, read as their authors published them."""

from relqa_loss.evaluation.datasets.detect import READERS, detect_kind, read_dataset
from relqa_loss.evaluation.datasets.generic import read_csv
from relqa_loss.evaluation.datasets.records import Comparison, OpinionDataset, RatedPair

__all__ = [
    "READERS",
    "Comparison",
    "OpinionDataset",
    "RatedPair",
    "detect_kind",
    "read_csv",
    "read_dataset",
]
