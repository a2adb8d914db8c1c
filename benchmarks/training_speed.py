"""Throughput of ``relqa train`` over processes, and whether it waits for data.

    python benchmarks/training_speed.py --photos DIR [--processes 1 2] [--steps 30] [--sets 128]
        [--repeats 3] [--pool-folder runs/pool-speed] [--out FILE.md]

Every measurement is a run of ``relqa train`` with all terms of its objective and one thread per
process; figures are those of the runs' own manifests. The pool is made before the first of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from _common import provenance, show, table

BATCH, UNJUDGED, FACTS = 4, 8, 8
"""Sets per step and process."""


def train(arguments: argparse.Namespace, processes: int, steps: int, folder: Path) -> Path:
    """One run; its manifest."""
    out = folder / "weights.safetensors"
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["relqa_loss", "train", "--accelerator", "cpu", "--devices", str(processes)]
    settings = {
        "photos": arguments.photos,
        "out": out,
        "pool-folder": arguments.pool_folder,
        "steps": steps,
        "sets": arguments.sets,
        "batch": BATCH,
        "unjudged-sets": arguments.sets,
        "unjudged-batch": UNJUDGED,
        "fact-sets": arguments.sets,
        "fact-batch": FACTS,
        "validation-sets": BATCH,
    }
    command += [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"relqa train failed:\n{found.stderr}")
    return out.with_suffix(".json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sets", type=int, default=128, help="of each kind in the pool")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, by turns")
    parser.add_argument("--pool-folder", type=Path, default=Path("runs/pool-speed"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps must be at least 2: the first one warms up and does not count")

    torch.set_num_threads(1)  # as told to the runs, and below their figures
    with tempfile.TemporaryDirectory() as folder:
        train(arguments, 1, 2, Path(folder))
    paces: dict[int, list[dict[str, float]]] = {count: [] for count in arguments.processes}
    for repeat in range(arguments.repeats):
        for count in arguments.processes:
            with tempfile.TemporaryDirectory() as folder:
                manifest = train(arguments, count, arguments.steps, Path(folder))
                paces[count].append(json.loads(manifest.read_text("utf-8"))["training"]["pace"])
            print(f"{repeat + 1}/{arguments.repeats}: {paces[count][-1]}", file=sys.stderr)

    first = arguments.processes[0]
    rate = {
        count: [count * BATCH / pace["seconds_per_step"] for pace in found]
        for count, found in paces.items()
    }
    rows = []
    for count, found in paces.items():
        gains = [own / base for own, base in zip(rate[count], rate[first], strict=True)]
        rows.append(
            [
                count,
                statistics.median(gains),
                statistics.median(rate[count]),
                statistics.median(pace["seconds_per_step"] for pace in found),
                max(pace["waiting"] for pace in found),
            ]
        )
    header = (
        "processes", f"throughput ÷ that of {first}", "ranked sets per second", "seconds a step",
        "share of waiting for data, largest",
    )  # fmt: skip
    report = "\n\n".join(
        [
            f"Per step and process {BATCH} ranked sets, {UNJUDGED} unjudged ones and {FACTS} of "
            f"facts; one thread per process; medians of {arguments.repeats} runs of "
            f"{arguments.steps} steps.",
            table(header, rows),
            provenance("random at the start of each run"),
        ]
    )
    show(report, arguments.out)


if __name__ == "__main__":
    main()
