"""Write the model card and the README's table from the figures that the benchmarks wrote.

    python benchmarks/model_card.py --weights runs/final.safetensors --figures runs --photos DIR

``--figures`` holds ``accuracy``, ``accuracy-heldout``, ``trust`` and ``speed``, each as ``.md`` and
``.json``, and ``failure_types.json``. All of them must have been measured on the weights of
``--weights``, except those of the run without the held-out operators.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import in_readme
from _common import table as markdown
from _contenders import NANO, OURS
from failure_types import REACHED

from relqa_loss._files import write_atomically
from relqa_loss.network import find_weights
from relqa_loss.network.pretrained import pretrained_folder

ROOT = Path(__file__).resolve().parents[1]
HEAD = "<!-- figures: table of the measured figures of the shipped weights -->\n"
FOOT = "<!-- figures end -->"
TEACHING = {"maps": ("both", "maps"), "distance": ("both", "distance")}
"""Which runs each part learned in, by what they learned."""


def training(record: dict[str, Any]) -> str:
    """The runs that led to the weights: of maps and distance, where they were learned apart."""
    of_maps = list(history(record))
    seen = fingerprints(next(run for run in of_maps if "photos" in run))
    joined = next((each for each in of_maps if "joined" in each), None)
    if joined is None:
        return f"{runs(record)}\n\n{seen}"
    shaped = [each for each in of_maps if "initial" in each and "config" not in each]
    tables = [f"The {name}:\n\n{runs(record, name)}" for name in joined["joined"]]
    return (
        "Maps and distance share no parameters; they were learned apart and joined by\n"
        f"`{joined['command']}`,\nafter which each may have gone on alone.\n\n"
        + "\n\n".join([*tables, *map(reshaped, reversed(shaped)), seen])
    )


def reshaped(join: dict[str, Any]) -> str:
    """A change of shape: by which command, and what it left out."""
    text = f"Given another shape by\n`{join['command']}`,\nwhich changes no weight that it keeps."
    left_out = ", ".join(f"`{name}`" for name in strides(join.get("left_out", [])))
    return f"{text} Left out: {left_out}." if left_out else text


def strides(names: list[str]) -> list[str]:
    """The parts that parameters belong to, each of them once: ``encoder.stages.2`` and the like."""
    return sorted({".".join(name.split(".")[:3]) for name in names})


def history(record: dict[str, Any], part: str = "maps") -> Iterator[dict[str, Any]]:
    """A run and those whose weights it started from, the last one first; after weights that were
    joined, those that ``part`` came from."""
    while True:
        yield record
        before = record["joined"][part] if "joined" in record else record.get("initial")
        if not before:
            return
        record = before["training"]


def runs(record: dict[str, Any], part: str = "") -> str:
    """A table of the runs of :func:`history`, the first one first; with ``part``, those that it
    learned in."""
    chain = [run for run in history(record, part) if "config" in run]
    if part:
        teaching = TEACHING[part]
        chain = [run for run in chain if run["config"].get("learn", "both") in teaching]
    chain.reverse()
    last = chain[-1]
    rows = ["| run | command | commit | steps | minutes |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| {number} | `{run['command']}` | `{run['commit']}` | {run['step']} "
        f"| {run['seconds'] / 60:.0f} |"
        for number, run in enumerate(chain, 1)
    ]
    return (
        f"Each run starts from the weights of the one before; seed {last['config']['seed']}, "
        f"{last['date']}, torch {last['torch']}:\n\n" + "\n".join(rows)
    )


def fingerprints(run: dict[str, Any]) -> str:
    found = " and ".join(
        f"`{run['photos'][split]['sha256'][:16]}…` ({split})" for split in ("train", "val")
    )
    return f"Fingerprints (SHA-256) of the photographs: {found}; complete in the manifest."


def photographs(manifest: Path) -> tuple[str, str]:
    """How many there are, and a table of their sources and licences."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    splits = Counter(row["split"] for row in rows)
    counts = Counter((row["source"], row["licence"], row["split"]) for row in rows)
    lines = [
        f"| {source} | {licence} | {counts[source, licence, 'train']} "
        f"| {counts[source, licence, 'val']} |"
        for source, licence in sorted({(row["source"], row["licence"]) for row in rows})
    ]
    return f"{splits['train']} for training, {splits['val']} for validation.", "\n".join(lines)


def percent(*values: float) -> str:
    return " / ".join(f"{100 * value:.1f}%" for value in values)


