"""CSIQ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from relqa_loss.evaluation.datasets._tables import (
    ImageFiles,
    Line,
    child,
    find_child,
    lines_of,
    number,
    table_of,
)
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair

SHEET, TABLE, LIST = "csiq.DMOS.xlsx", "csiq.DMOS.csv", "csiq_label.txt"

_FILE_TYPES = {"noise": "AWGN", "jpeg 2000": "jpeg2000"}
"""Distortions that the spreadsheet calls otherwise than the files."""
_NAME = re.compile(r"(.+)\.([^.]+)\.(\d+)\.png", re.I)


def read_csiq(root: Path) -> OpinionDataset:
    """CSIQ: 30 references, 6 distortions at 4 or 5 levels, DMOS from 0 to 1.

    Source: Larson and Chandler, "Most apparent distortion: full-reference image quality
    assessment and the role of strategy", Journal of Electronic Imaging 19 (2010),
    doi:10.1117/1.3267105.

    Expects ``src_imgs/1600.png``, ``dst_imgs/awgn/1600.AWGN.1.png`` (any folders below
    ``dst_imgs``), and the labels as one of

    * ``csiq.DMOS.csv``: the sheet ``all_by_image`` of ``csiq.DMOS.xlsx`` saved as CSV, columns
      ``image``, ``dst_type``, ``dst_lev`` and ``dmos`` wherever they stand in it;
    * ``csiq_label.txt``: lines ``1600.AWGN.1.png 0.062``.

    Args:
        root: The folder with the labels.

    Raises:
        FileNotFoundError: For missing labels or images, with file and line.
        ValueError: For a malformed line, with file and line, or if there is but the spreadsheet.
    """
    references = ImageFiles(child(root, "src_imgs"))
    distorted = ImageFiles(child(root, "dst_imgs"))
    pairs = []
    for line, name, score in _labels(root):
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{line}: expected a name such as 1600.AWGN.1.png, got {name!r}")
        pairs.append(
            RatedPair(
                reference=references.find(f"{match[1]}.png", line),
                distorted=distorted.find(name, line),
                score=number(score, line),
                type=match[2].lower(),
            )
        )
    return OpinionDataset("csiq", root, "DMOS, 0 to 1", False, tuple(pairs))


def _labels(root: Path) -> Iterator[tuple[Line, str, str]]:
    """Place, name of the distorted image, score."""
    table, listed = find_child(root, TABLE), find_child(root, LIST)
    if table is not None:
        columns = {name: [name] for name in ("image", "dst_type", "dst_lev", "dmos")}
        for line, row in table_of(table, columns):
            kind = _FILE_TYPES.get(row["dst_type"].lower(), row["dst_type"])
            yield line, f"{row['image']}.{kind}.{row['dst_lev']}.png", row["dmos"]
    elif listed is not None:
        for line, text in lines_of(listed):
            cells = text.split()
            if len(cells) != 2:
                raise ValueError(f"{line}: expected '1600.AWGN.1.png 0.062', got {text!r}")
            yield line, cells[0], cells[1]
    elif find_child(root, SHEET) is not None:
        raise ValueError(
            f"{root / SHEET} is a spreadsheet, which is not read here: save its sheet "
            f"all_by_image as CSV, {root / TABLE}"
        )
    else:
        raise FileNotFoundError(f"{root}: has neither {TABLE} nor {LIST}")
