"""Images that are too large to be related in one piece."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from relqa_loss._inputs import OnOutOfRange, check_options, check_pair, prepare_pair
from relqa_loss.network._layout import GRID
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import MAP_STRIDE, sharpened
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS
from relqa_loss.network.shared import network_dtype, network_for

MARGIN = 128
"""Pixels around a tile that are measured with it; what lies farther away does not reach it."""


class Measured(NamedTuple):
    """Figures of N pairs."""

    distance: Tensor
    score: Tensor


class TiledRelation(NamedTuple):
    """Everything about N pairs."""

    maps: Tensor
    """N×K×⌈H/4⌉×⌈W/4⌉ signed severities, as of :func:`relqa_loss.relate`."""
    score: Tensor
    """N; negative where the image is worse than the reference."""
    distance: Tensor
    """N, ≥ 0."""
    distance_map: Tensor
    """N×1×⌈H/4⌉×⌈W/4⌉: where the errors are seen."""


def measure_in_tiles(
    preds: Tensor,
    target: Tensor,
    *,
    tile: int = 1024,
    data_range: float = 1.0,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    on_out_of_range: OnOutOfRange = "raise",
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Distance and score that :func:`relqa_loss.relate` gives, piece by piece.

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
        device: Where pieces are measured; by default where the images are.
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
    pieces = _Pieces(preds, target, tile, data_range, weights, on_out_of_range, device)
    total: _Sums | None = None
    for done, piece in enumerate(pieces, start=1):
        found = _Sums.of(piece)
        total = found if total is None else total.plus(found)
        if progress is not None:
            progress(done, len(pieces))
    return pieces.pooled(total)


def relate_in_tiles(
    preds: Tensor,
    target: Tensor,
    *,
    tile: int = 1024,
    data_range: float = 1.0,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    on_out_of_range: OnOutOfRange = "raise",
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TiledRelation:
    """:func:`measure_in_tiles` with the maps, which are put together on the images' device.

    They take about three bytes for every pixel, as much as an 8-bit image in colour.

    Args:
        preds, target, tile, data_range, weights, on_out_of_range, device, progress: As for
            :func:`measure_in_tiles`.

    Raises:
        TypeError: As :func:`measure_in_tiles`.
        ValueError: As :func:`measure_in_tiles`.

    Example:
        >>> import torch
        >>> from relqa_loss.tiling import relate_in_tiles
        >>> target = torch.randint(256, (1, 3, 300, 420), dtype=torch.uint8)
        >>> found = relate_in_tiles(target // 2, target, tile=128, data_range=255)
        >>> found.maps.shape[-2:], found.distance_map.shape[-2:]
        (torch.Size([75, 105]), torch.Size([75, 105]))
    """
    pieces = _Pieces(preds, target, tile, data_range, weights, on_out_of_range, device)
    grid = [-(-side // MAP_STRIDE) for side in preds.shape[-2:]]
    total: _Sums | None = None
    maps = where = preds.new_empty(0)
    for done, piece in enumerate(pieces, start=1):
        found = _Sums.of(piece)
        if total is None:
            total = found
            maps, where = (
                preds.new_empty((len(preds), part.shape[1], *grid), dtype=part.dtype)
                for part in (piece.maps, piece.forth)
            )
        else:
            total = total.plus(found)
        for whole, part in ((maps, piece.maps), (where, piece.forth)):
            # The last pieces hold cells of the padding, which maps do not show.
            place = whole[..., piece.row :, piece.column :]
            place = place[..., : part.shape[-2], : part.shape[-1]]
            place.copy_(part[..., : place.shape[-2], : place.shape[-1]])
        if progress is not None:
            progress(done, len(pieces))
    measured = pieces.pooled(total)
    return TiledRelation(maps, measured.score, measured.distance, where)


class _Piece(NamedTuple):
    """What the cells of one piece say."""

    row: int  # of the first cell, on the grid of the whole
    column: int
    forth: Tensor
    back: Tensor
    evidence: Tensor
    maps: Tensor


class _Sums(NamedTuple):
    """Over the cells of a piece, N each, in float64."""

    density: Tensor
    power: Tensor
    back: Tensor
    back_power: Tensor
    evidence: Tensor
    magnitude: Tensor

    @classmethod
    def of(cls, piece: _Piece) -> _Sums:
        cells = (1, 2, 3)
        forth, back, evidence = piece.forth.double(), piece.back.double(), piece.evidence.double()
        return cls(
            forth.sum(cells),
            forth.square().sum(cells),
            back.sum(cells),
            back.square().sum(cells),
            evidence.sum(cells),
            evidence.abs().sum(cells),
        )

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(*(a + b for a, b in zip(self, other, strict=True)))


class _Pieces:
    """The pieces of a pair, one after the other."""

    def __init__(
        self,
        preds: Tensor,
        target: Tensor,
        tile: int,
        data_range: float,
        weights: str | os.PathLike[str],
        on_out_of_range: OnOutOfRange,
        device: str | torch.device | None,
    ) -> None:
        check_options(data_range, on_out_of_range, "mean")
        if not isinstance(tile, (int, np.integer)) or tile < GRID or tile % GRID:
            raise ValueError(f"tile must be a positive multiple of {GRID}, got {tile!r}")
        self.dtype = network_dtype(preds) if isinstance(preds, Tensor) else torch.float32
        check_pair(preds, target, data_range)  # values are looked at piece by piece
        self.preds, self.target, self.tile = preds, target, tile
        self.data_range, self.on_out_of_range = data_range, on_out_of_range
        self.height, self.width = preds.shape[-2:]
        self.device = torch.device(device) if device is not None else preds.device
        self.network = network_for(weights, self.device, self.dtype)

    def __len__(self) -> int:
        return -(-self.height // self.tile) * -(-self.width // self.tile)

    def __iter__(self) -> Iterator[_Piece]:
        for row in range(0, self.height, self.tile):
            for column in range(0, self.width, self.tile):
                yield self._piece(row, column)

    @torch.no_grad()
    def _piece(self, row: int, column: int) -> _Piece:
        rows = _Span.of(row, self.tile, self.height)
        columns = _Span.of(column, self.tile, self.width)
        image, reference = prepare_pair(
            *(
                each[..., rows.taken, columns.taken].to(self.device)
                for each in (self.preds, self.target)
            ),
            dtype=self.dtype,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
        )
        kept = (..., rows.kept, columns.kept)
        network = self.network
        with full_precision(reference):
            one, other = network.encode(reference), network.encode(image)
            forth = network.density(one, other.image)[kept]
            back = network.density(other, one.image)[kept]
            streams, _ = network.streams_and_direction(one, other)
            evidence = network.evidence(streams)[kept]
        first = row // MAP_STRIDE, column // MAP_STRIDE
        return _Piece(*first, forth, back, evidence, streams.maps[kept])

    def pooled(self, sums: _Sums | None) -> Measured:
        """The figures of the whole, from the sums over all of its cells."""
        if sums is None:
            raise ValueError(f"images must have pixels, got shape {tuple(self.preds.shape)}")
        network = self.network
        cells = self.height * self.width / MAP_STRIDE**2
        forth = network.pooled(sums.density / cells, sums.power / cells)
        back = network.pooled(sums.back / cells, sums.back_power / cells)
        padded = -(-self.height // GRID) * -(-self.width // GRID) * (GRID // MAP_STRIDE) ** 2
        direction = sharpened(sums.evidence / padded, sums.magnitude / padded)
        score = 0.5 * (forth + back) * direction
        return Measured(*(each.to(self.preds.device, self.dtype) for each in (forth, score)))


class _Span(NamedTuple):
    """One side of a piece: the pixels that are looked at, and the cells that count."""

    taken: slice
    kept: slice

    @classmethod
    def of(cls, start: int, tile: int, side: int) -> _Span:
        first = max(0, start - MARGIN)
        last = min(side, start + tile + MARGIN)
        begin = (start - first) // MAP_STRIDE
        # Errors at the border leak into cells of the padding, which count as in a whole image:
        # tiles are multiples of the grid, so that a last one reaches as far as its padding.
        return cls(slice(first, last), slice(begin, begin + tile // MAP_STRIDE))
