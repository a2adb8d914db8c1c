"""Networks trained with our loss and with others, judged by metrics that trained neither.

    python benchmarks/restoration.py --photos DIR [--tasks denoise upscale deblur codec]
        [--losses NAME …] [--seeds 3] [--weights NAME_OR_PATH] [--steps N] [--width N]
        [--device cuda] [--out FILE.md] [--json FILE] [--sheet FILE.png]

From the same first weights, with the same batches and as many steps, a small network is trained
under every loss on the ``train`` photographs; outputs for unseen ``val`` photographs are judged.
Finished runs are kept in ``--runs`` and not repeated: with other ``--weights`` only our own are
trained anew. ``--tune`` judges on ``train`` photographs that are left out of training instead,
with seeds of its own: for choosing a recipe. The codec needs the extra ``codec``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _common import command, in_folder, keep, photographs, provenance, show, table
from _contest import JUDGES, OURS, RIVALS, Unavailable, build_loss, loss_maker
from _runs import Settings, evaluate, given_image, left_out, load_network, restore, train
from _tasks import TASKS
from torch import Tensor

from relqa_loss.network import find_weights
from relqa_loss.training.photos import find_photos, random_crop, read_photo

LOSSES = (*RIVALS, OURS, "distance alone", "SpatialMapWeightedLoss", "LPIPS + L1")
STEPS = {"denoise": 250, "upscale": 250, "deblur": 250, "codec": 2000}

Figures = dict[str, list[list[float]]]
"""By figure: one list per seed, one value per photograph."""


class Difference(NamedTuple):
    """How much better one loss's networks are, with the interval of the mean."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "–"


