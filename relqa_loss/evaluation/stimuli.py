"""Distorted versions of a photograph whose strength is set by their PSNR, or by a setting.

Two distortions of equal PSNR are the oldest test of a quality metric: what is left of their
difference in the eyes of viewers has nothing to do with the size of the error (Wang and Bovik,
"Mean squared error: love it or leave it?", IEEE Signal Processing Magazine 26 (2009),
doi:10.1109/MSP.2008.930649).
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.distortions import get_operator
from relqa_loss.distortions._filters import blur, box_mean, from_ycbcr, luma, normal, to_ycbcr
from relqa_loss.distortions._pillow import from_pillow, to_pillow

if TYPE_CHECKING:
    from PIL.Image import Resampling

Make = Callable[[Tensor, float, torch.Generator], Tensor]
"""``(photographs 1×3×H×W in [0, 1], strength, generator) -> images``."""

TOLERANCE = 0.15
"""dB by which a version may miss the PSNR that it was asked for."""
_HALVINGS = 18


@dataclass(frozen=True)
class Graded:
    """A distortion with a strength: PSNR falls from ``least`` to ``most``, both positive."""

    make: Make
    least: float
    most: float


@dataclass(frozen=True)
class Stimulus:
    """One version of a photograph."""

    kind: str
    """A name in :data:`GRADED` or :data:`FIXED`."""
    level: float | str | None = None
    """For :data:`GRADED`: PSNR in dB, or the kind in :data:`FIXED` whose PSNR it shall have."""

    def __str__(self) -> str:
        if self.level is None:
            return self.kind
        return f"{self.kind} at " + (
            f"{self.level:g} dB" if isinstance(self.level, float) else f"the PSNR of {self.level}"
        )


class Stimuli:
    """Versions of one photograph, each made once.

    Args:
        photo: 3×H×W in [0, 1], 8-bit values, sides at least 48.
        seed: Decides all patterns. One kind has the same pattern at every level.

    Raises:
        ValueError: If ``photo`` is not of that shape.

    Example:
        >>> import torch
        >>> from relqa_loss.evaluation.stimuli import Stimuli, Stimulus, psnr
        >>> photo = torch.rand(3, 64, 64).mul(255).round() / 255
        >>> noisy = Stimuli(photo)[Stimulus("white noise", 27.0)]
        >>> abs(psnr(noisy, photo) - 27) < 0.15
        True
    """

    def __init__(self, photo: Tensor, seed: int = 0) -> None:
        if photo.ndim != 3 or photo.shape[0] != 3 or min(photo.shape[-2:]) < 48:
            raise ValueError(
                "a photograph must be 3×H×W with sides of at least 48, got shape "
                f"{tuple(photo.shape)}"
            )
        self.photo, self.seed = photo, seed
        self._made: dict[Stimulus, Tensor | None] = {}

    def __getitem__(self, stimulus: Stimulus) -> Tensor | None:
        """3×H×W, 8-bit; None where the photograph does not admit it.

        A sky blurred however much keeps a high PSNR, and a grey photograph has no colour to lose.

        Raises:
            ValueError: For an unknown kind, or a level given to one that has none or missing for
                one that needs it.
            ImportError: If Pillow, which codecs go through, is not installed.
        """
        if stimulus not in self._made:
            _check(stimulus)
            self._made[stimulus] = self._make(stimulus)
        return self._made[stimulus]

    def _make(self, stimulus: Stimulus) -> Tensor | None:
        if stimulus.level is None:
            image = eight_bit(FIXED[stimulus.kind](self.photo[None]))[0]
            return image if bool((image != self.photo).any()) else None
        level = stimulus.level
        if isinstance(level, str):
            like = self[Stimulus(level)]
            if like is None:
                return None
            level = psnr(like, self.photo)
        graded = GRADED[stimulus.kind]
        # Patterns differ between kinds, else noises would be each other's copies.
        seed = zlib.crc32(f"{stimulus.kind} {self.seed}".encode())

        def at(strength: float) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return eight_bit(graded.make(self.photo[None], strength, generator))[0]

        return _bisect(at, self.photo, level, graded)


def psnr(image: Tensor, reference: Tensor) -> float:
    """Over all pixels and colours, in dB; infinite for equal images.

    Args:
        image: In [0, 1].
        reference: Of the same shape.
    """
    error = float((image.double() - reference.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def _check(stimulus: Stimulus) -> None:
    kind, level = stimulus.kind, stimulus.level
    known = GRADED if level is not None else FIXED
    if kind not in known:
        needs = "a PSNR" if level is None and kind in GRADED else "no PSNR"
        if kind in GRADED or kind in FIXED:
            raise ValueError(f"{kind!r} takes {needs}, got level {level!r}")
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join((*GRADED, *FIXED))}")
    if isinstance(level, str) and level not in FIXED:
        raise ValueError(f"level must be a PSNR or a kind without one, got {level!r}")


def _bisect(
    at: Callable[[float], Tensor], photo: Tensor, level: float, graded: Graded
) -> Tensor | None:
    low, high = math.log(graded.least), math.log(graded.most)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        image = at(math.exp(middle))
        gap = psnr(image, photo) - level
        if abs(gap) <= TOLERANCE / 3:
            return image
        low, high = (middle, high) if gap > 0 else (low, middle)
    return image if abs(gap) <= TOLERANCE else None


def _operator(name: str) -> Make:
    return get_operator(name).apply


def _flatness(images: Tensor) -> Tensor:
    """N×1×H×W in [0, 1]: 1 where there is next to no texture within some ten pixels."""
    grey = luma(images)
    activity = (box_mean(grey * grey, 5) - box_mean(grey, 5).square()).clamp_min(0).sqrt()
    return torch.sigmoid((0.03 - activity) / 0.006)


def _noise_in_flat(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return images + strength * _flatness(images) * normal(images, generator)


def _noise_in_texture(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return images + strength * (1 - _flatness(images)) * normal(images, generator)


def _luma_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    components = to_ycbcr(images)
    return from_ycbcr(torch.cat([blur(components[:, :1], strength), components[:, 1:]], 1))


def _chroma_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    components = to_ycbcr(images)
    return from_ycbcr(torch.cat([components[:, :1], blur(components[:, 1:], strength)], 1))


def _alien_block(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """One block of a plain colour that the photograph does not have there; ``strength`` its side.

    The side grows by fractions of a pixel, by fading the block's last row and column.
    """
    height, width = images.shape[-2:]
    place = torch.rand(2, generator=generator)
    top = int(place[0] * (height - min(height, math.ceil(strength))))
    left = int(place[1] * (width - min(width, math.ceil(strength))))

    def cover(size: int, first: int) -> Tensor:
        return (strength - (torch.arange(size) - first)).clamp(0, 1) * (torch.arange(size) >= first)

    share = cover(height, top)[:, None] * cover(width, left)[None]
    inside = images[..., top : top + 24, left : left + 24].mean((2, 3), keepdim=True)
    alien = (inside < 0.5).to(images)  # the corner of the colour cube farthest from what was there
    return images + share * (alien - images)


GRADED: dict[str, Graded] = {
    "white noise": Graded(_operator("white_noise"), 1e-3, 1.0),
    "chroma noise": Graded(_operator("chroma_noise"), 1e-3, 1.0),
    "correlated noise": Graded(_operator("correlated_noise"), 1e-3, 1.0),
    "high-frequency noise": Graded(_operator("high_frequency_noise"), 1e-3, 2.0),
    "impulse noise": Graded(_operator("impulse_noise"), 1e-5, 0.5),
    "noise in flat parts": Graded(_noise_in_flat, 1e-3, 1.0),
    "noise in texture": Graded(_noise_in_texture, 1e-3, 1.0),
    "Gaussian blur": Graded(_operator("gaussian_blur"), 0.25, 12.0),
    "luma blur": Graded(_luma_blur, 0.25, 12.0),
    "chroma blur": Graded(_chroma_blur, 0.25, 24.0),
    "over-smoothing": Graded(_operator("guided_filter"), 0.003, 3.0),
    "total variation": Graded(_operator("total_variation"), 0.001, 3.0),
    "JPEG": Graded(_operator("jpeg"), 0.05, 15.0),
    # Its strength is a target in dB, which falls as the damage grows.
    "JPEG 2000": Graded(
        lambda images, strength, generator: get_operator("jpeg2000").apply(
            images, 60.0 - strength, generator
        ),
        8.0,
        48.0,
    ),
    "contrast gain": Graded(_operator("contrast_up"), 0.01, 6.0),
    "contrast loss": Graded(_operator("contrast_down"), 0.01, 1.0),
    "saturation gain": Graded(_operator("saturation_up"), 0.01, 8.0),
    "saturation loss": Graded(_operator("saturation_down"), 0.01, 1.0),
    "misplaced patches": Graded(_operator("misplaced_patches"), 0.001, 1.0),
    "alien blocks": Graded(_operator("colour_blocks"), 1e-4, 1.0),
    "one alien block": Graded(_alien_block, 2.0, 128.0),
}
"""Kinds whose strength is set by a PSNR."""


def _encode(photo: Tensor, codec: str, **options: object) -> bytes:
    stream = io.BytesIO()
    to_pillow(photo[0]).save(stream, codec, **options)
    return stream.getvalue()


def _decode(stream: bytes, photo: Tensor) -> Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(stream)) as image:
        return from_pillow(image, photo)[None]


_FULL, _HALVED = 0, 2  # Pillow's names for 4:4:4 and 4:2:0


def _jpeg(photo: Tensor, quality: int, subsampling: int) -> Tensor:
    return _decode(_encode(photo, "JPEG", quality=quality, subsampling=subsampling), photo)


def _jpeg_444_as_large(photo: Tensor) -> Tensor:
    """4:4:4 at the highest quality whose file is no larger than that of 4:2:0 at quality 15."""
    most = len(_encode(photo, "JPEG", quality=15, subsampling=_HALVED))
    streams = [
        _encode(photo, "JPEG", quality=quality, subsampling=_FULL) for quality in range(1, 16)
    ]
    fits = [stream for stream in streams if len(stream) <= most]
    return _decode(fits[-1] if fits else streams[0], photo)


def _jpeg2000_as_large(photo: Tensor) -> Tensor:
    """JPEG 2000 whose file is no larger than that of JPEG at quality 10."""
    most = len(_encode(photo, "JPEG", quality=10, subsampling=_HALVED))
    ratio = photo.numel() / most
    for _ in range(40):
        stream = _encode(
            photo, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True
        )
        if len(stream) <= most:
            break
        ratio *= 1.02
    return _decode(stream, photo)


def _enlarged(photo: Tensor, how: Resampling) -> Tensor:
    """A third of the size, by averaging, and back again."""
    from PIL import Image

    full = to_pillow(photo[0])
    small = full.resize([max(1, side // 3) for side in full.size], Image.Resampling.BOX)
    return from_pillow(small.resize(full.size, how), photo)[None]


def _nearest(photo: Tensor) -> Tensor:
    from PIL import Image

    return _enlarged(photo, Image.Resampling.NEAREST)


def _bilinear(photo: Tensor) -> Tensor:
    from PIL import Image

    return _enlarged(photo, Image.Resampling.BILINEAR)


def _lanczos(photo: Tensor) -> Tensor:
    from PIL import Image

    return _enlarged(photo, Image.Resampling.LANCZOS)


def _shifted(photo: Tensor) -> Tensor:
    """By one pixel to the right; the column that enters is a copy of its neighbour."""
    return torch.cat([photo[..., :1], photo[..., :-1]], -1)


FIXED: dict[str, Callable[[Tensor], Tensor]] = {
    # In whole levels, since others are brought to their PSNR: 25.2 dB where nothing clips.
    "mean 14 levels up": lambda photo: photo + 14 / 255,
    "mean 14 levels down": lambda photo: photo - 14 / 255,
    "one-pixel shift": _shifted,
    "Gaussian blur of σ 1": lambda photo: blur(photo, 1.0),
    "JPEG quality 85": lambda photo: _jpeg(photo, 85, _HALVED),
    "JPEG quality 30": lambda photo: _jpeg(photo, 30, _HALVED),
    "JPEG quality 10": lambda photo: _jpeg(photo, 10, _HALVED),
    "JPEG 2000 of the size of JPEG quality 10": _jpeg2000_as_large,
    "4:2:0 at quality 10": lambda photo: _jpeg(photo, 10, _HALVED),
    "4:4:4 at quality 10": lambda photo: _jpeg(photo, 10, _FULL),
    "4:2:0 at quality 15": lambda photo: _jpeg(photo, 15, _HALVED),
    "4:4:4 of the size of 4:2:0 at quality 15": _jpeg_444_as_large,
    "nearest × 3": _nearest,
    "bilinear × 3": _bilinear,
    "Lanczos × 3": _lanczos,
}
"""Kinds without a strength."""
