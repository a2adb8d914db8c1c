"""Content that is plainly wrong: impulses, alien blocks, dead lines and transmission errors."""

from __future__ import annotations

import io

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.distortions._pillow import from_pillow, pillow, to_pillow
from relqa_loss.distortions.operator import Curve
from relqa_loss.distortions.registry import register


def _ranked(count: int, items: int, share: float, generator: torch.Generator) -> Tensor:
    """Weights, count×items: the first ``share`` of the items in a random order have weight 1.

    The last one has the fraction that is left over, so that the change grows continuously and
    does not vanish at low severities.
    """
    rank = torch.rand(count, items, generator=generator).argsort(1).argsort(1).float()
    return (share * items - rank).clamp(0, 1)


def _cells(size: int, cell: int) -> tuple[int, Tensor]:
    """How many cells a side has, and each pixel's cell; the last one takes the remainder."""
    cells = max(1, size // cell)
    return cells, (torch.arange(size) // cell).clamp_max(cells - 1)


@register("impulse_noise", channel="corruption", sign=1, curve=Curve(0.0006, 0.085))
def impulse_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Salt and pepper: random values set to black or white."""
    draw = torch.rand(images.shape, generator=generator)
    value = (torch.rand(images.shape, generator=generator) < 0.5).to(images)
    return torch.where((draw < strength).to(images.device), value, images)


@register("sparse_pixels_lost", channel="corruption", sign=1, curve=Curve(0.002, 0.45))
def sparse_pixels_lost(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random pixels replaced by the values of others a little way off."""
    count, channels, height, width = images.shape
    draw = torch.rand(count, 1, height, width, generator=generator)
    offset = torch.randint(-8, 9, (2, count, height, width), generator=generator)
    y = (torch.arange(height)[:, None] + offset[0]).clamp(0, height - 1)
    x = (torch.arange(width)[None, :] + offset[1]).clamp(0, width - 1)
    index = (y * width + x).view(count, 1, -1).expand(-1, channels, -1).to(images.device)
    others = images.reshape(count, channels, -1).gather(2, index).view_as(images)
    return torch.where((draw < strength).to(images.device), others, images)


@register("colour_blocks", channel="corruption", sign=1, curve=Curve(0.0015, 0.16), hard_mask=True)
def colour_blocks(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Alien blocks of random plain colours."""
    count, _, height, width = images.shape
    cell, side = 14, 10
    (rows, row), (cols, col) = _cells(height, cell), _cells(width, cell)
    weights = _ranked(count, rows * cols, strength, generator).view(count, 1, rows, cols)
    colours = torch.rand(count, 3, rows, cols, generator=generator)
    corner = torch.rand(2, count, 1, rows, cols, generator=generator) * (cell - side + 1)

    def per_pixel(values: Tensor) -> Tensor:
        return values[:, :, row][:, :, :, col]

    y = (torch.arange(height) - row * cell)[:, None] - per_pixel(corner[0].floor())
    x = (torch.arange(width) - col * cell)[None, :] - per_pixel(corner[1].floor())
    inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
    weight = (per_pixel(weights) * inside).to(images)
    return images + weight * (per_pixel(colours).to(images) - images)


@register("block_dropouts", channel="corruption", sign=1, curve=Curve(0.0008, 0.13), hard_mask=True)
def block_dropouts(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blocks of 8×8 pixels lost and shown black or grey."""
    count, _, height, width = images.shape
    (rows, row), (cols, col) = _cells(height, 8), _cells(width, 8)
    weights = _ranked(count, rows * cols, strength, generator).view(count, 1, rows, cols)
    fill = 0.5 * (torch.rand(count, 1, 1, 1, generator=generator) < 0.5)
    weight = weights[:, :, row][:, :, :, col].to(images)
    return images + weight * (fill.to(images) - images)


@register(
    "local_block_intensity", channel="corruption", sign=1, curve=Curve(0.01, 0.42), hard_mask=True
)
def local_block_intensity(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scattered blocks lightened or darkened, each by its own amount."""
    count, _, height, width = images.shape
    (rows, row), (cols, col) = _cells(height, 16), _cells(width, 16)
    chosen = torch.rand(count, 1, rows, cols, generator=generator) < 0.35
    amount = 0.25 + 0.75 * torch.rand(count, 1, rows, cols, generator=generator)
    sign = 1 - 2 * (torch.rand(count, 1, rows, cols, generator=generator) < 0.5).float()
    # Small images have few blocks: one is always chosen.
    chosen.view(count, -1)[:, 0] |= ~chosen.view(count, -1).any(1)
    field = (chosen * amount * sign)[:, :, row][:, :, :, col].to(images)
    # Where a block has no room in its direction, it goes the other way.
    means = F.avg_pool2d(images.mean(1, keepdim=True), 17, 1, 8, count_include_pad=False)
    field = torch.where((means - 0.5).abs() > 0.3, -field.abs() * (means - 0.5).sign(), field)
    return (images + strength * field).clamp(0, 1)


@register("dead_lines", channel="corruption", sign=1, curve=Curve(0.0004, 0.06), hard_mask=True)
def dead_lines(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Dead rows and columns of a sensor: black, white or stuck at one colour."""
    count, _, height, width = images.shape
    lines = height + width
    weights = _ranked(count, lines, strength, generator).to(images)
    colours = torch.rand(count, 3, lines, generator=generator)
    extreme = torch.rand(count, 1, lines, generator=generator)
    colours = torch.where(extreme < 0.35, 0.0, torch.where(extreme > 0.65, 1.0, colours))
    colours = colours.to(images)
    rows, cols = weights[:, None, :height, None], weights[:, None, None, height:]
    out = images + cols * (colours[:, :, None, height:] - images)
    return out + rows * (colours[:, :, :height, None] - out)


_TRIES = 8


@register(
    "jpeg_transmission",
    channel="corruption",
    sign=1,
    curve=Curve(0.006, 0.65),
    differentiable=False,
    runs_on="host",
    hard_mask=True,
)
def jpeg_transmission(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Bytes of a JPEG stream corrupted on the way: rows of blocks garbled."""
    height = images.shape[2]
    rows, row = max(1, -(-height // 8)), torch.arange(height) // 8
    # Every row of blocks is garbled once; the severity says how many of them are shown. So a
    # larger severity keeps the errors of the smaller one, and the intact rows lose nothing to
    # the codec.
    weights = _ranked(images.shape[0], rows, strength, generator)[:, row].to(images)
    error = torch.stack([_jpeg_error(image, generator) for image in images])
    return (images + weights[:, None, :, None] * error).clamp(0, 1)


def _jpeg_error(image: Tensor, generator: torch.Generator) -> Tensor:
    module = pillow()
    buffer = io.BytesIO()
    # A restart marker per row of blocks keeps the errors of one row out of the next.
    to_pillow(image).save(buffer, "JPEG", quality=85, subsampling=0, restart_marker_rows=1)
    stream = buffer.getvalue()
    with module.open(io.BytesIO(stream)) as picture:
        clean = from_pillow(picture, image)
    for _ in range(_TRIES):
        broken = _corrupt(stream, generator)
        try:
            with module.open(io.BytesIO(broken)) as picture:
                return from_pillow(picture, image) - clean
        except (OSError, SyntaxError):
            # The decoder gave up on this one: other bytes are drawn.
            continue
    shift = 8 * (1 + int(torch.randint(max(1, image.shape[2] // 16), (1,), generator=generator)))
    return image.roll(shift, 2) - image


def _corrupt(stream: bytes, generator: torch.Generator) -> bytes:
    """Damage every restart interval of the scan at one place, sparing the markers."""
    start = stream.index(b"\xff\xda")
    start += 2 + int.from_bytes(stream[start + 2 : start + 4], "big")
    data = bytearray(stream)
    bounds = [start]
    bounds += [
        i + 2
        for i in range(start, len(data) - 1)
        if data[i] == 0xFF and (0xD0 <= data[i + 1] <= 0xD7 or data[i + 1] == 0xD9)
    ]
    draws = torch.rand(len(bounds), 3, generator=generator).tolist()
    for first, after, (place, value, second) in zip(bounds, bounds[1:], draws, strict=False):
        room = after - 2 - first
        for offset in (int(0.4 * place * room), int((0.4 + 0.5 * second) * room)):
            where = first + offset
            # Neither part of a marker or an escape may change, nor may a new one arise.
            if room > 0 and 0xFF not in data[where - 1 : where + 1]:
                data[where] = (data[where] ^ (1 + int(value * 254))) & 0xFE
    return bytes(data)


# The 5/3 wavelet of JPEG 2000: analysis and synthesis filters.
_ANALYSIS = ((-0.125, 0.25, 0.75, 0.25, -0.125), (0.0, 0.0, -0.5, 1.0, -0.5))
_SYNTHESIS = ((0.0, 0.5, 1.0, 0.5, 0.0, 0.0), (0.0, -0.125, -0.25, 0.75, -0.25, -0.125))


def _split(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The low band (M×1×h×w) and the three high bands (M×3×h×w) of planes with even sides."""
    low, high = (planes.new_tensor(taps) for taps in _ANALYSIS)
    kernels = torch.stack(
        [torch.outer(a, b) for a, b in ((low, low), (low, high), (high, low), (high, high))]
    )
    padded = F.pad(planes, (2, 2, 2, 2), mode="reflect")
    bands = F.conv2d(padded, kernels[:, None], stride=2)
    return bands[:, :1], bands[:, 1:]


def _join(low_band: Tensor, high_bands: Tensor) -> Tensor:
    low, high = (low_band.new_tensor(taps) for taps in _SYNTHESIS)
    kernels = torch.stack(
        [torch.outer(a, b) for a, b in ((low, low), (low, high), (high, low), (high, high))]
    )
    bands = torch.cat([low_band, high_bands], 1)
    full = F.conv_transpose2d(bands, kernels[:, None], stride=2)
    height, width = 2 * low_band.shape[2], 2 * low_band.shape[3]
    return full[..., 2 : 2 + height, 2 : 2 + width]


@register("jpeg2000_transmission", channel="corruption", sign=1, curve=Curve(0.006, 0.6))
def jpeg2000_transmission(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Packets of a wavelet stream lost or garbled: ripples and smears of all sizes."""
    count, channels, height, width = images.shape
    pad = (0, -width % 32, 0, -height % 32)
    planes = F.pad(images, pad, mode="replicate").reshape(count * channels, 1, -1, width + pad[1])
    low = planes
    details: list[Tensor] = []
    for _ in range(4):
        low, high = _split(low)
        details.append(high)
    change = torch.zeros_like(low)
    for level in range(3, -1, -1):
        band = details[level].reshape(count, channels, 3, *details[level].shape[2:])
        change = _join(change, _damage(band, level, strength, generator).flatten(0, 1))
    error = change.view(count, channels, *planes.shape[2:])[..., :height, :width]
    return (images + error).clamp(0, 1)


def _damage(band: Tensor, level: int, share: float, generator: torch.Generator) -> Tensor:
    """What packet errors add to the bands of one level, N×C×3×h×w."""
    count, _, _, height, width = band.shape
    side = 4
    rows, cols = -(-height // side), -(-width // side)
    # All colours and orientations of a packet go together.
    weights = _ranked(count, rows * cols, share, generator).view(count, 1, 1, rows, cols)
    lost = torch.rand(count, 1, 1, rows, cols, generator=generator) < 0.5
    garbage = torch.randn(count, 1, *band.shape[2:], generator=generator).to(band)
    sparse = torch.rand(count, 1, *band.shape[2:], generator=generator) < 0.12

    def spread(values: Tensor) -> Tensor:
        tall = values.repeat_interleave(side, 3).repeat_interleave(side, 4)
        return tall[..., :height, :width].to(band)

    # Garbled packets hold large coefficients at wrong places, larger in the coarser levels.
    wrong = garbage * sparse.to(band) * (0.08 * 1.7**level)
    return spread(weights) * (spread(~lost) * wrong - band)
