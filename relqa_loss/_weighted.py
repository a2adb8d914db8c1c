"""A per-pixel error that counts more where distortions are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._inputs import check_factor, keepable, prepare_weight, upsample_maps
from relqa_loss._pairs import distances, maps, maps_and_distances
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import ParityNetwork

RELATIONAL_WEIGHT = 0.003
"""Of the distance beside a pixel error, by default: measured in ``docs/recipes.md``."""

Base = Literal["charbonnier", "l1", "l2"] | Callable[[Tensor, Tensor], Tensor]
"""A per-pixel error: a name, or ``base(preds, target)`` that returns N×C×H×W."""

_CHARBONNIER_EPS = 1e-3


def check_factors(base: object, map_gain: float, relational_weight: float) -> None:
    """Check the options of :func:`~relqa_loss.spatial_map_weighted_loss`.

    Raises:
        TypeError: If ``base`` is neither a string nor callable, or a factor is not a number.
        ValueError: For an unknown name, or factors that are negative or not finite.
    """
    if isinstance(base, str):
        if base not in _BASES:
            raise ValueError(f"base must be one of {sorted(_BASES)} or a callable, got {base!r}")
    elif not callable(base):
        raise TypeError(f"base must be a name or a callable, got {type(base).__name__}")
    for name, value in (("map_gain", map_gain), ("relational_weight", relational_weight)):
        check_factor(name, value)


def weighted_values(
    network: ParityNetwork,
    preds: Tensor,
    target: Tensor,
    image: Tensor,
    reference: Tensor,
    *,
    data_range: float,
    base: Base,
    factors: Tensor | None,
    detach_maps: bool,
    map_gain: float,
    relational_weight: float,
    weight: Tensor | None,
) -> Tensor:
    """The N values of :func:`~relqa_loss.spatial_map_weighted_loss`.

    ``preds`` and ``target`` are as they were given, ``image`` and ``reference`` what was made of
    them.
    """
    with full_precision(reference):
        cells = prepare_weight(weight, reference)
        height, width = reference.shape[-2:]
        # The base sees what clamping would cut, or values out of range would have no gradient.
        raw = preds.to(image.dtype) / data_range, target.to(image.dtype) / data_range
        measure = _BASES[base] if isinstance(base, str) else base
        error = measure(*raw)
        if not isinstance(error, Tensor):
            raise TypeError(
                f"base must return a tensor, an error per pixel, got {type(error).__name__}"
            )
        if (
            error.ndim != 4
            or error.shape[0] != image.shape[0]
            or error.shape[2:] != (height, width)
        ):
            raise ValueError(
                f"base must return an error per pixel, N×C×{height}×{width}, got shape "
                f"{tuple(error.shape)}"
            )
        error = error.to(image.dtype).mean(1, keepdim=True)
        distance: Tensor | None = None
        if map_gain or relational_weight:
            if relational_weight and (factors is not None or not detach_maps):
                found, distance = maps_and_distances(
                    network, image, reference, factors, cells, structure=False
                )
            else:
                # Constant maps need nothing kept for a gradient, which is most of the memory.
                with torch.set_grad_enabled(torch.is_grad_enabled() and not detach_maps):
                    found = maps(network, image, reference)
                if relational_weight:
                    distance = distances(network, image, reference, None, cells, structure=False)
            if detach_maps:
                found = found.detach()
            if factors is not None:
                found = found * factors[:, None, None]
            visible = found.abs().sum(1, keepdim=True)
            error = error * (1 + map_gain * upsample_maps(visible, (height, width)))
        values = weighted_mean(error, weight)
        return values if distance is None else values + relational_weight * distance


def weighted_mean(error: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of every image's N×1×H×W errors, weighted alike; 0 where all weights are."""
    if weight is None:
        return error.mean((1, 2, 3))
    share = keepable(weight.to(error.dtype)).expand(error.shape[0], -1, -1, -1)
    total = share.sum((1, 2, 3))
    return (share * error).sum((1, 2, 3)) / torch.where(total > 0, total, 1.0)


def _charbonnier(preds: Tensor, target: Tensor) -> Tensor:
    # Less eps, so that it is zero at identity.
    return torch.sqrt((preds - target).square() + _CHARBONNIER_EPS**2) - _CHARBONNIER_EPS


def _l1(preds: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(preds, target, reduction="none")


def _l2(preds: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(preds, target, reduction="none")


_BASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": _charbonnier,
    "l1": _l1,
    "l2": _l2,
}
