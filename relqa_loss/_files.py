"""Writing files so that a crash at any moment leaves the old one or the new one."""

from __future__ import annotations

import os
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
    finally:
        temporary.unlink(missing_ok=True)
