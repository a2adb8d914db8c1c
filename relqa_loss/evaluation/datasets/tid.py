"""TID2008 and TID2013: the two share their layout."""

from __future__ import annotations

import re
from pathlib import Path

from relqa_loss.evaluation.datasets._tables import ImageFiles, child, lines_of, number
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair

LABELS = "mos_with_names.txt"

TYPES = (
    "additive Gaussian noise",
    "noise stronger in colour components",
    "spatially correlated noise",
    "masked noise",
    "high-frequency noise",
    "impulse noise",
    "quantisation noise",
    "Gaussian blur",
    "denoising",
    "JPEG",
    "JPEG 2000",
    "JPEG transmission errors",
    "JPEG 2000 transmission errors",
    "non-eccentricity pattern noise",
    "local block-wise distortions",
    "mean shift",
    "contrast change",
    "colour saturation change",
    "multiplicative Gaussian noise",
    "comfort noise",
    "lossy compression of noisy images",
    "colour quantisation with dither",
    "chromatic aberrations",
    "sparse sampling and reconstruction",
)
"""Distortions 1–24 of TID2013, of which 1–17 are those of TID2008."""

_TYPES_2008, _LEVELS_2008 = 17, 4
_NAME = re.compile(r"(i\d+)_(\d+)_(\d+)\.bmp", re.I)


def read_tid2013(root: Path) -> OpinionDataset:
    """TID2013: 25 references, 24 distortions at 5 levels, MOS from 0 to 9.

    Source: Ponomarenko et al., "Image database TID2013", Signal Processing: Image Communication
    30 (2015), doi:10.1016/j.image.2014.10.009.

    Expects ``mos_with_names.txt`` (lines ``5.51429 I01_01_1.bmp``), ``reference_images/I01.BMP``
    and ``distorted_images/i01_01_1.bmp``; case does not matter.

    Args:
        root: The folder with ``mos_with_names.txt``.

    Raises:
        FileNotFoundError: For missing labels or images, with file and line.
        ValueError: For a malformed line, with file and line.

    Example:
        >>> from pathlib import Path
        >>> from relqa_loss.evaluation.datasets.tid import read_tid2013
        >>> read_tid2013(Path("/nowhere"))
        Traceback (most recent call last):
        ...
        FileNotFoundError: /nowhere: has no mos_with_names.txt
    """
    return _read(root, "tid2013", "MOS, 0 to 9")


def read_tid2008(root: Path) -> OpinionDataset:
    """TID2008: 25 references, 17 distortions at 4 levels, MOS from 0 to 9.

    Source: Ponomarenko et al., "TID2008 – A database for evaluation of full-reference visual
    quality assessment metrics", Advances of Modern Radioelectronics 10 (2009), 30–45,
    https://www.ponomarenko.info/tid2008.htm. Laid out as TID2013.

    Args:
        root: The folder with ``mos_with_names.txt``.

    Raises:
        FileNotFoundError: As :func:`read_tid2013`.
        ValueError: As :func:`read_tid2013`, and for distortions that TID2008 does not have.
    """
    return _read(root, "tid2008", "MOS, 0 to 9")


def which_tid(root: Path) -> str:
    """``"tid2013"`` if the labels name a distortion or level that TID2008 does not have."""
    for _, text in lines_of(child(root, LABELS)):
        match = _NAME.search(text)
        if match and (int(match[2]) > _TYPES_2008 or int(match[3]) > _LEVELS_2008):
            return "tid2013"
    return "tid2008"


def _read(root: Path, kind: str, scale: str) -> OpinionDataset:
    labels = child(root, LABELS)
    references = ImageFiles(child(root, "reference_images"))
    distorted = ImageFiles(child(root, "distorted_images"))
    known = TYPES if kind == "tid2013" else TYPES[:_TYPES_2008]
    pairs = []
    for line, text in lines_of(labels):
        cells = text.split()
        match = _NAME.fullmatch(cells[1]) if len(cells) == 2 else None
        if match is None:
            raise ValueError(f"{line}: expected '5.51429 I01_01_1.bmp', got {text!r}")
        type_number = int(match[2])
        if not 1 <= type_number <= len(known):
            raise ValueError(f"{line}: {kind} has no distortion {type_number}")
        pairs.append(
            RatedPair(
                reference=references.find(f"{match[1]}.bmp", line),
                distorted=distorted.find(cells[1], line),
                score=number(cells[0], line),
                type=known[type_number - 1],
            )
        )
    return OpinionDataset(kind, root, scale, True, tuple(pairs))
