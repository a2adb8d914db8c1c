"""What several sub-commands need: progress, atomic output, lists of image files."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from relqa_loss._files import encoded, files_below, write_atomically

Advance = Callable[..., None]
"""``advance(amount=1, note="")``."""


@contextmanager
def progress(label: str, total: float | None, unit: str = "") -> Iterator[Advance]:
    """A progress bar on stderr; silent where that is no terminal or Rich is missing."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _ignore
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}}{unit}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    bars = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # Lines for the terminal go above the bar; those for a file would go there, too.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
    with bars:
        task = bars.add_task(label, total=total, note="")

        def advance(amount: float = 1, note: str | None = None) -> None:
            if note is None:
                bars.update(task, advance=amount)
            else:
                bars.update(task, advance=amount, note=note)

        yield advance


def _ignore(amount: float = 1, note: str | None = None) -> None:
    pass


def write_text(target: str, text: str) -> None:
    """Write to a file, atomically, or to stdout if ``target`` is ``-``."""
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomically(Path(target), encoded(text))


def say(message: str) -> None:
    """A line on stderr."""
    print(f"relqa: {message}", file=sys.stderr)


def say_notes(file: str | Path, notes: Iterable[str]) -> None:
    """What had to be decided to read a file, a line each on stderr."""
    for note in notes:
        say(f"note: {file}: {note}")


def refuse_inputs(target: str | Path, inputs: Iterable[Path], option: str) -> None:
    """Keep an output option from replacing one of the images.

    Raises:
        ValueError: If ``target`` is one of ``inputs``.
    """
    if str(target) == "-":
        return
    resolved = Path(target).resolve()
    if any(path.resolve() == resolved for path in inputs):
        raise ValueError(f"{option} {target} would replace one of the images; choose another name")


def check_target(target: str, option: str) -> None:
    """Find out before the work that a file cannot be written, and make its folder.

    Raises:
        ValueError: If ``target`` is a folder.
        OSError: If its folder cannot be made or written to.
    """
    if target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise ValueError(f"{option} {target} is a folder; give the file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, f"no permission to write {option} to", str(path.parent))


def empty_folder(folder: Path, force: bool) -> None:
    """Make ``folder``, or check that it is empty.

    Raises:
        ValueError: If it has contents and ``force`` is not given, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ValueError(f"{folder} is not empty; choose another folder or give --force")
    folder.mkdir(parents=True, exist_ok=True)


def images_in(folder: Path, out: Path | None = None) -> list[Path]:
    """Image files under a folder and those that it links to, sorted; hidden ones are left out.

    So are those under ``out``, if that is a folder within: pictures of an earlier run.
    """
    from relqa_loss.imageio import IMAGE_SUFFIXES

    images = [
        path
        # One clean set may be linked for two folders of outputs.
        for path in files_below(folder, every_name=True)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
    if out is None or not (target := out.resolve()).is_relative_to(folder.resolve()):
        return images
    return [path for path in images if target not in path.resolve().parents]


def add_missing_option(parser: argparse.ArgumentParser) -> None:
    """The option of commands that match folders by name."""
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="references without an image are no error (folders)",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """``--weights`` and ``--device``."""
    parser.add_argument(
        "--weights",
        default="relqa-base",
        metavar="NAME|PATH",
        help="shipped weights, or a .safetensors file (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, mps or auto (default: %(default)s)"
    )


def resolve_device(name: str) -> str:
    """``auto`` → what is there.

    Raises:
        ValueError: If the device does not exist here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available: {error}") from error
    return name


def columns_of(rows: list[list[str]], align: str) -> str:
    """Rows as aligned text; ``align`` has one of ``<>`` per column, the last column may be long."""
    # A file's name may have line breaks in it; a row is to stay one line.
    rows = [["\\n".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def terminal_width() -> int:
    """Columns of the terminal, or 0 where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
