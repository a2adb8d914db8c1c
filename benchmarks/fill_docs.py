"""Put the tables that the benchmarks wrote where the documentation shows them.

    python benchmarks/fill_docs.py --figures runs/figures [--docs docs]

A place in a Markdown file of ``--docs`` looks like this::

    <!-- measured: restoration / denoiser / 2 -->
    …
    <!-- measured end -->

and is given the second table under the heading of ``restoration.md`` that starts with "denoiser".
Without a number it is the first table, without a heading what stands before all headings. Places
whose file is not in ``--figures`` stay as they are, and are named. The README's table of gains is
made from what ``recipes.md`` shows then.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from _common import PLACE
from _gains import with_gains

from relqa_loss._files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
BEGINS, ENDS = "<!-- measured: ", "<!-- measured end -->"


class Missing(Exception):
    """No such file of figures."""


def sections(text: str) -> list[tuple[str, str]]:
    """Headings and what stands below each, up to the next one; ``""`` for what comes first."""
    parts = re.split(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return [
        (heading.strip(), body.strip())
        for heading, body in zip(("", *parts[1::2]), parts[::2], strict=True)
    ]


def tables(text: str) -> list[str]:
    """The tables of a text."""
    return [table.strip() for table in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)]


def looked_up(what: str, figures: Path) -> str:
    """What a place asks for.

    Raises:
        Missing: If there is no such file.
        ValueError: If the file has no such heading, several of them, not as many tables, or nothing
            before all headings.
    """
    file, heading, number = ([part.strip() for part in what.split(" / ")] + ["", ""])[:3]
    path = figures / f"{file}.md"
    if not path.is_file():
        raise Missing(path)
    found = sections(path.read_text("utf-8"))
    if not heading:
        if not found[0][1]:
            raise ValueError(f"{path} has nothing before its first heading")
        return found[0][1]
    matching = [body for title, body in found if title.startswith(heading)]
    if len(matching) != 1:
        raise ValueError(f"{path} has {len(matching)} headings that start with {heading!r}")
    among = tables(matching[0])
    index = int(number or 1)
    if not 1 <= index <= len(among):
        raise ValueError(f"{path}, {heading!r}: table {index} of {len(among)}")
    return among[index - 1]


def filled(text: str, figures: Path, missing: list[str]) -> str:
    """A document with its places filled; those without a file are added to ``missing``.

    Raises:
        ValueError: If a place has no end, and would reach to that of the next one.
    """
    places = PLACE.findall(text)
    if not len(places) == text.count(BEGINS) == text.count(ENDS):
        raise ValueError(f"a place lacks its end, or an end its place: {BEGINS}… {ENDS}")

    def replace(place: re.Match[str]) -> str:
        try:
            content = looked_up(place["what"], figures)
        except Missing:
            missing.append(place["what"])
            return place[0]
        return f"{place['begin']}\n{content}\n\n{place['end']}"

    return PLACE.sub(replace, text)


def documents(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*.md")):
        text = path.read_text("utf-8")
        if BEGINS in text or ENDS in text:
            yield path


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--figures", type=Path, required=True, help="folder of the .md files")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args()
    for path in documents(arguments.docs):
        missing: list[str] = []
        try:
            text = filled(path.read_text("utf-8"), arguments.figures, missing)
        except ValueError as error:
            parser.error(f"{path.name}: {error}")
        write_atomically(path, text.encode())
        left = f", left as they were: {', '.join(missing)}" if missing else ""
        sys.stdout.write(f"{path.name}{left}\n")
    recipes = arguments.docs / "recipes.md"
    if recipes.is_file():
        readme = with_gains(arguments.readme.read_text("utf-8"), recipes.read_text("utf-8"))
        write_atomically(arguments.readme, readme.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
