"""Which criterion chooses the checkpoint that independent judges place best?

    python benchmarks/selection.py --photos DIR [--weights NAME_OR_PATH] [--out FILE.md]

Small restorers are trained for real, in all of four tasks and six kinds of trouble that begins
late. At every checkpoint, PSNR, SSIM, L1, the relational loss ("ours") and the distance alone are
measured on images of the ``val`` split; each criterion chooses. Judges that had no part in any
training (of the restorers or of our weights) say how good the chosen checkpoint is: on the same
images, and on others. A run's checkpoints and the judges' values are kept under ``--folder`` and
not made again; other photographs need another folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import piq
import torch
from _common import command, keep, keep_apart, photographs, provenance, show, table
from _selection_runs import (
    CHECKPOINTS,
    TROUBLE_FROM,
    WARM,
    Run,
    degrade,
    load,
    network,
    runs,
    save,
    train,
)
from numpy.typing import NDArray
from torch import Tensor

from relqa_loss import relational_distance
from relqa_loss.network import find_weights
from relqa_loss.selection import CheckpointSelector, ImageScores
from relqa_loss.training.panel import panel_values
from relqa_loss.training.photos import find_photos, read_photo

JUDGES = ("ms_gmsd", "srsim", "dss", "vif")
FAMILIAR = ("distance alone", "PSNR", "SSIM", "L1")
OURS = ("ours, best", "ours, earliest")
CRITERIA = (*OURS, *FAMILIAR, "the last one")
_VETO_STEPS = 15
Values = NDArray[np.float64]  # checkpoints × images, less is better


def consensus(judged: dict[str, Values]) -> int:
    """The checkpoint of the best mean rank under the judges; of equal ones the earliest."""
    means = np.stack([values.mean(1) for values in judged.values()])
    ranks = (means[:, :, None] > means[:, None, :]).sum(2)
    return int(ranks.mean(0).argmin())


def regret(judged: dict[str, Values], chosen: int) -> dict[str, float]:
    """What was given away, by judge, in its own unit."""
    return {
        name: float(values.mean(1)[chosen] - values.mean(1).min())
        for name, values in judged.items()
    }


def relative_regret(judged: dict[str, Values], chosen: int) -> float:
    """The same as a share of the judge's range over the run, mean of the judges."""
    shares = []
    for values in judged.values():
        means = values.mean(1)
        width = means.max() - means.min()
        shares.append((means[chosen] - means.min()) / width if width > 0 else 0.0)
    return float(np.mean(shares))


def choose(ours: Values, familiar: dict[str, Values]) -> dict[str, int]:
    """What each criterion takes."""
    chosen = {name: int(values.mean(1).argmin()) for name, values in familiar.items()}
    for name, rule in zip(OURS, ("best", "earliest"), strict=True):
        chosen[name] = select(ours, rule=rule)
    chosen["the last one"] = CHECKPOINTS - 1
    return chosen


def select(
    ours: Values, profiles: Sequence[dict[str, float] | None] | None = None, **options: object
) -> int:
    """By the selector itself, as a training run would use it."""
    profiles = profiles or [None] * len(ours)
    with tempfile.TemporaryDirectory() as folder:
        selector = CheckpointSelector(Path(folder) / "run", keep=CHECKPOINTS, **options)
        for step, (values, profile) in enumerate(zip(ours, profiles, strict=True)):
            state = {"step": torch.tensor(float(step))}
            selector.update(step, values.tolist(), state=state, profile=profile)
        chosen = selector.chosen
    if chosen is None:
        raise RuntimeError("no checkpoint was chosen")
    return chosen.step


def outputs(run: Run, states: list[dict[str, Tensor]], clean: Tensor) -> Tensor:
    """What each checkpoint makes of the same degraded images, 8-bit: C×N×3×H×W."""
    degraded = degrade(clean, run.task, torch.Generator().manual_seed(99))
    model = network().eval()
    found = []
    for state in states:
        model.load_state_dict(state)
        with torch.no_grad():
            found.append(model(degraded).clamp(0, 1).mul(255).round().div(255))
    return torch.stack(found)


