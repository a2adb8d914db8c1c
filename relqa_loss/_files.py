"""Finding files, and writing them so that a crash leaves the old one or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def encoded(text: str) -> bytes:
    """Text in UTF-8, with ``\\udcXX`` for each byte of a file name that is not.

    Python keeps such bytes as lone surrogates, which UTF-8 does not take; to JSON, the escape means
    the same.
    """
    return text.encode("utf-8", "backslashreplace")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none; the folder is made if need be.

    Pipes and devices are written to, and links are followed: a file takes the place of another file
    only.

    Raises:
        OSError: If it cannot be written; the one before is still there, and nothing beside it.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    if path.is_symlink():
        # Not Path.resolve, which raises an error of its own for links in a circle.
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk names no file
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def folders_below(folder: Path, *, every_name: bool = False) -> Iterator[Path]:
    """A folder and all below it but hidden ones; linked ones are followed, but not in circles.

    Args:
        folder: Where to begin.
        every_name: Whether a folder is given under each of its names; once by default.
    """
    seen: set[str] = set()
    # Links come last, so that a folder that is there itself goes by its own name.
    own, linked = [(folder, frozenset[str]())], list[tuple[Path, frozenset[str]]]()
    while own or linked:
        here, above = (own or linked).pop(0)
        real = os.path.realpath(here)
        if real in (above if every_name else seen):
            continue
        seen.add(real)
        yield here
        for path in _within(here):
            if path.is_dir():
                (linked if path.is_symlink() else own).append((path, above | {real}))


def files_below(folder: Path, *, every_name: bool = False) -> list[Path]:
    """Files in :func:`folders_below`, sorted, but hidden ones: Macs leave a ``._NAME`` by each."""
    folders = folders_below(folder, every_name=every_name)
    return sorted(path for here in folders for path in _within(here) if not path.is_dir())


def _within(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, sorted; nothing where there is no permission to look."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError:
        return []
