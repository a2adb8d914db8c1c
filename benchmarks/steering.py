"""Channel weights and the spatial weights of the maps: do they steer what a network learns?

    python benchmarks/steering.py --photos DIR [--parts curve spatial] [--steps N]
        [--weights NAME_OR_PATH] [--seeds 1] [--out FILE.md] [--json FILE]

The denoiser of ``restoration.py``, trained under channel weights that favour sharpness or
freedom from noise, and under the variants of ``SpatialMapWeightedLoss``: maps detached or not,
base errors, gains, with and without the distance. How sharp and how clean its outputs are is
measured by what our maps say and, independently of them, by the gain in fine detail and the
noise left in flat regions. Finished runs are kept in ``--runs``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _common import command, keep, photographs, provenance, show, table
from _contest import JUDGES
from _runs import Settings, evaluate, given_image, load_network, restore, train
from torch import Tensor, nn

from relqa_loss import RelationalLoss, SpatialMapWeightedLoss
from relqa_loss.network import find_weights
from relqa_loss.training.photos import find_photos, read_photo

CURVE: tuple[tuple[str, dict[str, float]], ...] = (
    ("sharpness 4", {"sharpness": 4.0}),
    ("sharpness 2", {"sharpness": 2.0}),
    ("neutral", {}),
    ("noise 2", {"noise": 2.0}),
    ("noise 4", {"noise": 4.0}),
)
_LITTLE = 1 / 300  # of the distance beside a base of weight 1, near that loss's default
SPATIAL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("base alone", {"map_gain": 0.0, "relational_weight": 0.0}),
    ("maps, detached", {"relational_weight": 0.0}),
    ("maps, flowing", {"relational_weight": 0.0, "detach_maps": False}),
    ("maps, detached, gain 4", {"relational_weight": 0.0, "map_gain": 4.0}),
    ("distance / 300, no maps", {"map_gain": 0.0, "relational_weight": _LITTLE}),
    ("distance / 300, detached", {"relational_weight": _LITTLE}),
    ("distance / 300, flowing", {"relational_weight": _LITTLE, "detach_maps": False}),
    ("distance / 300, L2 base", {"base": "l2", "relational_weight": _LITTLE}),
    ("distance, detached", {"relational_weight": 1.0}),
)


def fine_detail(image: Tensor, reference: Tensor) -> float:
    """Regression slope of fine detail on the reference's own, in one image 3×H×W.

    1 where edges and texture are as strong as they should be, less where they are blurred.
    Noise does not raise it: it does not go along with the reference.
    """
    got, wanted = (_detail(each) for each in (image, reference))
    return float((got * wanted).sum() / wanted.square().sum().clamp(min=1e-12))


def flat_noise(image: Tensor, reference: Tensor, share: float = 0.25) -> float:
    """Standard deviation of fine error where the reference is flattest, in 8-bit levels."""
    activity = F.avg_pool2d(_detail(reference).square(), 7, 1, 3, count_include_pad=False)
    chosen = activity <= activity.flatten().quantile(share)
    error = (_detail(image) - _detail(reference))[chosen]
    return 255 * float(error.square().mean().sqrt())


def _detail(image: Tensor) -> Tensor:
    """Luma less its 5×5 mean, 1×1×H×W."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    luma = (image * weights).sum(0)[None, None]
    return luma - F.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)


def build(part: str, name: str, options: dict[str, Any], weights: str) -> nn.Module:
    shared = {"weights": weights, "on_out_of_range": "ignore"}
    if part == "curve":
        return RelationalLoss(channel_weights=options, **shared)
    return SpatialMapWeightedLoss(**{"base": "charbonnier", **options}, **shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parts_known = ["curve", "spatial"]
    parser.add_argument("--parts", nargs="+", default=parts_known, choices=parts_known)
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--count", type=int, default=12, help="test photographs")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/steering"))
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    arguments = parser.parse_args()

    found = find_photos(arguments.photos, "train", least_side=96)
    photos = [(read_photo(path) * 255).round().to(torch.uint8) for path in found.files]
    tests = photographs(arguments.photos, arguments.size, arguments.count, seed=7)
    tag = f"val{len(tests)}x{arguments.size}"
    titles = {
        "curve": "Channel weights of `RelationalLoss`",
        "spatial": "Variants of `SpatialMapWeightedLoss` (base: Charbonnier unless said)",
    }
    cases: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {"curve": CURVE, "spatial": SPATIAL}
    parts: list[str] = []
    content: dict[str, dict[str, dict[str, float]]] = {}
    for part in arguments.parts:
        rows = []
        content[part] = {}
        for name, options in cases[part]:
            values: dict[str, list[float]] = {}
            for seed in range(arguments.seeds):
                settings = Settings(
                    task="denoise",
                    # The prefix ties the run to the weights' hash, the options to this loss.
                    loss=f"Relational {part} {name} {json.dumps(options)}",
                    seed=seed,
                    steps=arguments.steps,
                    photos=found.fingerprint[:8],
                )
                run = train(
                    settings,
                    photos,
                    arguments.runs,
                    weights=arguments.weights,
                    device=arguments.device,
                    loss=build(part, name, options, arguments.weights),
                )
                for key, figures in evaluate(run, tests, arguments.weights, tag).items():
                    values.setdefault(key, []).extend(figures)
                _, network = load_network(run)
                for number, clean in enumerate(tests):
                    image, _ = restore(network, given_image("denoise", clean, number))
                    values.setdefault("fine detail", []).append(fine_detail(image, clean))
                    values.setdefault("flat noise", []).append(flat_noise(image, clean))
            means = {key: statistics.fmean(figures) for key, figures in values.items()}
            content[part][name] = means
            rows.append(
                [
                    name,
                    f"{means['fine detail']:.3f}",
                    f"{means['flat noise']:.2f}",
                    f"{means['sharpness']:+.3f}",
                    f"{means['noise']:+.3f}",
                    f"{means['PSNR']:.2f}",
                    *(f"{means[judge]:.4f}" for judge in JUDGES),
                ]
            )
            print(f"{part}: {rows[-1]}", file=sys.stderr, flush=True)
        header = ("loss", "fine detail", "flat noise", "map: sharpness", "map: noise", "PSNR")
        parts.append(f"#### {titles[part]}\n\n" + table((*header, *JUDGES), rows))
    version = find_weights(arguments.weights).version
    report = "\n\n".join(
        [
            f"Denoiser, {arguments.steps} steps, {arguments.seeds} seed(s), {len(tests)} unseen "
            f"photographs at {arguments.size}². Fine detail: slope on the reference's (1 is as "
            "sharp); flat noise: levels of 255 in the flattest quarter. "
            f"`{command()}`. " + provenance(version, arguments.device),
            *parts,
        ]
    )
    show(report, arguments.out)
    keep({"weights": version, "command": command(), "parts": content}, arguments.json)


if __name__ == "__main__":
    main()
