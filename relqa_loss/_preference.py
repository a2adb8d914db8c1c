"""How likely one image is preferred to another, from what the network says about both."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._inputs import prepare_weight
from relqa_loss._pairs import encode_reference
from relqa_loss._parts import values_in_parts
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import ParityNetwork

PreferBy = Literal["distance", "score"]
"""The figure that decides which of two images is the better one."""

NEGLIGIBLE_DISTANCE = 1e-3
"""Added to distances before logarithms: noise of a hundredth of an 8-bit level measures as much.

It keeps gradients finite where the image or the baseline is perfect, and it keeps two images that
nobody can tell from their reference from being a certain win for one of them.
"""


def check_preference(
    slope: float, *, by: str = "distance", margin: float = 0.0, steepest: float = math.inf
) -> None:
    """Check the options of preferences.

    Raises:
        TypeError: If ``slope`` or ``margin`` is not a number.
        ValueError: If one of them is not among the documented values.
    """
    if by not in get_args(PreferBy):
        raise ValueError(f"by must be one of {get_args(PreferBy)}, got {by!r}")
    for name, value in (("slope", slope), ("margin", margin)):
        numbers = (int, float, np.integer, np.floating)
        if not isinstance(value, numbers) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    # As Python's: NumPy would round the limit to the number's own type, and warn.
    if not 0 < float(slope) <= steepest:
        allowed = "positive" if steepest == math.inf else "positive and finite"
        raise ValueError(f"slope must be {allowed}, got {slope!r}")
    if not -math.inf < margin < math.inf:
        raise ValueError(f"margin must be finite, got {margin!r}")


def log_lead(distance: Tensor, baseline: Tensor) -> Tensor:
    """How much closer an image is than the baseline: the logarithm of the distances' ratio.

    A ratio, for the same step in distance means little between two bad images and much between
    two good ones; and so that nothing changes with the scale of the weights.
    """
    return (baseline + NEGLIGIBLE_DISTANCE).log() - (distance + NEGLIGIBLE_DISTANCE).log()


def preference(lead: Tensor, slope: float) -> Tensor:
    """The logistic function of the lead; a step from 0 over ½ to 1 for an infinite slope."""
    if slope < math.inf:
        return torch.sigmoid(slope * lead)
    step = (lead.sign() + 1) / 2
    # The sign of NaN is 0, which would make a tie of an image that could not be measured.
    return torch.where(lead.isnan(), lead, step)


def preference_values(
    network: ParityNetwork,
    image: Tensor,
    baseline: Tensor,
    reference: Tensor,
    *,
    slope: float,
    margin: float,
    detach_baseline: bool,
    factors: Tensor | None,
    weight: Tensor | None,
) -> Tensor:
    """The N values of :func:`~relqa_loss.preference_loss`, from prepared images."""

    def leads(image: Tensor, baseline: Tensor, reference: Tensor, cells: Tensor | None) -> Tensor:
        encoded = encode_reference(network, reference, structure=False)
        if detach_baseline:  # the image alone: a weight that is learned has a say in both distances
            baseline = baseline.detach()
        theirs = network.distance(encoded, baseline, factors, cells)
        return log_lead(network.distance(encoded, image, factors, cells), theirs)

    cells = prepare_weight(weight, reference)
    reference = reference.detach()
    with full_precision(reference):
        lead = values_in_parts(leads, image, baseline, reference, cells, maps=factors is not None)
        return F.softplus(slope * (margin - lead))
