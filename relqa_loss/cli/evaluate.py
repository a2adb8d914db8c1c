"""``relqa evaluate``: metrics against human opinions."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relqa_loss._version import __version__
from relqa_loss.cli._common import (
    add_network_options,
    columns_of,
    progress,
    resolve_device,
    say,
    say_notes,
    write_text,
)
from relqa_loss.cli._group import process_group

if TYPE_CHECKING:
    from relqa_loss.evaluation.contenders import Contender
    from relqa_loss.evaluation.measure import Item, Measured

_FIGURES, _REPORT = "figures.json", "report.html"
_NAMED = 10  # images that could not be used, and notes, on the terminal


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="how well metrics agree with human opinions",
        description="Run metrics over a data set of human opinions and write their agreement with "
        "bootstrap intervals, overall and by distortion type: values.csv, figures.json and "
        "report.html. A run that was stopped goes on with --resume. An image that cannot be used "
        "is named, left out for every metric, and the exit code is 2. Under torchrun the images "
        "are shared among the processes.",
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder, or CSV file")
    parser.add_argument(
        "--kind",
        help="layout (tid2013, tid2008, kadid10k, csiq, live, pipal, toyama, vclfer, cid22, bapps, "
        "csv); found out by default",
    )
    parser.add_argument(
        "--lower-is-better", action="store_true", help="the scores of a CSV file are a DMOS"
    )
    parser.add_argument(
        "--metric",
        action="append",
        metavar="PACKAGE:NAME",
        help="relqa:distance, relqa:score, piq:NAME, torchmetrics:NAME or module:function, which "
        "gets (preds, target), N×3×H×W in [0, 1], and returns N values; may be repeated "
        "(default: relqa:distance)",
    )
    parser.add_argument(
        "--short-side", type=int, metavar="PIXELS", help="reduce larger images (default: native)"
    )
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap resamples")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=Path, default=Path("relqa-evaluation"), metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="go on with the values in --out")
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from relqa_loss.evaluation.contenders import find_contender
    from relqa_loss.evaluation.datasets import read_dataset
    from relqa_loss.evaluation.measure import Notebook, items_of, measure

    _check(arguments)
    specs = list(dict.fromkeys(arguments.metric or ["relqa:distance"]))
    _take_gpu(arguments.device)
    device = resolve_device(arguments.device)
    dataset = read_dataset(
        arguments.dataset, arguments.kind, lower_is_better=arguments.lower_is_better
    )
    # As `python -m` does: a metric beside the data is found.
    sys.path.insert(0, os.getcwd())
    contenders = [find_contender(s, weights=arguments.weights, device=device) for s in specs]
    items = items_of(dataset)
    settings = _settings(arguments, dataset.kind, specs, items)
    with process_group() as group:
        book = Notebook(arguments.out, settings, items, specs, resume=arguments.resume)
        group.wait()  # until all have read what is there
        if group.rank == 0:
            book.start()
        todo = book.todo(group.rank, group.size)
        notes: dict[tuple[Path, str], None] = {}  # references are read more than once
        try:
            with progress("evaluating", len(todo)) as advance:
                book.keep(
                    measure(
                        todo,
                        contenders,
                        arguments.short_side,
                        lambda path, note: notes.setdefault((path, note)),
                    ),
                    group.rank,
                    lambda one: advance(note=one.item.images[0].name),
                )
        except KeyboardInterrupt:
            say(f"the values so far are in {arguments.out}; go on with --resume")
            raise
        finally:
            _say_notes(list(notes))
        group.wait()
        rows = book.close() if group.rank == 0 else []
    if group.rank:
        return 0
    return _report(arguments, dataset, rows, contenders, settings)


def _say_notes(notes: Sequence[tuple[Path, str]]) -> None:
    """What had to be decided to read the files, which may be all of them."""
    for path, note in notes[:_NAMED]:
        say_notes(path, [note])
    if len(notes) > _NAMED:
        say(f"note: {len(notes)} such notes in all")


def _check(arguments: argparse.Namespace) -> None:
    """Before hours of work, what would fail after them."""
    for package, extra in (("scipy", "train"), ("matplotlib", "demo")):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"relqa evaluate needs {package}, which is not installed: "
                f"pip install 'relqa-loss[{extra}]'"
            )
    if arguments.short_side is not None and arguments.short_side < 32:
        raise ValueError(f"--short-side must be at least 32, got {arguments.short_side}")
    if arguments.samples < 1:
        raise ValueError(f"--samples must be at least 1, got {arguments.samples}")
    if arguments.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {arguments.seed}")


def _take_gpu(device: str) -> None:
    """Under torchrun, a GPU for each process of a machine: without a number it is the first's."""
    import torch

    if device in ("cuda", "auto") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        # Not a number in the device's name: a metric of the user's may say "cuda", too.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def _settings(
    arguments: argparse.Namespace, kind: str, specs: list[str], items: list[Item]
) -> dict[str, object]:
    """What decides the values."""
    import hashlib

    from relqa_loss.network import find_weights

    digest = hashlib.sha256(repr(items).encode()).hexdigest()
    settings: dict[str, object] = {
        "dataset": str(arguments.dataset),
        "kind": kind,
        "labels": digest,
        "metrics": {spec: _version(spec) for spec in specs},
        "short_side": arguments.short_side,
    }
    if any(spec.startswith("relqa:") for spec in specs):
        settings["weights"] = find_weights(arguments.weights).version
    return settings


def _version(spec: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    package = spec.partition(":")[0].partition(".")[0]
    if package == "relqa":
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _report(
    arguments: argparse.Namespace,
    dataset: Any,
    rows: list[Measured],
    contenders: list[Contender],
    settings: dict[str, object],
) -> int:
    from relqa_loss.evaluation.report import figure_text, has_direction, write_html
    from relqa_loss.evaluation.summary import summarise

    failures = [row for row in rows if row.error]
    for row in failures[:_NAMED]:
        path = str(row.item.images[0])
        say(f"error: {row.error if path in row.error else f'{path}: {row.error}'}")
    if failures:
        say(f"{len(failures)} of {len(rows)} left out")
    directions = {contender.spec: contender.higher_is_better for contender in contenders}
    record = summarise(dataset, rows, directions, samples=arguments.samples, seed=arguments.seed)
    record = {
        "relqa_loss": __version__,
        "command": shlex.join(["relqa", *sys.argv[1:]]),
        "settings": settings,
        **record,
    }
    out: Path = arguments.out
    write_text(str(out / _FIGURES), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(str(out / _REPORT), write_html(record, rows))
    names = [
        n
        for n in ("srcc", "krcc", "plcc", "rmse", "two_afc")
        if n in record["metrics"][contenders[0].spec]["overall"]
    ]
    lines = [["metric", *(name.upper().replace("TWO_AFC", "2AFC") for name in names)]]
    for spec, metric in record["metrics"].items():
        lines.append([spec, *(figure_text(metric["overall"][name]) for name in names)])
    sys.stdout.write(columns_of(lines, "<" + ">" * len(names)))
    for spec, metric in record["metrics"].items():
        if not metric["direction_known"] and not has_direction(metric):
            say(f"note: {spec}: whether a high value is better cannot be told from these data")
        elif not metric["direction_known"]:
            word = "better" if metric["higher_is_better"] else "worse"
            say(f"note: {spec}: a high value was taken for {word}, as fits these data")
    print(f"report: {(out / _REPORT).resolve()}")
    return 2 if failures else 0
