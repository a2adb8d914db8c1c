"""KADID-10k."""

from __future__ import annotations

import re
from pathlib import Path

from relqa_loss.evaluation.datasets._tables import ImageFiles, child, number, table_of
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair

LABELS = "dmos.csv"

TYPES = (
    "Gaussian blur",
    "lens blur",
    "motion blur",
    "colour diffusion",
    "colour shift",
    "colour quantisation",
    "colour saturation 1",
    "colour saturation 2",
    "JPEG 2000",
    "JPEG",
    "white noise",
    "white noise in a colour component",
    "impulse noise",
    "multiplicative noise",
    "denoise",
    "brighten",
    "darken",
    "mean shift",
    "jitter",
    "non-eccentricity patch",
    "pixelate",
    "quantisation",
    "colour block",
    "high sharpen",
    "contrast change",
)
"""Distortions 1–25."""

_NAME = re.compile(r"i\d+_(\d+)_\d+\.png", re.I)


def read_kadid10k(root: Path) -> OpinionDataset:
    """KADID-10k: 81 references, 25 distortions at 5 levels, scores from 1 to 5.

    Source: Lin, Hosu and Saupe, "KADID-10k: A large-scale artificially distorted IQA database",
    QoMEX 2019, doi:10.1109/QoMEX.2019.8743252.

    Expects ``dmos.csv`` (header ``dist_img,ref_img,dmos,var``) and ``images/`` with references
    ``I01.png`` and distorted images ``I01_01_01.png``. In spite of the column's name, a higher
    score is better: it is a degradation category rating, 5 for an imperceptible difference.

    Args:
        root: The folder with ``dmos.csv``.

    Raises:
        FileNotFoundError: For missing labels or images, with file and line.
        ValueError: For a malformed line, with file and line.
    """
    labels = child(root, LABELS)
    images = ImageFiles(child(root, "images"))
    columns = {"distorted": ["dist_img"], "reference": ["ref_img"], "score": ["dmos"]}
    pairs = []
    for line, row in table_of(labels, columns):
        match = _NAME.fullmatch(row["distorted"])
        if match is None or not 1 <= int(match[1]) <= len(TYPES):
            raise ValueError(
                f"{line}: expected a name such as I01_01_01.png, with a distortion "
                f"from 01 to {len(TYPES)}, got {row['distorted']!r}"
            )
        pairs.append(
            RatedPair(
                reference=images.find(row["reference"], line),
                distorted=images.find(row["distorted"], line),
                score=number(row["score"], line),
                type=TYPES[int(match[1]) - 1],
            )
        )
    return OpinionDataset("kadid10k", root, "rating, 1 to 5", True, tuple(pairs))
