"""Disks that are full."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest


def fill_disk(monkeypatch: pytest.MonkeyPatch, *, room: int) -> None:
    """From now on files take so many bytes and no more."""
    whole = Path.write_bytes

    def cut_short(self: Path, content: bytes) -> int:
        whole(self, content[:room])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Path, "write_bytes", cut_short)


def full_at(path: Path) -> str:
    """The pattern of an error that names the file for which there was no room."""
    return f"no space left: {re.escape(repr(str(path)))}"
