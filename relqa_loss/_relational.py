"""The distance with a pixel term beside it, as networks learn from it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relqa_loss._inputs import in_unit_range, keepable, prepare_weight
from relqa_loss._pairs import encode_reference
from relqa_loss._parts import values_in_parts
from relqa_loss._weighted import weighted_mean
from relqa_loss.network._lean import channel_error, mean_error
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import Encoding, ParityNetwork

PIXEL_WEIGHT = 600.0
"""Of the mean absolute error beside the distance, by default: measured in ``docs/recipes.md``."""


def relational_values(
    network: ParityNetwork,
    preds: Tensor,
    target: Tensor,
    image: Tensor,
    reference: Tensor,
    *,
    data_range: float,
    on_out_of_range: str,
    factors: Tensor | None,
    pixel_weight: float,
    weight: Tensor | None,
) -> Tensor:
    """The N values of :func:`~relqa_loss.relational_loss`.

    ``preds`` and ``target`` are as they were given, ``image`` and ``reference`` what was made of
    them.
    """
    clamped = on_out_of_range == "clamp"
    raw, raw_reference = (
        _raw(given, prepared, data_range, clamped)
        for given, prepared in ((preds, image), (target, reference))
    )
    options: dict[str, Any] = {"factors": factors, "pixel_weight": pixel_weight, "clamped": clamped}

    def values(image: Tensor, reference: Tensor, *others: Any) -> Tensor:
        encoding = encode_reference(network, reference, structure=False)
        return _with_pixel_term(network, encoding, image, *others, **options)

    cells = prepare_weight(weight, image)
    with full_precision(image):
        return values_in_parts(
            values, image, reference, raw, raw_reference, weight, cells, maps=factors is not None
        )


def relational_values_of_encoded(
    network: ParityNetwork,
    encoding: Encoding,
    preds: Tensor,
    image: Tensor,
    *,
    data_range: float,
    on_out_of_range: str,
    factors: Tensor | None,
    pixel_weight: float,
    weight: Tensor | None,
) -> Tensor:
    """:func:`relational_values` for a reference that was encoded before, one for all images or one
    for each."""
    clamped = on_out_of_range == "clamp"
    raw = _raw(preds, image, data_range, clamped)
    options: dict[str, Any] = {"factors": factors, "pixel_weight": pixel_weight, "clamped": clamped}

    def values(image: Tensor, raw: Tensor, weight: Any, cells: Any, *encoded: Tensor) -> Tensor:
        reference, *features = encoded
        others = (image, raw, reference.expand_as(raw), weight, cells)
        return _with_pixel_term(network, Encoding(reference, tuple(features)), *others, **options)

    cells = prepare_weight(weight, image)
    # Encoded in inference mode, perhaps, where validation and the first use of a target are.
    encoded = tuple(map(keepable, (encoding.image, *encoding.features)))
    with full_precision(image):
        return values_in_parts(
            values, image, raw, weight, cells, *encoded, maps=factors is not None
        )


def _raw(given: Tensor, prepared: Tensor, data_range: float, clamped: bool) -> Tensor:
    """``prepared`` with what clamping has cut, which the pixel term counts."""
    if not clamped:
        return prepared
    return in_unit_range(given, data_range, prepared.dtype).expand_as(prepared)


def _with_pixel_term(
    network: ParityNetwork,
    encoding: Encoding,
    image: Tensor,
    raw: Tensor,
    raw_reference: Tensor,
    weight: Tensor | None,
    cells: Tensor | None,
    *,
    factors: Tensor | None,
    pixel_weight: float,
    clamped: bool,
) -> Tensor:
    """Distance and pixel term of each image; the latter is of what clamping has not cut."""
    if not pixel_weight:
        return network.distance(encoding, image, factors, cells)
    if factors is None and weight is None and not clamped:
        values, error = network.distance_and_error(encoding, image)
    else:
        # First, so that its gradient comes last and is not in memory all the while.
        error = (
            mean_error(raw, raw_reference)
            if weight is None
            else weighted_mean(channel_error(raw, raw_reference), weight)
        )
        values = network.distance(encoding, image, factors, cells)
    return values + pixel_weight * error
