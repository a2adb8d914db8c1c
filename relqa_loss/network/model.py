"""The parity network: signed maps, score and distance of a pair of images in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network._layout import corner, padded
from relqa_loss.network._pooling import norm, norm_of_cells
from relqa_loss.network.config import NetworkConfig
from relqa_loss.network.derivatives import Derivatives
from relqa_loss.network.distance import RadialDistance
from relqa_loss.network.encoder import Encoder
from relqa_loss.network.mapper import Mapper, Streams
from relqa_loss.network.parity import even_conv, odd_conv, odd_softsign
from relqa_loss.network.patch_distance import PatchDistance, PatchEncoder

MAP_STRIDE = 4
"""Image pixels per cell of the maps, along each side."""
LEAST_SHARE = 0.05
"""What channel weights below 1 leave of the distance at least, so that nothing goes unpunished."""
_SHARE_EPS = 0.05  # below this summed magnitude no channel prevails
_SURE = 0.02
"""Share of the evidence that must prevail for the direction to be half-way certain."""
_SURE_OF_LEARNERS = 0.1
"""The same in training, where an answer that is already certain would no longer be corrected."""


class Relation(NamedTuple):
    """What the network says about a pair (reference, image)."""

    maps: Tensor
    """N×K×⌈H/4⌉×⌈W/4⌉ signed severities; positive where the image has more than the reference."""
    score: Tensor
    """N; negative where the image is worse than the reference, ``score(a, b) == −score(b, a)``."""
    distance: Tensor
    """N, ≥ 0; zero exactly when the image equals the reference."""


class Encoding(NamedTuple):
    """An image prepared by :meth:`ParityNetwork.encode`, reusable against many others."""

    image: Tensor
    """As it was given, N×3×H×W; not a copy."""
    features: tuple[Tensor, ...]
    """What a reference needs, to be the measure of a distance."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[-2], self.image.shape[-1]


