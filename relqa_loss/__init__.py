"""Relational image quality assessment: signed distortion maps, a score, losses and metrics."""

from relqa_loss._version import __version__
from relqa_loss.channels import CHANNELS
from relqa_loss.functional import (
    distortion_maps,
    distortion_profile,
    preference_loss,
    relate,
    relational_distance,
    relational_loss,
    relational_preference,
    relational_score,
    spatial_map_weighted_loss,
)
from relqa_loss.losses import PreferenceLoss, RelationalLoss, SpatialMapWeightedLoss
from relqa_loss.network import Relation, load_pretrained

__all__ = [
    "CHANNELS",
    "PreferenceLoss",
    "Relation",
    "RelationalLoss",
    "SpatialMapWeightedLoss",
    "__version__",
    "distortion_maps",
    "distortion_profile",
    "load_pretrained",
    "preference_loss",
    "relate",
    "relational_distance",
    "relational_loss",
    "relational_preference",
    "relational_score",
    "spatial_map_weighted_loss",
]
