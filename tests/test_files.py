"""Writing files whole, into whatever the user named."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import fill_disk, full_at

from relqa_loss._files import files_below, write_atomically
from relqa_loss.cli._common import images_in, write_text


def test_files_are_replaced_and_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "a.txt"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    fill_disk(monkeypatch, room=1)
    with pytest.raises(OSError, match=full_at(path)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Open for reading first: a writer waits for a reader.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(str(pipe), "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(tmp_path: Path, exists: bool) -> None:
    target, link, second = tmp_path / "there" / "a.txt", tmp_path / "link", tmp_path / "second"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(target)
    second.symlink_to("link")
    write_atomically(second, b"new")
    assert target.read_bytes() == b"new"
    assert link.is_symlink()
    assert second.is_symlink()
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        write_atomically(tmp_path / "folder", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_linked_folder_has_every_name_or_one_and_circles_end(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "deep").mkdir(parents=True)
    (there / "deep" / "a.png").write_bytes(b"")
    (there / "deep" / "up").symlink_to(here)
    here.mkdir()
    # One clean set for two folders of outputs, say.
    (here / "x").symlink_to(there)
    (here / "y").symlink_to(there)
    (here / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("z.png", "b.png", "._b.png"):
        (here / name).write_bytes(b"")
    once, always = (
        [path.relative_to(here).as_posix() for path in files_below(here, every_name=every_name)]
        for every_name in (False, True)
    )
    assert once == ["b.png", "gone", "x/deep/a.png", "z.png"]
    assert always == ["b.png", "gone", "x/deep/a.png", "y/deep/a.png", "z.png"]
    assert files_below(here) == [here / name for name in once]
    assert images_in(here) == [here / name for name in always if name != "gone"]


def test_a_folder_that_may_not_be_looked_into_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"")
    look = Path.iterdir

    def refused(self: Path) -> Iterator[Path]:
        if self.name == "theirs":
            raise PermissionError(errno.EACCES, "no permission", str(self))
        return look(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert files_below(tmp_path) == [tmp_path / "mine" / "a.png"]
