"""How much of an error a small displacement of the reference explains: people do not see it.

Moved by an offset u, an image changes by ``u · ∇reference`` in first order. With the gradient
known, the least squares fit of one offset to the error around a place is *linear* in the error,
and the share of the error's energy that the fit explains does not change while the error shrinks.
A factor that depends on that share alone keeps the distance falling along every straight way to the
reference.

The fit is that of Lucas and Kanade, "An iterative image registration technique", IJCAI 1981, on all
channels at once: were it on luminance alone, fringes of colour would pass for a displacement.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network.pyramid import PixelPyramid

_CELLS = 4  # of stride 4 to one of stride 16
_FLAT = 1e-6
"""Added to the mean square of the gradient, so that flat parts are not said to have moved."""
_NO_ENERGY = 1e-18
_STEEP = 12.0
_LIMIT = 0.55


class Structure(NamedTuple):
    """What a fit of offsets needs of the reference."""

    gradients: Tensor
    """N×2×3×h×w at stride 4: across and down, of the three opponent colours."""
    inverse: Tensor
    """N×3×h/4×w/4: what turns products with the gradients into explained energy."""


class Gradients(nn.Module):
    """:class:`Structure` of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = PixelPyramid()

    def forward(self, image: Tensor) -> Structure:
        """N×3×H×W, sides divisible by 16."""
        around = F.pad(self.pyramid.smooth(image), (1, 1, 1, 1), mode="replicate")
        across = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
        down = around[..., 2:, 1:-1] - around[..., :-2, 1:-1]
        gradients = 0.5 * torch.stack([across, down], 1)
        squares = torch.cat([gradients.square(), gradients[:, :1] * gradients[:, 1:]], 1).sum(2)
        across, down, both = torch.split(_around(squares), 1, 1)
        across, down = across + _FLAT, down + _FLAT
        inverse = torch.cat([down, across, -2 * both], 1) / (across * down - both * both)
        return Structure(gradients, inverse)


class Displacement(nn.Module):
    """Factors in (0, 1) for what is learned of the distance: small where the error is a move.

    One threshold and steepness for each of the strides 4, 8 and 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steepness = nn.Parameter(torch.full((1, 3, 1, 1), _STEEP))
        self.limit = nn.Parameter(torch.full((1, 3, 1, 1), _LIMIT))

    def forward(self, error: Tensor, structure: Structure) -> tuple[Tensor, Tensor, Tensor]:
        """Error N×3×h×w at stride 4 → N×1 factors at strides 4, 8 and 16."""
        kept = torch.sigmoid(self.steepness * (self.limit - moved_share(error, structure)))
        fine, middle, coarse = torch.split(kept, 1, 1)
        return _repeat(fine, 4), _repeat(middle, 2), coarse


def moved_share(error: Tensor, structure: Structure) -> Tensor:
    """The share in [0, 1] of the energy of ``error`` (N×3×h×w) that one offset explains.

    N×1×h/4×w/4, over 3×3 cells of stride 16 around each; 0 where there is no error.
    """
    along = (structure.gradients * error[:, None]).sum(2)
    products = torch.cat([along, error.square().sum(1, keepdim=True)], 1)
    across, down, energy = torch.split(_around(products), 1, 1)
    fit = torch.cat([across * across, down * down, across * down], 1)
    explained = (fit * structure.inverse).sum(1, keepdim=True)
    return explained / energy.clamp(min=_NO_ENERGY)


def _around(products: Tensor) -> Tensor:
    """Means over 3×3 cells of stride 16. Zeros count at the border: they do for both sides of the
    fit."""
    return F.avg_pool2d(F.avg_pool2d(products, _CELLS), 3, 1, 1)


def _repeat(cells: Tensor, times: int) -> Tensor:
    return F.interpolate(cells, scale_factor=float(times), mode="nearest")
