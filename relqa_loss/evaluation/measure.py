"""What every metric says about every image of a data set, kept as it goes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from relqa_loss._files import encoded, write_atomically
from relqa_loss.evaluation.contenders import Contender
from relqa_loss.evaluation.datasets.records import OpinionDataset
from relqa_loss.imageio import load_image

VALUES, SETTINGS = "values.csv", "settings.json"
_PART = "values.part-{}.csv"
_LONGEST = 1000
"""Characters of an error that are kept: a metric may print images, and CSV files have limits."""
_FIELDS = ("number", "reference", "image", "second", "opinion", "type")


@dataclass(frozen=True)
class Item:
    """A rated pair or a comparison, by its number in the data set."""

    number: int
    reference: Path
    images: tuple[Path, ...]
    """One, or the two of a comparison."""
    opinion: float
    type: str


@dataclass(frozen=True)
class Measured:
    """An item and the values of all metrics, or why there are none."""

    item: Item
    values: dict[str, tuple[float, ...]]
    """Metric → a value per image; empty if there is an error."""
    error: str = ""


def items_of(dataset: OpinionDataset) -> list[Item]:
    """Pairs or comparisons in their order."""
    rated = [(p.reference, (p.distorted,), p.score, p.type) for p in dataset.pairs]
    compared = [
        (c.reference, (c.first, c.second), c.preference, c.type) for c in dataset.comparisons
    ]
    return [Item(number, *record) for number, record in enumerate([*rated, *compared])]


def measure(
    items: Sequence[Item],
    contenders: Sequence[Contender],
    short_side: int | None = None,
    on_note: Callable[[Path, str], None] | None = None,
) -> Iterator[Measured]:
    """Values of all metrics, item by item.

    An item that one metric cannot judge is left out for all of them, so that they are compared on
    the same images.

    Args:
        items: Read from disk here; those that follow each other on one reference share it.
        contenders: The metrics.
        short_side: Images with a longer short side are reduced to it first; None: never.
        on_note: Told what had to be decided to read a file, each time that it is read.

    Yields:
        An answer per item; unreadable images become errors in words.
    """
    last: tuple[Path, Tensor] | None = None
    for item in items:
        try:
            if last is None or last[0] != item.reference:
                last = item.reference, _load(item.reference, short_side, on_note)
            reference = last[1]
            images = [_load(path, short_side, on_note) for path in item.images]
            for path, image in zip(item.images, images, strict=True):
                if image.shape != reference.shape:
                    raise ValueError(
                        f"{path} is {image.shape[-1]}×{image.shape[-2]}, but its reference "
                        f"{item.reference} is {reference.shape[-1]}×{reference.shape[-2]}"
                    )
            values = {c.spec: tuple(c(image, reference) for image in images) for c in contenders}
        except (ValueError, OSError, MemoryError) as error:
            text = " ".join((str(error) or type(error).__name__).split())
            yield Measured(item, {}, text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …")
        else:
            yield Measured(item, values)


class Notebook:
    """A folder with the values found so far, one line each, that survives being killed.

    Every process appends to a part of its own; :meth:`close` joins them.

    Args:
        folder: Made if need be.
        settings: What decides the values; a folder with other settings is refused.
        items: All of the data set.
        specs: Names of the metrics.
        resume: Go on with what is there. Otherwise the folder must not hold values.

    Raises:
        ValueError: If the folder holds values and ``resume`` is not given, or values that were
            found with other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, object],
        items: Sequence[Item],
        specs: Sequence[str],
        *,
        resume: bool = False,
    ) -> None:
        self.folder, self.items, self.specs = folder, items, specs
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file, not a folder")
        self.settings = json.loads(json.dumps(settings))
        self._check(resume)
        self.done = {m.item.number: m for path in self._files() for m in self._read(path)}

    def start(self) -> None:
        """Write the settings, for one process of several to do."""
        write_atomically(
            self.folder / SETTINGS,
            encoded(json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n"),
        )

    def todo(self, rank: int = 0, world: int = 1) -> list[Item]:
        """What is still to be measured, by one of several processes.

        Items with errors come again: the image may have been repaired.
        """
        left = [i for i in self.items if i.number not in self.done or self.done[i.number].error]
        # Neighbours share a reference: runs rather than every second one.
        return left[rank * len(left) // world : (rank + 1) * len(left) // world]

    def keep(
        self,
        measured: Iterator[Measured],
        rank: int = 0,
        progress: Callable[[Measured], None] | None = None,
    ) -> None:
        """Append answers as they come; each is on disk before the next is begun."""
        path = self.folder / _PART.format(rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_with_whole_line(path)
        with path.open("ab") as stream:
            if stream.tell() == 0:
                stream.write(encoded(_line(self._header())))
                stream.flush()
            for one in measured:
                stream.write(encoded(_line(self._row(one))))
                stream.flush()
                self.done[one.item.number] = one
                if progress is not None:
                    progress(one)

    def close(self) -> list[Measured]:
        """Join all parts into ``values.csv``, in the data set's order, and return its rows.

        Raises:
            ValueError: If parts are missing, as where a process wrote to a folder of its own.
        """
        for path in self._files():
            for one in self._read(path):
                known = self.done.get(one.item.number)
                if known is None or known.error:
                    self.done[one.item.number] = one
        if len(self.done) < len(self.items):
            raise ValueError(
                f"{self.folder} has values of {len(self.done)} of {len(self.items)} images only; "
                "give a folder that all processes see, and go on with --resume"
            )
        rows = [self.done[number] for number in sorted(self.done)]
        text = _line(self._header()) + "".join(_line(self._row(row)) for row in rows)
        write_atomically(self.folder / VALUES, encoded(text))
        for path in self.folder.glob(_PART.format("*")):
            path.unlink()
        return rows

    def _check(self, resume: bool) -> None:
        record = self.folder / SETTINGS
        if not self._files():
            return
        if not resume:
            raise ValueError(f"{self.folder} has values; go on with --resume, or choose another")
        try:
            before = json.loads(record.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{record}: cannot be read ({error}); choose another folder") from None
        wrong = [name for name, value in self.settings.items() if before.get(name) != value]
        if wrong:
            first = wrong[0]
            raise ValueError(
                f"{self.folder} was made with other settings: {first} was {before.get(first)!r}, "
                f"now {self.settings[first]!r}; choose another folder"
            )

    def _files(self) -> list[Path]:
        """Finished values first: parts hold what came later."""
        found = sorted(self.folder.glob(_PART.format("*")))
        whole = self.folder / VALUES
        return [whole, *found] if whole.exists() else found

    def _columns(self) -> list[tuple[str, int]]:
        images = len(self.items[0].images)
        return [(spec, k) for spec in self.specs for k in range(images)]

    def _header(self) -> list[str]:
        names = [spec if k == 0 else f"{spec} (second)" for spec, k in self._columns()]
        return [*_FIELDS, *names, "error"]

    def _row(self, one: Measured) -> list[str]:
        item = one.item
        second = str(item.images[1]) if len(item.images) > 1 else ""
        values = [repr(one.values[s][k]) if one.values else "" for s, k in self._columns()]
        fixed = [str(item.number), str(item.reference), str(item.images[0]), second]
        return [*fixed, repr(item.opinion), item.type, *values, one.error]

    def _read(self, path: Path) -> Iterator[Measured]:
        text = path.read_text("utf-8", errors="replace")
        # What follows the last line break was being written when the run was killed.
        whole = text[: text.rfind("\n") + 1]
        rows = csv.reader(io.StringIO(whole))
        header = next(rows, None)
        if header is None:
            return
        if header != self._header():
            raise ValueError(
                f"{path}: its columns are not those of this run; choose another folder"
            )
        for row in rows:
            try:
                item = self.items[int(row[0])]
                found = dict(zip(self._columns(), row[len(_FIELDS) : -1], strict=True))
                values: dict[str, tuple[float, ...]] = {}
                if not row[-1]:
                    values = {
                        spec: tuple(float(found[spec, k]) for k in range(len(item.images)))
                        for spec in self.specs
                    }
            except (ValueError, IndexError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: damaged ({error})") from None
            yield Measured(item, values, row[-1])


def _end_with_whole_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _load(
    path: Path, short_side: int | None, on_note: Callable[[Path, str], None] | None
) -> Tensor:
    image, notes = load_image(path)
    if on_note is not None:
        for note in notes:
            on_note(path, note)
    side = min(image.shape[-2:])
    if short_side is None or side <= short_side:
        return image
    size = [round(n * short_side / side) for n in image.shape[-2:]]
    small = F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)
    return small[0].clamp(0, 1)
