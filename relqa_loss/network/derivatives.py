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
_STEEP = 12.0
_MOVED, _BLURRED = 0.65, 0.5
_GAIN = 0.5
_STRONG = 0.2
_WEAK = 1e-4  # density squared; whatever is learned, no blur is stronger than none


class Structure(NamedTuple):
    """What the fits need of the reference."""

    derivatives: Tensor
    """N×3×3×h×w at stride 4: across, down and Laplacian, of the three opponent colours."""
    inverse: Tensor
    """N×4×h/4×w/4: what turns squares of products with the gradients (across, down, both) into
    energy, and the product with the Laplacian into the root of one."""


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
        xx, yy, curved = xx + _FLAT, yy + _FLAT, curved + _FLAT
        gradients = torch.cat([yy, xx, -2 * xy], 1) / (xx * yy - xy * xy)
        return Structure(derivatives, torch.cat([gradients, curved.rsqrt()], 1))


class Shares(NamedTuple):
    """Of the error's energy around each cell of stride 16, N×1×h×w; 0 where there is no error."""

    moved: Tensor
    """What one offset explains, in [0, 1]."""
    blurred: Tensor
    """The error's correlation with the Laplacian, in [−1, 1]: negative where it sharpens."""


class Weighed(NamedTuple):
    """What becomes of the learned density of the distance at one stride, N×1×h×w each."""

    kept: Tensor
    """In (0, 1): near 0 where the error is a move."""
    raised: Tensor
    """≥ 0: how much more a strong blur counts."""
    strong: Tensor
    """Square of the density from which on a blur is strong; positive, one number."""

    def __call__(self, density: Tensor) -> Tensor:
        """The density, weighed: increasing in it, and 0 where it is 0."""
        square = density * density
        return self.kept * (density + self.raised * density * square / (square + self.strong))


class Weighing(nn.Module):
    """What moves and blurs count: less, and more where they are strong, than was learned without.

    A weak blur is left as it is. One threshold of either share, gain and strength for each of the
    strides 4, 8 and 16.
    """

    def __init__(self) -> None:
        super().__init__()

        def one_each(value: float) -> nn.Parameter:
            return nn.Parameter(torch.full((1, 3, 1, 1), value))

        self.steepness = one_each(_STEEP)
        self.moved = one_each(_MOVED)
        self.blurred = one_each(_BLURRED)
        self.gain = one_each(_GAIN)
        self.strong = one_each(_STRONG)

    def forward(self, error: Tensor, structure: Structure) -> tuple[Weighed, Weighed, Weighed]:
        """Error N×3×h×w at stride 4 → how densities at strides 4, 8 and 16 are weighed."""
        moved, blurred = explained(error, structure)
        kept = torch.sigmoid(self.steepness * (self.moved - moved))
        raised = F.softplus(self.gain) * torch.sigmoid(_STEEP * (blurred - self.blurred))
        strong = self.strong.square() + _WEAK

        def at(level: int, times: int) -> Weighed:
            here = slice(level, level + 1)
            return Weighed(
                repeated(kept[:, here], times), repeated(raised[:, here], times), strong[:, here]
            )

        return at(0, 4), at(1, 2), at(2, 1)


def explained(error: Tensor, structure: Structure) -> Shares:
    """What derivatives of the reference explain of ``error``, N×3×h×w at stride 4."""
    along = (structure.derivatives * error[:, None]).sum(2)
    products = _around(torch.cat([along, error.square().sum(1, keepdim=True)], 1))
    across, down, laplacian, energy = torch.split(products, 1, 1)
    energy = energy.clamp(min=_NO_ENERGY)
    fit = torch.cat([across * across, down * down, across * down], 1)
    moved = (fit * structure.inverse[:, :3]).sum(1, keepdim=True) / energy
    return Shares(moved, laplacian * structure.inverse[:, 3:] * energy.rsqrt())


def _around(products: Tensor) -> Tensor:
    """Means over 3×3 cells of stride 16. Zeros count at the border: they do for both sides of a
    fit."""
    return F.avg_pool2d(F.avg_pool2d(products, _CELLS), 3, 1, 1)
