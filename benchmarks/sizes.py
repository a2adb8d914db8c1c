"""Two shipped weights side by side: is the smaller one as good?

    python benchmarks/sizes.py [--weights relqa-base relqa-nano] [--out FILE.md]

What ``accuracy.py``, ``failure_types.py`` and ``trust.py`` found with the first and with the second
weights, and the difference. Figures are those of the shipped manifest, into which
``relqa_loss.training.publish`` takes none that were measured on other weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _common import command, show, table

from relqa_loss.network import find_weights
from relqa_loss.network.pretrained import MANIFEST_NAME, pretrained_folder

LIMIT = 0.02
"""By how much a rank correlation or a share may be worse."""
NEEDED = ("accuracy", "failure_types", "trust")

Figures = Mapping[str, Mapping[str, Any]]


def figures_of(name: str, manifest: Path) -> Figures:
    """What was measured on the weights ``name``.

    Raises:
        ValueError: If something is missing.
    """
    entries = json.loads(manifest.read_text("utf-8"))["weights"]
    found: Figures = entries.get(name, {}).get("figures", {})
    missing = sorted(set(NEEDED) - set(found))
    if missing:
        raise ValueError(f"{manifest} has no figures of {', '.join(missing)} for {name}")
    return found


def values(figures: Figures) -> Iterator[tuple[str, float]]:
    """What is compared: larger is better, for every one."""
    accuracy = figures["accuracy"]
    for metric, srcc in accuracy["SRCC, all operators"]["distance"].items():
        yield f"SRCC of the distance with {metric}", abs(srcc)
    for metric, srcc in accuracy["SRCC, all operators"]["score"].items():
        yield f"SRCC of the score with {metric}", abs(srcc)
    for what in ("distance rises", "score falls", "score < 0"):
        yield f"ladders: {what}", accuracy["trained operators"]["ladders"][what]
    for what in ("dominant ≥.3", "sign ≥.3", "AUROC ≥.3"):
        yield f"maps: {what}", accuracy["trained operators"]["maps"][what]
    firm = [fact for fact in figures["failure_types"]["facts"] if fact["firm"]]
    for what in ("distance", "score"):
        known = figures["failure_types"]["firm facts that hold"][what]
        yield f"firm facts that hold for 90% of the photographs: {what}", known
        share = sum(fact["shares"][what] for fact in firm) / len(firm)
        yield f"firm facts, mean share of the photographs: {what}", share
    yield "monotone line scans", figures["trust"]["monotone line scans"]


def recovery(figures: Figures) -> str:
    return " / ".join(f"{value:.0f}" for value in figures["trust"]["recovery dB"].values())


def report(names: Sequence[str], both: Sequence[Figures]) -> str:
    first, second = (dict(values(figures)) for figures in both)
    rows: list[list[object]] = [
        [what, first[what], second[what], f"{second[what] - first[what]:+.3f}"] for what in first
    ]
    starts = " / ".join(both[0]["trust"]["recovery dB"])
    rows.append([f"recovery by descent from {starts}, dB", *map(recovery, both), ""])
    worst = min(first, key=lambda what: second[what] - first[what])
    gap = second[worst] - first[worst]
    kept = "within" if gap >= -LIMIT else "not within"
    return (
        table(("", *names, "difference"), rows)
        + f"\n\nThe largest loss is {gap:+.3f} ({worst}): {kept} {LIMIT} of {names[0]} everywhere."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", nargs=2, default=["relqa-base", "relqa-nano"])
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parsed = parser.parse_args(arguments)
    try:
        versions = [find_weights(name).version for name in parsed.weights]
        manifest = pretrained_folder() / MANIFEST_NAME
        both = [figures_of(name, manifest) for name in parsed.weights]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    commands = sorted({figures[name]["command"] for figures in both for name in NEEDED})
    text = "\n\n".join(
        [
            report(versions, both),
            f"`{command()}`, after:\n\n" + "\n".join(f"- `{each}`" for each in commands),
        ]
    )
    show(text, parsed.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
