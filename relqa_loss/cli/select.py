"""``relqa select``: which of several folders of outputs is best, and why."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relqa_loss._files import write_atomically
from relqa_loss._version import __version__
from relqa_loss.cli._common import (
    add_missing_option,
    add_network_options,
    columns_of,
    progress,
    resolve_device,
    say,
)
from relqa_loss.cli._group import process_group

if TYPE_CHECKING:
    from relqa_loss.cli._pairs import Examiner, Outcome
    from relqa_loss.selection.comparison import Comparison
    from relqa_loss.selection.folders import Job, Measure, Row

_ROWS = "scores"  # scores.jsonl; scores-1.jsonl … of further processes under torchrun
_RESULT, _REPORT = "selection.json", "report.html"
_NAMED = 5  # files named on stderr per candidate; all of them are in the JSON
_REFERENCES = "references"  # in the place of a candidate, where a note is on one of them


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "select",
        help="which of several checkpoints' outputs is best, with intervals, vetoes and a reason",
        description="Compare folders of outputs, one per checkpoint, with the references: ranking "
        "with paired intervals, pairwise preferences, channels, vetoes, and a recommendation with "
        "its reason. Files are matched by name. Files that are missing or cannot be used are "
        "named and counted, two candidates are compared on the images that both have, and the "
        "exit code is 2. Also runs under torchrun.",
    )
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--candidates", type=Path, nargs="+", required=True, metavar="DIR", help="of outputs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("relqa-select"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--resume", action="store_true", help="use what --out holds already")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--metric",
        choices=("loss", "distance", "score"),
        default="loss",
        help="the loss has a pixel term beside the distance; score only where references are not "
        "pristine (default: %(default)s)",
    )
    parser.add_argument(
        "--rule",
        choices=("best", "earliest"),
        default="best",
        help="the best, or the earliest by name whose difference to it may be noise",
    )
    parser.add_argument(
        "--veto",
        action="append",
        default=[],
        metavar="CHANNEL=TOLERANCE",
        help="never one with more of a channel than the baseline: ringing=0.02; with less: "
        "-sharpness=0.02 (write --veto=-sharpness=0.02); repeatable",
    )
    parser.add_argument("--baseline", metavar="NAME", help="of vetoes (default: the first)")
    parser.add_argument(
        "--coverage",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="of the images that a candidate must have to be recommended (default: %(default)s)",
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="default: %(default)s")
    parser.add_argument("--no-report", action="store_true", help="no HTML, for speed")
    add_missing_option(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from relqa_loss.network import find_weights
    from relqa_loss.selection.comparison import check_coverage, compare
    from relqa_loss.selection.folders import RowFile, name_folders, read_rows, remaining
    from relqa_loss.selection.statistics import check_options
    from relqa_loss.selection.veto import check_veto

    # What compare() would find out only when all is measured.
    veto = _veto(arguments.veto)
    check_coverage(arguments.coverage)
    check_options(arguments.confidence, resamples=1)
    if arguments.processes < 1:
        raise ValueError(f"--processes must be at least 1, got {arguments.processes}")
    folders = name_folders(arguments.candidates)
    if arguments.baseline is not None and arguments.baseline not in folders:
        raise ValueError(
            f"--baseline {arguments.baseline}: no such candidate; there are {', '.join(folders)}"
        )
    if not arguments.reference.is_dir():
        raise ValueError(f"--reference {arguments.reference} is not a folder")
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, not a folder")
    rows_path = out / f"{_ROWS}.jsonl"
    with process_group() as group:
        # All processes look before any of them writes.
        exists = rows_path.exists() or (out / _RESULT).exists()
        if exists and not arguments.resume:
            raise ValueError(f"{out} holds a selection; give --resume or another --out")
        record = find_weights(arguments.weights)
        check_veto(veto, record.config.channels)
        jobs, keys, failures = _jobs(arguments.reference, folders, arguments.allow_missing)
        shard = jobs[group.rank :: group.size]
        left, rows = remaining(
            shard, read_rows(sorted(out.glob(f"{_ROWS}*.jsonl"))), record.version
        )
        group.wait()
        if group.rank:
            rows_path = out / f"{_ROWS}-{group.rank}.jsonl"
        make = partial(make_measure, arguments.weights, resolve_device(arguments.device))
        log = RowFile(rows_path)
        try:
            with progress("measuring", sum(len(job.images) for job in left)) as advance:
                for found in _measured(make, left, arguments.processes):
                    for row in found:
                        log.add(row)
                    rows.extend(found)
                    advance(len(found), note=found[0].key if found else None)
        finally:
            log.close()
        parts = group.gather(rows)
    if parts is None:
        return 0  # the first process reports
    rows = [row for part in parts for row in part]
    failures += [(row.candidate, row.image, row.error) for row in rows if row.error is not None]
    notes = _notes_of(rows, folders)
    table = _table_of(rows, folders, keys, arguments.metric)
    comparison = compare(
        table,
        keys,
        record.config.channels,
        mode="max" if arguments.metric == "score" else "min",
        metric=arguments.metric,
        rule=arguments.rule,
        veto=veto,
        baseline=arguments.baseline,
        coverage=arguments.coverage,
        confidence=arguments.confidence,
    )
    document = _document(arguments, comparison, table, folders, failures, record.version, veto)
    document["notes"] = [
        {"candidate": candidate, "image": image, "note": note} for candidate, image, note in notes
    ]
    # One of an earlier run may recommend another candidate, and --no-report would leave it.
    (out / _REPORT).unlink(missing_ok=True)
    write_atomically(out / _RESULT, (json.dumps(document, indent=1) + "\n").encode())
    _say("error", failures, f"files in all could not be used; {_RESULT} names them")
    _say("note", notes, f"notes in all; {_RESULT} has them")
    sys.stdout.write(_text(comparison))
    if not arguments.no_report:
        from relqa_loss.cli._pairs import Pair
        from relqa_loss.selection.report import write_report

        examiner = _examiner(arguments.weights, resolve_device(arguments.device))

        def examine(reference: Path, image: Path) -> Outcome:
            return examiner(Pair(reference, image), distance_map=True)

        paths = {(row.candidate, row.key): Path(row.image) for row in rows}
        write_report(
            out / _REPORT, comparison, table, arguments.reference, paths, document, examine
        )
        print(f"report: {(out / _REPORT).resolve()}")
    return 2 if failures or comparison.recommended is None else 0


def _veto(options: Sequence[str]) -> dict[str, float]:
    from relqa_loss.selection.veto import check_veto

    limits = {}
    for option in options:
        name, equals, number = option.rpartition("=")
        try:
            limits[name] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"--veto {option}: write CHANNEL=TOLERANCE, such as ringing=0.02")
    return check_veto(limits)


def _jobs(
    reference: Path, folders: dict[str, Path], allow_missing: bool
) -> tuple[list[Job], list[str], list[tuple[str, str, str]]]:
    """Jobs by reference, the keys of all references, and files that have no partner."""
    from relqa_loss.cli._common import images_in
    from relqa_loss.cli._pairs import pair_up
    from relqa_loss.selection.folders import Job

    failures: list[tuple[str, str, str]] = []
    references = images_in(reference)
    if not references:
        raise ValueError(f"--reference {reference} has no image files in it")
    keys = [path.relative_to(reference).as_posix() for path in references]
    images: dict[Path, dict[str, Path]] = {path: {} for path in references}
    for name, folder in folders.items():
        pairs, failed = pair_up(reference, [folder], allow_missing=allow_missing)
        failures += [(name, str(failure.image), failure.error) for failure in failed]
        for pair in pairs:
            images[pair.reference].setdefault(name, pair.image)
            if images[pair.reference][name] != pair.image:
                other = images[pair.reference][name].name
                failures.append((name, str(pair.image), f"not used: {other} fits, too"))
    jobs = [Job(key, path, images[path]) for key, path in zip(keys, references, strict=True)]
    found = [job for job in jobs if job.images]
    if not found:
        # Before --out is begun: all in the report would be missing.
        example = next((f"; {image}: {error}" for _, image, error in failures), "")
        raise ValueError(
            f"no candidate has an image of the same path in its folder as one of {reference}, "
            f"such as {keys[0]}: give the folders one level higher or lower{example}"
        )
    return found, keys, failures


def _examiner(weights: str, device: str) -> Examiner:
    from relqa_loss.cli._pairs import Examiner

    return Examiner(weights, device)


def make_measure(weights: str, device: str) -> Measure:
    """The function that relates a job's files; made once per process."""
    from relqa_loss.cli._pairs import Pair
    from relqa_loss.selection.folders import Row, stamp

    examine = _examiner(weights, device)

    def measure(job: Job) -> list[Row]:
        rows = []
        for name, image in job.images.items():
            row = Row(name, job.key, str(image), examine.version, stamp(job.reference, image))
            try:
                outcome = examine(Pair(job.reference, image))
            except (ValueError, OSError, MemoryError) as error:
                rows.append(row._replace(error=str(error) or type(error).__name__))
                continue
            relation = outcome.relation
            maps = relation.maps[0]
            rows.append(
                row._replace(
                    distance=float(relation.distance),
                    score=float(relation.score),
                    pixel_error=float((outcome.image - outcome.reference).abs().mean()),
                    signed=tuple(maps.mean((1, 2)).tolist()),
                    absolute=tuple(maps.abs().mean((1, 2)).tolist()),
                    notes=outcome.notes,
                )
            )
        return rows

    return measure


