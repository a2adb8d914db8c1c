"""Which layout a folder has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from relqa_loss.evaluation.datasets import bapps, cid22, csiq, kadid, listed, live, pipal, tid
from relqa_loss.evaluation.datasets._tables import find_child
from relqa_loss.evaluation.datasets.generic import read_csv
from relqa_loss.evaluation.datasets.records import OpinionDataset

READERS: dict[str, Callable[[Path], OpinionDataset]] = {
    "tid2013": tid.read_tid2013,
    "tid2008": tid.read_tid2008,
    "kadid10k": kadid.read_kadid10k,
    "csiq": csiq.read_csiq,
    "live": live.read_live,
    "pipal": pipal.read_pipal,
    "toyama": listed.read_toyama,
    "vclfer": listed.read_vclfer,
    "cid22": cid22.read_cid22,
    "bapps": bapps.read_bapps,
    "csv": read_csv,
}
"""Layout → reader."""


def read_dataset(
    path: str | os.PathLike[str],
    kind: str | None = None,
    *,
    lower_is_better: bool = False,
) -> OpinionDataset:
    """Read a data set of human opinions; every label is checked, no image is opened.

    Args:
        path: Its folder, or a CSV file ``reference,distorted,score[,type]``.
        kind: A key of :data:`READERS`; found out by default.
        lower_is_better: For a CSV file: its scores are differences from the reference (DMOS).
            The published data sets declare their direction.

    Raises:
        FileNotFoundError: For a missing path, label file or image, with file and line.
        ValueError: For an unknown layout, a malformed label, with file and line, or no pairs.
        ImportError: If a reader needs an optional package.

    Example:
        >>> import tempfile
        >>> from relqa_loss.evaluation.datasets import read_dataset
        >>> read_dataset(tempfile.mkdtemp(), "tid2012")
        Traceback (most recent call last):
        ...
        ValueError: unknown kind of data set 'tid2012'; known: tid2013, tid2008, kadid10k, csiq, \
live, pipal, toyama, vclfer, cid22, bapps, csv
    """
    path = Path(path)
    if kind is not None and kind not in READERS:
        raise ValueError(f"unknown kind of data set {kind!r}; known: {', '.join(READERS)}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    kind = kind or detect_kind(path)
    if (kind == "csv") != path.is_file():
        raise ValueError(f"{path}: kind {kind} is a {'file' if kind == 'csv' else 'folder'}")
    if kind == "csv":
        dataset = read_csv(path, higher_is_better=not lower_is_better)
    elif lower_is_better:
        raise ValueError(f"lower_is_better is for CSV files; the scale of {kind} is known")
    else:
        dataset = READERS[kind](path)
    if not dataset.pairs and not dataset.comparisons:
        raise ValueError(f"{path}: the labels of {kind} name no image")
    return dataset


def detect_kind(path: Path) -> str:
    """The layout of a folder or file.

    Toyama and VCL@FER have no file of their own name: they must be named.

    Raises:
        ValueError: If it is none that is known.
    """
    if path.is_file():
        return "csv"
    if find_child(path, tid.LABELS):
        return tid.which_tid(path)
    if find_child(path, kadid.LABELS):
        return "kadid10k"
    if find_child(path, csiq.TABLE, csiq.LIST, csiq.SHEET):
        return "csiq"
    if find_child(path, live.REFERENCES):
        return "live"
    if cid22.label_files(path):
        return "cid22"
    if pipal.label_files(path):
        return "pipal"
    if bapps.judged_folders(path):
        return "bapps"
    raise ValueError(
        f"{path}: no known layout; give the folder with the label file, or name the kind: "
        f"{', '.join(READERS)}"
    )
