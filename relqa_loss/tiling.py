"""Distance and score of images that are too large to be measured in one piece."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relqa_loss._inputs import OnOutOfRange, check_options, prepare_pair
from relqa_loss.functional import network_dtype, network_for
from relqa_loss.network._layout import GRID
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import MAP_STRIDE, ParityNetwork, sharpened
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS

MARGIN = 128
"""Pixels around a tile that are measured with it; what lies farther away does not reach it."""


class Measured(NamedTuple):
    """Figures of N pairs."""

    distance: Tensor
    score: Tensor


class _Sums(NamedTuple):
    """Over the cells of a piece, N each, in float64."""

    density: Tensor
    power: Tensor
    back: Tensor
    back_power: Tensor
    evidence: Tensor
    magnitude: Tensor


@torch.no_grad()
def measure_in_tiles(
    preds: Tensor,
    target: Tensor,
    *,
    tile: int = 1024,
    data_range: float = 1.0,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    on_out_of_range: OnOutOfRange = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """What :func:`relqa_loss.relate` gives, piece by piece.

    Every piece is measured with :data:`MARGIN` pixels around it, and what the figures are pooled
    from is summed over pieces: the values are those of the whole to rounding (1e-5), in memory that
    depends on ``tile`` and not on the image. Images stay as they are, on their device and in their
    dtype: give 8-bit ones as such. There is no gradient.

    Args:
        preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
        target: The reference, of the same shape.
        tile: Side of the pieces in pixels, a multiple of 16; 1024 takes about half a gigabyte.
        data_range: The value of white; 255 for 8-bit images.
        weights: Name or path.
        on_out_of_range: As for :func:`relqa_loss.relate`.
        progress: Called with (pieces done, pieces in all) after each one.

    Raises:
        TypeError: As :func:`relqa_loss.relate`.
        ValueError: As :func:`relqa_loss.relate`, or for a tile that is not a multiple of 16.

    Example:
        >>> import torch
        >>> from relqa_loss import relational_distance
        >>> from relqa_loss.tiling import measure_in_tiles
        >>> target = torch.randint(256, (1, 3, 300, 420), dtype=torch.uint8)
        >>> preds = target // 2
        >>> found = measure_in_tiles(preds, target, tile=128, data_range=255)
        >>> whole = relational_distance(preds, target, data_range=255)
        >>> bool((found.distance - whole).abs() < 1e-4)
        True
    """
    check_options(data_range, on_out_of_range, "mean")
    if tile < GRID or tile % GRID:
        raise ValueError(f"tile must be a positive multiple of {GRID}, got {tile}")
    dtype = network_dtype(preds) if isinstance(preds, Tensor) else torch.float32
    alike = isinstance(preds, Tensor) and isinstance(target, Tensor) and preds.shape == target.shape
    # Types and shapes first, on a corner that stands for the whole; values piece by piece.
    corner = (..., slice(2 * GRID), slice(2 * GRID))
    pair = (preds[corner], target[corner]) if alike else (preds, target)
    prepare_pair(*pair, dtype=dtype, data_range=data_range, on_out_of_range="ignore")
    network = network_for(weights, preds.device, dtype)
    height, width = preds.shape[-2:]
    places = [(row, column) for row in range(0, height, tile) for column in range(0, width, tile)]
    total: _Sums | None = None
    for done, (row, column) in enumerate(places, start=1):
        rows, columns = _Span.of(row, tile, height), _Span.of(column, tile, width)
        image, reference = prepare_pair(
            *(each[..., rows.taken, columns.taken] for each in (preds, target)),
            dtype=dtype,
            data_range=data_range,
            on_out_of_range=on_out_of_range,
        )
        found = _sums(network, image, reference, (..., rows.kept, columns.kept))
        total = (
            found if total is None else _Sums(*(a + b for a, b in zip(total, found, strict=True)))
        )
        if progress is not None:
            progress(done, len(places))
    if total is None:
        raise ValueError(f"images must have pixels, got shape {tuple(preds.shape)}")
    return _pooled(network, total, height, width)


class _Span(NamedTuple):
    """One side of a piece: the pixels that are looked at, and the cells that count."""

    taken: slice
    kept: slice

    @classmethod
    def of(cls, start: int, tile: int, side: int) -> _Span:
        first = max(0, start - MARGIN)
        last = min(side, start + tile + MARGIN)
        begin = (start - first) // MAP_STRIDE
        # Errors at the border leak into cells of the padding, which count as in a whole image.
        end = None if start + tile >= side else begin + tile // MAP_STRIDE
        return cls(slice(first, last), slice(begin, end))


def _sums(network: ParityNetwork, image: Tensor, reference: Tensor, kept: tuple[Any, ...]) -> _Sums:
    with full_precision(reference):
        one, other = network.encode(reference), network.encode(image)
        forth = network.density(one, other.image)[kept].double()
        back = network.density(other, one.image)[kept].double()
        streams, _ = network.streams_and_direction(one, other)
        evidence = network.evidence(streams)[kept].double()
    cells = (1, 2, 3)
    return _Sums(
        forth.sum(cells),
        forth.square().sum(cells),
        back.sum(cells),
        back.square().sum(cells),
        evidence.sum(cells),
        evidence.abs().sum(cells),
    )


def _pooled(network: ParityNetwork, sums: _Sums, height: int, width: int) -> Measured:
    cells = height * width / MAP_STRIDE**2
    forth = network.pooled(sums.density / cells, sums.power / cells)
    back = network.pooled(sums.back / cells, sums.back_power / cells)
    padded = -(-height // GRID) * -(-width // GRID) * (GRID // MAP_STRIDE) ** 2
    direction = sharpened(sums.evidence / padded, sums.magnitude / padded)
    score = 0.5 * (forth + back) * direction
    return Measured(forth.float(), score.float())
