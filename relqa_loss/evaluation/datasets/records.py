"""What every data set of opinions comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RatedPair:
    """A distorted image, its reference, and what people thought of it."""

    reference: Path
    distorted: Path
    score: float
    """On the data set's own scale; :attr:`OpinionDataset.higher_is_better` says which way."""
    type: str = ""
    """Name of the distortion; empty where the data set does not say."""


@dataclass(frozen=True)
class Comparison:
    """Two distorted images of one reference, and which one people found closer to it (2AFC)."""

    reference: Path
    first: Path
    second: Path
    preference: float
    """Share of the votes for ``second``, in [0, 1]."""
    type: str = ""


@dataclass(frozen=True)
class OpinionDataset:
    """A data set with human opinions: rated pairs, or comparisons, never both."""

    kind: str
    """Name of the layout, such as ``"tid2013"``."""
    root: Path
    scale: str
    """The scale of opinion in words."""
    higher_is_better: bool
    """True for mean opinion scores, False for differences from the reference (DMOS)."""
    pairs: tuple[RatedPair, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
