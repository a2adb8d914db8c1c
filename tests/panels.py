"""A panel for tiny pools."""

from __future__ import annotations

QUICK = ("mdsi", "haarpsi")
"""Without VSI, which enlarges whatever it judges to 256² and takes nine tenths of their time."""
