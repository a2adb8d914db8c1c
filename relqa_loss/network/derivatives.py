"""What of an error the reference itself explains: a small displacement, a blur, or more contrast.

Moved by an offset u, an image changes by ``u · ∇reference`` in first order, and people do not see
it. Blurred, it changes along its Laplacian, and people mind a strong blur more than noise of the
same energy. Given more contrast, it changes along itself, its derivative of order zero, and people
mind that less than as much contrast lost. All are linear in the error once the reference is known,
and which *share* of the error's energy they explain does not change while the error shrinks. What
is learned of the distance may be multiplied with a function of such shares, and still falls along
every straight way to the reference.

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
_GAINED = 0.6
"""Correlation from which on an error is a gain of contrast."""
_FORGIVEN = 0.5
"""Share of it that a gain of contrast is spared."""
_WITHIN = 1e-3
"""Share of the error's energy that differences within cells are thought to have at least: of a
shifted mean, rounding is all that differs."""


class Structure(NamedTuple):
    """What the fits need of the reference."""

    derivatives: Tensor
    """N×K×3×h×w at stride 4: across, down and Laplacian, of the three opponent colours; where
    contrast counts (K = 4), also what the image differs by from its mean in each cell of stride
    16."""
    whitening: Tensor
    """N×2×2×h/4×w/4: turns means of products with the gradient, across and down, into what does not
    depend on how strong it is, nor one part of it on the other."""
    scales: Tensor
    """N×(K−2)×h/4×w/4: the same of the others, each by itself."""


class Derivatives(nn.Module):
    """:class:`Structure` of an image.

    Args:
        contrast: Whether to tell a gain of contrast as well.
    """

    def __init__(self, *, contrast: bool = False) -> None:
        super().__init__()
        self.contrast = contrast
        self.pyramid = PixelPyramid()

    def forward(self, image: Tensor) -> Structure:
        """N×3×H×W, sides divisible by 16."""
        smooth = self.pyramid.smooth(image)
        around = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
        left, right = around[..., 1:-1, :-2], around[..., 1:-1, 2:]
        above, below = around[..., :-2, 1:-1], around[..., 2:, 1:-1]
        across, down = 0.5 * (right - left), 0.5 * (below - above)
        laplacian = left + right + above + below - 4 * smooth
        fields = [across, down, laplacian]
        if self.contrast:
            fields.append(smooth - repeated(F.avg_pool2d(smooth, _CELLS), _CELLS))
        derivatives = torch.stack(fields, 1)
        products = torch.cat([(across * down)[:, None], derivatives.square()], 1).sum(2)
        xy, xx, yy, others = torch.split(_around(products), [1, 1, 1, len(fields) - 2], 1)
        # The inverse of the Cholesky factor of [[xx, xy], [xy, yy]].
        first = (xx + _FLAT).rsqrt()
        shared = xy * first.square()
        second = (yy + _FLAT - xy * shared).rsqrt()
        rows = torch.cat([first, torch.zeros_like(xy), -shared * second, second], 1)
        count, _, height, width = rows.shape
        whitening = rows.view(count, 2, 2, height, width)
        return Structure(derivatives, whitening, (others + _FLAT).rsqrt())


class Shares(NamedTuple):
    """Of the error's energy around each cell of stride 16, N×1×h×w; 0 where there is no error."""

    moved: Tensor
    """What one offset explains, in [0, 1]."""
    blurred: Tensor
    """The error's correlation with the Laplacian, in [−1, 1]: negative where it sharpens."""
    gained: Tensor | None = None
    """That with the reference, within cells, in [−1, 1]: negative where contrast is lost."""


def weighed(density: Tensor, error: Tensor, structure: Structure) -> Tensor:
    """What is learned of the distance, N×1×h×w at stride 4: less where the error is a move or a
    gain of contrast, more where it is a strong blur.

    It increases in the density, and is 0 where that is 0.

    Args:
        density: Non-negative.
        error: N×3×h×w, what the pyramid leaves of it at stride 4.
        structure: Of the reference.
    """
    moved, along, gained = explained(error, structure)
    blurred = along.clamp(min=0)
    # Something moved *and* blurred is not as good as moved: along the Laplacian as well.
    moved = moved - _BLUR_OF_MOVE * blurred.square()
    margins = [_MOVED - moved, blurred - _BLURRED]
    if gained is not None:
        # Sharpened, an image gains contrast as well; that is another matter.
        margins.append(gained - along.clamp(max=0).square() - _GAINED)
    sure = torch.sigmoid(_STEEP * torch.cat(margins, 1))
    kept, raised, *gains = torch.split(repeated(sure, _CELLS), 1, 1)
    for gain in gains:
        kept = kept * (1 - _FORGIVEN * gain)
    square = density.square()
    return kept * density * (1 + _GAIN * raised * (square / (square + _STRONG**2)))


def explained(error: Tensor, structure: Structure) -> Shares:
    """What the reference explains of ``error``, N×3×h×w at stride 4."""
    along = (structure.derivatives * error[:, None]).sum(2)
    products = _around(torch.cat([along, error.square().sum(1, keepdim=True)], 1))
    gradient, others, energy = torch.split(products, [2, along.shape[1] - 2, 1], 1)
    strength = energy.clamp(min=_NO_ENERGY).rsqrt()
    offset = (structure.whitening * gradient[:, None]).sum(2) * strength
    curved, *contrast = torch.split(others * structure.scales, 1, 1)
    shares = Shares(offset.square().sum(1, keepdim=True), curved * strength)
    if not contrast:
        return shares
    # The means of cells are a shift of brightness, not of contrast.
    means = F.avg_pool2d(error, _CELLS).square().sum(1, keepdim=True)
    within = (energy - F.avg_pool2d(means, 3, 1, 1)).clamp(min=0) + _WITHIN * energy
    return shares._replace(gained=contrast[0] * within.clamp(min=_NO_ENERGY).rsqrt())


def _around(products: Tensor) -> Tensor:
    """Means over 3×3 cells of stride 16. Zeros count at the border: they do for both sides of a
    fit."""
    return F.avg_pool2d(F.avg_pool2d(products, _CELLS), 3, 1, 1)
