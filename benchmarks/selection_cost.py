"""What scoring and choosing cost beside the network that is validated.

    python benchmarks/selection_cost.py [--images N] [--size PIXELS] [--repeats N] [--out FILE.md]

Processor seconds of one thread, so that other work on the machine counts little. Validation is here
the network's pass and ours; reading and preparing images comes on top of both and would lower our
share. Drawing maps is not in it: ``MapLogger`` keeps that to a share of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _common import provenance, show, table
from torch import Tensor, nn

from relqa_loss.demo import Restorer
from relqa_loss.network import find_weights
from relqa_loss.selection import CheckpointSelector, ImageScores

NETWORKS = {
    "the examples' denoiser": (24, 2),
    "a small restorer": (64, 8),
    "a middling one": (128, 16),
    "a large one": (180, 24),
}
TARGET = 0.05


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The least of ``repeats`` calls, after one that does not count."""
    call()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found)


def share(ours: float, network: float) -> float:
    return ours / (ours + network)


def multiply_adds(network: nn.Module, image: Tensor) -> int:
    """Of the convolutions, for one image, per pixel of it."""
    counted = 0

    def count(layer: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal counted
        counted += output[0, 0].numel() * layer.weight.numel()

    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    hooks = [each.register_forward_hook(count) for each in convolutions]
    with torch.no_grad():
        network(image[None])
    for hook in hooks:
        hook.remove()
    return counted // image[0].numel()


def deciding(values: list[float], profile: dict[str, float], network: nn.Module) -> float:
    """One update of the selector, the second one's, which compares and writes weights."""
    with tempfile.TemporaryDirectory() as folder:
        selector = CheckpointSelector(Path(folder) / "run", veto={"ringing": 0.1})
        state = network.state_dict()
        selector.update(0, values, state=state, profile=profile)
        began = time.process_time()
        selector.update(1, [0.9 * each for each in values], state=state, profile=profile)
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=24, help="in the validation set")
    parser.add_argument("--size", type=int, default=96, help="of the images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--networks", type=int, default=len(NETWORKS), help="how many, the smallest first"
    )
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, 3, arguments.size, arguments.size, generator=generator)
    restored = (clean + 0.05 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)

    scores = ImageScores()
    scoring, without = (
        seconds(partial(each.measure, restored, clean), arguments.repeats) / len(clean)
        for each in (scores, ImageScores(maps=False))
    )
    scores.add(restored, clean)
    values = [list(scores.values)[k % len(clean)] for k in range(arguments.images)]

    rows: list[list[object]] = []
    for name, (width, blocks) in list(NETWORKS.items())[: arguments.networks]:
        network = Restorer(width=width, blocks=blocks).eval()
        with torch.no_grad():
            passing = seconds(lambda net=network: net(clean), arguments.repeats) / len(clean)
        choosing = deciding(values, scores.profile, network)
        choosing_each = choosing / arguments.images
        rows.append(
            [
                name,
                f"{multiply_adds(network, clean[0]) / 1000:.0f}",
                f"{1000 * passing:.1f}",
                f"{1000 * scoring:.1f}",
                f"{1000 * without:.1f}",
                f"{1000 * choosing:.0f}",
                f"{100 * share(scoring + choosing_each, passing):.1f}%",
                f"{100 * share(without + choosing_each, passing):.1f}%",
            ]
        )
    header = (
        "network",
        "thousand multiply-adds per pixel",
        "its pass, ms per image",
        "scoring, ms per image",
        "without maps",
        "deciding, ms per validation",
        "our share",
        "without maps",
    )
    even, even_without = (each * (1 - TARGET) / TARGET for each in (scoring, without))
    report = "\n\n".join(
        [
            table(header, rows),
            f"{arguments.images} images of {arguments.size}². Scoring alone is {TARGET:.0%} where "
            f"the network's pass takes {1000 * even:.0f} ms per image, without maps "
            f"{1000 * even_without:.0f} ms; deciding grows with the weights that it writes. "
            "Processor time of one thread, "
            f"the least of {arguments.repeats}. " + provenance(find_weights().version),
        ]
    )
    show(report, arguments.out)


if __name__ == "__main__":
    main()
