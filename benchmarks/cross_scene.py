"""Are scores of different photographs comparable? Beside PSNR, SSIM and members of the panel.

    python benchmarks/cross_scene.py --photos DIR [--weights NAME_OR_PATH …] [--count N]
        [--out FILE.md] [--json FILE]

Pairs of images of different photographs, under the same operator at the same severity and under
different operators, in the order on which the metrics that training never saw agree. DIR is as for
``accuracy.py``; only the ``val`` split is read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from _common import command, keep, photographs, provenance, show, table
from torch import Tensor

from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.evaluation.agreement import badness_columns
from relqa_loss.evaluation.cross_scene import pair_table, share_ordered
from relqa_loss.evaluation.statistics import FEWEST, Figure, srcc
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.training.panel import JUDGES, panel_values

BESIDE = ("mdsi", "haarpsi")
"""Members of the training panel, for comparison."""
BATCH = 8


def distorted(
    photo: Tensor, operators: Sequence[str], severities: Sequence[float], seed: int
) -> Iterator[tuple[str, float, Tensor]]:
    """Operator, severity and 8-bit image, without those in which nothing changed."""
    for number, name in enumerate(operators):
        for severity in severities:
            generator = torch.Generator().manual_seed(seed * 1000 + number)
            image = get_operator(name)(photo[None], severity, generator)[0]
            image = image.mul(255).round().div(255)
            if bool((image != photo).any()):
                yield name, severity, image


def figure(value: Figure) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["relqa-base"])
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--size", type=int, default=256, help="crop side")
    parser.add_argument("--severities", type=float, nargs="+", default=[0.3, 0.7])
    parser.add_argument("--operators", nargs="+", default=operator_names(), metavar="NAME")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    arguments = parser.parse_args()

    records = [find_weights(weights) for weights in arguments.weights]
    networks = {
        f" {record.version}" if len(records) > 1 else "": load_pretrained(weights)
        for record, weights in zip(records, arguments.weights, strict=True)
    }
    photos = photographs(arguments.photos, arguments.size, arguments.count, seed=4)
    values: dict[str, list[float]] = {}
    judged: list[list[float]] = []
    labels: list[tuple[int, str, float]] = []
    for row, photo in enumerate(photos):
        made = list(distorted(photo, arguments.operators, arguments.severities, row))
        labels += [(row, name, severity) for name, severity, _ in made]
        for start in range(0, len(made), BATCH):
            images = torch.stack([image for *_, image in made[start : start + BATCH]])
            reference = photo[None]
            with torch.no_grad():
                found: dict[str, Tensor] = {}
                for name, network in networks.items():
                    relation = network(reference.expand_as(images), images)
                    found[f"distance{name}"] = relation.distance
                    found[f"score{name}"] = -relation.score
                    baselines = badness_columns(network)
                found["PSNR"] = baselines["PSNR"](reference, images)
                found["SSIM"] = baselines["SSIM"](reference, images)
                panel = panel_values(reference, images, BESIDE)
                found |= {f"{name} (panel)": panel[:, k] for k, name in enumerate(BESIDE)}
            for name, column in found.items():
                values.setdefault(name, []).extend(column.tolist())
            judged += panel_values(reference, images, JUDGES).tolist()
        print(f"{row + 1}/{len(photos)} photographs", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    scenes = [scene for scene, *_ in labels]
    settings = [(name, severity) for _, name, severity in labels]
    operators = [name for _, name, _ in labels]
    kinds = {
        "same operator and severity": pair_table(judged, scenes, settings, same_kind=True),
        "different operators": pair_table(judged, scenes, operators, same_kind=False),
    }
    kinds = {kind: pairs for kind, pairs in kinds.items() if pairs.count}
    if not kinds:
        sys.exit("the judges agree on no pair of different photographs; give more of them")
    shares = {
        kind: {name: share_ordered(column, pairs) for name, column in values.items()}
        for kind, pairs in kinds.items()
    }
    # Within one operator and severity, only the scenes differ.
    groups: dict[tuple[str, float], list[int]] = {}
    for index, setting in enumerate(settings):
        groups.setdefault(setting, []).append(index)
    large = [group for group in groups.values() if len(group) >= FEWEST]
    opinions = np.array(judged)
    within: dict[str, dict[str, float]] = {name: {} for name in values}
    for name, column in values.items():
        mine = np.array(column)
        for k, judge in enumerate(JUDGES):
            found_srcc = [srcc(mine[group], opinions[group, k]) for group in large]
            kept = [value for value in found_srcc if value == value]
            within[name][judge] = statistics.mean(kept) if kept else float("nan")

    versions = ", ".join(record.version for record in records)
    report = "\n\n".join(
        [
            f"{len(photos)} photographs of the `val` split at {arguments.size}², "
            f"{len(set(operators))} operators at severities "
            f"{', '.join(f'{s:g}' for s in arguments.severities)}. Judges, which training never "
            f"saw: {', '.join(JUDGES)}. " + provenance(versions),
            "#### Share of pairs of different photographs ordered as all judges order them\n\n"
            + table(
                ("pairs", "unanimous", *values),
                [
                    [kind, f"{pairs.count} of {pairs.asked}", *map(figure, shares[kind].values())]
                    for kind, pairs in kinds.items()
                ],
            ),
            "#### SRCC across photographs within one operator and severity, mean over "
            f"{len(large)} of them\n\n"
            + table(
                ("judge", *values),
                [[judge, *(within[name][judge] for name in values)] for judge in JUDGES],
            ),
        ]
    )
    show(report, arguments.out)
    figures = {
        "weights": versions,
        "command": command(),
        "photographs": len(photos),
        "pairs": {
            kind: {
                "asked": pairs.asked,
                "unanimous": pairs.count,
                "shares": {name: asdict(f) for name, f in shares[kind].items()},
            }
            for kind, pairs in kinds.items()
        },
        "SRCC within operator and severity": within,
    }
    keep(figures, arguments.json)


if __name__ == "__main__":
    main()
