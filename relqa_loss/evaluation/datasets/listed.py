"""Toyama (MICT) and VCL@FER: images, and opinions in a spreadsheet to be saved as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from relqa_loss.evaluation.datasets._tables import ImageFiles, Line, child, number, table_of
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair

LABELS = "mos.csv"
_TYPES = (
    # JPEG 2000 first: its abbreviations contain those of JPEG.
    ("JPEG 2000", ("jpeg2k", "jpeg2000", "jp2k", "jp2", "j2k")),
    ("JPEG", ("jpeg", "jpg")),
    ("white noise", ("awgn", "noise")),
    ("Gaussian blur", ("gblur", "blur")),
)


def read_toyama(root: Path) -> OpinionDataset:
    """Toyama, also MICT: 14 references, JPEG and JPEG 2000 at 6 levels each, MOS from 1 to 5.

    Source: Horita, Shibata and Kawayoke, MICT Image Quality Evaluation Database, University of
    Toyama; described in Tourancheau et al., "Impact of subjective dataset on the performance of
    image quality metrics", ICIP 2008, doi:10.1109/ICIP.2008.4711759.

    Expects the images in any folders, and ``mos.csv`` with the columns ``distorted`` and
    ``score`` (or ``mos``), and if need be ``reference`` and ``type``, made from the published
    tables. Without ``reference``, an image belongs to the one without a score whose name begins its
    own (``kp05_q15.bmp`` to ``kp05.bmp``); without ``type``, its path tells (``jpeg``, ``jp2k``).

    Args:
        root: The folder with ``mos.csv``.

    Raises:
        FileNotFoundError: For missing labels or images, with file and line.
        ValueError: For a malformed line, or an image that may belong to several references, with
            file and line.
    """
    return _read(root, "toyama", "MOS, 1 to 5")


def read_vclfer(root: Path) -> OpinionDataset:
    """VCL@FER: 23 references, 4 distortions at 6 levels, MOS from 0 to 100.

    Source: Zarić et al., "VCL@FER image quality assessment database", Automatika 53 (2012),
    doi:10.7305/automatika.53-4.241.

    Expects the images in any folders, and ``mos.csv`` made from the published ``results.xls``,
    as :func:`read_toyama`.

    Args:
        root: The folder with ``mos.csv``.

    Raises:
        FileNotFoundError: As :func:`read_toyama`.
        ValueError: As :func:`read_toyama`.
    """
    return _read(root, "vclfer", "MOS, 0 to 100")


def _read(root: Path, kind: str, scale: str) -> OpinionDataset:
    labels = child(root, LABELS)
    images = ImageFiles(root)
    rows = [
        (line, row, images.find(row["distorted"], line))
        for line, row in table_of(
            labels,
            {"distorted": ["distorted", "image", "name"], "score": ["score", "mos"]},
            {"reference": ["reference"], "type": ["type"]},
        )
    ]
    rated = {distorted.stem.lower() for *_, distorted in rows}
    unrated = [stem for stem in images.stems() if stem not in rated]
    pairs = []
    for line, row, distorted in rows:
        named = row.get("reference") or _reference_of(distorted.stem.lower(), unrated, line)
        pairs.append(
            RatedPair(
                reference=images.find(named, line),
                distorted=distorted,
                score=number(row["score"], line),
                type=row.get("type") or _type_of(distorted, root),
            )
        )
    return OpinionDataset(kind, root, scale, True, tuple(pairs))


def _reference_of(stem: str, unrated: Sequence[str], line: Line) -> str:
    begin = [s for s in unrated if stem.startswith(s)]
    if not begin:
        raise FileNotFoundError(
            f"{line}: no reference whose name begins that of {stem!r}; add a column 'reference'"
        )
    # Names that are cut inside a number or word come second: img12_q5 is of img12, not of img1.
    fits = [s for s in begin if not _goes_on(s[-1], stem[len(s)])] or begin
    if len(fits) > 1:
        raise ValueError(
            f"{line}: {stem!r} may belong to {' or '.join(fits)}; add a column 'reference'"
        )
    return fits[0]


def _goes_on(last: str, following: str) -> bool:
    """Whether two characters are of one number or word."""
    return (last.isdigit() and following.isdigit()) or (last.isalpha() and following.isalpha())


def _type_of(path: Path, root: Path) -> str:
    # The table may give whole paths, and the root may not be one.
    path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    # Of an image elsewhere, the folder and the name: what stands above may be about anything.
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-2:]
    text = "/".join(parts).lower()
    return next((name for name, signs in _TYPES if any(sign in text for sign in signs)), "")
