"""Where metrics are known to fail: do ours and others order distortions as people do?

    python benchmarks/failure_types.py --photos DIR [--weights NAME_OR_PATH …] [--count N]
        [--metrics mdsi …] [--out FILE.md] [--json FILE]

The facts, their sources and how their pairs of images are made are in
``relqa_loss/evaluation/facts.py`` and ``stimuli.py``. DIR is as for ``accuracy.py``; only the
``val`` split is read. ``--metrics`` without names leaves other metrics out, which is quick.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from _common import command, keep, photographs, provenance, show, table, told_apart
from torch import Tensor

from relqa_loss._pairs import relations
from relqa_loss.evaluation.facts import FACTS, Fact, Verdict, judge_all
from relqa_loss.evaluation.stimuli import Stimuli
from relqa_loss.network import find_weights, load_pretrained
from relqa_loss.training.panel import panel_values

METRICS = ("mdsi", "haarpsi", "gmsd", "vsi", "fsim", "ms_ssim", "ssim", "psnr")
REACHED = 0.9
"""Share of photographs for which a fact should hold."""


def similarity(name: str, reference: Tensor, images: Tensor) -> Tensor:
    """One minus a function of piq, at half resolution as the panel."""
    import piq

    half = F.avg_pool2d(reference, 2).expand(len(images), -1, -1, -1)
    value: Tensor = getattr(piq, name)(F.avg_pool2d(images, 2), half, reduction="none")
    return 1 - value


def familiar(names: Sequence[str], reference: Tensor, images: Tensor) -> dict[str, Tensor]:
    own = {"ms_ssim": "multi_scale_ssim", "ssim": "ssim"}
    found = {}
    for name in names:
        if name in own:
            found[name] = similarity(own[name], reference, images)
        elif name == "psnr":
            found[name] = (images - reference).square().mean((1, 2, 3))
        else:
            found[name] = panel_values(reference, images, (name,))[:, 0]
    return found


def share(verdicts: list[Verdict]) -> float:
    return sum(v.holds for v in verdicts) / len(verdicts) if verdicts else math.nan


def ratio(verdicts: list[Verdict]) -> float:
    """Median of worse over better."""
    found = [v.worse / v.better for v in verdicts if v.better > 0]
    return statistics.median(found) if found else math.nan


def own(columns: dict[str, float], name: str) -> dict[str, float]:
    """The columns of one network, named as if it were the only one, and those of the metrics."""
    mine = {f"{what}{name}": what for what in ("distance", "score")}
    return {
        mine.get(column, column): value
        for column, value in columns.items()
        if column in mine or not column.startswith(("distance", "score"))
    }


def of_one(fact: dict[str, Any], name: str) -> dict[str, Any]:
    """What is kept of a fact for one network."""
    kept = {key: value for key, value in fact.items() if key != "ratios"}
    return kept | {"ratio": fact["ratios"][name], "shares": own(fact["shares"], name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["relqa-base"])
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--size", type=int, default=384, help="crop side")
    parser.add_argument("--metrics", nargs="*", default=METRICS, choices=METRICS)
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument(
        "--json", type=Path, help="figures as JSON; one file for each of several weights"
    )
    arguments = parser.parse_args()
    if arguments.size < 352 and "ms_ssim" in arguments.metrics:
        parser.error("--size must be at least 352: MS-SSIM sees five scales of half of it")

    records = [find_weights(weights) for weights in arguments.weights]
    networks = {
        f" {record.version}" if len(records) > 1 else "": load_pretrained(weights)
        for record, weights in zip(records, arguments.weights, strict=True)
    }
    ours = [f"{what}{name}" for name in networks for what in ("distance", "score")]
    columns = [*ours, *arguments.metrics]

    def metrics(reference: Tensor, images: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, network in networks.items():
            relation = relations(network, images, reference.expand_as(images), None, None)
            found |= {f"distance{name}": relation.distance, f"score{name}": -relation.score}
        return found | familiar(arguments.metrics, reference, images)

    photos = photographs(arguments.photos, arguments.size, arguments.count, seed=3)
    verdicts: dict[str, dict[Fact, list[Verdict]]] = {name: {} for name in columns}
    for number, photo in enumerate(photos, start=1):
        stimuli = Stimuli(photo, seed=number)
        for name, found in judge_all(metrics, stimuli).items():
            for verdict in found:
                verdicts[name].setdefault(verdict.fact, []).append(verdict)
        print(f"{number}/{len(photos)} photographs", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    facts = []
    for fact in FACTS:
        found = verdicts[ours[0]].get(fact, [])
        facts.append(
            {
                "group": fact.group,
                "fact": str(fact),
                "firm": fact.firm,
                "source": fact.source,
                "photographs": len(found),
                "ratios": {
                    name: ratio(verdicts[f"distance{name}"].get(fact, [])) for name in networks
                },
                "shares": {name: share(verdicts[name].get(fact, [])) for name in columns},
            }
        )
    judged = [fact for fact in facts if fact["photographs"]]
    firm = [fact for fact in judged if fact["firm"]]
    if not firm:
        sys.exit("no photograph admits both versions of any firm fact; give others")
    reached = {
        name: sum(fact["shares"][name] >= REACHED for fact in firm) / len(firm) for name in columns
    }
    groups = []
    for group in dict.fromkeys(fact["group"] for fact in firm):
        inside = [fact for fact in firm if fact["group"] == group]
        means = [statistics.mean(f["shares"][name] for f in inside) for name in columns]
        least = min(f["shares"][ours[0]] for f in inside)
        groups.append([group, len(inside), least, *means])

    def rows(chosen: list[dict]) -> list[list[object]]:  # type: ignore[type-arg]
        return [
            [f["group"], f["fact"], f["photographs"], *f["ratios"].values(), *f["shares"].values()]
            for f in chosen
        ]

    ratios = [f"ratio of distance{name}" for name in networks]
    header = ("kind", "worse > better", "photographs", *ratios, *columns)
    versions = ", ".join(record.version for record in records)
    sources = dict.fromkeys(part for f in judged if f["firm"] for part in f["source"].split("; "))
    report = "\n\n".join(
        [
            f"{len(photos)} photographs of the `val` split at {arguments.size}². "
            + provenance(versions),
            f"#### Share of the {len(firm)} firm facts that hold for at least "
            f"{REACHED:.0%} of the photographs\n\n" + table(tuple(columns), [[*reached.values()]]),
            f"#### By kind of failure: mean share of photographs, and least of {ours[0]}\n\n"
            + table(("kind", "facts", f"least of {ours[0]}", *columns), groups),
            "#### Firm facts: share of photographs ordered as people order them\n\n"
            "Ratio: median of the worse version's distance over the better one's. Photographs "
            "that do not admit both versions are left out. PSNR cannot order versions of equal "
            "PSNR: its shares there are chance.\n\n" + table(header, rows(firm)),
            "#### For the record: no order is firmly known\n\n"
            + table(header, rows([f for f in judged if not f["firm"]])),
            "#### Sources\n\n" + "\n".join(f"- {source}" for source in sources),
        ]
    )
    show(report, arguments.out)
    if arguments.json:
        for record, label, name in zip(records, told_apart(records), networks, strict=True):
            figures = {
                "weights": record.version,
                "command": command(),
                "photographs": len(photos),
                "firm facts that hold": own(reached, name),
                "facts": [of_one(fact, name) for fact in judged],
            }
            path = arguments.json
            if name:
                path = path.with_name(f"{path.stem}-{label}{path.suffix}")
            keep(figures, path)


if __name__ == "__main__":
    main()
