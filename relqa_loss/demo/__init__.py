"""The main job in a minute: train a restorer with our loss, choose it by our metric, explain it."""

from relqa_loss.demo.data import Photographs, degrade, load_photographs
from relqa_loss.demo.model import Restorer
from relqa_loss.demo.report import write_report
from relqa_loss.demo.training import DemoConfig, DemoResult, Validation, train_restorer

__all__ = [
    "DemoConfig",
    "DemoResult",
    "Photographs",
    "Restorer",
    "Validation",
    "degrade",
    "load_photographs",
    "train_restorer",
    "write_report",
]
