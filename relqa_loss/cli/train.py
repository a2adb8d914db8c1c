"""``relqa train``: train a parity network on a folder of photographs."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on a folder of photographs",
        description="Train a parity network. Settings decide a run completely: the same command "
        "gives the same weights on the same machine. A run that was stopped goes on with --resume.",
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument("--steps", type=int, default=6000, help="length of the schedule")
    parser.add_argument("--sets", type=int, default=3072, help="ranked sets in the pool")
    parser.add_argument("--validation-sets", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4, help="sets per step and process")
    parser.add_argument(
        "--unjudged-sets",
        type=int,
        default=0,
        help="further sets without panel, for maps and --teacher",
    )
    parser.add_argument("--unjudged-batch", type=int, default=0, help="of these per step")
    parser.add_argument(
        "--fact-sets", type=int, default=0, help="sets of pairs of known order, for the distance"
    )
    parser.add_argument("--fact-batch", type=int, default=0, help="of these per step")
    parser.add_argument("--crop", type=int, default=160, help="crop side in pixels")
    parser.add_argument(
        "--window", type=int, help="side of the maps' pairs in pixels (96, or a smaller crop)"
    )
    parser.add_argument(
        "--luma-share",
        type=float,
        default=0.0,
        help="share of the sets of single distortions that change luma alone, for the maps",
    )
    parser.add_argument(
        "--grey-share",
        type=float,
        default=0.0,
        help="share of the sets of single distortions that are grey, for the maps",
    )
    parser.add_argument(
        "--two-outputs",
        action="store_true",
        help="the score learns from the distance which of two distorted versions is the better one",
    )
    parser.add_argument(
        "--half-maps",
        action="store_true",
        help="learn the maps in bfloat16: faster where the processor knows that format",
    )
    parser.add_argument(
        "--learn",
        choices=("both", "maps", "distance"),
        default="both",
        help="what to learn; the rest keeps the weights of --initial",
    )
    parser.add_argument(
        "--rank-by",
        choices=("list", "pairs"),
        default="list",
        help="how distances learn the panel's order of a batch",
    )
    parser.add_argument(
        "--network",
        choices=("base", "nano"),
        default="base",
        help="which distance: that of relqa-base, or the smaller one of relqa-nano",
    )
    parser.add_argument(
        "--teacher", help="weights whose distances are learned as well (name or path)"
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--floor", type=float, default=None, help="weight of the plain error in the distance"
    )
    parser.add_argument("--validate-every", type=int, default=250, help="steps")
    parser.add_argument("--exclude", nargs="*", default=[], help="operators not to train on")
    parser.add_argument(
        "--hold-out",
        action="store_true",
        help="leave out the held-out operators (for measuring, not for shipping)",
    )
    parser.add_argument("--initial", help="weights to start from (name or path)")
    parser.add_argument(
        "--minutes", type=float, help="stop after training for this long; go on with --resume"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run that writes --out")
    parser.add_argument("--pool-folder", type=Path, default=Path("runs/pool"))
    parser.add_argument("--workers", type=int, default=2, help="processes that fill the pool")
    parser.add_argument("--logs", type=Path, help="folder for TensorBoard")
    parser.add_argument("--accelerator", default="auto", help="as in Lightning Fabric")
    parser.add_argument("--devices", default="1", help="as in Lightning Fabric")
    parser.add_argument("--nodes", type=int, default=1)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
    except ImportError as error:
        raise ImportError(
            "relqa train needs Rich, which is not installed: pip install 'relqa-loss[train]'"
        ) from error

    from relqa_loss.cli._common import check_target
    from relqa_loss.network.config import NetworkConfig
    from relqa_loss.training.config import TrainConfig
    from relqa_loss.training.loop import Progress, train

    network = getattr(NetworkConfig, arguments.network)()
    if arguments.floor is not None:
        network = replace(network, floor=arguments.floor)
    config = TrainConfig(
        steps=arguments.steps,
        sets=arguments.sets,
        validation_sets=arguments.validation_sets,
        batch=arguments.batch,
        unjudged_sets=arguments.unjudged_sets,
        unjudged_batch=arguments.unjudged_batch,
        fact_sets=arguments.fact_sets,
        fact_batch=arguments.fact_batch,
        crop=arguments.crop,
        window=min(96, arguments.crop) if arguments.window is None else arguments.window,
        luma_share=arguments.luma_share,
        grey_share=arguments.grey_share,
        half_maps=arguments.half_maps,
        two_outputs=arguments.two_outputs,
        learn=arguments.learn,
        rank_by=arguments.rank_by,
        teacher=arguments.teacher,
        rate=arguments.rate,
        seed=arguments.seed,
        exclude=tuple(arguments.exclude),
        hold_out=arguments.hold_out,
        validate_every=arguments.validate_every,
        network=network,
    )
    check_target(str(arguments.out), "--out")  # not after hours of making a pool
    console = Console(stderr=True)
    # Paths are taken literally, and lines of a log stay whole, which Rich would break at 80.
    tell = partial(console.print, markup=False, emoji=False, highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, int] = {}

        def update(name: str, done: int, total: int, note: str = "") -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, note="")
            bars.update(tasks[name], completed=done, total=total, note=note)  # type: ignore[arg-type]

        def on_step(step: int, steps: int, losses: Mapping[str, float]) -> None:
            note = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            update("training", step, steps, note)

        def on_validation(step: int, figures: Mapping[str, float]) -> None:
            text = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            tell(f"step {step}: {text}")

        result = train(
            arguments.photos,
            arguments.out,
            config,
            pool_folder=arguments.pool_folder,
            workers=arguments.workers,
            minutes=arguments.minutes,
            resume=arguments.resume,
            initial=arguments.initial,
            logs=arguments.logs,
            accelerator=arguments.accelerator,
            devices=_devices(arguments.devices),
            nodes=arguments.nodes,
            command=shlex.join(["relqa", *sys.argv[1:]]),
            commit=_commit(),
            progress=Progress(
                pool=lambda split, done, total: update(f"pool ({split})", done, total),
                step=on_step,
                validation=on_validation,
            ),
        )
    if result.record is not None:
        state = (
            "finished" if result.finished else f"stopped at step {result.step}, --resume goes on"
        )
        tell(f"{state}: {result.record.path} ({result.record.version})")
        if result.pace.seconds_per_step is not None:
            tell(
                f"{result.pace.seconds_per_step:.3f} seconds a step, {result.pace.waiting:.1%} of "
                "them waiting for data"
            )
    return 0


def _devices(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def _commit() -> str:
    """The commit of the working tree, with ``+`` if it has changes; empty outside a checkout."""
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    # An environment may lie within the user's own repository, whose commit says nothing of this.
    ours = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
    describe = [*git, "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        subprocess.run(ours, capture_output=True, check=True)
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
