"""The parity network: signed maps, score and distance of a pair of images in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network.config import NetworkConfig
from relqa_loss.network.encoder import Encoder
from relqa_loss.network.heads import PixelVisibility, SignedMagnitude
from relqa_loss.network.parity import ParityBlock
from relqa_loss.network.pyramid import PixelPyramid

MAP_STRIDE = 4
"""Image pixels per cell of the maps, along each side."""
_GRID = 16  # the coarsest stride; sides are padded to a multiple of it
_RMS_EPS = 2.0**-10  # its square is exact in float32, so that the root of zero is exactly zero


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
    """Padded, N×3×H'×W'."""
    features: tuple[Tensor, ...]
    """At strides 2, 4, 8 and 16."""
    size: tuple[int, int]
    """Height and width before padding."""


class _Parity(NamedTuple):
    """The odd stream of a pair."""

    fine: Tensor  # feature difference at stride 2
    odd: tuple[Tensor, Tensor, Tensor]  # strides 4, 8, 16
    even: Tensor  # sum and magnitude of the difference at stride 4
    maps: Tensor


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
        widths, odd_widths = config.widths, config.odd_widths
        channels = len(config.channels)
        self.encoder = Encoder(widths)
        coarser = (odd_widths[1], odd_widths[2], 0)
        self.parity = nn.ModuleList(
            ParityBlock(features, width, below)
            for features, width, below in zip(widths[1:], odd_widths, coarser, strict=True)
        )
        self.map_head = nn.Conv2d(odd_widths[0], channels, 1, bias=False)
        self.direction_gate = nn.Conv2d(2 * widths[1], odd_widths[0], 1)
        self.direction_head = nn.Conv2d(odd_widths[0], 1, 1, bias=False)
        self.pyramid = PixelPyramid()
        self.pixel = nn.ModuleList(
            PixelVisibility(features, bands, config.floor)
            for features, bands in zip(widths[1:], (9, 3, 3), strict=True)
        )
        self.fine = SignedMagnitude(widths[1], widths[0], pool=2)
        self.magnitude = nn.ModuleList(
            SignedMagnitude(features, width)
            for features, width in zip(widths[1:], odd_widths, strict=True)
        )
        self.map_magnitude = SignedMagnitude(widths[1], channels)
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

    def encode(self, image: Tensor) -> Encoding:
        """Features of ``image`` (N×3×H×W in [0, 1]), for use in :meth:`relate`.

        A reference that many images are compared with needs to be encoded only once.
        """
        height, width = image.shape[-2:]
        padding = (0, -width % _GRID, 0, -height % _GRID)
        # Centred before padding, so that the padding is mid-grey in both images: no difference.
        padded = F.pad(image - 0.5, padding)
        return Encoding(padded, self.encoder(padded), (height, width))

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
        parity = self._parity(reference, image)
        forth = self._distance(reference, image, parity, channel_weights, weight)
        back = self._distance(image, reference, _swap(parity), channel_weights, weight)
        score = 0.5 * (forth + back) * self._direction(parity, reference.size, weight)
        return Relation(self._crop(parity.maps, reference.size), score, forth)

    def distance(
        self,
        reference: Encoding,
        image: Encoding,
        channel_weights: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The distance alone, of shape N: what :meth:`relate` gives, for half the work."""
        parity = self._parity(reference, image)
        return self._distance(reference, image, parity, channel_weights, weight)

    def maps_and_distance(
        self,
        reference: Encoding,
        image: Encoding,
        channel_weights: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Maps and distance of :meth:`relate` without the score, which costs a second distance."""
        parity = self._parity(reference, image)
        distance = self._distance(reference, image, parity, channel_weights, weight)
        return self._crop(parity.maps, reference.size), distance

    def signed(self, reference: Encoding, image: Encoding) -> tuple[Tensor, Tensor]:
        """Maps, and the direction in [−1, 1] whose product with a magnitude is the score."""
        parity = self._parity(reference, image)
        direction = self._direction(parity, reference.size)
        return self._crop(parity.maps, reference.size), direction

    def training_outputs(
        self, reference: Encoding, image: Encoding
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps, direction and distance: what the objectives act on, in one pass."""
        parity = self._parity(reference, image)
        distance = self._distance(reference, image, parity, None)
        direction = self._direction(parity, reference.size)
        return self._crop(parity.maps, reference.size), direction, distance

    def distortion_maps(self, reference: Encoding, image: Encoding) -> Tensor:
        """The maps alone, N×K×⌈H/4⌉×⌈W/4⌉."""
        return self._crop(self._parity(reference, image).maps, reference.size)

    def distance_map(
        self, reference: Encoding, image: Encoding, channel_weights: Tensor | None = None
    ) -> Tensor:
        """The distance's density, N×1×⌈H/4⌉×⌈W/4⌉, non-negative: where the errors are seen."""
        parity = self._parity(reference, image)
        density = self._density(reference, image, parity, channel_weights) * self.scale
        return self._crop(density, reference.size)

    def _parity(self, reference: Encoding, image: Encoding) -> _Parity:
        differences = [x - r for x, r in zip(image.features, reference.features, strict=True)]
        totals = [x + r for x, r in zip(image.features, reference.features, strict=True)]
        coarser: Tensor | None = None
        odd: list[Tensor] = []
        for block, difference, total in zip(
            reversed(self.parity), reversed(differences[1:]), reversed(totals[1:]), strict=True
        ):
            coarser = block(difference, total, coarser)
            odd.append(coarser)
        odd.reverse()
        even = torch.cat([totals[1], differences[1].abs()], 1)
        return _Parity(differences[0], (odd[0], odd[1], odd[2]), even, self.map_head(odd[0]))

    def _direction(
        self, parity: _Parity, size: tuple[int, int], weight: Tensor | None = None
    ) -> Tensor:
        """Which of the two images is better, in [−1, 1]: odd, and free of the magnitude."""
        gate = torch.sigmoid(self.direction_gate(parity.even))
        evidence = _wide(self.direction_head(parity.odd[0] * gate))
        if weight is not None:
            weight, _ = _spread(weight.to(evidence.dtype), size, evidence.shape[-2:])
            evidence = evidence * (weight / _positive(weight.mean((1, 2, 3), keepdim=True)))
        total = evidence.mean((1, 2, 3))
        magnitude = evidence.abs().mean((1, 2, 3))
        return total / (magnitude + 1e-6)

    def _density(
        self,
        reference: Encoding,
        image: Encoding,
        parity: _Parity,
        channel_weights: Tensor | None,
    ) -> Tensor:
        bands = self.pyramid(image.image - reference.image)
        layers = [
            pixel(band, features) + magnitude(odd, features)
            for pixel, magnitude, band, odd, features in zip(
                self.pixel, self.magnitude, bands, parity.odd, reference.features[1:], strict=True
            )
        ]
        maps = self.map_magnitude.per_channel(parity.maps, reference.features[1])
        if channel_weights is not None:
            maps = maps * channel_weights[:, None, None]
        fine = self.fine(parity.fine, reference.features[1])
        density = layers[0] + maps.sum(1, keepdim=True) + fine
        coarse = layers[1] + F.interpolate(layers[2], scale_factor=2.0, mode="nearest")
        return density + F.interpolate(coarse, scale_factor=2.0, mode="nearest")

    def _distance(
        self,
        reference: Encoding,
        image: Encoding,
        parity: _Parity,
        channel_weights: Tensor | None,
        weight: Tensor | None = None,
    ) -> Tensor:
        density = _wide(self._density(reference, image, parity, channel_weights))
        if weight is None:
            # Padded cells differ by nothing; without this factor they would dilute the mean.
            height, width = reference.size
            padded = reference.image.shape[-2] * reference.image.shape[-1]
            share = padded / (height * width)
            mean = density.mean((1, 2, 3)) * share
            power = density.square().mean((1, 2, 3)) * share
        else:
            weight, total = _spread(weight.to(density.dtype), reference.size, density.shape[-2:])
            mean = (weight * density).sum((1, 2, 3)) / total
            power = (weight * density.square()).sum((1, 2, 3)) / total
        rms = torch.sqrt(power + _RMS_EPS**2) - _RMS_EPS
        return (mean + F.softplus(self.peak) * rms) * self.scale

    @staticmethod
    def _crop(maps: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = (-(-side // MAP_STRIDE) for side in size)
        return maps[..., :height, :width]


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


def _swap(parity: _Parity) -> _Parity:
    fourth, eighth, sixteenth = parity.odd
    return _Parity(-parity.fine, (-fourth, -eighth, -sixteenth), parity.even, -parity.maps)
