"""Pictures of the bank of distortions, and of samples drawn from it."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from relqa_loss.cli._common import progress

if TYPE_CHECKING:
    from PIL import Image as PilImage
    from PIL import ImageFont
    from torch import Tensor

    from relqa_loss.distortions import Operator, Sample

SEVERITIES = (0.1, 0.3, 0.5, 0.75, 1.0)
"""Of a sheet of the bank."""
_TILE = 176
"""Side of the contact sheet's pictures."""
_PAPER, _INK, _FAINT = (250, 249, 246), (34, 37, 42), (120, 124, 130)


def bank_sheet(photo: Tensor, operators: list[Operator], tile: int, seed: int) -> PilImage.Image:
    """Blocks of one operator each, labelled, filled column by column."""
    import torch
    from PIL import Image, ImageDraw

    from relqa_loss.distortions._pillow import to_pillow

    margin, gap, label = 24, 3, 22
    count = len(SEVERITIES)
    block = count * tile + (count - 1) * gap
    columns = max(1, min(4, round(math.sqrt(len(operators) * (tile + label) / block))))
    rows = math.ceil(len(operators) / columns)
    step = tile + label + 12
    head = 76
    sheet = Image.new(
        "RGB", (columns * (block + margin) + margin, head + rows * step + margin), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 16), f"{len(operators)} distortions", fill=_INK, font=_font(22))
    for column in range(columns):
        for index, severity in enumerate(SEVERITIES):
            x = margin + column * (block + margin) + index * (tile + gap)
            text = f"severity {severity:g}" if index == 0 else f"{severity:g}"
            draw.text((x, 52), text, fill=_FAINT, font=_font(13))
    with progress("drawing", len(operators)) as advance:
        for index, operator in enumerate(operators):
            x = margin + index // rows * (block + margin)
            y = head + index % rows * step
            name = operator.name.replace("_", " ")
            draw.text((x, y), name, fill=_INK, font=_font(15))
            direction = f"{operator.sign:+d}"[0] + f" {operator.channel.replace('_', ' ')}"
            if operator.runs_on == "host":
                direction += " · CPU"
            draw.text((x + block, y + 2), direction, fill=_FAINT, font=_font(13), anchor="ra")
            for place, severity in enumerate(SEVERITIES):
                generator = torch.Generator().manual_seed(seed)
                distorted = operator(photo[None], severity, generator)[0]
                # Shown at full size, cut to the centre: shrinking would hide what is to be seen.
                cut = _centre(distorted, tile)
                sheet.paste(to_pillow(cut), (x + place * (tile + gap), y + label))
            advance(note=operator.name)
    return sheet


class Shown(NamedTuple):
    """What the contact sheet shows of a sample, which may be a whole photograph and is not kept."""

    recipe: str
    pictures: list[tuple[PilImage.Image, str]]
    """At most a tile in size, with their captions."""


def shown_of(sample: Sample, recipe: str) -> Shown:
    """Reference, distorted image and strongest map."""
    from PIL import Image

    from relqa_loss.channels import CHANNELS
    from relqa_loss.distortions._pillow import to_pillow
    from relqa_loss.plotting import colourise, direction_words, strongest_channels

    name = strongest_channels(sample.maps, 1)[0]
    values = sample.maps[CHANNELS.index(name)]
    more, less = direction_words(name)
    strongest = float(values.flatten()[values.abs().argmax()])
    words = more if strongest > 0 else less
    pictures = (sample.reference, sample.distorted, colourise(values, 1.0))
    captions = ("reference", "distorted", f"{name.replace('_', ' ')} {strongest:+.2f}: {words}")
    shown = []
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        kind = Image.Resampling.NEAREST if place == 2 else Image.Resampling.LANCZOS
        image = to_pillow(picture)
        scale = _TILE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        shown.append((image.resize(size, kind), caption))
    return Shown(recipe, shown)


def contact_sheet(shown: list[Shown]) -> PilImage.Image:
    """Reference, distorted image and strongest map of some samples."""
    from PIL import Image, ImageDraw

    gap, margin, label = 3, 20, 40
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    block = 3 * _TILE + 2 * gap
    width = columns * (block + margin) + margin
    sheet = Image.new("RGB", (width, margin + rows * (_TILE + label + 14) + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (text, pictures) in enumerate(shown):
        x = margin + index % columns * (block + margin)
        y = margin + index // columns * (_TILE + label + 14)
        draw.text((x, y), _fit(draw, text, block, 13), fill=_INK, font=_font(13))
        for place, (picture, caption) in enumerate(pictures):
            left = x + place * (_TILE + gap)
            fitted = _fit(draw, caption, _TILE, 12)
            draw.text((left, y + 20), fitted, fill=_FAINT, font=_font(12))
            sheet.paste(picture, (left, y + label))
    return sheet


def png(image: PilImage.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def thumbnail(photo: Tensor, side: int) -> Tensor:
    """The photograph with its shorter side reduced to ``side`` (never enlarged), cut square."""
    import torch.nn.functional as F

    shorter = min(photo.shape[-2:])
    if shorter > side:
        size = [max(side, round(length * side / shorter)) for length in photo.shape[-2:]]
        photo = F.interpolate(photo[None], size=size, mode="bilinear", antialias=True)[0]
    return _centre(photo, side).clamp(0, 1)


def _fit(draw: Any, text: str, width: int, size: int) -> str:
    if draw.textlength(text, font=_font(size)) <= width:
        return text
    while text and draw.textlength(text + "…", font=_font(size)) > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which has no typographic minus sign."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _centre(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return image[:, top : top + side, left : left + side]
