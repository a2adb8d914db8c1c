"""Label files with line numbers in their errors, and image files found by name."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from relqa_loss._files import files_below
from relqa_loss.imageio import IMAGE_SUFFIXES

_END = "end"
_UNCLOSED = "is there a quotation mark that is not closed?"


class Line(NamedTuple):
    """Where something stands in a label file."""

    file: Path
    number: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}"


def lines_of(path: Path) -> Iterator[tuple[Line, str]]:
    """Lines that are not blank, stripped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not text in UTF-8.
    """
    for number, text in enumerate(_text(path).splitlines(), start=1):
        if text.strip():
            yield Line(path, number), text.strip()


def table_of(
    path: Path,
    required: Mapping[str, Sequence[str]],
    optional: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[tuple[Line, dict[str, str]]]:
    """Rows of a CSV file, by our names of its columns.

    Spreadsheets are exported with titles above the table and empty columns beside it: the header
    is the first line that has all required columns.

    Args:
        path: The file; separated by commas, semicolons or tabs.
        required: Our name → names accepted in the header, whatever their case.
        optional: Likewise; rows have these only if the header does.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no line has the required columns, a row is too short, or a quotation mark is
            not closed.
    """
    lines = _text(path).splitlines()
    separator = _separator(path, lines, required)
    places: dict[str, int] | None = None
    for line, cells in _rows(path, lines, separator):
        row = [cell.strip() for cell in cells]
        if not any(row):
            continue
        if places is None:
            found = _columns(row, {**required, **(optional or {})})
            places = found if all(name in found for name in required) else None
            continue
        missing = [n for n in required if places[n] >= len(row) or not row[places[n]]]
        if missing:
            raise ValueError(f"{line}: no value for {', '.join(missing)}")
        yield line, {name: row[at] for name, at in places.items() if at < len(row)}
    if places is None:
        names = ", ".join(" or ".join(names) for names in required.values())
        raise ValueError(f"{path}: no header with the columns {names}")


def number(text: str, line: Line) -> float:
    """A finite number.

    Raises:
        ValueError: With the place, if it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = "; write decimals with a point" if "," in text else ""
        raise ValueError(f"{line}: {text!r} is not a number{hint}")
    return value


class ImageFiles:
    """Image files under a folder, found by name whatever the case.

    Published archives differ in case (``I01.BMP``, ``i01_01_1.bmp``) from their own labels.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in files_below(folder):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                self._by_name.setdefault(path.name.lower(), []).append(path)
                self._by_stem.setdefault(path.stem.lower(), []).append(path)

    def find(self, name: str, line: Line) -> Path:
        """The file that a label file means, given by path or name, with or without ending.

        Raises:
            FileNotFoundError: If there is none; the message says where it was asked for.
            ValueError: If several files fit.
        """
        relative = name.replace("\\", "/")
        direct = self.folder / relative
        if direct.is_file():
            return direct
        key = relative.rsplit("/", 1)[-1].lower()
        candidates = self._by_name.get(key) or self._by_stem.get(key) or []
        if "/" in relative:
            tail = [p for p in candidates if p.as_posix().lower().endswith("/" + relative.lower())]
            candidates = tail or candidates
        if not candidates:
            raise FileNotFoundError(f"{line}: no image {name!r} under {self.folder}")
        if len(candidates) > 1:
            listed = ", ".join(str(path.relative_to(self.folder)) for path in candidates[:4])
            raise ValueError(f"{line}: several images fit {name!r}: {listed}")
        return candidates[0]

    def stems(self) -> Iterator[str]:
        """Names without ending, in lower case."""
        return iter(self._by_stem)


def child(root: Path, *names: str) -> Path:
    """A file or folder of ``root`` by any of its names, whatever the case.

    Raises:
        FileNotFoundError: If there is none.
    """
    found = find_child(root, *names)
    if found is None:
        raise FileNotFoundError(f"{root}: has no {' or '.join(names)}")
    return found


def find_child(root: Path, *names: str) -> Path | None:
    """:func:`child`, or None."""
    present = children(root)
    return next((present[n.lower()] for n in names if n.lower() in present), None)


def children(root: Path) -> dict[str, Path]:
    """What is in a folder, by names in lower case; nothing where there is no such folder."""
    return {path.name.lower(): path for path in sorted(root.iterdir())} if root.is_dir() else {}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error.reason})") from None


def _rows(path: Path, lines: Sequence[str], separator: str) -> Iterator[tuple[Line, list[str]]]:
    """Cells of each row, and the line that it ends on.

    Raises:
        ValueError: If a quotation mark is not closed: all that follows would be of one cell.
    """
    # A row more: it does not come out if the one before goes on.
    reader = csv.reader([*lines, _END], delimiter=separator)
    while True:
        begin = Line(path, reader.line_num + 1)
        try:
            cells = next(reader)
        except csv.Error as error:  # of a cell too long, most of all
            raise ValueError(f"{begin}: no row of a table ({error}); {_UNCLOSED}") from None
        if reader.line_num > len(lines):
            if cells != [_END]:
                raise ValueError(f"{begin}: the row does not end; {_UNCLOSED}")
            return
        yield Line(path, reader.line_num), cells


def _separator(path: Path, lines: Sequence[str], required: Mapping[str, Sequence[str]]) -> str:
    """The one that makes a header of some line: names of files may be full of the others."""
    for separator in ",;\t":
        with suppress(ValueError):  # a name may have a quotation mark after one of the others
            for _, row in _rows(path, lines, separator):
                if len(_columns([cell.strip() for cell in row], required)) == len(required):
                    return separator
    return ","


def _columns(header: Sequence[str], names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    lower = [cell.lower() for cell in header]
    found: dict[str, int] = {}
    for ours, accepted in names.items():
        at = next((lower.index(a.lower()) for a in accepted if a.lower() in lower), None)
        if at is not None:
            found[ours] = at
    return found
