"""Shape of a parity network, stored beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from relqa_loss.channels import CHANNELS

Distance = Literal["pyramid", "patches"]

_MAPS: tuple[str, tuple[int, ...]] = ("2, 4, 8 and 16", (4,))
_DISTANCES: dict[Distance, tuple[str, tuple[int, ...]]] = {
    "pyramid": ("2, 4, 8 (and 16)", (3, 4)),
    "patches": ("4, 8 and 16", (3,)),
}
"""Strides, and of how many there may be widths."""


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of a :class:`~relqa_loss.network.ParityNetwork`.

    Args:
        channels: Names of the map channels, in order.
        widths: Widths of the reference's encoder at strides 2, 4, 8 and, if there are four, 16
            (4, 8 and 16 for a distance of patches).
        stem_width: Filters of the mapper's first layer.
        odd_widths: Widths of the mapper's odd stream at strides 2, 4, 8 and 16.
        even_widths: Widths of its even stream.
        error_widths: Widths of the linear error features, at the same strides as ``widths``.
        judgement_width: Width of the distance's mixing layers.
        floor: Weight of the plain error in the distance, before its scale. It makes
            ``distance ≥ floor · scale · mean|image − reference|`` hold for every pair.
        distance: ``"pyramid"``, whose first layer sees every pixel beside its neighbours and whose
            plain error is one of bands, or ``"patches"``, which starts with patches of 4×4 and
            costs less than half. Maps are not concerned.
        derivatives: Whether errors that the reference's derivatives explain, a small displacement
            or a blur, weigh differently from others.
        contrast: With ``derivatives``, whether a gain of contrast counts for less.
        confined: Share of the root mean square over cells that their mean counts for at least. What
            an error confined to a part f of the image adds to the mean falls with f, and where f
            is below the square of this share, with √f.

    Raises:
        ValueError: If a width is not positive, there are not as many as strides, channels are
            missing or named twice, the floor is not positive, the distance is unknown, or
            ``confined`` is not in [0, 1].

    Example:
        >>> from relqa_loss.network import NetworkConfig
        >>> NetworkConfig(odd_widths=(8, 16))
        Traceback (most recent call last):
        ValueError: odd_widths must be 4 positive integers, for strides 2, 4, 8 and 16, got (8, 16)
    """

    channels: tuple[str, ...] = CHANNELS
    widths: tuple[int, ...] = (8, 16, 32, 48)
    stem_width: int = 16
    odd_widths: tuple[int, int, int, int] = (16, 32, 48, 64)
    even_widths: tuple[int, int, int, int] = (16, 48, 64, 96)
    error_widths: tuple[int, ...] = (8, 16, 32, 48)
    judgement_width: int = 16
    floor: float = 0.5
    distance: Distance = "pyramid"
    derivatives: bool = False
    contrast: bool = False
    confined: float = 0.0

    def __post_init__(self) -> None:
        if self.distance not in get_args(Distance):
            raise ValueError(f"distance must be one of {get_args(Distance)}, got {self.distance!r}")
        for name in ("odd_widths", "even_widths"):
            self._require_widths(name, *_MAPS)
        for name in ("widths", "error_widths"):
            self._require_widths(name, *_DISTANCES[self.distance])
        if len(self.widths) != len(self.error_widths):
            raise ValueError(
                f"error_widths must be as many as widths, one for each stride, got "
                f"{self.error_widths} and {self.widths}"
            )
        for name in ("stem_width", "judgement_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels must have names, each of them once, got {self.channels}")
        if not 0 < self.floor < float("inf"):
            raise ValueError(
                f"floor must be positive and finite, got {self.floor}; without it, images other "
                "than the reference could have distance 0"
            )
        if self.contrast and not self.derivatives:
            raise ValueError(
                "contrast must be False without derivatives, of which it is one (of order zero); "
                "set derivatives=True"
            )
        if not 0 <= self.confined <= 1:
            raise ValueError(
                f"confined must be in [0, 1], got {self.confined}; no mean exceeds the root of the "
                "mean square"
            )

    def _require_widths(self, name: str, strides: str, counts: tuple[int, ...]) -> None:
        found = getattr(self, name)
        if len(found) not in counts or min(found) < 1:
            raise ValueError(
                f"{name} must be {' or '.join(map(str, counts))} positive integers, "
                f"for strides {strides}, got {found}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def base(cls) -> NetworkConfig:
        """Of the shipped ``relqa-base``: nothing learned at stride 16, ``derivatives`` and
        ``contrast``, and more weight on errors that are ``confined`` to less than a ninth of the
        image."""
        return cls(
            widths=(8, 16, 32),
            error_widths=(8, 16, 32),
            derivatives=True,
            contrast=True,
            confined=1 / 3,
        )

    @classmethod
    def nano(cls) -> NetworkConfig:
        """Of the shipped ``relqa-nano``: the maps of the default, and a smaller distance."""
        return cls(
            widths=(16, 24, 32),
            error_widths=(24, 24, 32),
            judgement_width=12,
            distance="patches",
            derivatives=True,
            contrast=True,
            confined=0.4,
        )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> NetworkConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: For keys that this version does not know.
        """
        unknown = set(record) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown architecture keys {sorted(unknown)}: these weights were made by another "
                "version of relqa_loss; upgrade it"
            )
        return cls(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}  # type: ignore[arg-type]
        )
