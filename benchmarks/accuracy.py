"""Map quality, ladders, path consistency and agreement with metrics, on unseen photographs.

    python benchmarks/accuracy.py --photos DIR [--weights NAME_OR_PATH] [--out FILE.md]

DIR holds a MANIFEST.csv with the columns ``file,split``, or photographs split by name; only the
``val`` split is read. Weights of a run with ``--hold-out`` get separate figures for the operators
that it never saw.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from _common import command, keep, photographs, provenance, show, table

from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.evaluation.agreement import badness_columns, rank_agreement
from relqa_loss.evaluation.probes import Ladder, Probe, path_inconsistency, probe_bank
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.training.panel import JUDGES, PANEL


def mean(values: Iterable[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else float("nan")


def map_row(name: str, probes: list[Probe]) -> list[object]:
    strong = [probe for probe in probes if probe.severity >= 0.3]
    return [
        name,
        len(probes),
        mean(p.dominant for p in strong),
        mean(p.sign for p in strong),
        mean(p.auroc for p in strong),
        mean(p.dominant for p in probes),
        mean(p.sign for p in probes),
        mean(p.auroc for p in probes),
        mean(p.error for p in probes),
    ]


def ladder_row(name: str, ladders: list[Ladder]) -> list[object]:
    return [
        name,
        len(ladders),
        mean(ladder.distance_rises for ladder in ladders),
        mean(ladder.score_falls for ladder in ladders),
        mean(ladder.score_negative for ladder in ladders),
    ]


MAP_HEADER = (
    "",
    "probes",
    "dominant ≥.3",
    "sign ≥.3",
    "AUROC ≥.3",
    "dominant",
    "sign",
    "AUROC",
    "MAE",
)
LADDER_HEADER = ("", "ladders", "distance rises", "score falls", "score < 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", default="relqa-base")
    parser.add_argument("--count", type=int, default=16, help="photographs for maps and ladders")
    parser.add_argument("--size", type=int, default=192, help="crop side of the map probes")
    parser.add_argument("--rank-size", type=int, default=256, help="crop side for rank agreement")
    parser.add_argument("--rank-count", type=int, default=62, help="photographs for ranks")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    arguments = parser.parse_args()

    record = find_weights(arguments.weights)
    network = load_pretrained(arguments.weights)
    held_out = tuple(record.training.get("held_out_operators", ()))
    trained = tuple(name for name in operator_names() if name not in held_out)
    groups = {"trained operators": trained, "held-out operators": held_out}

    def note(what: str) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            end = "\n" if done == total else "\r"
            print(f"{what}: {done}/{total} photographs", end=end, file=sys.stderr, flush=True)

        return show

    photos = photographs(arguments.photos, arguments.size, arguments.count)
    probes, ladders = probe_bank(network, photos, [*trained, *held_out], note("maps"))
    maps, steps, by_operator = [], [], []
    figures: dict[str, object] = {"weights": record.version, "command": command()}
    for group, names in groups.items():
        if not names:
            continue
        inside = [probe for probe in probes if probe.operator in names]
        one_way = [
            ladder
            for ladder in ladders
            if ladder.operator in names and get_operator(ladder.operator).one_directional
        ]
        maps.append(map_row(f"**{group}**", inside))
        steps.append(ladder_row(f"**{group}**, one-directional", one_way))
        figures[group] = {
            "maps": dict(zip(MAP_HEADER[1:], maps[-1][1:], strict=True)),
            "ladders": dict(zip(LADDER_HEADER[1:], steps[-1][1:], strict=True)),
        }
        for channel in network.channels:
            found = [probe for probe in inside if probe.channel == channel]
            if found:
                maps.append(map_row(channel, found))
        for name in names:
            operator = get_operator(name)
            found = [probe for probe in inside if probe.operator == name]
            both_ways = "" if operator.one_directional else ", both ways"
            label = f"{name} ({operator.channel} {operator.sign:+d}{both_ways})"
            if name in held_out:
                label += " *held out*"
            by_operator.append(
                map_row(label, found)[:5]
                + ladder_row("", [x for x in ladders if x.operator == name])[2:]
            )

    gaps = [path_inconsistency(network, photo, seed) for seed, photo in enumerate(photos * 4)]
    path = [mean(gap[0] for gap in gaps), mean(gap[1] for gap in gaps)]
    figures["path inconsistency"] = {"maps": path[0], "score": path[1]}

    metrics = (*PANEL, *JUDGES, "vif")
    ranked = photographs(arguments.photos, arguments.rank_size, arguments.rank_count, seed=1)
    ranks = []
    for group, names in {"all operators": (*trained, *held_out), **groups}.items():
        if not names or (group == "trained operators" and not held_out):
            continue
        agreement = rank_agreement(
            badness_columns(network), ranked, names, metrics, progress=note(f"ranks, {group}")
        )
        figures[f"SRCC, {group}"] = agreement
        ranks += [
            [f"{column}, {group}", *(abs(values[metric]) for metric in metrics)]
            for column, values in agreement.items()
        ]

    judged = [f"{name} (panel)" if name in PANEL else f"{name} (judge)" for name in metrics]
    report = "\n\n".join(
        [
            f"{len(photos)} photographs for maps and ladders ({arguments.size}²), "
            f"{len(ranked)} for ranks ({arguments.rank_size}²), all of the `val` split. "
            + provenance(record.version),
            "#### Maps\n\n`≥.3`: at severity 0.3 and more. AUROC over masked probes. MAE over all "
            "channels. Images in which nothing changed, such as a grey photograph under a colour "
            "operator, are left out.\n\n" + table(MAP_HEADER, maps),
            "#### Ladders of five severities, whole image\n\n" + table(LADDER_HEADER, steps),
            "#### By operator\n\n" + table(("", *MAP_HEADER[1:5], *LADDER_HEADER[2:]), by_operator),
            f"#### Path consistency\n\nRelative gap of the maps {path[0]:.3f}, of the score "
            f"{path[1]:.3f} (0 is perfect), {len(gaps)} pairs of composites.",
            "#### Rank agreement (SRCC) over random composites and photographs\n\n"
            + table(("", *judged), ranks),
        ]
    )
    show(report, arguments.out)
    keep(figures, arguments.json)


if __name__ == "__main__":
    main()
