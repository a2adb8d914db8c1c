"""Opinions of your own, in a CSV file."""

from __future__ import annotations

from pathlib import Path

from relqa_loss.evaluation.datasets._tables import Line, number, table_of
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair


def read_csv(path: Path, *, higher_is_better: bool = True) -> OpinionDataset:
    """Rated pairs of a CSV file with the columns ``reference,distorted,score[,type]``.

    Args:
        path: The file. Paths in it are relative to its folder, or absolute.
        higher_is_better: Whether a high score means good quality; False for a DMOS.

    Raises:
        FileNotFoundError: For a missing file or image, with file and line.
        ValueError: For a malformed line, with file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from relqa_loss.evaluation.datasets import read_csv
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch(), (folder / "b.png").touch()
        (None, None)
        >>> (folder / "mos.csv").write_text("reference,distorted,score\\na.png,b.png,3.5\\n")
        42
        >>> read_csv(folder / "mos.csv").pairs[0].score
        3.5
    """
    pairs = []
    columns = {name: [name] for name in ("reference", "distorted", "score")}
    for line, row in table_of(path, columns, {"type": ["type"]}):
        pairs.append(
            RatedPair(
                reference=_image(path.parent / row["reference"], line),
                distorted=_image(path.parent / row["distorted"], line),
                score=number(row["score"], line),
                type=row.get("type", ""),
            )
        )
    scale = f"score, {'higher' if higher_is_better else 'lower'} is better"
    return OpinionDataset("csv", path, scale, higher_is_better, tuple(pairs))


def _image(path: Path, line: Line) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{line}: no image {path}")
    return path
