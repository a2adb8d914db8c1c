"""The vocabulary of differences: the signed channels of a distortion map."""

from __future__ import annotations

from typing import NamedTuple


class Channel(NamedTuple):
    """One disentangled kind of difference and the words for its two directions."""

    name: str
    more: str
    """How an image is described when its map is positive (it has more of it than the reference)."""
    less: str
    """How an image is described when its map is negative."""


CHANNEL_TABLE: tuple[Channel, ...] = (
    Channel("sharpness", "sharper", "blurrier"),
    Channel("noise", "noisier", "smoother, texture or noise removed"),
    Channel("blocking", "more blocking", "less blocking"),
    Channel("ringing", "more ringing", "less ringing"),
    Channel("luminance", "lighter", "darker"),
    Channel("contrast", "more contrast", "less contrast"),
    Channel("saturation", "more saturated", "less saturated"),
    Channel("temperature", "warmer", "cooler"),
    Channel("tint", "more magenta", "greener"),
    Channel("banding", "more banding", "less banding"),
    Channel("geometry", "displaced or warped", "less displaced"),
    Channel("corruption", "more corrupted", "less corrupted"),
    Channel("chroma_bleed", "more colour bleeding", "less colour bleeding"),
)
"""Every channel with the words for its directions, in the order of the maps."""

CHANNELS: tuple[str, ...] = tuple(channel.name for channel in CHANNEL_TABLE)
"""Names of the map channels, in order. Part of the public API and stored with the weights."""
