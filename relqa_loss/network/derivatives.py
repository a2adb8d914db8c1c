"""What of an error the reference's own derivatives explain: a small displacement, or a blur.

Moved by an offset u, an image changes by ``u · ∇reference`` in first order, and people do not see
it. Blurred, it changes along its Laplacian, and people mind a strong blur more than noise of the
same energy. Both are linear in the error once the reference is known, and which *share* of the
error's energy they explain does not change while the error shrinks. What is learned of the distance
may be multiplied with a function of such shares, and still falls along every straight way to the
reference.

The fit of an offset is that of Lucas and Kanade, "An iterative image registration technique", IJCAI
1981, on all channels at once: were it on luminance alone, fringes of colour would pass for a
displacement.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network._layout import repeated
from relqa_loss.network.pyramid import PixelPyramid

_CELLS = 4  # of stride 4 to one of stride 16
_FLAT = 1e-6
"""Added to mean squares of derivatives, so that flat parts are not said to have moved."""
_NO_ENERGY = 1e-18

# Chosen on photographs of the ``train`` split, see docs/decisions.md.
_MOVED, _BLURRED = 0.75, 0.8
"""Shares from which on an error is a move, and a blur."""
_STEEP = 24.0
_BLUR_OF_MOVE = 1.5
_GAIN = 1.5
"""How much more a strong blur counts at most."""
_STRONG = 0.3
"""Density from which on a blur is strong."""


class Structure(NamedTuple):
    """What the fits need of the reference."""

    derivatives: Tensor
    """N×3×3×h×w at stride 4: across, down and Laplacian, of the three opponent colours."""
    whitening: Tensor
    """N×3×3×h/4×w/4: turns means of products with the derivatives into what does not depend on how
    strong they are; one gradient apart from the other, the Laplacian by itself."""


class Derivatives(nn.Module):
    """:class:`Structure` of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = PixelPyramid()

    def forward(self, image: Tensor) -> Structure:
        """N×3×H×W, sides divisible by 16."""
        smooth = self.pyramid.smooth(image)
        around = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
        left, right = around[..., 1:-1, :-2], around[..., 1:-1, 2:]
        above, below = around[..., :-2, 1:-1], around[..., 2:, 1:-1]
        across, down = 0.5 * (right - left), 0.5 * (below - above)
        laplacian = left + right + above + below - 4 * smooth
        derivatives = torch.stack([across, down, laplacian], 1)
        products = torch.cat([derivatives.square(), (across * down)[:, None]], 1).sum(2)
        xx, yy, curved, xy = torch.split(_around(products), 1, 1)
        # The inverse of the Cholesky factor of [[xx, xy], [xy, yy]].
        first, third = (xx + _FLAT).rsqrt(), (curved + _FLAT).rsqrt()
        shared = xy * first.square()
        second = (yy + _FLAT - xy * shared).rsqrt()
        none = torch.zeros_like(xy)
        rows = [first, none, none, -shared * second, second, none, none, none, third]
        count, _, height, width = xx.shape
        return Structure(derivatives, torch.cat(rows, 1).view(count, 3, 3, height, width))


class Shares(NamedTuple):
    """Of the error's energy around each cell of stride 16, N×1×h×w; 0 where there is no error."""

    moved: Tensor
    """What one offset explains, in [0, 1]."""
    blurred: Tensor
    """The error's correlation with the Laplacian, in [−1, 1]: negative where it sharpens."""


def weighed(density: Tensor, error: Tensor, structure: Structure) -> Tensor:
    """What is learned of the distance, N×1×h×w at stride 4: less where the error is a move, more
    where it is a strong blur.

    It increases in the density, and is 0 where that is 0.

    Args:
        density: Non-negative.
        error: N×3×h×w, what the pyramid leaves of it at stride 4.
        structure: Of the reference.
    """
    moved, blurred = explained(error, structure)
    blurred = blurred.clamp(min=0)
    # Something moved *and* blurred is not as good as moved: along the Laplacian as well.
    moved = moved - _BLUR_OF_MOVE * blurred.square()
    sure = torch.sigmoid(_STEEP * torch.cat([_MOVED - moved, blurred - _BLURRED], 1))
    kept, raised = torch.split(repeated(sure, _CELLS), 1, 1)
    square = density.square()
    return kept * density * (1 + _GAIN * raised * (square / (square + _STRONG**2)))


def explained(error: Tensor, structure: Structure) -> Shares:
    """What derivatives of the reference explain of ``error``, N×3×h×w at stride 4."""
    along = (structure.derivatives * error[:, None]).sum(2)
    products = _around(torch.cat([along, error.square().sum(1, keepdim=True)], 1))
    products, energy = torch.split(products, [3, 1], 1)
    white = (structure.whitening * products[:, None]).sum(2)
    offset, curved = torch.split(white * energy.clamp(min=_NO_ENERGY).rsqrt(), [2, 1], 1)
    return Shares(offset.square().sum(1, keepdim=True), curved)


def _around(products: Tensor) -> Tensor:
    """Means over 3×3 cells of stride 16. Zeros count at the border: they do for both sides of a
    fit."""
    return F.avg_pool2d(F.avg_pool2d(products, _CELLS), 3, 1, 1)