def difference(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    *,
    higher: bool = True,
    resamples: int = 4000,
) -> Difference:
    """Mean of first − second (second − first if lower is better) with a 95% bootstrap interval.

    Values are seeds × photographs and paired: the same seed gave both networks their weights and
    batches. Seeds and photographs are resampled independently, since both were drawn.
    """
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if gap.ndim != 2 or not np.isfinite(gap).all():
        raise ValueError(f"expected finite values, seeds × photographs, got shape {gap.shape}")
    gap = gap if higher else -gap
    generator = np.random.default_rng(0)
    seeds, photos = gap.shape
    rows = generator.integers(seeds, size=(resamples, seeds))
    columns = generator.integers(photos, size=(resamples, photos))
    means = gap[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(float(gap.mean()), float(low), float(high))


def mean(values: Sequence[Sequence[float]]) -> float:
    return statistics.fmean(value for row in values for value in row)


def means_table(figures: dict[str, Figures], compresses: bool) -> str:
    columns = ["PSNR", *JUDGES, "distance", *(["bpp"] if compresses else [])]
    arrows = {**JUDGES, "PSNR": True, "distance": False}
    header = [f"{c} {'↑' if arrows[c] else '↓'}" if c in arrows else c for c in columns]
    rows = []
    for name, found in figures.items():
        values = [mean(found[column]) for column in columns]
        rows.append([name, f"{values[0]:.2f}", *(f"{value:.4f}" for value in values[1:])])
    return table(("loss", *header), rows)


def contest_table(figures: dict[str, Figures]) -> tuple[str, dict[str, dict[str, Difference]]]:
    """Ours against every other loss, judge by judge."""
    found: dict[str, dict[str, Difference]] = {}
    rows = []
    for name, theirs in figures.items():
        if name == OURS:
            continue
        gaps = {
            judge: difference(figures[OURS][judge], theirs[judge], higher=higher)
            for judge, higher in {"PSNR": True, **JUDGES}.items()
        }
        found[name] = gaps
        won = sum(gaps[judge].low > 0 for judge in JUDGES)
        lost = sum(gaps[judge].high < 0 for judge in JUDGES)
        cells = []
        for judge, gap in gaps.items():
            digits = 2 if judge == "PSNR" else 4
            cells.append(
                f"{gap.mean:+.{digits}f} [{gap.low:+.{digits}f}, {gap.high:+.{digits}f}]"
                + (f" {gap.verdict}" if gap.verdict != "–" else "")
            )
        rows.append([f"{OURS} over {name}", *cells, f"{won} / {lost} of {len(JUDGES)}"])
    header = ("better by", "PSNR, dB", *JUDGES, "judges won / lost")
    return table(header, rows), found


def profile_table(figures: dict[str, Figures], least: float = 0.004) -> str:
    """Mean signed maps, of the channels in which some loss's outputs differ from the reference."""
    known = [c for c in figures[next(iter(figures))] if c not in {"PSNR", "bpp", "distance"}]
    channels = [c for c in known if c not in JUDGES]
    shown = [c for c in channels if any(abs(mean(f[c])) >= least for f in figures.values())]
    rows = [[name, *(f"{mean(f[c]):+.3f}" for c in shown)] for name, f in figures.items()]
    return table(("loss", *shown), rows)


def cost_table(names: Sequence[str], weights: str, batch: int, crop: int, device: str) -> str:
    """Time of a loss's step, repeats interleaved, and the memory it takes."""
    from speed import milliseconds, peak_memory

    generator = torch.Generator().manual_seed(0)
    target = torch.rand(batch, 3, crop, crop, generator=generator)
    preds = (target + 0.05 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    preds, target = preds.to(device).requires_grad_(), target.to(device)
    field = {name: build_loss(name, weights).to(device) for name in names}
    memory = {name: peak_memory(loss, preds, target) for name, loss in field.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(9):
        for name, loss in field.items():
            times[name].append(milliseconds(loss, preds, target))
    rows = [
        [name, f"{statistics.median(times[name]):.1f}", f"{memory[name]:.1f}"] for name in names
    ]
    return table(("loss", "ms per step", "MiB"), rows)


def pictured(count: int) -> list[int]:
    """Which of ``count`` test photographs are shown: the third and the middle one, if there are."""
    return sorted({min(2, count - 1), count // 2})


def sheet(path: Path, shown: dict[str, dict[str, list[Tensor]]], side: int = 96) -> None:
    """Rows of crops: clean, given, and what each loss's network made of it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [
        (task, number, {name: images[number] for name, images in columns.items()})
        for task, columns in shown.items()
        for number in range(len(next(iter(columns.values()))))
    ]
    width = max(len(columns) for *_, columns in rows)
    figure, axes = plt.subplots(
        len(rows), width, figsize=(1.7 * width, 1.85 * len(rows)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for line, (task, _, columns) in zip(axes, rows, strict=True):
        for axis, (name, image) in zip(line, columns.items(), strict=False):
            top, left = ((length - side) // 2 for length in image.shape[-2:])
            piece = image[:, top : top + side, left : left + side]
            axis.imshow(piece.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_title(f"{task}: {name}" if name == "clean" else name, fontsize=6)
    figure.tight_layout(pad=0.3)
    figure.savefig(in_folder(path), dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--losses", nargs="+", default=list(LOSSES))
    parser.add_argument(
        "--once",
        nargs="*",
        default=["distance alone", "SpatialMapWeightedLoss"],
        help="losses with one seed only",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each task")
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--steps", type=int, help="instead of the task's own number")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--count", type=int, default=32, help="test photographs")
    parser.add_argument("--size", type=int, default=256, help="side of their crops")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/restoration"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    arguments = parser.parse_args()
    for name in arguments.losses:  # not when its turn comes, after hours of training others
        try:
            loss_maker(name, arguments.weights)
        except ValueError as error:
            parser.error(str(error))

    found = find_photos(arguments.photos, "train", least_side=arguments.crop)
    files, fingerprint = found.files, found.fingerprint[:8]
    if arguments.tune:
        try:
            files, judged_on = left_out(files)
        except ValueError as error:
            parser.error(str(error))
        fingerprint += "-tune"
        generator = torch.Generator().manual_seed(1)
        tests = [random_crop(read_photo(f), arguments.size, generator) for f in judged_on]
    else:
        tests = photographs(arguments.photos, arguments.size, arguments.count, seed=7)
    photos = [(read_photo(path) * 255).round().to(torch.uint8) for path in files]
    tag = f"{'tune' if arguments.tune else 'val'}{len(tests)}x{arguments.size}"
    version = find_weights(arguments.weights).version

    parts, figures_json = [], {}
    shown: dict[str, dict[str, list[Tensor]]] = {}
    available = list(arguments.losses)
    seeds = arguments.seeds
    for task in arguments.tasks:
        figures: dict[str, Figures] = {}
        times: dict[str, float] = {}
        columns: dict[str, list[Tensor]] = {}
        for seed in range(seeds):
            for name in [*available]:
                if seed and name in arguments.once:
                    continue
                settings = Settings(
                    task=task,
                    loss=name,
                    seed=seed + (100 if arguments.tune else 0),
                    steps=arguments.steps or STEPS[task],
                    width=arguments.width,
                    blocks=arguments.blocks,
                    batch=arguments.batch,
                    crop=arguments.crop,
                    rate=arguments.rate,
                    photos=fingerprint,
                )
                try:
                    run = train(
                        settings,
                        photos,
                        arguments.runs,
                        weights=arguments.weights,
                        device=arguments.device,
                    )
                except Unavailable as error:
                    print(f"{name} is left out: {error}", file=sys.stderr)
                    available.remove(name)
                    continue
                values = evaluate(run, tests, arguments.weights, tag)
                for figure, per_photo in values.items():
                    figures.setdefault(name, {}).setdefault(figure, []).append(per_photo)
                times.setdefault(name, json.loads((run / "record.json").read_text())["step ms"])
                print(
                    f"{task}, {name}, seed {settings.seed}: "
                    f"{statistics.fmean(values['PSNR']):.2f} dB, "
                    + ", ".join(f"{j} {statistics.fmean(values[j]):.4f}" for j in JUDGES),
                    file=sys.stderr,
                    flush=True,
                )
                if not seed and arguments.sheet:
                    _, network = load_network(run)
                    for number in pictured(len(tests)):
                        given = given_image(task, tests[number], number)
                        columns.setdefault("clean", [])
                        if name == available[0]:
                            columns["clean"].append(tests[number])
                            columns.setdefault("given", []).append(given)
                        columns.setdefault(name, []).append(restore(network, given)[0])
        shown[task] = columns
        text = [f"### {TASKS[task].title}; {seeds} seed(s), {arguments.steps or STEPS[task]} steps"]
        text.append(means_table(figures, TASKS[task].compresses))
        complete = {n: f for n, f in figures.items() if len(f["PSNR"]) == seeds}
        if OURS in complete:
            contest, gaps = contest_table(complete)
            text.append("Positive is better for ours; 95% intervals of paired differences.")
            text.append(contest)
            figures_json[task] = {
                "means": {n: {k: mean(v) for k, v in f.items()} for n, f in figures.items()},
                "differences": {n: {k: g._asdict() for k, g in d.items()} for n, d in gaps.items()},
                "step ms": times,
            }
        text.append("Signed profile of the outputs (mean maps; + more of it than the photograph):")
        text.append(profile_table(figures))
        spent = ", ".join(f"{name} {value:.0f}" for name, value in times.items())
        text.append(f"Milliseconds per training step, network included: {spent}.")
        parts.append("\n\n".join(text))

    cost = cost_table(
        available, arguments.weights, arguments.batch, arguments.crop, arguments.device
    )
    report = "\n\n".join(
        [
            f"{len(photos)} photographs to train on, {len(tests)} unseen ones to judge by at "
            f"{arguments.size}²; crops of {arguments.crop}², batch {arguments.batch}, Adam at "
            f"{arguments.rate:g}. `{command()}`. " + provenance(version, arguments.device),
            *parts,
            f"### Cost of the loss alone, forward + backward, batch {arguments.batch} of "
            f"{arguments.crop}²\n\n{cost}",
        ]
    )
    show(report, arguments.out)
    keep({"weights": version, "command": command(), "tasks": figures_json}, arguments.json)
    if arguments.sheet:
        sheet(arguments.sheet, shown)


if __name__ == "__main__":
    main()