def _measured(
    make: Callable[[], Measure], jobs: Sequence[Job], processes: int
) -> Iterator[list[Row]]:
    from relqa_loss.selection.folders import PoolMeasure

    if not jobs:
        return
    if processes == 1:
        measure = make()
        for job in jobs:
            yield measure(job)
    else:
        yield from PoolMeasure(make, min(processes, len(jobs)))(jobs)


def _table_of(
    rows: Sequence[Row], folders: dict[str, Path], keys: Sequence[str], metric: str
) -> dict[str, dict[str, Any]]:
    """Results by candidate and image, in an order that does not depend on who measured what."""
    from relqa_loss.selection.comparison import Measured

    found = {(row.candidate, row.key): row for row in rows if row.error is None}
    table: dict[str, dict[str, Any]] = {}
    for name in folders:
        table[name] = {}
        for key in keys:
            if (name, key) in found:
                row = found[name, key]
                table[name][key] = Measured(_value(row, metric), row.signed, row.absolute)
    return table


def _value(row: Row, metric: str) -> float:
    from relqa_loss._relational import PIXEL_WEIGHT

    if metric == "loss":
        return row.distance + PIXEL_WEIGHT * row.pixel_error
    return row.distance if metric == "distance" else row.score


def _text(comparison: Comparison) -> str:
    rows = [["candidate", "images", "mean", "against the recommended one", ""]]
    for standing in comparison.standings:
        note = standing.rejected or ""
        if standing.name == comparison.recommended:
            note = "recommended"
        gain = ""
        if standing.gain is not None:
            mean, low, high = standing.gain
            gain = f"{mean:+.2g} [{low:+.2g}, {high:+.2g}]"
        rows.append([standing.name, str(standing.images), f"{standing.mean:.4g}", gain, note])
    return f"{columns_of(rows, '<>>><')}\n{comparison.reason}\n"


