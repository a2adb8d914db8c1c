"""The distance: a function of the image that falls along every straight way to the reference.

A learned distance with freely learned features has *metamers*: descending it from noise ends far
from the reference, at an image that the features confuse with it. Here the error ``e = image −
reference`` passes a *linear* network whose coefficients depend on the reference alone, and only
magnitudes of the outcome are combined, with non-negative weights and increasing functions. For a
fixed reference every such magnitude shrinks in proportion along ``reference + t · e`` as t → 0, so
the distance falls strictly on every straight way to the reference, has no stationary point but the
reference itself, and small gradient steps on it always reduce the mean squared error. None of that
depends on the weights' values. Shares of the error may weigh what is combined, since they stay as
they are on each way (:mod:`~relqa_loss.network.derivatives`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network._judgement import judged_density
from relqa_loss.network._layout import (
    first,
    in_pairs,
    last,
    padded,
    pairs_pay,
    pointwise,
    single,
)
from relqa_loss.network._lean import (
    GLARING,
    UNSEEN,
    BlockKernel,
    by_sign,
    gated_step,
    mean_magnitude,
    softplus,
)
from relqa_loss.network._patches import blended
from relqa_loss.network._readings import readings
from relqa_loss.network._settled import Settling
from relqa_loss.network.derivatives import Structure, weighed
from relqa_loss.network.pyramid import PYRAMID_BANDS, PixelPyramid


class _ErrorStage(nn.Module):
    """One linear step on the error, its coefficients steered by the reference."""

    def __init__(self, inputs: int, outputs: int, features: int) -> None:
        super().__init__()
        # Space-to-depth and a 1×1 convolution, in one: no pixel goes unseen.
        self.reduce = nn.Conv2d(inputs, outputs, 2, stride=2, bias=False)
        self.mix = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.gate = nn.Conv2d(features, outputs, 1)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="linear")
        nn.init.normal_(self.mix.weight, std=0.5 / (9 * outputs) ** 0.5)
        _init_gate(self.gate)

    def forward(self, error: Tensor, gate: Tensor) -> Tensor:
        return gated_step(error, self.reduce.weight, gate, self.mix.weight)


class NarrowGate(Settling):
    """A 1×1 convolution to few channels, two cells at a time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))
        _init_gate(self)

    def functions(self) -> tuple[Tensor, ...]:
        weight = in_pairs(self.weight.flatten(1), self.in_channels).T.contiguous()
        return weight, self.bias.repeat(2)

    def forward(self, image: Tensor) -> Tensor:
        if not pairs_pay(self.out_channels, image):
            return pointwise(self, image)
        count, channels, height, width = image.shape
        weight, bias = self.settled()
        pairs = torch.addmm(bias, last(image).reshape(-1, 2 * channels), weight)
        return single(first(pairs.view(count, height, width // 2, -1)))


class _FirstStage(Settling):
    """The step from pixels to stride 2, with a wider view."""

    def __init__(self, outputs: int, features: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(12, outputs, 3, padding=1, bias=False)
        self.gate = NarrowGate(features, outputs)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="linear")

    def functions(self) -> tuple[Tensor, ...]:
        return BlockKernel.of(self.reduce.weight)

    def kernel(self) -> BlockKernel:
        return BlockKernel(*self.settled())


def _init_gate(gate: nn.Conv2d | NarrowGate) -> None:
    nn.init.normal_(gate.weight, std=0.5 / gate.in_channels**0.5)
    nn.init.ones_(gate.bias)  # type: ignore[arg-type]


def _bounded(gate: Tensor) -> Tensor:
    # Bounded, so that no reference makes the distance explode; its sign may change, so that
    # products with the reference's own structure (is this a loss of contrast?) are possible.
    return (gate / gate.abs().add_(1)).mul_(2)


class _Judgement(Settling):
    """Non-negative mixing of magnitudes, visibility from the reference, saturation."""

    def __init__(self, signed: int, unsigned: int, width: int, features: int) -> None:
        super().__init__()
        self.signed = signed
        # Softplus of these: non-negative whatever training does. More and less of a feature, such
        # as gained and lost contrast, weigh differently.
        self.blend = nn.Parameter(torch.randn(width, 2 * signed + unsigned, 1, 1) - 3.0)
        self.visibility = nn.Conv2d(features, width, 1)
        self.weigh = nn.Parameter(torch.full((1, width, 1, 1), -2.0))

    def functions(self) -> tuple[Tensor, ...]:
        blend = by_sign(F.softplus(self.blend), self.signed, 1)
        return blend.flatten(1).T.contiguous(), F.softplus(self.weigh).view(-1, 1)

    def seen(self, reference: Tensor) -> Tensor:
        """How visible magnitudes are in front of this reference, N×h×w×width."""
        logits = last(pointwise(self.visibility, reference)).add_(0.5)
        return softplus(logits.clamp(UNSEEN, GLARING))

    def forward(self, error: Tensor, unsigned: Tensor) -> tuple[Tensor, Tensor]:
        """Blended magnitudes, N×h×w×width, and the weights with which they count."""
        # Products of matrices, with channels last, cost less to call than convolutions.
        blend, weigh = self.settled()
        return blended(last(error), last(unsigned), blend), weigh


class RadialDistance(nn.Module):
    """Density of the distance at stride 4.

    Args:
        features: Widths of the reference features at strides 2, 4, 8 and, if there are four, 16.
        widths: Widths of the linear error features at the same strides.
        width: Width of the judgement at all of these strides but the first.
        floor: Weight of the plain error pyramid, see
            :class:`~relqa_loss.network.NetworkConfig`.
    """

    def __init__(
        self,
        features: Sequence[int],
        widths: Sequence[int],
        width: int,
        floor: float,
    ) -> None:
        super().__init__()
        self.floor = floor
        self.pyramid = PixelPyramid()
        self.first = _FirstStage(widths[0], features[0])
        self.stages = nn.ModuleList(
            _ErrorStage(before, after, seen)
            for before, after, seen in zip(widths[:-1], widths[1:], features[1:], strict=True)
        )
        finest = (widths[0], 0, 0)  # magnitudes at stride 2 are judged at stride 4
        self.judgements = nn.ModuleList(
            _Judgement(own, bands + extra, width, seen)
            for own, bands, extra, seen in zip(
                widths[1:], PYRAMID_BANDS, finest, features[1:], strict=False
            )
        )

    def prepared(self, encoded: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All that :meth:`forward` needs of a reference, of what the encoder makes of it.

        Features themselves are not among it: they would be a fifth of the peak of memory.
        """
        finest, *coarser = encoded
        stages: Iterable[Any] = self.stages
        judgements: Iterable[Any] = self.judgements
        gates = [self.first.gate(finest)]
        gates += [pointwise(each.gate, of) for each, of in zip(stages, coarser, strict=True)]
        seen = [each.seen(of) for each, of in zip(judgements, coarser, strict=False)]
        return (*map(_bounded, gates), *seen)

    def forward(self, image: Tensor, reference: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Image and reference N×3×H×W → density N×1×H'/4×W'/4 on the padded grid, non-negative.

        Args:
            image: What is judged.
            reference: What it is compared with.
            features: Of the reference, by :meth:`prepared`; and its
                :class:`~relqa_loss.network.derivatives.Structure`, if errors that it explains are
                to weigh differently.
        """
        return self._density(image, reference, features, mean=False)[0]

    def with_error(
        self, image: Tensor, reference: Tensor, features: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and the mean of ``|image − reference|``, of shape N."""
        return self._density(image, reference, features, mean=True)

    def _density(
        self, image: Tensor, reference: Tensor, features: Sequence[Tensor], *, mean: bool
    ) -> tuple[Tensor, Tensor]:
        reduced, *bands, smooth, plain, error = readings(
            image, reference, self.first.kernel(), self.pyramid, mean=mean
        )
        (gate, *gates), seen, structure = self._parts(features)
        current = reduced * gate
        del reduced  # it would show in the peak of memory
        finest = mean_magnitude(current)
        errors = []
        for stage, gate in zip(self.stages, gates, strict=True):
            current = stage(current, gate)
            errors.append(current)
        unsigned = [torch.cat([bands[0], finest], 1), *bands[1:]]
        judged, weights = zip(
            *(
                judgement(error, size)
                for judgement, error, size in zip(self.judgements, errors, unsigned, strict=False)
            ),
            strict=True,
        )
        learned = first(judged_density(judged, seen, weights))
        if structure:
            learned = weighed(learned, smooth, Structure(*structure))
        return learned + self.floor * plain, error

    def _parts(
        self, features: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Gates, visibilities and structure, which may be none."""
        gates = len(self.stages) + 1
        seen = gates + len(self.judgements)
        return features[:gates], features[gates:seen], features[seen:]

    def plain(self, image: Tensor, reference: Tensor) -> Tensor:
        """The part of the density's mean over the image that no weight can change, of shape N."""
        error = padded(image - reference)
        *bands, _ = self.pyramid(error)
        share = self.floor * error[0].numel() / image[0].numel()  # padding would dilute means
        return share * sum(
            (band.sum(1).mean((1, 2)) for band in bands), start=image.new_zeros(len(image))
        )
