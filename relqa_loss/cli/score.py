"""``relqa score``: distance, score and a sentence for image files."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relqa_loss._version import __version__
from relqa_loss.cli._common import (
    add_missing_option,
    add_network_options,
    check_target,
    columns_of,
    progress,
    refuse_inputs,
    resolve_device,
    say,
    say_notes,
    terminal_width,
    write_text,
)

if TYPE_CHECKING:
    from relqa_loss.cli._pairs import Failure, Outcome
    from relqa_loss.evaluation.calibration import Calibration

_OPINION = ("opinion", "opinion_low", "opinion_high")
_CALIBRATED = "relqa:distance"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "score",
        help="how far images are from their reference, and what changed, in words",
        description="Print the distance (0: identical; lower is closer), the score (negative: "
        "worse than the reference) and the changes of each image. Folders are matched by name, "
        "endings may differ. A file that cannot be used is named on stderr, the others are still "
        "scored, and the exit code is 2.",
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="file or folder")
    parser.add_argument("images", type=Path, metavar="IMAGE", nargs="+", help="files or folders")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - for stdout")
    parser.add_argument("--csv", metavar="FILE", help="write CSV; - for stdout")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="of relqa calibrate: opinions on its scale, with an interval for one image",
    )
    add_missing_option(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from relqa_loss.cli._pairs import Examiner, Failure, pair_up

    if arguments.json == "-" and arguments.csv == "-":
        raise ValueError("--json - and --csv - cannot share stdout; write one of them to a file")
    pairs, failures = pair_up(
        arguments.reference, arguments.images, allow_missing=arguments.allow_missing
    )
    files = [path for pair in pairs for path in pair]
    for option, target in (("--json", arguments.json), ("--csv", arguments.csv)):
        if target is not None:
            refuse_inputs(target, files, option)
            check_target(target, option)
    examine = Examiner(arguments.weights, resolve_device(arguments.device))
    calibration = _calibration(arguments.calibration, examine.version)
    rows: list[dict[str, Any]] = []
    left: list[Failure] = []
    done, interrupted = 0, False
    try:
        with progress("scoring", len(pairs)) as advance:
            for pair in pairs:
                try:
                    rows.append(_row(examine(pair), examine.network.channels))
                except (ValueError, OSError, MemoryError) as error:
                    failures.append(Failure(pair.image, str(error), pair.reference))
                done += 1
                advance(note=pair.image.name)
    except KeyboardInterrupt:
        interrupted = True
        # What is written must not pass for all of it.
        left = [Failure(p.image, "not scored: interrupted", p.reference) for p in pairs[done:]]
        failures += left
    if calibration is not None:
        _add_opinions(rows, calibration)
    _report(arguments, examine.version, rows, failures, calibration, len(left))
    if interrupted:
        raise KeyboardInterrupt
    return 2 if failures else 0


def _row(outcome: Outcome, channels: tuple[str, ...]) -> dict[str, Any]:
    means = outcome.relation.maps[0].mean((1, 2)).tolist()
    return {
        "reference": str(outcome.pair.reference),
        "image": str(outcome.pair.image),
        "distance": float(outcome.relation.distance),
        "score": float(outcome.relation.score),
        "words": outcome.words,
        "channels": dict(zip(channels, means, strict=True)),
        "notes": list(outcome.notes),
    }


def _calibration(path: Path | None, version: str) -> Calibration | None:
    if path is None:
        return None
    from relqa_loss.evaluation.calibration import load_calibration

    calibration = load_calibration(path)
    try:
        calibration.check(_CALIBRATED, version)
    except ValueError as error:
        other = calibration.about.get("metric") != _CALIBRATED
        advice = "; relqa calibrate makes one of distances without --metric" if other else ""
        raise ValueError(f"{path}: {error}{advice}") from None
    side = calibration.about.get("short_side")
    if side is not None:
        raise ValueError(
            f"{path} was made from images reduced to a short side of {side} pixels, but files are "
            "scored at their own size; evaluate without --short-side and calibrate again"
        )
    return calibration


def _add_opinions(rows: list[dict[str, Any]], calibration: Calibration) -> None:
    if not rows:
        return
    found = calibration([row["distance"] for row in rows])
    for k, row in enumerate(rows):
        parts = zip(_OPINION, (found.value, found.low, found.high), strict=True)
        row.update({name: float(values[k]) for name, values in parts})
        if found.outside[k]:
            row["notes"].append(
                f"distance {row['distance']:.4g} lies outside those of the calibration, "
                f"{calibration.span[0]:.4g} to {calibration.span[1]:.4g}"
            )


def _report(
    arguments: argparse.Namespace,
    version: str,
    rows: list[dict[str, Any]],
    failures: list[Failure],
    calibration: Calibration | None,
    left: int,
) -> None:
    """Write what was asked for; the last ``left`` of the failures were not come to."""
    documents = []
    if arguments.json is not None:
        documents.append((arguments.json, _json(version, rows, failures, calibration)))
    if arguments.csv is not None:
        documents.append((arguments.csv, _csv(rows, failures, calibration is not None)))
    try:
        if "-" not in (arguments.json, arguments.csv):
            sys.stdout.write(_table(rows))
        for row in rows:
            say_notes(row["image"], row["notes"])
        for failure in failures[: len(failures) - left]:
            # A sentence from the library often names the file already.
            named = str(failure.image) in failure.error
            say(f"error: {failure.error if named else f'{failure.image}: {failure.error}'}")
        if left:
            say(f"error: {left} of {len(rows) + len(failures)} images were not scored")
        for target, text in documents:
            if target == "-":
                write_text(target, text)
    finally:
        # Even if whoever read the table has gone (`| head`).
        for target, text in documents:
            if target != "-":
                write_text(target, text)


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    header = ["image", "distance", "score"]
    numbers = [[r["image"], f"{r['distance']:.4f}", f"{r['score']:+.4f}"] for r in rows]
    if len(rows) > 1:
        distance = sum(r["distance"] for r in rows) / len(rows)
        score = sum(r["score"] for r in rows) / len(rows)
        numbers.append([f"mean of {len(rows)}", f"{distance:.4f}", f"{score:+.4f}"])
    if "opinion" in rows[0]:
        header.append("opinion")
        for cells, row in zip(numbers, rows, strict=False):
            value, low, high = (row[name] for name in _OPINION)
            cells.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
        if len(rows) > 1:
            # Without an interval: errors of images of one kind do not average out.
            numbers[-1].append(f"{sum(r['opinion'] for r in rows) / len(rows):.2f}")
    lines = columns_of([header, *numbers], "<" + ">" * (len(header) - 1)).splitlines()
    indent = max(len(line) for line in lines) + 2
    room = terminal_width() - indent
    text = [f"{lines[0]:{indent}}in words"]
    for line, row in zip(lines[1:], rows, strict=False):
        wrapped = textwrap.wrap(row["words"], room) if room >= 30 else [row["words"]]
        text.append(f"{line:{indent}}{wrapped[0]}")
        text.extend(" " * indent + rest for rest in wrapped[1:])
    text.extend(lines[1 + len(rows) :])
    return "\n".join(text) + "\n"


def _json(
    version: str,
    rows: list[dict[str, Any]],
    failures: list[Failure],
    calibration: Calibration | None,
) -> str:
    record: dict[str, Any] = {
        "relqa_loss": __version__,
        "weights": version,
        "results": rows,
        "failures": [
            {
                "reference": str(failure.reference) if failure.reference else None,
                "image": str(failure.image),
                "error": failure.error,
            }
            for failure in failures
        ],
    }
    keys = ["distance", "score"]
    if calibration is not None:
        record["calibration"] = {**calibration.about, "level": calibration.level}
        keys.append("opinion")
    if rows:
        record["mean"] = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _csv(rows: list[dict[str, Any]], failures: list[Failure], calibrated: bool) -> str:
    from relqa_loss.channels import CHANNELS

    channels = list(rows[0]["channels"]) if rows else list(CHANNELS)
    fields = ["reference", "image", "distance", "score", *(_OPINION if calibrated else ())]
    fields += [*channels, "words", "notes", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {key: value for key, value in row.items() if key in fields}
        writer.writerow({**flat, **row["channels"], "notes": "; ".join(row["notes"])})
    for failure in failures:
        reference = str(failure.reference) if failure.reference else ""
        writer.writerow(
            {"reference": reference, "image": str(failure.image), "error": failure.error}
        )
    return text.getvalue()
