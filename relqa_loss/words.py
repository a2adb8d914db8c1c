"""A relation in words: what changed between two images, how much, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.channels import CHANNEL_TABLE, CHANNELS, Channel

VISIBLE = 0.05
"""Least mean severity, over the image or the place named, that is put into words."""
SLIGHT = 0.15
"""Below this, "slightly"."""
MOST = 5
"""Longest list of changes in one sentence; the strongest are named."""

NO_DIFFERENCE = "no visible difference"
IDENTICAL = "identical"
NOT_A_NUMBER = "not a number"

_EDGE = 0.06  # range of luminance inside a cell's neighbourhood that makes an edge
_SHARE = 0.6  # a place is named if it holds at least this share of the change …
_GAIN = 1.7  # … at this many times its share of the area
_BY_CHANNEL = {channel.name: channel for channel in CHANNEL_TABLE}


class Change(NamedTuple):
    """One difference that can be put into words."""

    channel: str
    amount: float
    """Signed mean severity over the place (the whole image if there is none)."""
    place: str
    """``near edges``, ``in the upper left`` …, or empty where it is spread out; with ``in places``
    before it, the amount is that of its strongest cells alone."""

    def __str__(self) -> str:
        # A third party's channel has no words of its own.
        words = _BY_CHANNEL.get(
            self.channel, Channel(self.channel, f"more {self.channel}", f"less {self.channel}")
        )
        head, _, rest = (words.more if self.amount > 0 else words.less).partition(", ")
        slightly = "slightly " if abs(self.amount) < SLIGHT else ""
        text = f"{slightly}{head} by {abs(self.amount):.2f}"
        if rest:
            text += f" ({rest})"
        return f"{text} {self.place}".strip()


def describe(
    maps: Tensor,
    reference: Tensor | None = None,
    *,
    channels: Sequence[str] = CHANNELS,
) -> str:
    """What the maps of one pair say, as a sentence without a full stop, strongest change first.

    Args:
        maps: K×h×w signed severities of one image against its reference.
        reference: 3×H×W or 1×H×W in [0, 1], to tell edges from flat areas. Places are named by
            position only without it.
        channels: Names of the K maps.

    Returns:
        For example ``"sharper by 0.31, slightly more ringing by 0.08 near edges"``;
        :data:`IDENTICAL` where every map is exactly zero, :data:`NO_DIFFERENCE` where none is
        strong enough, and :data:`NOT_A_NUMBER` where one is not finite anywhere, as of a network
        that has diverged.

    Raises:
        ValueError: For other shapes.

    Example:
        >>> import torch
        >>> from relqa_loss.words import describe
        >>> maps = torch.zeros(13, 16, 16)
        >>> maps[0] = 0.31
        >>> maps[1, :8, :8] = -0.42
        >>> describe(maps)
        'smoother by 0.42 (texture or noise removed) in the upper left, sharper by 0.31'
    """
    _check_shapes(maps, reference, channels)
    if not bool(maps.any()):
        return IDENTICAL
    if not bool(maps.isfinite().all()):
        return NOT_A_NUMBER
    named = changes(maps, reference, channels=channels)
    return ", ".join(map(str, named)) if named else NO_DIFFERENCE


def changes(
    maps: Tensor,
    reference: Tensor | None = None,
    *,
    channels: Sequence[str] = CHANNELS,
    most: int = MOST,
) -> list[Change]:
    """The changes that :func:`describe` puts into words, strongest first.

    A channel that goes both ways in different places gives two. The lesser one on the whole, which
    may be the stronger one in its place, is not named without the other.

    Args:
        maps: K×h×w signed severities of one image against its reference.
        reference: 3×H×W or 1×H×W in [0, 1], or ``None``.
        channels: Names of the K maps.
        most: How many to return at most.

    Raises:
        ValueError: For other shapes, maps that are not finite, or a negative ``most``.
    """
    _check_shapes(maps, reference, channels)
    if most < 0:
        raise ValueError(f"most must not be negative, got {most}")
    maps = maps.detach().float().cpu()
    if not bool(maps.isfinite().all()):
        raise ValueError("maps must be finite: an image that they are of contains NaN or infinity")
    height, width = maps.shape[-2:]
    places = _places(height, width)
    if reference is not None:
        places = {**_structure(reference.detach().float().cpu(), height, width), **places}
    kept: list[Change] = []
    prevailing: dict[str, Change] = {}
    for name, signed in zip(channels, maps, strict=True):
        parts = [(1, signed.clamp(min=0)), (-1, (-signed).clamp(min=0))]
        (sign, part), (opposite, rest) = sorted(parts, key=lambda each: -float(each[1].mean()))
        change = _locate(name, signed, part, places, sign)
        if change is not None:
            prevailing[name] = change
            kept.append(change)
        # Below a third of the other direction it is the estimate's own scatter.
        if float(rest.mean()) >= float(part.mean()) / 3:
            change = _locate(name, signed, rest, places, opposite)
            if change is not None:
                kept.append(change)
    kept.sort(key=lambda change: -abs(change.amount))
    while alone := [c for c in kept[:most] if prevailing.get(c.channel, c) not in kept[:most]]:
        kept.remove(alone[-1])
    return kept[:most]


def _check_shapes(maps: Tensor, reference: Tensor | None, channels: Sequence[str]) -> None:
    if maps.dim() != 3 or maps.shape[0] != len(channels):
        raise ValueError(
            f"maps must be {len(channels)}×h×w, one per channel, got shape {tuple(maps.shape)}; "
            "index a batch first"
        )
    if reference is not None and (reference.dim() != 3 or reference.shape[0] not in (1, 3)):
        raise ValueError(
            f"the reference must be 3×H×W or 1×H×W, got shape {tuple(reference.shape)}"
        )


def _locate(
    name: str, signed: Tensor, part: Tensor, places: dict[str, Tensor], sign: int
) -> Change | None:
    """Where one direction of a channel is concentrated, and how strong it is there."""
    total = float(part.sum())
    if total == 0:
        return None
    best, best_gain = "", 0.0
    for place, inside in places.items():
        area = float(inside.mean())
        share = float(part[inside > 0].sum()) / total
        gain = share / area if area > 0 else 0.0
        # The margin prefers earlier, simpler places when two fit about equally well.
        if share >= _SHARE and gain >= _GAIN and gain > 1.1 * best_gain:
            best, best_gain = place, gain
    region = signed[places[best] > 0] if best else signed
    amount = float(region.mean())
    if amount * sign >= VISIBLE:
        return Change(name, amount, best)
    # Strong in a few cells, which no place describes or of which the place's mean says nothing.
    strong = part >= 0.5 * float(part.max())
    local = float(signed[strong].mean())
    if local * sign >= 2 * SLIGHT and float(strong.float().mean()) >= 0.002:
        return Change(name, local, f"in places {best}".strip())
    return None


def _places(height: int, width: int) -> dict[str, Tensor]:
    """Named parts of the image as h×w masks of zeros and ones."""
    # Where the maps are by now, whatever the default device.
    rows, columns = (torch.linspace(-1, 1, side, device="cpu") for side in (height, width))
    rows = rows[:, None].expand(height, width)
    columns = columns[None].expand(height, width)
    upper, lower, left, right = rows <= 0, rows >= 0, columns <= 0, columns >= 0
    masks = {
        "in the upper half": upper,
        "in the lower half": lower,
        "in the left half": left,
        "in the right half": right,
        "in the upper left": upper & left,
        "in the upper right": upper & right,
        "in the lower left": lower & left,
        "in the lower right": lower & right,
        "in the centre": (rows.abs() <= 0.5) & (columns.abs() <= 0.5),
    }
    return {name: mask.float() for name, mask in masks.items()}


def _structure(reference: Tensor, height: int, width: int) -> dict[str, Tensor]:
    """Cells near edges of the reference, and flat ones."""
    grey = reference.mean(0)[None, None]
    stride = max(1, math.ceil(reference.shape[-2] / height))
    high = F.max_pool2d(grey, stride, ceil_mode=True)
    low = -F.max_pool2d(-grey, stride, ceil_mode=True)
    contrast = F.adaptive_max_pool2d(
        F.max_pool2d(high, 3, 1, 1) + F.max_pool2d(-low, 3, 1, 1), (height, width)
    )[0, 0]
    # Textured all over, every cell has an edge: only those that stand out are "edges".
    threshold = max(_EDGE, float(contrast.quantile(0.7))) if contrast.numel() else _EDGE
    edges = (contrast > threshold).float()
    flat = (contrast < _EDGE).float()
    return {"near edges": edges, "in flat areas": flat}
