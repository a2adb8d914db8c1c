"""``relqa demo``: the main job in a minute."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from relqa_loss.cli._common import progress, resolve_device

if TYPE_CHECKING:
    from relqa_loss.demo import Validation

_CHECKPOINT = "best.safetensors"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "demo",
        help="train a small restorer with the loss, choose it by the metric, write a report",
        description="On scikit-image's bundled photographs (nothing is downloaded), train a small "
        "denoiser-deblurrer with RelationalLoss, validate with RelationalDistance, keep the "
        "checkpoint that it prefers, and write a report with signed maps.",
    )
    parser.add_argument("--out", type=Path, default=Path("relqa-demo"), metavar="DIR")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="length of the training (default: 60)"
    )
    parser.add_argument(
        "--steps", type=int, help="train for so many steps instead: repeatable to the last bit"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps or auto (default: %(default)s)"
    )
    parser.add_argument("--weights", default="relqa-base", metavar="NAME|PATH")
    parser.add_argument("--force", action="store_true", help="replace an existing report")
    # For tests: a smaller training.
    parser.add_argument("--crop", type=int, default=96, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=8, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from relqa_loss.demo import DemoConfig, load_photographs, train_restorer, write_report
    from relqa_loss.demo.report import REPORT
    from relqa_loss.network import find_weights

    config = DemoConfig(
        seconds=arguments.seconds,
        steps=arguments.steps,
        batch=arguments.batch,
        crop=arguments.crop,
        seed=arguments.seed,
        device=resolve_device(arguments.device),
        weights=arguments.weights,
    )
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder")
    existing = [name for name in (REPORT, _CHECKPOINT) if (out / name).exists()]
    if existing and not arguments.force:
        raise ValueError(f"{out / existing[0]} exists; choose another --out or give --force")
    find_weights(arguments.weights)  # before what is there goes
    photographs = load_photographs()
    out.mkdir(parents=True, exist_ok=True)
    (out / _CHECKPOINT).unlink(missing_ok=True)

    best: list[Validation] = []
    before = [0.0]
    total = float(config.steps) if config.steps is not None else config.seconds
    unit = " steps" if config.steps is not None else " s"
    with progress("training", total, unit) as advance:

        def on_progress(done: float, validation: Validation | None) -> None:
            note = None
            if validation is not None:
                if not best or validation.distance < best[0].distance:
                    best[:] = [validation]
                note = (
                    f"distance {validation.distance:.3f} (best {best[0].distance:.3f} at step "
                    f"{best[0].step}), PSNR {validation.psnr:.1f} dB"
                )
            advance((done - before[0]) * total, note=note)
            before[0] = done

        result = train_restorer(photographs, config, out / _CHECKPOINT, on_progress)
    report, summary = write_report(result, photographs, out, command=_command(arguments))
    print(summary)
    print(f"report: {report.resolve()}")
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """The command line, written out in full: it does not depend on how Python was started."""
    words = ["relqa", "demo", "--out", str(arguments.out)]
    if arguments.steps is not None:
        words += ["--steps", str(arguments.steps)]
    else:
        words += ["--seconds", f"{arguments.seconds:g}"]
    words += ["--seed", str(arguments.seed), "--device", arguments.device]
    if arguments.weights != "relqa-base":
        words += ["--weights", arguments.weights]
    for option, default in (("crop", 96), ("batch", 8)):
        if getattr(arguments, option) != default:
            words += [f"--{option}", str(getattr(arguments, option))]
    if arguments.force:
        words.append("--force")
    return shlex.join(words)
