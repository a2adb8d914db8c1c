"""What holds for every command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import relqa_loss
from relqa_loss.cli import score
from relqa_loss.cli.main import main


def test_version_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from relqa_loss.cli.main import build_parser\n"
        "build_parser().format_help()\n"
        "print([n for n in ('PIL', 'matplotlib', 'rich', 'skimage') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert relqa_loss.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        ("train", "--steps STEPS", "6000"),
        ("train", "--seed SEED", "0"),
        ("train", "--pool-folder POOL_FOLDER", "runs/pool"),
        ("evaluate", "--out DIR", "relqa-evaluation"),
        ("engine sheet", "--out PNG", "sheet.png"),
        ("select", "--out DIR", "relqa-select"),
        ("export", "--weights WEIGHTS", "relqa-base"),
    ],
)
def test_help_names_defaults(
    command: str, option: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    # From the option's own line to the next one's.
    own = said.split(f" {option} ")[-1].split(" --")[0]
    assert own.count(f"default: {default}") == 1


def test_options_that_help_leaves_out_stay_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    said = capsys.readouterr().out
    assert "SUPPRESS" not in said
    assert "--crop" not in said


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("wrong\nvalue"), 2, "relqa: error: wrong value"),
        (ImportError("pip install 'relqa-loss[demo]'"), 2, "relqa-loss[demo]"),
        (OSError("disk full"), 2, "disk full"),
        (RuntimeError("CUDA out of memory"), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(score, "run", fail)
    assert main(["score", "a.png", "b.png"]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(score, "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["score", "a.png", "b.png"])


def test_no_command_is_an_error() -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


def test_help_is_shown_whatever_the_terminal_can() -> None:
    # As a code page of Windows, or LC_ALL of a locale without them, lacks × and others.
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ways = ("relqa_loss", "relqa_loss.cli.main", "relqa_loss")
    for module, command in zip(ways, ("score", "evaluate", "export"), strict=True):
        done = subprocess.run(
            [sys.executable, "-m", module, command, "--help"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert f"usage: relqa {command}" in done.stdout


def test_a_reader_that_has_gone_is_no_complaint_at_exit() -> None:
    # Few lines stay in the buffer of a pipe until the end.
    read, write = os.pipe()
    os.close(read)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "relqa_loss", "engine", "list", "--channel", "tint"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
