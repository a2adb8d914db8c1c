"""``relqa maps`` on real files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from relqa_loss import CHANNELS, plotting
from relqa_loss.cli.main import main
from relqa_loss.functional import distortion_maps, relate
from relqa_loss.imageio import read_image
from relqa_loss.network import load_pretrained


def maps(*arguments: object, weights: str) -> int:
    return main(["maps", *map(str, arguments), "--weights", weights])


def test_picture_and_numbers(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference, image = photos / "reference" / "a.png", photos / "image" / "a.jpg"
    out, npz = photos / "out" / "maps.png", photos / "maps.npz"
    assert maps(reference, image, "--out", out, "--npz", npz, weights=weights) == 0
    assert Image.open(out).width > 800
    assert str(out) in capsys.readouterr().out
    with np.load(npz) as stored:
        assert tuple(stored["channels"]) == CHANNELS
        expected = distortion_maps(
            read_image(image)[None], read_image(reference)[None], weights=weights
        )
        assert torch.allclose(torch.tensor(stored["maps"]), expected[0], atol=1e-5)


def test_folders(photos: Path, weights: str) -> None:
    out = photos / "out"
    assert maps(photos / "reference", photos / "image", "--out", out, weights=weights) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg.png", "b.png.png"]


def test_its_own_pictures_are_no_images(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    folders = (photos / "reference", photos / "image")
    for reference, out in (
        (folders[0], folders[0] / "maps"),
        (folders[0], folders[1] / "maps"),
        (folders[0] / "a.png", folders[1] / "of" / "maps"),
    ):
        for _ in range(2):
            assert maps(reference, folders[1], "--out", out, "--force", weights=weights) == 0
            assert sorted(path.name for path in out.iterdir()) == ["a.jpg.png", "b.png.png"]
        shutil.rmtree(out)
    capsys.readouterr()
    for out in folders:
        assert maps(*folders, "--out", out, weights=weights) == 2
        assert f"--out {out} holds the images; choose another folder" in capsys.readouterr().err
    assert sorted(path.name for path in folders[1].iterdir() if path.is_file()) == [
        "a.jpg",
        "b.png",
    ]


def test_the_two_outputs_are_two_files(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    pair = (photos / "reference" / "a.png", photos / "image" / "a.jpg")
    out = photos / "m.png"
    assert maps(*pair, "--out", out, "--npz", photos / "." / "m.png", weights=weights) == 2
    assert "would replace the picture" in capsys.readouterr().err
    assert not out.exists()


def test_dollars_in_a_name_are_no_mathematics(photos: Path, weights: str) -> None:
    for folder in ("reference", "image"):
        (photos / folder / "b.png").rename(photos / folder / "a$^$.png")
    out = photos / "out"
    assert maps(photos / "reference", photos / "image", "--out", out, weights=weights) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a$^$.png.png", "a.jpg.png"]


def test_what_is_drawn_is_the_pair_that_was_asked_for(
    photos: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, Any, Any, dict[str, Any]]] = []

    def noting(reference: Any, image: Any, relation: Any, **options: Any) -> Any:
        drawn.append((reference, image, relation, options))
        return SimpleNamespace(savefig=lambda buffer, format: buffer.write(b"a picture"))

    monkeypatch.setattr(plotting, "plot_relation", noting)
    (photos / "image" / "b.png").unlink()
    folders = (photos / "reference", photos / "image")
    out = photos / "out"
    assert maps(*folders, "--out", out, "--channels", "tint, noise", weights=weights) == 2
    code = maps(*folders, "--out", out, "--allow-missing", "--force", weights=weights)
    assert code == 0
    long = photos / f"{'x' * 100}{'y' * 100}.png"
    (folders[0] / "a.png").rename(long)
    assert maps(long, long, "--out", photos / "long.png", weights=weights) == 0
    # A title shrinks to fit: distance and score are to be read.
    assert drawn.pop()[3]["title"].startswith(f"{'x' * 40}…{'y' * 36}.png: distance 0.0000")
    long.rename(folders[0] / "a.png")
    images = read_image(folders[1] / "a.jpg"), read_image(folders[0] / "a.png")
    expected = relate(*(image[None] for image in images), weights=weights)
    network = load_pretrained(weights)
    with torch.inference_mode():
        where = network.distance_map(*(network.encode(i[None]) for i in reversed(images)))
    for (reference, image, relation, options), channels in zip(
        drawn, (("tint", "noise"), 6), strict=True
    ):
        assert torch.equal(image, images[0])
        assert torch.equal(reference, images[1])
        torch.testing.assert_close(relation.maps, expected.maps, rtol=0, atol=1e-5)
        torch.testing.assert_close(options["distance_map"], where, rtol=1e-4, atol=1e-6)
        assert options["channels"] == channels
        assert options["title"] == (
            f"a.jpg: distance {float(expected.distance):.4f}, score "
            f"{float(expected.score):+.4f}".replace("-", "−")
        )


@pytest.mark.parametrize("channels", ["noise,ringing", "all", "1"])
def test_choice_of_channels(photos: Path, weights: str, channels: str) -> None:
    out = photos / "m.png"
    pair = (photos / "reference" / "a.png", photos / "image" / "a.jpg")
    assert maps(*pair, "--out", out, "--channels", channels, weights=weights) == 0
    rows = {"noise,ringing": 1, "all": 5, "1": 1}[channels]
    height = Image.open(out).height
    assert (height > 1200) == (rows == 5)


def test_refusals(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    reference, image = photos / "reference" / "a.png", photos / "image" / "a.jpg"
    out = photos / "out.png"
    out.write_bytes(b"precious")

    def refused(*arguments: object) -> str:
        assert maps(*arguments, weights=weights) == 2
        return str(capsys.readouterr().err)

    assert "exists" in refused(reference, image, "--out", out)
    assert out.read_bytes() == b"precious"
    assert "would replace" in refused(reference, image, "--out", reference, "--force")
    assert "end in .png" in refused(reference, image, "--out", photos / "out.pdf")
    assert "no channel named 'x'" in refused(
        reference, image, "--out", photos / "n.png", "--channels", "x"
    )
    assert "is a file" in refused(photos / "reference", photos / "image", "--out", out)
    assert "gone.png: no such file" in refused(
        reference, photos / "gone.png", "--out", photos / "n.png"
    )
    assert not (photos / "n.png").exists()
    assert maps(reference, image, "--out", out, "--force", weights=weights) == 0
    assert out.read_bytes() != b"precious"


def test_bad_files_do_not_stop_the_others(photos: Path, weights: str, capsys) -> None:  # type: ignore[no-untyped-def]
    (photos / "image" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    out = photos / "out"
    assert maps(photos / "reference", photos / "image", "--out", out, weights=weights) == 2
    assert [path.name for path in out.iterdir()] == ["b.png.png"]
    assert "a.jpg" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal that is none")
def test_words_go_to_stdout_while_a_terminal_shows_progress(photos: Path, weights: str) -> None:
    # `> words.txt`: progress is drawn on stderr, which stays the terminal.
    terminal, stderr = os.openpty()
    seen: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # how the end looks on Linux
            while content := os.read(terminal, 4096):
                seen.append(content)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    command = [sys.executable, "-m", "relqa_loss", "maps", "--weights", weights]
    files = [str(photos / name) for name in ("reference", "image")]
    done = subprocess.run(
        [*command, *files, "--out", str(photos / "out")],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(stderr)
    reader.join(10)
    os.close(terminal)
    assert done.returncode == 0
    assert b"drawing" in b"".join(seen)
    assert [line.partition(".png: ")[0] for line in done.stdout.splitlines()] == [
        str(photos / "out" / name) for name in ("a.jpg", "b.png")
    ]