def losses(restored: Tensor, clean: Tensor, weights: str) -> Values:
    """What the selector chooses by, unless told otherwise."""
    rows = []
    for images in restored:
        scores = ImageScores(weights=weights, on_out_of_range="clamp")
        scores.add(images, clean)
        rows.append(list(scores.values))
    return np.array(rows)


def familiar(restored: Tensor, clean: Tensor, weights: str) -> dict[str, Values]:
    found: dict[str, list[Tensor]] = {name: [] for name in FAMILIAR}
    for images in restored:
        error = images - clean
        found["distance alone"].append(
            relational_distance(images, clean, reduction="none", weights=weights)
        )
        found["PSNR"].append(10 * error.square().mean((1, 2, 3)).clamp(min=1e-10).log10())
        found["L1"].append(error.abs().mean((1, 2, 3)))
        found["SSIM"].append(1 - piq.ssim(images, clean, reduction="none"))
    return {name: torch.stack(rows).double().numpy() for name, rows in found.items()}


def judge(restored: Tensor, clean: Tensor) -> dict[str, Values]:
    """Each pair by itself: some judges look at the whole batch."""
    rows = [
        [panel_values(b[None], a[None], JUDGES)[0] for a, b in zip(images, clean, strict=True)]
        for images in restored
    ]
    values = torch.stack([torch.stack(row) for row in rows]).double().numpy()
    return {name: values[..., column] for column, name in enumerate(JUDGES)}


