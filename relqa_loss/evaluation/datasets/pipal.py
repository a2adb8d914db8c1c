"""PIPAL."""

from __future__ import annotations

import re
from pathlib import Path

from relqa_loss._files import files_below
from relqa_loss.evaluation.datasets._tables import ImageFiles, lines_of, number
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair

_NAME = re.compile(r"([A-Za-z]\d+)_(\d+)_(\d+)\.(?:bmp|png)", re.I)


def read_pipal(root: Path) -> OpinionDataset:
    """PIPAL: restored and distorted images with Elo ratings.

    Source: Gu et al., "PIPAL: a large-scale image quality assessment dataset for perceptual image
    restoration", ECCV 2020, doi:10.1007/978-3-030-58621-8_37.

    Expects a folder whose name has ``label`` in it with a file per reference (``A0001.txt``, lines
    ``A0001_00_00.bmp,1448.9``), such as ``Train_Label/``, and the images in any folders beside it
    (``Train_Ref/A0001.bmp``, ``Distortion_1/A0001_00_00.bmp``). The first number of a distorted
    image's name is its kind of distortion.

    Args:
        root: The folder that holds all of these.

    Raises:
        FileNotFoundError: For missing labels or images, with file and line.
        ValueError: For a malformed line, with file and line.
    """
    labels = label_files(root)
    if not labels:
        raise FileNotFoundError(f"{root}: has no folder of labels such as Train_Label/A0001.txt")
    images = ImageFiles(root)
    pairs = []
    for path in labels:
        for line, text in lines_of(path):
            cells = [cell.strip() for cell in text.split(",")]
            match = _NAME.fullmatch(cells[0]) if len(cells) == 2 else None
            if match is None:
                raise ValueError(f"{line}: expected 'A0001_00_00.bmp,1448.9', got {text!r}")
            pairs.append(
                RatedPair(
                    reference=images.find(match[1], line),
                    distorted=images.find(cells[0], line),
                    score=number(cells[1], line),
                    type=f"kind {match[2]}",
                )
            )
    return OpinionDataset("pipal", root, "Elo rating", True, tuple(pairs))


def label_files(root: Path) -> list[Path]:
    """Label files below ``root``, sorted."""
    return sorted(
        path
        for folder in root.iterdir()
        if folder.is_dir() and "label" in folder.name.lower()
        for path in files_below(folder)
        if path.suffix.lower() == ".txt"
    )
