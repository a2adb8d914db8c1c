"""Real codecs through Pillow, and their core step, the truncation of blocks, in plain torch."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions._filters import from_ycbcr, to_ycbcr
from relqa_loss.distortions._pillow import from_pillow, pillow, to_pillow
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register

# The example tables of ITU-T T.81, Annex K, which libjpeg scales to make its quality settings.
_LUMA_STEPS = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)


def _round_trip(image: Tensor, codec: str, **options: Any) -> Tensor:
    """Encode and decode one 3×H×W image."""
    module = pillow()
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, codec, **options)
    buffer.seek(0)
    with module.open(buffer) as decoded:
        return from_pillow(decoded, image)


def _jpeg(image: Tensor, scale: float, subsampling: int) -> Tensor:
    # Tables scaled by a real number instead of whole quality settings: the 128 steps round at
    # different scales, so that the severity has no plateaus.
    tables = [
        [min(255, max(1, round(step * scale))) for step in steps]
        for steps in (_LUMA_STEPS, _CHROMA_STEPS)
    ]
    return _round_trip(image, "JPEG", qtables=tables, subsampling=subsampling)


@register(
    "jpeg",
    channel="blocking",
    sign=1,
    curve=Curve(0.15, 8.0),
    side={"sharpness": -0.2, "chroma_bleed": 0.2},
    differentiable=False,
    runs_on="host",
    mildest=True,
)
def jpeg(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saves as JPEG with halved colour resolution (4:2:0), as cameras and web sites do."""
    return torch.stack([_jpeg(image, strength, 2) for image in images])


@register(
    "jpeg_444",
    channel="blocking",
    sign=1,
    curve=Curve(0.18, 8.0),
    side={"sharpness": -0.2},
    differentiable=False,
    runs_on="host",
    mildest=True,
)
def jpeg_444(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saves as JPEG with full colour resolution (4:4:4)."""
    return torch.stack([_jpeg(image, strength, 0) for image in images])


@register(
    "jpeg_double",
    channel="blocking",
    sign=1,
    curve=Curve(0.15, 8.0),
    side={"sharpness": -0.3, "chroma_bleed": 0.2},
    differentiable=False,
    runs_on="host",
    mildest=True,
)
def jpeg_double(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saves as JPEG twice, the second time on a shifted grid, as pictures passed on do."""
    shift = torch.randint(1, 8, (2,), generator=generator).tolist()
    results = []
    for image in images:
        moved = F.pad(image[None], (shift[1], 0, shift[0], 0), mode="replicate")[0]
        first = _jpeg(moved, strength, 2)[:, shift[0] :, shift[1] :]
        results.append(_jpeg(first, 0.7 * strength, 2))
    return torch.stack(results)


@register(
    "webp",
    channel="blocking",
    sign=1,
    curve=Curve(10.0, 100.0, spacing="linear"),
    side={"sharpness": -0.4, "chroma_bleed": 0.2},
    differentiable=False,
    runs_on="host",
    mildest=True,
)
def webp(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saves as lossy WebP, which smears texture and leaves soft blocks."""
    # The encoder takes fractions. Mixing the results of two whole qualities instead would average
    # their errors away and look better than either.
    return torch.stack(
        [_round_trip(image, "WEBP", quality=100 - strength, method=2) for image in images]
    )


@register(
    "avif",
    channel="sharpness",
    sign=-1,
    curve=Curve(14.0, 97.0),
    side={"noise": -0.4, "chroma_bleed": 0.2},
    differentiable=False,
    runs_on="host",
    mildest=True,
)
def avif(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saves as AVIF, which smooths texture away and keeps strong edges."""
    # One thread and the fastest preset: the bytes, and so the result, are then the same each time.
    # Whole qualities alone exist here, so neighbouring severities can give the same picture.
    quality = round(100 - strength)
    return torch.stack(
        [_round_trip(image, "AVIF", quality=quality, speed=10, max_threads=1) for image in images]
    )


@register(
    "jpeg2000",
    channel="ringing",
    sign=1,
    curve=Curve(44.0, 21.5, spacing="linear"),
    side={"sharpness": -0.7},
    differentiable=False,
    runs_on="host",
    mildest=True,
)
def jpeg2000(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saves as JPEG 2000, whose wavelets blur and leave ripples beside edges."""
    # The strength is the encoder's target in dB. Small images have no room for all the scales.
    scales = max(1, min(6, int(math.log2(min(images.shape[-2:]))) - 1))
    return torch.stack(
        [
            _round_trip(
                image,
                "JPEG2000",
                quality_mode="dB",
                quality_layers=[strength],
                irreversible=True,
                num_resolutions=scales,
            )
            for image in images
        ]
    )


def _block_basis(like: Tensor) -> Tensor:
    frequency = torch.arange(8, dtype=torch.float64)[:, None]
    place = torch.arange(8, dtype=torch.float64)[None] + 0.5
    matrix = torch.cos(math.pi / 8 * frequency * place) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)


def _to_blocks(images: Tensor) -> Tensor:
    """N×C×H×W → N×C×rows×columns×8×8 DCT coefficients, padded by replication."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.reshape(count, channels, rows, 8, columns, 8).transpose(-3, -2)
    basis = _block_basis(images)
    return basis @ blocks @ basis.T


def _from_blocks(coefficients: Tensor, height: int, width: int) -> Tensor:
    basis = _block_basis(coefficients)
    blocks = (basis.T @ coefficients @ basis).transpose(-3, -2)
    return blocks.flatten(-4, -3).flatten(-2, -1)[..., :height, :width]


@register(
    "dct_quantisation",
    channel="blocking",
    sign=1,
    curve=Curve(0.15, 8.0),
    side={"sharpness": -0.2},
    differentiable=False,
)
def dct_quantisation(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Rounds the frequencies of 8×8 blocks, the lossy step of JPEG, without the codec."""
    steps = images.new_tensor([_LUMA_STEPS, _CHROMA_STEPS, _CHROMA_STEPS]).reshape(3, 1, 1, 8, 8)
    steps = steps * (strength / 255)
    coefficients = (_to_blocks(to_ycbcr(images)) / steps).round() * steps
    return from_ycbcr(_from_blocks(coefficients, *images.shape[-2:]))


@register(
    "block_average", channel="blocking", sign=1, curve=Curve(0.03, 0.9), side={"sharpness": -0.5}
)
def block_average(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Fades the high frequencies of 8×8 blocks, each for itself, so that their borders show."""
    axis = torch.arange(8, dtype=images.dtype, device=images.device)
    frequency = axis[:, None].square() + axis[None].square()
    gain = torch.exp(-frequency * strength**2)
    return _from_blocks(_to_blocks(images) * gain, *images.shape[-2:])
