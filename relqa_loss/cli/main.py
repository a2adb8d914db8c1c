"""The ``relqa`` command."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from relqa_loss._version import __version__

# Each module has ``add_parser(subparsers)`` and imports anything heavy inside its handler only,
# so that ``relqa --help`` is quick.
_COMMANDS = (
    "score",
    "maps",
    "select",
    "evaluate",
    "calibrate",
    "engine",
    "export",
    "demo",
    "train",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every sub-command."""
    parser = argparse.ArgumentParser(
        prog="relqa",
        description="Relational image quality: what changed between two images, where, how much, "
        "and which is better.",
        epilog="Exit codes: 0 fine, 2 something could not be done (a sentence says what), "
        "130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"relqa {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        importlib.import_module(f"relqa_loss.cli.{name}").add_parser(subparsers)
    _name_defaults(parser)
    return parser


def _name_defaults(parser: argparse.ArgumentParser) -> None:
    """Add an option's default to its help, where that does not say it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _name_defaults(each)
            continue
        default, text = action.default, action.help or ""
        # Not by "in": a seed of 0 is a default.
        none = default is None or default is False or default in ([], argparse.SUPPRESS)
        hidden = text == argparse.SUPPRESS
        if action.option_strings and not none and not hidden and "default:" not in text:
            shown = " ".join(default) if isinstance(default, (list, tuple)) else "%(default)s"
            action.help = f"{text} (default: {shown})".lstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments without the program's name; those of the process by default.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A file name that the terminal cannot show must not cost what was found, nor × the help.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        print(end="", flush=True)  # a reader that has gone is found out here, not at exit
        return code
    except KeyboardInterrupt:
        print("relqa: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has gone; do not let the interpreter's last flush complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, ImportError, OSError, MemoryError) as error:
        return _fail(error)
    except RuntimeError as error:
        # Torch reports a lack of memory, or of a device, in this way.
        text = str(error).lower()
        if any(sign in text for sign in ("memory", "cuda", "mps", "device")):
            return _fail(error)
        raise


def _fail(error: BaseException) -> int:
    if os.environ.get("RELQA_DEBUG"):
        raise error
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"relqa: error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":  # as it was before ``python -m relqa_loss``: not to succeed in silence
    sys.exit(main())