class ParityNetwork(nn.Module):
    """Relates two images with exact parity: ``maps(a, b) == −maps(b, a)``, whatever the weights.

    Args:
        config: Its shape.

    Example:
        >>> import torch
        >>> from relqa_loss.network import NetworkConfig, ParityNetwork
        >>> network = ParityNetwork(NetworkConfig())
        >>> a, b = torch.rand(2, 1, 3, 64, 64)
        >>> forth, back = network(a, b), network(b, a)
        >>> torch.equal(forth.maps, -back.maps), torch.equal(forth.score, -back.score)
        (True, True)
    """

    scale: Tensor

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        odd, even = config.odd_widths, config.even_widths
        self.encoder = _build_encoder(config)
        self.derivatives = Derivatives(contrast=config.contrast) if config.derivatives else None
        self.mapper = Mapper(len(config.channels), config.stem_width, odd, even)
        self.direction_gate = even_conv(even[1], odd[1])
        self.direction_head = odd_conv(odd[1], 1)
        self.error = _build_distance(config)
        # Weight of the root mean square over cells beside the mean: people judge an image by its
        # worst parts more than by its average part.
        self.peak = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("scale", torch.ones(()))

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the map channels, in order."""
        return self.config.channels

    @property
    def floor(self) -> float:
        """The constant c of ``distance ≥ c · mean|image − reference|`` (images in [0, 1])."""
        return self.config.floor * float(self.scale)

    def encode(self, image: Tensor, *, structure: bool = True) -> Encoding:
        """Features of ``image``, for use in :meth:`relate`.

        A reference that many images are compared with needs to be encoded only once. The encoding
        holds on to ``image``, which must not be changed in place as long as it is used.

        Args:
            image: N×3×H×W in [0, 1].
            structure: Whether distances from this reference count small displacements for less and
                strong blurs for more, if the network's configuration has it so. People judge like
                that, and networks learn better without: a metric wants it, a loss does not.
        """
        centred = _centred(image)
        features = self.error.prepared(self.encoder(centred))
        if structure and self.derivatives is not None:
            features = (*features, *self.derivatives(centred))
        return Encoding(image, features)

    def forward(
        self,
        reference: Tensor,
        image: Tensor,
        channel_weights: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Relation:
        """Relate ``image`` to ``reference``, both N×3×H×W in [0, 1]."""
        return self.relate(self.encode(reference), self.encode(image), channel_weights, weight)

    def relate(
        self,
        reference: Encoding,
        image: Encoding,
        channel_weights: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Relation:
        """Relate two encoded images.

        Args:
            reference: From :meth:`encode`.
            image: From :meth:`encode`, of the same size.
            channel_weights: K factors on the channels' shares of the distance (all 1 by default).
            weight: Non-negative weights of the map's cells, N×1×⌈H/4⌉×⌈W/4⌉. Distance and score
                become weighted means, and ``distance ≥ c · mean|image − reference|`` holds for
                the mean weighted alike. The maps are not changed.
        """
        streams = self._streams(reference, image)
        steering = self._steering(streams.maps, channel_weights)
        forth = self._distance(reference, image.image, steering, weight)
        back = self._distance(image, reference.image, steering, weight)
        size = _size(reference)
        score = 0.5 * (forth + back) * self._direction(streams, size, weight)
        return Relation(self._crop(streams.maps, size), score, forth)

    def distance(
        self,
        reference: Encoding,
        image: Tensor | Encoding,
        channel_weights: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The distance alone, of shape N: what :meth:`relate` gives, for a fraction of the work.

        Args:
            reference: From :meth:`encode`.
            image: N×3×H×W in [0, 1], or from :meth:`encode`.
            channel_weights: As in :meth:`relate`.
            weight: As in :meth:`relate`.
        """
        if channel_weights is None:
            return self._distance(reference, _pixels(image), None, weight)
        return self.maps_and_distance(reference, image, channel_weights, weight)[1]

    def distance_and_error(self, reference: Encoding, image: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`distance`, and the mean of ``|image − reference|``, each of shape N."""
        density, error = self.error.with_error(image, reference.image, reference.features)
        density = _wide(density) * self.scale
        return self._pool(density, self._share(reference, density)), _wide(error)

    def plain_distance(self, reference: Encoding, image: Tensor | Encoding) -> Tensor:
        """The part of :meth:`distance` that no weight can change, of shape N."""
        return self.error.plain(_pixels(image), reference.image) * self.scale

    def maps_and_distance(
        self,
        reference: Encoding,
        image: Tensor | Encoding,
        channel_weights: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Maps and distance of :meth:`relate` without the score, which costs a second distance."""
        maps = self._streams(reference, image).maps
        steering = self._steering(maps, channel_weights)
        distance = self._distance(reference, _pixels(image), steering, weight)
        return self._crop(maps, _size(reference)), distance

    def distortion_maps(self, reference: Tensor | Encoding, image: Tensor | Encoding) -> Tensor:
        """The maps alone, N×K×⌈H/4⌉×⌈W/4⌉."""
        maps = self._streams(reference, image).maps
        return self._crop(maps, _size(reference))

    def streams_and_direction(
        self, reference: Tensor | Encoding, image: Tensor | Encoding
    ) -> tuple[Streams, Tensor]:
        """All that training looks at: the mapper's streams on the padded grid, and the direction.

        The direction, N values in [−1, 1], is what a magnitude is multiplied with to be the score,
        but less certain of itself.
        """
        streams = self._streams(reference, image)
        return streams, prevailing_sign(self.evidence(streams), _SURE_OF_LEARNERS)

    def distance_map(
        self, reference: Encoding, image: Encoding, channel_weights: Tensor | None = None
    ) -> Tensor:
        """The distance's density, N×1×⌈H/4⌉×⌈W/4⌉, non-negative: where the errors are seen."""
        density = self.density(reference, image.image)
        if channel_weights is not None:
            maps = self._streams(reference, image).maps
            share, extra = self._steering_maps(maps, channel_weights)
            density = density * share + extra
        return self._crop(density, _size(reference))

    def _direction(
        self, streams: Streams, size: tuple[int, int], weight: Tensor | None = None
    ) -> Tensor:
        """Which of the two images is better, in [−1, 1]: odd, and free of the magnitude."""
        evidence = self.evidence(streams)
        if weight is not None:
            weight, _ = _spread(weight.to(evidence.dtype), size, evidence.shape[-2:])
            evidence = evidence * (weight / _positive(weight.mean((1, 2, 3), keepdim=True)))
        return prevailing_sign(evidence)

    def evidence(self, streams: Streams) -> Tensor:
        """Cell by cell, which image is the better one: odd, N×1×h×w on the padded grid."""
        gate = torch.sigmoid(self.direction_gate(streams.even))
        return _wide(self.direction_head(streams.odd * gate))

    def density(self, reference: Encoding, image: Tensor) -> Tensor:
        """What the distance of ``image`` pools: non-negative, N×1×h×w on the padded grid."""
        return _wide(self.error(image, reference.image, reference.features)) * self.scale

    def pooled(self, mean: Tensor, power: Tensor) -> Tensor:
        """The distance, from the mean of the density and of its square: a norm of the density."""
        return norm(mean, power, self.config.confined, F.softplus(self.peak))

    def _streams(self, reference: Tensor | Encoding, image: Tensor | Encoding) -> Streams:
        return self.mapper(_centred(_pixels(reference)), _centred(_pixels(image)))  # type: ignore[no-any-return]

    def _steering(
        self, maps: Tensor, channel_weights: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        return None if channel_weights is None else self._steering_maps(maps, channel_weights)

    @staticmethod
    def _steering_maps(maps: Tensor, channel_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the density that is kept per cell, and what is added to it.

        A weight below 1 lowers the density where its channel prevails (by shares that carry no
        gradient, so that nothing is gained by posing as that channel); a weight above 1 adds the
        channel's own magnitude. Weights of one change nothing.
        """
        magnitude = maps.abs()
        fixed = magnitude.detach()
        share = fixed / (fixed.sum(1, keepdim=True) + _SHARE_EPS)
        less = (1 - channel_weights).clamp(min=0)[:, None, None]
        more = (channel_weights - 1).clamp(min=0)[:, None, None]
        kept = 1 - (less * share).sum(1, keepdim=True)
        return kept.clamp(min=LEAST_SHARE), (more * magnitude).sum(1, keepdim=True)

    def _distance(
        self,
        reference: Encoding,
        image: Tensor,
        steering: tuple[Tensor, Tensor] | None,
        weight: Tensor | None,
    ) -> Tensor:
        density = self.density(reference, image)
        if steering is not None:
            density = density * steering[0] + steering[1]
        if weight is None:
            return self._pool(density, self._share(reference, density))
        size = _size(reference)
        weight, total = _spread(weight.to(density.dtype), size, density.shape[-2:])
        mean = (weight * density).sum((1, 2, 3)) / total
        power = (weight * density.square()).sum((1, 2, 3)) / total
        return self.pooled(mean, power)

    def _pool(self, density: Tensor, share: float) -> Tensor:
        return norm_of_cells(density, share, self.config.confined, F.softplus(self.peak))

    @staticmethod
    def _share(reference: Encoding, density: Tensor) -> float:
        """What makes a mean over the padded grid one over the image: padded cells differ by
        nothing, and would dilute it."""
        height, width = _size(reference)
        return density.shape[-2] * density.shape[-1] * MAP_STRIDE**2 / (height * width)

    @staticmethod
    def _crop(maps: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = ((side + MAP_STRIDE - 1) // MAP_STRIDE for side in size)
        return corner(maps, height, width)


def _build_encoder(config: NetworkConfig) -> Encoder | PatchEncoder:
    if config.distance == "patches":
        return PatchEncoder(config.widths, config.error_widths, config.judgement_width)
    return Encoder(config.widths)


def _build_distance(config: NetworkConfig) -> RadialDistance | PatchDistance:
    if config.distance == "patches":
        return PatchDistance(config.error_widths, config.judgement_width, config.floor)
    return RadialDistance(
        config.widths,
        config.error_widths,
        config.judgement_width,
        config.floor,
    )


def prevailing_sign(evidence: Tensor, sure: float = _SURE) -> Tensor:
    """Which sign the evidence N×1×h×w has on balance, in [−1, 1]; odd, and free of its magnitude.

    It is near ±1 as soon as one side clearly prevails, so that the score of a clear case follows
    the distance and nothing else.
    """
    return sharpened(evidence.mean((1, 2, 3)), evidence.abs().mean((1, 2, 3)), sure)


def sharpened(mean: Tensor, magnitude: Tensor, sure: float = _SURE) -> Tensor:
    """:func:`prevailing_sign`, from the mean of the evidence and of its magnitude."""
    return (1 + sure) * odd_softsign(mean / (magnitude + 1e-6), sure)


def _wide(values: Tensor) -> Tensor:
    """Float32 at least: means over many cells are not for half precision."""
    return values if values.dtype == torch.float64 else values.float()


def _positive(total: Tensor) -> Tensor:
    """``total``, or 1 where it is 0: an image of weight 0 has distance 0, not NaN."""
    return torch.where(total > 0, total, 1.0)


def _spread(
    weight: Tensor, size: tuple[int, int], grid: tuple[int, ...] | torch.Size
) -> tuple[Tensor, Tensor]:
    """Cell weights on the padded grid, and their sum over the image's own area.

    Differences near the border leak into padded cells, which take the weight of the nearest cell
    of the image; the sum counts each cell by its share inside the image. Both together make a
    weight of ones equal to none.
    """
    rows, columns = (
        (side - MAP_STRIDE * torch.arange(cells, device=weight.device)).clamp(max=MAP_STRIDE)
        for side, cells in zip(size, weight.shape[-2:], strict=True)
    )
    inside = (rows[:, None] * columns).to(weight.dtype) / MAP_STRIDE**2
    total = _positive((weight * inside).sum((1, 2, 3)))
    margin = (0, grid[-1] - weight.shape[-1], 0, grid[-2] - weight.shape[-2])
    return F.pad(weight, margin, mode="replicate"), total


def _pixels(image: Tensor | Encoding) -> Tensor:
    return image.image if isinstance(image, Encoding) else image


def _size(image: Tensor | Encoding) -> tuple[int, int]:
    # Of the tensor: dynamo up to torch 2.9 cannot unpack a property of a named tuple.
    height, width = _pixels(image).shape[-2:]
    return height, width


def _centred(image: Tensor) -> Tensor:
    # Centred before padding, so that the padding is mid-grey in both images: no difference.
    return padded(image - 0.5)