def targets(figures: dict[str, dict[str, Any]], size: int) -> str:
    """What the design asks for, and what was reached."""
    rows = [("what", "target", "reached"), ("---", "---", "---")]

    def maps(group: dict[str, Any]) -> str:
        values = group["maps"]
        return f"{percent(values['dominant ≥.3'], values['sign ≥.3'])} / {values['AUROC ≥.3']:.3f}"

    trained = figures["accuracy"]["trained operators"]
    held_out = figures["accuracy-heldout"]["held-out operators"]
    rows += [
        (
            "maps at severity ≥ 0.3, unseen photographs: dominant channel / sign / AUROC",
            "≥ 95% / ≥ 98% / ≥ 0.95",
            maps(trained),
        ),
        (
            "the same, held-out operators (a run of their own)",
            "≥ 75% / ≥ 90% / ≥ 0.90",
            maps(held_out),
        ),
        (
            "monotone ladders, distance rises",
            "≥ 97%",
            percent(trained["ladders"]["distance rises"]),
        ),
        ("the same, score falls", "≥ 97%", percent(trained["ladders"]["score falls"])),
    ]
    known = figures["failure_types"]["firm facts that hold"]
    rows.append(
        (
            "ordering facts that hold for 90% of unseen photographs: distance / score",
            "≥ 90%",
            percent(known["distance"], known["score"]),
        )
    )
    recovery = figures["trust"]["recovery dB"]
    rows += [
        (
            f"recovery by gradient descent from {' / '.join(recovery)}",
            "≥ 35 dB",
            " / ".join(f"{value:.1f}" for value in recovery.values()) + " dB",
        ),
        ("monotone line scans", "–", percent(figures["trust"]["monotone line scans"])),
        (
            "agreement with people on TID2013 and KADID-10k",
            "≥ 0.90",
            "not measured: the data sets are not at hand",
        ),
        ("weights in the wheel", "≤ 4 MB", f"{size / 1e6:.1f} MB"),
    ]
    results = figures["speed"]["results"]
    where = " / ".join(f"{side}²" for side in results)
    for own, name, target in (
        (OURS, "LPIPS-Alex architecture", "≥ 3×"),
        (OURS, "piq MS-SSIM", "≥ 3×"),
        (OURS, "LPIPS-VGG architecture", "≥ 50×"),
        (OURS, "DISTS architecture", "≥ 50×"),
        (NANO, "LPIPS-Alex architecture", "≥ 6×"),
        (NANO, "piq MS-SSIM", "≥ 3×"),
        (NANO, "piq SSIM", "≥ 1×"),
    ):
        times = " / ".join(
            f"{ratio(found, name, 'milliseconds', own):.2f}×" for found in results.values()
        )
        who = "" if own == OURS else "`relqa-nano`, "
        rows.append((f"{who}faster than {name}, forward + backward at {where}", target, times))
    memory = " / ".join(
        f"{1 / ratio(found, 'LPIPS-Alex architecture', 'peak_mib'):.2f}×"
        for found in results.values()
    )
    rows.append((f"peak memory beside LPIPS-Alex at {where}", "≤ 0.5×", memory))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def unmet(found: dict[str, Any]) -> str:
    """The firm facts that too few photographs obey, by the distance; the worst first."""
    firm = [fact for fact in found["facts"] if fact["firm"]]
    failed = [fact for fact in firm if fact["shares"]["distance"] < REACHED]
    failed.sort(key=lambda fact: fact["shares"]["distance"])
    rows = [
        [f["fact"], f["photographs"], *map(f["shares"].get, ("distance", "score"))] for f in failed
    ]
    return (
        f"By the distance {len(firm) - len(failed)} of {len(firm)} firm facts hold for at least "
        f"{REACHED:.0%} of the {found['photographs']}\nunseen photographs. Those that do not, and "
        "the share of the photographs that obey them:\n\n"
        + markdown(("worse > better", "photographs", "distance", "score"), rows)
    )


def ratio(found: dict[str, Any], name: str, what: str, own: str = OURS) -> float:
    """Theirs over ours; of times, the median over repeats paired in time, as in the table."""
    theirs, ours = found[name][what], found[own][what]
    if not isinstance(theirs, list):
        return float(theirs / ours)
    ratios = sorted(their / our for their, our in zip(theirs, ours, strict=True))
    middle = len(ratios) // 2
    return float(ratios[middle] if len(ratios) % 2 else sum(ratios[middle - 1 : middle + 1]) / 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument(
        "--figures", type=Path, required=True, help="folder of the benchmarks' files"
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder with a MANIFEST.csv")
    arguments = parser.parse_args()

    record = find_weights(arguments.weights)
    names = ("accuracy", "accuracy-heldout", "trust", "speed")
    figures = {
        name: json.loads((arguments.figures / f"{name}.json").read_text("utf-8"))
        for name in (*names, "failure_types")
    }
    tables = {
        name: (arguments.figures / f"{name}.md").read_text("utf-8").strip().replace("#### ", "### ")
        for name in names
    }
    for name, found in figures.items():
        if name != "accuracy-heldout" and not record.sha256.startswith(
            found["weights"].rpartition("@")[2]
        ):
            parser.error(f"{name}.json was measured on {found['weights']}, not {record.version}")
    for name, written in tables.items():
        # Both are written by one run, but each only if it is asked for.
        if figures[name]["weights"] not in written:
            parser.error(f"{name}.md is not of the weights of {name}.json: give those of one run")

    counts, licences = photographs(arguments.photos / "MANIFEST.csv")
    shipped = pretrained_folder().glob("*.safetensors")
    table = targets(figures, sum(path.stat().st_size for path in shipped))
    card = Path(__file__).with_suffix(".md").read_text("utf-8")
    for place, text in {
        "TRAINING": training(record.training),
        "COUNTS": counts,
        "LICENCES": licences,
        "ACCURACY COMMAND": figures["accuracy"]["command"],
        "ACCURACY": tables["accuracy"],
        "HELD-OUT COMMAND": figures["accuracy-heldout"]["command"],
        "HELD-OUT": tables["accuracy-heldout"],
        "TRUST COMMAND": figures["trust"]["command"],
        "TRUST": tables["trust"],
        "FACTS COMMAND": figures["failure_types"]["command"],
        "FACTS": unmet(figures["failure_types"]),
        "SPEED COMMAND": figures["speed"]["command"],
        "SPEED": tables["speed"],
        "TARGETS": table,
    }.items():
        card = card.replace(f"@{place}@", text)
    write_atomically(ROOT / "pretrained" / "MODEL_CARD.md", card.encode())

    path = ROOT / "README.md"
    write_atomically(path, in_readme(path.read_text("utf-8"), HEAD, table, FOOT).encode())
    sys.stdout.write(table + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
