"""CID22."""

from __future__ import annotations

from pathlib import Path

from relqa_loss.evaluation.datasets._tables import ImageFiles, number, table_of
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair


def read_cid22(root: Path) -> OpinionDataset:
    """CID22: compressed photographs of 512×512, opinions from 0 to 100 (MCOS).

    Source: Sneyers, Ben Baruch and Vaxman, "CID22: a large-scale subjective quality assessment
    for high fidelity image compression", IEEE MultiMedia 30 (2023),
    https://cloudinary.com/labs/cid22. Forty-nine of its 250 references are published.

    Expects one ``CID22*.csv`` with columns for the reference (``reference_img`` as published,
    ``reference``, ``original``, ``source`` or ``ref``), the compressed image (``distorted_img``,
    ``distorted``, ``compressed``, ``image`` or ``dist``), the opinion (``mcos``, ``mos`` or
    ``score``) and, if there, the codec (``encoder``, ``codec`` or ``type``), and the images in any
    folders below, as 8-bit files that Pillow reads. Rows whose codec is ``Reference`` rate the
    references themselves and are left out.

    Args:
        root: The folder with the CSV file.

    Raises:
        FileNotFoundError: For missing labels or images, with file and line.
        ValueError: For a malformed line, with file and line, or several such CSV files.
    """
    tables = label_files(root)
    if not tables:
        raise FileNotFoundError(f"{root}: has no CID22*.csv")
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise ValueError(f"{root}: has several tables ({names}); keep one")
    images = ImageFiles(root)
    pairs = [
        RatedPair(
            reference=images.find(row["reference"], line),
            distorted=images.find(row["distorted"], line),
            score=number(row["score"], line),
            type=row.get("type", ""),
        )
        for line, row in table_of(
            tables[0],
            {
                "reference": ["reference_img", "reference", "original", "source", "ref"],
                "distorted": ["distorted_img", "distorted", "compressed", "image", "dist"],
                "score": ["mcos", "mos", "score"],
            },
            {"type": ["encoder", "codec", "type"]},
        )
        if row.get("type", "").lower() != "reference"
    ]
    return OpinionDataset("cid22", root, "MCOS, 0 to 100", True, tuple(pairs))


def label_files(root: Path) -> list[Path]:
    """``CID22*.csv`` in ``root``, whatever the case."""
    return sorted(
        path
        for path in root.iterdir()
        if path.name.lower().startswith("cid22") and path.suffix.lower() == ".csv"
    )