def _say(word: str, found: Sequence[tuple[str, str, str]], rest: str) -> None:
    """Candidate, image and text: the first of each candidate, and how many there are."""
    counts: dict[str, int] = {}
    for candidate, image, text in found:
        counts[candidate] = counts.get(candidate, 0) + 1
        if counts[candidate] <= _NAMED:
            say(f"{word}: {candidate}: {text if image in text else f'{image}: {text}'}")
    for candidate, count in counts.items():
        if count > _NAMED:
            say(f"{word}: {candidate}: {count} {rest}")


def _notes_of(rows: Sequence[Row], folders: dict[str, Path]) -> list[tuple[str, str, str]]:
    """What was decided to read the files: candidate, image, note; of each reference once."""
    order = {name: place for place, name in enumerate([_REFERENCES, *folders])}
    found = set()
    for row in rows:
        for note in row.notes:
            of, _, text = note.partition(": ")
            reference = of == "reference"
            found.add(
                (_REFERENCES, row.key, text) if reference else (row.candidate, row.image, text)
            )
    return sorted(found, key=lambda each: (order[each[0]], each[1:]))


def _document(
    arguments: argparse.Namespace,
    comparison: Comparison,
    table: dict[str, dict[str, Any]],
    folders: dict[str, Path],
    failures: Sequence[tuple[str, str, str]],
    version: str,
    veto: dict[str, float],
) -> dict[str, Any]:
    """Everything, as JSON; numbers that are none are null."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "relqa_loss": __version__,
        "weights": version,
        "reference": str(arguments.reference),
        "metric": arguments.metric,
        "rule": arguments.rule,
        "veto": veto,
        "baseline": comparison.baseline,
        "confidence": arguments.confidence,
        "coverage": arguments.coverage,
        "images": comparison.images,
        "recommended": comparison.recommended,
        "reason": comparison.reason,
        "ranking": [
            {
                "name": standing.name,
                "folder": str(folders[standing.name]),
                "images": standing.images,
                "mean": number(standing.mean),
                "lead": number(standing.lead),
                "gain_over_recommended": None
                if standing.gain is None
                else [number(value) for value in standing.gain],
                "shared_with_recommended": standing.shared,
                "ruled_out": standing.rejected,
                "signed": {name: number(value) for name, value in standing.signed.items()},
                "absolute": {name: number(value) for name, value in standing.absolute.items()},
            }
            for standing in comparison.standings
        ],
        "preferences": {
            first: {
                second: {
                    "win_rate": number(duel.rate),
                    "wins": duel.wins,
                    "ties": duel.ties,
                    "images": duel.images,
                    "lead": number(duel.lead),
                }
                for second, duel in row.items()
            }
            for first, row in comparison.duels.items()
        },
        "values": {
            name: {key: number(row.value) for key, row in rows.items()}
            for name, rows in table.items()
        },
        "failures": [
            {"candidate": candidate, "image": image, "error": error}
            for candidate, image, error in failures
        ],
    }
