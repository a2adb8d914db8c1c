"""What can go wrong with an image: signed, seeded operators, masks and the triplet engine."""

from relqa_loss.distortions.engine import DistortionEngine, Recipe, Sample, Step, dense_maps
from relqa_loss.distortions.masks import MASK_KINDS, sample_mask
from relqa_loss.distortions.operator import Curve, Operator
from relqa_loss.distortions.registry import (
    ENTRY_POINT_GROUP,
    get_operator,
    list_operators,
    operator_names,
    register,
    unregister,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "MASK_KINDS",
    "Curve",
    "DistortionEngine",
    "Operator",
    "Recipe",
    "Sample",
    "Step",
    "dense_maps",
    "get_operator",
    "list_operators",
    "operator_names",
    "register",
    "sample_mask",
    "unregister",
]
