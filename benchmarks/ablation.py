"""What each part of the training signal gives the distance: many short runs of equal budget.

    python benchmarks/ablation.py --photos DIR [--steps 600] [--only NAME …] [--out FILE.md]

Every variant starts from the same weights and sees the same images in the same order, without the
held-out operators. It is judged on unseen photographs, by metrics that no panel of any variant
holds, on trained and on held-out operators, by ladders, by facts of psychophysics and by whether
windows of the same images keep their order. Finished variants are kept under ``--folder`` and not
trained again; other photographs, or other ``--sets``, need another folder.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch
from _ablation_judging import WINDOWS, Bench, Distance
from _ablation_variants import FURTHER, JUDGES, VARIANTS, Recoloured, Variant, VariedObjectives
from _common import command, keep, keep_apart, provenance, show, table
from safetensors.torch import load_file, save
from torch import Tensor

from relqa_loss._files import write_atomically
from relqa_loss.distortions import operator_names
from relqa_loss.training.batches import Batches, read_ahead
from relqa_loss.training.loop import FACTS_SEED  # so that the pool of `relqa train` is found again
from relqa_loss.training.panel import PANEL, panel_values
from relqa_loss.training.photos import PhotoFolder, find_photos
from relqa_loss.training.pool import Pool, PoolSpec
from relqa_loss.training.schedule import AveragedWeights, learning_rate
from relqa_loss.training.sets import MARGIN, RankedSet
from relqa_loss.training.split import HELD_OUT

_CROP = 160


class WiderPanel(Pool):
    """A pool that is also judged by :data:`FURTHER`; their values are kept beside the weights."""

    def __init__(self, pool: Pool, path: Path) -> None:
        super().__init__(pool.spec, pool.folder.parent, len(pool))
        if not path.is_file():
            write_atomically(path, save({"values": _further(pool)}))
        self.further = load_file(path)["values"]
        if len(self.further) != len(pool):
            raise ValueError(f"{path} is of a pool of {len(self.further)} sets; delete it")

    def __getitem__(self, index: int) -> RankedSet:
        found = super().__getitem__(index)
        return found._replace(panel=torch.cat([found.panel, self.further[index]], -1))

    def panel(self) -> Tensor:
        return torch.cat([super().panel(), self.further.flatten(0, 1)], -1)


def _further(pool: Pool) -> Tensor:
    values = []
    for index in range(len(pool)):
        each = pool[index]
        values.append(panel_values(each.reference[None] / 255, each.images / 255, FURTHER))
        print(f"panel: {index + 1}/{len(pool)} sets", end="\r", file=sys.stderr, flush=True)
    return torch.stack(values)


def pools(
    found: PhotoFolder, folder: Path, sets: int, wider: Path, *, with_facts: bool
) -> tuple[Pool, Pool]:
    """Ranked sets, and sets of facts (only filled if asked for), as ``relqa train`` makes them."""
    spec = PoolSpec(
        photos=tuple(str(path) for path in found.files),
        fingerprint=found.fingerprint,
        operators=operator_names(),
        held_out=HELD_OUT,
        crop=_CROP,
    )
    ranked = Pool(spec, folder, sets)
    facts = Pool(replace(spec, members=(), seed=FACTS_SEED, facts=True), folder, sets)
    ranked.fill(2)
    if with_facts:
        facts.fill(2)
    return WiderPanel(ranked, wider), facts


def network_of(variant: Variant) -> Recoloured:
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(0)
    network = Recoloured()
    torch.random.set_rng_state(state)
    network.colour = variant.colour
    return network


def train(variant: Variant, data: tuple[Pool, Pool], steps: int, path: Path) -> None:
    """Train one variant and write the averaged weights."""
    ranked, facts = data
    network = network_of(variant)
    objectives = VariedObjectives(network, variant, (*PANEL, *FURTHER))
    learned = [each for each in objectives.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=3e-3, weight_decay=1e-4)
    averaged = AveragedWeights(network, 0.99)
    batches = Batches(
        ranked, 4, 0, stride=2, window=96, facts=(facts, 3) if variant.facts else None
    )
    for step, batch in enumerate(read_ahead(batches, range(steps))):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, 3e-3)
        total = objectives(batch)["total"]
        total.backward()
        torch.nn.utils.clip_grad_norm_(learned, 2.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        averaged.update(network, step)
        if step % 10 == 9:
            line = f"{variant.name}: {step + 1}/{steps}, loss {total.item():.3f}"
            print(line, end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    write_atomically(path, save(averaged.state))


def distance_of(variant: Variant, path: Path) -> Distance:
    network = network_of(variant)
    network.load_state_dict(load_file(path))
    network.eval()
    # As a module would be called from outside: one encoding for all versions of a photograph.
    return lambda reference, images: network.distance(
        network.encode(reference.expand_as(images)), images
    )


def row(variant: Variant, figures: dict[str, float]) -> list[object]:
    def mean(group: str, metrics: tuple[str, ...]) -> float:
        return statistics.mean(figures[f"{metric}, {group}"] for metric in metrics)

    left = [member for member in PANEL if member not in variant.members]
    single = left[0] if variant.members and len(left) == 1 else None
    return [
        variant.name,
        mean("trained", JUDGES),
        mean("held out", JUDGES),
        mean("trained", PANEL),
        mean("held out", PANEL),
        figures[f"{single}, trained"] if single else "",
        figures[f"{single}, held out"] if single else "",
        figures["ladders"],
        figures["facts"],
        *(figures[f"whole and {side}²"] for side in WINDOWS),
    ]


HEADER = (
    "",
    "judges",
    "judges, held out",
    "panel",
    "panel, held out",
    "left-out member",
    "left-out member, held out",
    "ladders",
    "facts",
    *(f"whole and {side}²" for side in WINDOWS),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--pool-folder", type=Path, default=Path("runs/pool"))
    parser.add_argument("--sets", type=int, default=3072, help="ranked sets")
    parser.add_argument("--steps", type=int, default=600, help="of four ranked sets each")
    parser.add_argument("--count", type=int, default=24, help="photographs to judge on")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    arguments = parser.parse_args()
    known = [v.name for v in VARIANTS]
    unknown = [name for name in arguments.only or () if name not in known]
    if unknown:
        parser.error(f"no variant is called {' or '.join(unknown)}; known are {known}")
    variants = [v for v in VARIANTS if not arguments.only or v.name in arguments.only]

    found = find_photos(arguments.photos, "train", least_side=_CROP + MARGIN)
    try:
        keep_apart(arguments.folder, photographs=found.fingerprint, sets=arguments.sets)
    except ValueError as error:
        parser.error(str(error))
    paths = {v: arguments.folder / f"{v.file}-{arguments.steps}.safetensors" for v in variants}
    if not all(path.is_file() for path in paths.values()):
        wider = arguments.folder / f"further-{arguments.sets}.safetensors"
        data = pools(
            found,
            arguments.pool_folder,
            arguments.sets,
            wider,
            with_facts=any(variant.facts for variant in variants),
        )
        for variant, path in paths.items():
            if not path.is_file():
                train(variant, data, arguments.steps, path)

    bench = Bench(arguments.photos, (*PANEL, *JUDGES), arguments.count)
    figures = {v.name: bench.figures(distance_of(v, path)) for v, path in paths.items()}
    report = "\n\n".join(
        [
            f"{bench.count} photographs of the `val` split, {arguments.steps} steps each. "
            + provenance("of these runs alone"),
            "Spearman's correlation with the judges "
            + " and ".join(JUDGES)
            + " and with the panel of four, means over metrics; `ladders`: share of steps that "
            "rise; `facts`: share of firm facts and photographs; `whole and 256²`: correlation of "
            "the distances of whole photographs and of windows in their middle.",
            table(HEADER, [row(v, figures[v.name]) for v in variants]),
        ]
    )
    show(report, arguments.out)
    keep({"command": command(), "figures": figures}, arguments.json)


if __name__ == "__main__":
    main()
