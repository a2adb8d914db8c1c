"""Folders of outputs as candidates: names, matching with references, and measuring on the way."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_DIGITS = re.compile(r"(\d+)")


class Job(NamedTuple):
    """One reference and the outputs of all candidates that have one for it."""

    key: str
    """Path of the reference inside its folder."""
    reference: Path
    images: Mapping[str, Path]
    """Candidate to file."""


class Row(NamedTuple):
    """What became of one output."""

    candidate: str
    key: str
    image: str
    weights: str
    stamp: tuple[int, ...]
    """Size and time of both files, so that a changed file is measured again."""
    distance: float = 0.0
    score: float = 0.0
    pixel_error: float = 0.0
    """Mean absolute difference of the pixels, of images in [0, 1]."""
    signed: tuple[float, ...] = ()
    absolute: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    """On how the files were read, such as transparency that was composited on grey."""
    error: str | None = None


def natural_key(text: str) -> tuple[tuple[bool, int, str], ...]:
    """To sort ``step-200`` before ``step-1000``.

    Example:
        >>> from relqa_loss.selection.folders import natural_key
        >>> sorted(["step-1000", "step-200", "last"], key=natural_key)
        ['last', 'step-200', 'step-1000']
    """
    parts = (part for part in _DIGITS.split(text) if part)
    return tuple(
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts
    )


def name_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """Short names by what differs between the paths, in natural order.

    Raises:
        ValueError: If a folder is given twice or is none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from relqa_loss.selection.folders import name_folders
        >>> run = Path(tempfile.mkdtemp())
        >>> folders = [run / step / "outputs" for step in ("step-10", "step-9")]
        >>> for folder in folders:
        ...     folder.mkdir(parents=True)
        >>> list(name_folders(folders))
        ['step-9', 'step-10']
    """
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if not path.is_dir():
            raise ValueError(f"candidate {folder} is not a folder")
        if resolved.count(path) > 1:
            raise ValueError(f"candidate {folder} is given more than once")
    names = [path.name for path in resolved]
    if len(folders) > 1:
        parts = [path.parts for path in resolved]
        shortest = min(map(len, parts))
        head = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), shortest)
        tail = next(
            (i for i in range(shortest - head) if len({p[-1 - i] for p in parts}) > 1),
            shortest - head,
        )
        cut = ["/".join(p[head : len(p) - tail]) for p in parts]
        # A folder inside another one leaves nothing of the outer one's path.
        names = cut if all(cut) and len(set(cut)) == len(cut) else [str(p) for p in resolved]
    return dict(sorted(zip(names, folders, strict=True), key=lambda item: natural_key(item[0])))


def stamp(*paths: Path) -> tuple[int, ...]:
    """Size and time of modification of files; −1 for those that cannot be looked at."""
    numbers: list[int] = []
    for path in paths:
        try:
            status = path.stat()
            numbers += (status.st_size, status.st_mtime_ns)
        except OSError:
            numbers += (-1, -1)
    return tuple(numbers)


class RowFile:
    """Rows on disk, a line each, so that a run that was stopped can go on.

    Args:
        path: Of this process; rows of others lie beside it as ``<stem>*<suffix>``.

    Raises:
        OSError: If it cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # a line that was cut off stays on its own

    def add(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps(row._asdict()) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(paths: Iterable[Path]) -> Iterator[Row]:
    """Rows without an error; lines that were cut off, or are of another kind, are skipped."""
    for path in paths:
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                record: Any = json.loads(line)
                if set(record) != set(Row._fields):
                    continue
                row = Row(**record)
                row = row._replace(
                    stamp=tuple(row.stamp),
                    signed=tuple(row.signed),
                    absolute=tuple(row.absolute),
                    notes=tuple(row.notes),
                )
            except (TypeError, ValueError):
                continue
            if row.error is None:
                yield row


def remaining(
    jobs: Sequence[Job], done: Iterable[Row], weights: str
) -> tuple[list[Job], list[Row]]:
    """Jobs that are left, and rows that still hold: same files, same weights."""
    rows = {(row.candidate, row.key): row for row in done if row.weights == weights}
    left: list[Job] = []
    valid: list[Row] = []
    for job in jobs:
        missing: dict[str, Path] = {}
        for name, image in job.images.items():
            row = rows.get((name, job.key))
            same = row is not None and row.image == str(image)
            if row is not None and same and row.stamp == stamp(job.reference, image):
                valid.append(row)
            else:
                missing[name] = image
        if missing:
            left.append(job._replace(images=missing))
    return left, valid


Measure = Callable[[Job], list[Row]]


class PoolMeasure:
    """Measures jobs in processes of their own.

    Args:
        make: Makes the measuring function inside a process; must be picklable.
        processes: How many.
    """

    def __init__(self, make: Callable[[], Measure], processes: int) -> None:
        self._make, self._processes = make, processes

    def __call__(self, jobs: Sequence[Job]) -> Iterator[list[Row]]:
        """Results as they come in, in any order.

        Raises:
            OSError: If a process dies.
        """
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import get_context

        threads = max(1, (os.cpu_count() or 1) // self._processes)
        pool = ProcessPoolExecutor(
            self._processes,
            # A forked process would inherit the locks of PyTorch's threads.
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._make, threads),
        )
        try:
            for future in as_completed([pool.submit(_work, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died, perhaps for lack of memory: use fewer --processes; what "
                "was measured is kept for --resume"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_measure: Measure | None = None


def _start_worker(make: Callable[[], Measure], threads: int) -> None:
    import signal

    import torch

    from relqa_loss._workers import end_with_parent

    global _measure
    end_with_parent()
    # An interrupt reaches all processes; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _measure = make()


def _work(job: Job) -> list[Row]:
    if _measure is None:
        raise RuntimeError("the worker was not started")
    return _measure(job)
