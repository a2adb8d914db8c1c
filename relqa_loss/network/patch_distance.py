"""The smaller distance: radial like the other one, and made of products of matrices on patches.

What :mod:`~relqa_loss.network.distance` says holds here, too: the error passes linear layers whose
coefficients depend on the reference alone, and only magnitudes are combined, with non-negative
weights and increasing functions. There is no layer at stride 2, the plain error is the mean
magnitude in each colour of a patch, and all that depends on the reference is worked out when it
is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network._judgement import judged_density
from relqa_loss.network._layout import first, last, padded
from relqa_loss.network._lean import UNSEEN, by_sign
from relqa_loss.network._patches import (
    SIDE,
    blended,
    filtered,
    merge,
    mixed,
    patch_kernel,
    stepped,
)
from relqa_loss.network._settled import Settling
from relqa_loss.network.derivatives import Structure, weighed
from relqa_loss.network.encoder import CONTRAST, silu
from relqa_loss.network.pyramid import PixelPyramid

_COLOURS = 3
_PATCH = _COLOURS * SIDE**2


class _Stem(Settling):
    """A layer on patches of pixels: N×3×H×W → N×H/4×W/4×C."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, _PATCH))
        self.bias = nn.Parameter(torch.empty(outputs))

    def functions(self) -> tuple[Tensor, ...]:
        # A power of two: exact, and shorter on the weights than on the pixels.
        return (patch_kernel(CONTRAST * self.weight),)

    def forward(self, image: Tensor) -> Tensor:
        (kernel,) = self.settled()
        return last(F.conv2d(image, kernel, self.bias, stride=SIDE))


class PatchEncoder(nn.Module):
    """What the reference has to say about an error, at strides 4, 8 and 16.

    Args:
        widths: Widths of the features at these strides.
        error_widths: Widths of the error's, each of which is given a gate.
        judged: How many visibilities there are at a stride.
    """

    def __init__(self, widths: Sequence[int], error_widths: Sequence[int], judged: int) -> None:
        super().__init__()
        self.gates = tuple(error_widths)
        self.stem = _Stem(widths[0])
        self.reduce = nn.ModuleList(
            nn.Linear(4 * before, after) for before, after in pairwise(widths)
        )
        self.mix = nn.ParameterList(_kernel(width, 2.0) for width in widths[1:])
        self.heads = nn.ModuleList(
            nn.Linear(width, gates + judged)
            for width, gates in zip(widths, error_widths, strict=True)
        )
        for layer in (self.stem, *self.reduce):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.5 / head.in_features**0.5)  # type: ignore[operator, arg-type]
            nn.init.constant_(head.bias, 1.0)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``N×3×H×W``, centred on mid-grey, sides divisible by 16 → gates and visibilities.

        A pair for each stride, finest first: N×h×w×E in [−2, 2] and N×h×w×J in [0, 1].
        """
        features = silu(self.stem(image))
        found: list[Tensor] = []
        for level, head in enumerate(self.heads):
            if level:
                features = silu(self.reduce[level - 1](merge(features)))
                features = features + silu(mixed(features, self.mix[level - 1]))
            # One function for both. A gate may change its sign, so that products with the
            # reference's own structure (is this a loss of contrast?) are possible.
            bounded = torch.sigmoid(head(features).clamp(min=UNSEEN))
            gates = self.gates[level]
            found += [bounded[..., :gates] * 4 - 2, bounded[..., gates:]]
        return tuple(found)


class PatchDistance(Settling):
    """Density of the distance at stride 4.

    Args:
        widths: Widths of the linear error features at strides 4, 8 and 16.
        judged: Width of the judgement at these strides.
        floor: Weight of the plain error, see :class:`~relqa_loss.network.NetworkConfig`.
    """

    def __init__(self, widths: Sequence[int], judged: int, floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.pyramid = PixelPyramid()
        self.filters = nn.Parameter(torch.randn(_PATCH, widths[0]) / _PATCH**0.5)
        self.reduce = nn.ParameterList(
            torch.randn(4 * before, after) / (4 * before) ** 0.5
            for before, after in pairwise(widths)
        )
        self.mix = nn.ParameterList(_kernel(width, 0.25) for width in widths[1:])
        # Softplus of these: non-negative whatever training does. More and less of a feature, such
        # as gained and lost contrast, weigh differently.
        self.blend = nn.ParameterList(
            torch.randn(2 * width + plain, judged) - 3.0
            for width, plain in zip(widths, (_COLOURS, 0, 0), strict=True)
        )
        self.weigh = nn.ParameterList(torch.full((judged, 1), -2.0) for _ in widths)

    def functions(self) -> tuple[Tensor, ...]:
        """The first filters' kernel, and for each stride how magnitudes blend and count."""
        widths = (self.filters.shape[1], *(each.shape[1] for each in self.reduce))
        blends = (
            by_sign(F.softplus(blend), width, 0)
            for blend, width in zip(self.blend, widths, strict=True)
        )
        return patch_kernel(self.filters.T), *blends, *(F.softplus(each) for each in self.weigh)

    def prepared(self, encoded: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """All that :meth:`forward` needs of a reference: what the encoder makes of it."""
        return encoded

    def forward(self, image: Tensor, reference: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Image and reference N×3×H×W → density N×1×H'/4×W'/4 on the padded grid, non-negative.

        Args:
            image: What is judged.
            reference: What it is compared with.
            features: Of the reference, from the encoder; and its
                :class:`~relqa_loss.network.derivatives.Structure`, if errors that it explains are
                to weigh differently.
        """
        return self._density(image, reference, features)[0]

    def with_error(
        self, image: Tensor, reference: Tensor, features: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and the mean of ``|image − reference|``, of shape N.

        Plain errors are looked at anyway, so that their mean comes for next to nothing.
        """
        density, plain = self._density(image, reference, features)
        height, width = image.shape[-2:]
        share = plain.shape[1] * plain.shape[2] * SIDE**2 / (height * width)
        return density, plain.mean((1, 2, 3)) * share

    def _density(
        self, image: Tensor, reference: Tensor, features: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Of :meth:`forward`, and the mean error in each patch, N×h×w×1, padded ones included."""
        kernel, *others = self.settled()
        blends, weights = others[: len(self.blend)], others[len(self.blend) :]
        structure = features[2 * len(blends) :]
        difference = padded(image - reference)
        smooth = self.pyramid.smooth_difference(difference) if structure else None
        current, plain = filtered(difference, self.filters, kernel)
        del difference  # it would show in the peak of memory
        judged = []
        for level, blend in enumerate(blends):
            gate = features[2 * level]
            if level:
                current = stepped(current, self.reduce[level - 1], gate, self.mix[level - 1])
            else:
                current = current * gate
            judged.append(blended(current, None if level else plain, blend))
        seen = features[1 : 2 * len(judged) : 2]
        density = judged_density(judged, seen, weights)
        error = plain.mean(-1, keepdim=True)
        learned = first(density)
        if smooth is not None:
            learned = weighed(learned, smooth, Structure(*structure))
        return learned + self.floor * first(error), error

    def plain(self, image: Tensor, reference: Tensor) -> Tensor:
        """The part of the density's mean over the image that no weight can change, of shape N."""
        error: Tensor = self.floor * (image - reference).abs()
        return error.mean((1, 2, 3))


def _kernel(width: int, variance: float) -> Tensor:
    return torch.randn(width, width, 3, 3) * math.sqrt(variance / (9 * width))
