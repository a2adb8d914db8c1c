"""The settings that ``docs/recipes.md`` recommends, each beside its alternatives.

    python benchmarks/recipes.py --photos DIR [--task denoise] [--parts pixels rate …]
        [--steps N] [--weights NAME_OR_PATH] [--out FILE.md] [--json FILE]

Short trainings of the network of ``restoration.py``: weights of L1 beside the distance and a ramp,
learning rates, bfloat16, patches of several sizes at equal numbers of pixels. Judged on ``train``
photographs that are left out of training, so that recipes are not chosen on the photographs that
``restoration.py`` judges by. Finished runs are kept in ``--runs``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _common import command, keep, provenance, show, table
from _contest import JUDGES, OURS
from _runs import Settings, evaluate, left_out, load_network, train
from _tasks import TASKS, crops

from relqa_loss.network import find_weights
from relqa_loss.training.photos import find_photos, random_crop, read_photo

Case = tuple[str, dict[str, Any]]
PARTS: dict[str, tuple[str, tuple[Case, ...]]] = {
    "pixels": (
        "Weight of L1 beside the distance",
        (
            ("L1", {"loss": "L1"}),
            *(
                (f"distance + {w} L1", {"loss": f"{OURS} + {w} L1"})
                for w in (0, 100, 300, 600, 1000)
            ),
            ("100 L1, distance ramped", {"loss": f"{OURS} + 100 L1, ramped"}),
        ),
    ),
    "rate": (
        "Peak learning rate",
        tuple(
            (f"{name}, {rate:g}", {"loss": name, "rate": rate})
            for name in ("L1", OURS)
            for rate in (5e-4, 2e-3, 8e-3)
        ),
    ),
    "precision": (
        "Autocast",
        tuple((word, {"precision": word}) for word in ("float32", "bfloat16")),
    ),
    "patch": (
        "Patch size at about equal numbers of pixels",
        tuple(
            (f"{batch} of {crop}²", {"batch": batch, "crop": crop})
            for batch, crop in ((16, 48), (9, 64), (4, 96), (1, 192))
        ),
    ),
}


def overshoot(run: Path, photos: list[torch.Tensor]) -> float:
    """Share of raw outputs below 0 or above 1, on crops as in training."""
    settings, network = load_network(run)
    generator = torch.Generator().manual_seed(1)
    clean = crops(photos, 8, 128, generator)
    with torch.no_grad():
        images = network(TASKS[settings.task].degrade(clean, generator, False)).images
    return float(((images < 0) | (images > 1)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--task", default="denoise", choices=[*TASKS])
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    arguments = parser.parse_args()

    found = find_photos(arguments.photos, "train", least_side=256)
    try:
        chosen, judged = left_out(found.files)
    except ValueError as error:
        parser.error(str(error))
    photos = [(read_photo(path) * 255).round().to(torch.uint8) for path in chosen]
    generator = torch.Generator().manual_seed(1)
    tests = [random_crop(read_photo(path), 256, generator) for path in judged]
    base = Settings(
        arguments.task,
        OURS,
        seed=100,
        steps=arguments.steps,
        photos=found.fingerprint[:8] + "-recipes",
    )
    parts: list[str] = []
    content: dict[str, dict[str, dict[str, float]]] = {}
    for part in arguments.parts:
        title, cases = PARTS[part]
        rows = []
        content[part] = {}
        for label, changes in cases:
            run = train(
                replace(base, **changes),
                photos,
                arguments.runs,
                weights=arguments.weights,
                device=arguments.device,
            )
            values = evaluate(run, tests, arguments.weights, "left16x256")
            means = {key: statistics.fmean(each) for key, each in values.items()}
            means["overshoot"] = overshoot(run, photos)
            content[part][label] = means
            row = [label, f"{means['PSNR']:.2f}", *(f"{means[judge]:.4f}" for judge in JUDGES)]
            rows.append([*row, f"{means['distance']:.3f}", f"{means['overshoot']:.2%}"])
            print(rows[-1], file=sys.stderr, flush=True)
        arrows = [f"{judge} {'↑' if higher else '↓'}" for judge, higher in JUDGES.items()]
        header = ("", "PSNR ↑", *arrows, "distance ↓", "outside [0, 1]")
        parts.append(f"#### {title}\n\n" + table(header, rows))
    version = find_weights(arguments.weights).version
    report = "\n\n".join(
        [
            f"{TASKS[arguments.task].title}; {arguments.steps} steps, one seed, {len(tests)} "
            f"photographs of the `train` split left out of training. `{command()}`. "
            + provenance(version, arguments.device),
            *parts,
        ]
    )
    show(report, arguments.out)
    keep({"weights": version, "command": command(), "parts": content}, arguments.json)


if __name__ == "__main__":
    main()