def interval(values: Values, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over runs."""
    draws = np.random.default_rng(seed).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[draws].mean(1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def shown(values: Values) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def rows(chosen: list[dict[str, int]], judged: list[dict[str, Values]]) -> list[list[object]]:
    best = [consensus(each) for each in judged]
    relative = {
        name: np.array([relative_regret(j, c[name]) for j, c in zip(judged, chosen, strict=True)])
        for name in CRITERIA
    }
    found: list[list[object]] = []
    for name in CRITERIA:
        hits = np.array([c[name] == b for c, b in zip(chosen, best, strict=True)], float)
        raw = [regret(j, c[name]) for j, c in zip(judged, chosen, strict=True)]
        less = "" if name == OURS[0] else shown(relative[name] - relative[OURS[0]])
        found.append(
            [name, shown(hits), shown(relative[name]), less]
            + [f"{np.mean([each[judge] for each in raw]):.4f}" for judge in JUDGES]
        )
    return found


def veto_rows(
    photos: list[Tensor], clean: Tensor, weights: str, steps: int, seeds: range
) -> list[list[object]]:
    """Runs that learn a cast of colour late, while they still learn to restore.

    From checkpoint :data:`TROUBLE_FROM` on, all are known to be bad: their targets were warm.
    """
    found: list[list[object]] = []
    for task, seed in product(("denoise", "deblur"), seeds):
        run = Run(task, WARM, "l1", seed)
        restored = outputs(run, train(run, photos, steps), clean)
        measured = []
        for images in restored:
            scores = ImageScores(weights=weights, on_out_of_range="clamp")
            scores.add(images, clean)
            measured.append((list(scores.values), scores.profile))
        ours = np.array([values for values, _ in measured])
        profiles = [profile for _, profile in measured]
        free = select(ours)
        vetoed = select(ours, profiles, veto={"temperature": 0.02})
        taken = int(familiar(restored, clean, weights)["PSNR"].mean(1).argmin())
        found.append(
            [task, seed]
            + [
                f"{number} ({'cast' if number >= TROUBLE_FROM else 'clean'})"
                for number in (taken, free, vetoed)
            ]
            + [profiles[free]["temperature"], profiles[vetoed]["temperature"]]
        )
    return found


HEADER = (
    "criterion",
    "takes the judges' best",
    "regret",
    f"regret more than {OURS[0]}",
    *(f"regret, {judge}" for judge in JUDGES),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", default="relqa-base")
    parser.add_argument("--folder", type=Path, default=Path("runs/selection"))
    parser.add_argument("--seeds", type=int, default=2, help="times 24 runs")
    parser.add_argument("--steps", type=int, default=60, help="between checkpoints")
    parser.add_argument("--first-seed", type=int, default=1, help="0 was for designing this")
    parser.add_argument("--images", type=int, default=8, help="to select on, and to judge on")
    parser.add_argument("--size", type=int, default=128, help="of the images")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    arguments = parser.parse_args()

    found = {s: find_photos(arguments.photos, s, arguments.size) for s in ("train", "val")}
    if len(found["val"].files) < 4:
        parser.error(
            "two images to select on and two to judge on are the least, and the `val` split has "
            f"{len(found['val'].files)} of {arguments.size} pixels or more: give more"
        )
    try:
        keep_apart(arguments.folder, photographs=[each.fingerprint for each in found.values()])
    except ValueError as error:
        parser.error(str(error))
    files = found["train"].files
    train_on = [read_photo(path) for path in files[:: max(1, len(files) // 24)]]
    crops = torch.stack(photographs(arguments.photos, arguments.size, 2 * arguments.images, seed=8))
    # Every other one, so that neither half is of one kind.
    parts = {"selected on": crops[::2], "other": crops[1::2]}

    chosen, judged, listed = [], {name: [] for name in parts}, []
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    everything = runs(seeds)
    for number, run in enumerate(everything, start=1):
        print(f"{number}/{len(everything)} {run.name}", file=sys.stderr, flush=True)
        path = arguments.folder / f"{run.name}-{arguments.steps}.safetensors"
        if not path.is_file():
            save(path, train(run, train_on, arguments.steps))
        states = load(path)
        restored = {name: outputs(run, states, clean) for name, clean in parts.items()}
        kept = path.with_name(f"{path.stem}-{arguments.images}x{arguments.size}.json")
        if not kept.is_file():
            values = {name: judge(restored[name], parts[name]) for name in parts}
            plain = {p: {j: v.tolist() for j, v in each.items()} for p, each in values.items()}
            keep(plain, kept)
        values = json.loads(kept.read_text("utf-8"))
        for name in parts:
            judged[name].append({j: np.array(v) for j, v in values[name].items()})
        clean = parts["selected on"]
        ours = losses(restored["selected on"], clean, arguments.weights)
        chosen.append(choose(ours, familiar(restored["selected on"], clean, arguments.weights)))
        best = {name: consensus(judged[name][-1]) for name in parts}
        listed.append([run.task, run.trouble, run.loss, run.seed, *best.values(),
                       *(chosen[-1][name] for name in CRITERIA[:-1])])  # fmt: skip

    tables = {name: rows(chosen, judged[name]) for name in parts}
    report = "\n\n".join(
        [
            f"{len(everything)} runs of {CHECKPOINTS} checkpoints, chosen on "
            f"{len(parts['selected on'])} images of {arguments.size}². "
            + provenance(find_weights(arguments.weights).version),
            "Regret: what the judges lose by the choice, as a share of their range over the run, "
            f"mean of {', '.join(JUDGES)}; then each in its own unit. Intervals: 95 % bootstrap "
            "over runs.",
            "#### Judged on other images than the choice was made on\n\n"
            + table(HEADER, tables["other"]),
            "#### Judged on the same images\n\n" + table(HEADER, tables["selected on"]),
            "#### A veto\n\nTargets turn warm at checkpoint "
            f"{TROUBLE_FROM}, {_VETO_STEPS} steps between checkpoints, while the network still "
            "learns to restore. Taken by PSNR, by ours without a veto, and by ours with "
            '`veto={"temperature": 0.02}`; then the warmth of the last two.\n\n'
            + table(
                ("task", "seed", "PSNR", "ours", "with the veto", "warmth", "with the veto"),
                veto_rows(
                    train_on, parts["selected on"], arguments.weights, _VETO_STEPS, seeds
                ),
            ),
            "#### The runs: number of the checkpoint that each one takes\n\n"
            + table(
                ("task", "trouble", "loss", "seed", "judges, same", "judges, other",
                 *CRITERIA[:-1]),
                listed,
            ),
        ]
    )  # fmt: skip
    show(report, arguments.out)
    headed = {name: [HEADER, *lines] for name, lines in tables.items()}
    keep({"command": command(), "tables": headed, "runs": listed}, arguments.json)


if __name__ == "__main__":
    main()
