"""Can a loss be trusted? One battery for ours and for the losses that users pick instead.

    python benchmarks/loss_trust.py --photos DIR [--weights NAME_OR_PATH] [--losses NAME …]
        [--count 2] [--size 128] [--steps 200] [--out FILE.md] [--json FILE] [--sheet FILE.png]

Recovery by gradient descent, line scans over every operator, gradients, small adversarial
changes, and the best and the worst image of equal mean squared error, all on unseen ``val``
photographs. LPIPS and DISTS take part if their trunks' weights are in torch's cache: nothing is
downloaded. ``trust.py`` descends for longer, on more photographs, and is what the model card
cites. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from _battery import (
    EXTREMES,
    STRIDES,
    Distance,
    attack,
    colour_drift,
    finiteness,
    gradient,
    homeward,
    local_minima,
    psnr,
    same_error,
    spectrum_peak,
)
from _common import command, in_folder, keep, photographs, provenance, show, table
from _contest import MixedMsSsim, Unavailable, require_trunk
from torch import Tensor

from relqa_loss import RelationalLoss, SpatialMapWeightedLoss
from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.evaluation.trust import (
    STARTS,
    is_monotone,
    line_scan,
    recover_image,
    starting_point,
)
from relqa_loss.network import find_weights

ATTACKED = ("gaussian_blur", "jpeg", "white_noise", "contrast_down", "warm", "sinc_ringing")
RADII = (1 / 255, 2 / 255)
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(Exception):
    """An image in descent is no image any more."""


def losses(weights: str) -> dict[str, Distance]:
    """Every loss as one value per image; those without weights on this machine are left out."""
    import piq

    options = {"weights": weights, "reduction": "none", "on_out_of_range": "ignore"}
    field: dict[str, Distance] = {
        "RelationalLoss": RelationalLoss(**options),
        "distance alone": RelationalLoss(pixel_weight=0.0, **options),
        "SpatialMapWeightedLoss": SpatialMapWeightedLoss(**options),
        "L1": lambda x, y: (x - y).abs().mean((1, 2, 3)),
        "L2": lambda x, y: (x - y).square().mean((1, 2, 3)),
        "SSIM": lambda x, y: 1 - piq.ssim(x, y, reduction="none"),
        "MS-SSIM": _ms_ssim,
        "GMSD": lambda x, y: piq.gmsd(x, y, reduction="none"),
        "MDSI": lambda x, y: piq.mdsi(x, y, reduction="none"),
        "VIF": lambda x, y: 1 - piq.vif_p(x, y, reduction="none"),
        "HaarPSI": lambda x, y: 1 - piq.haarpsi(x, y, reduction="none"),
    }
    for name, trunk in (("LPIPS", "alexnet"), ("DISTS", "vgg16")):
        try:
            require_trunk(trunk)
            field[name] = _learned(name)
        except (Unavailable, ImportError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return field


def _ms_ssim(preds: Tensor, target: Tensor) -> Tensor:
    import piq

    count = sum((min(preds.shape[-2:]) - 1) // 2**i >= 10 for i in range(5))
    scales = torch.tensor(MixedMsSsim.SCALES[:count])
    return 1 - piq.multi_scale_ssim(preds, target, scale_weights=scales, reduction="none")


def _learned(name: str) -> Distance:
    if name == "LPIPS":
        import lpips

        network = lpips.LPIPS(net="alex", verbose=False).requires_grad_(False)
        return lambda x, y: network(2 * x - 1, 2 * y - 1).flatten()
    import piq

    return piq.DISTS(reduction="none")  # type: ignore[no-any-return]


def recovery(distance: Distance, photos: Tensor, steps: int) -> dict[str, object]:
    """Descend from every start at once: images do not influence each other."""
    generator = torch.Generator().manual_seed(0)
    starts = [
        photos.roll(1, 0)
        if kind == "other"
        else torch.stack([starting_point(kind, photo, generator) for photo in photos])
        for kind in STARTS
    ]
    begin, target = torch.cat(starts), photos.repeat(len(STARTS), 1, 1, 1)

    def guarded(image: Tensor, reference: Tensor) -> Tensor:
        if bool(image.isnan().any()):
            raise Diverged
        return distance(image, reference)

    try:
        _, result = recover_image(guarded, target, begin, steps=steps)
        with torch.no_grad():
            share = guarded(result, target) / distance(begin, target)
    except Diverged:  # a gradient was not finite
        result, share = torch.full_like(begin, torch.nan), begin.new_tensor([torch.nan])
    found = psnr(result, target).view(len(STARTS), -1).mean(1)
    return {
        **{f"from {kind}": float(value) for kind, value in zip(STARTS, found, strict=True)},
        "final / first": float(share.median()),
        "peak": {stride: spectrum_peak(result, stride) for stride in STRIDES},
        "drift": colour_drift(result, target),
    }


def scans(distance: Distance, photos: Tensor, operators: Sequence[str]) -> dict[str, object]:
    monotone: dict[str, list[bool]] = {}
    minima = 0
    for operator in operators:
        for seed, photo in enumerate(photos):
            generator = torch.Generator().manual_seed(seed)
            distorted = get_operator(operator)(photo[None], 0.8, generator)[0]
            _, values = line_scan(distance, photo, distorted, points=9)
            monotone.setdefault(operator, []).append(is_monotone(values))
            minima += local_minima(values)
    flat = [each for row in monotone.values() for each in row]
    failing = [name for name, each in monotone.items() if not all(each)]
    return {"monotone": sum(flat) / len(flat), "minima": minima, "failing": failing}


def gradients(distance: Distance, photos: Tensor) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    far = torch.cat([get_operator(name)(photos, 0.6, generator) for name in ATTACKED])
    target = photos.repeat(len(ATTACKED), 1, 1, 1)
    noise = torch.randn(photos.shape, generator=generator) / 255
    near = (photos + noise).clamp(0, 1)
    slopes = gradient(distance, far, target)
    close = gradient(distance, near, photos)
    norm_far = float(slopes.flatten(1).norm(dim=1).median())
    norm_near = float(close.flatten(1).norm(dim=1).median())
    return {
        "cosine": float(homeward(slopes, far, target).mean()),
        "cosine near": float(homeward(close, near, photos).mean()),
        "near / far": norm_near / norm_far if norm_far else float("nan"),
    }


def attacks(distance: Distance, photos: Tensor) -> dict[str, float]:
    """Shifts in units of what .2 of severity does, and how often the worse image wins."""
    generator = torch.Generator().manual_seed(0)
    milder = torch.cat([get_operator(name)(photos, 0.4, generator) for name in ATTACKED])
    worse = torch.cat([get_operator(name)(photos, 0.6, generator) for name in ATTACKED])
    target = photos.repeat(len(ATTACKED), 1, 1, 1)
    found = {}
    with torch.no_grad():
        low, high = distance(milder, target), distance(worse, target)
    step = (high - low).abs().clamp(min=1e-9)
    ordered = high > low
    for radius in RADII:
        levels = f"{radius * 255:.0f}/255"
        for word, sign in (("raised", 1.0), ("lowered", -1.0)):
            changed = attack(distance, worse, target, radius=radius, sign=sign)
            with torch.no_grad():
                value = distance(changed, target)
            found[f"{word} {levels}"] = float(((value - high).abs() / step).median())
            if sign < 0:
                flips = (value < low)[ordered].float()
                found[f"flips {levels}"] = float(flips.mean()) if len(flips) else float("nan")
    return found


def extremes(distance: Distance, photo: Tensor, level: float = 26.0) -> tuple[dict, list[Tensor]]:
    """Least and largest distance among images of equal error, and these images."""
    generator = torch.Generator().manual_seed(0)
    target = photo[None]
    noise = torch.randn(target.shape, generator=generator)
    start = (target + noise * 10 ** (-level / 20)).clamp(0, 1)
    images = [same_error(distance, start, target, sign=sign) for sign in (-1.0, 1.0)]
    with torch.no_grad():
        least, most = (float(distance(image, target)) for image in images)
    ends = [float(psnr(image, target)) for image in images]
    return {"least": least, "most": most, "dB": ends}, [image[0] for image in images]


def over_best(found: dict) -> str:
    """The worst value over the best one; the two themselves where the best is not above 0."""
    most, least = found["most"], found["least"]
    # VIF calls an image of more contrast better than its reference.
    return f"{most / least:.1f}" if least > 0 else f"– ({most:.2f} / {least:.2f})"


def sheet(path: Path, photo: Tensor, pictures: dict[str, list[Tensor]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(pictures) + 1, figsize=(1.6 * (len(pictures) + 1), 3.7))
    for axis in axes.flat:
        axis.axis("off")
    axes[0][0].imshow(photo.permute(1, 2, 0).numpy())
    axes[0][0].set_title("reference", fontsize=7)
    for column, (name, pair) in enumerate(pictures.items(), start=1):
        for row, (word, image) in enumerate(zip(("best", "worst"), pair, strict=True)):
            axes[row][column].imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
            axes[row][column].set_title(f"{word} by {name}", fontsize=6)
    figure.tight_layout(pad=0.3)
    figure.savefig(in_folder(path), dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", default="relqa-base", help="shipped name or path")
    parser.add_argument("--losses", nargs="+", help="only these")
    parser.add_argument("--count", type=int, default=2, help="photographs")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="of recovery")
    parser.add_argument("--operators", type=int, help="only so many, for the line scans")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    parser.add_argument("--sheet", type=Path, help="picture of images of equal error")
    arguments = parser.parse_args()
    if arguments.count < 2:
        parser.error("--count must be at least 2: one start is another photograph")
    if arguments.size < 128 or arguments.size % 8:
        parser.error("--size must be a multiple of 8 and at least 128, for the spectrum")

    field = losses(arguments.weights)
    unknown = set(arguments.losses or ()) - set(field)
    if unknown:
        parser.error(f"unknown or unavailable: {sorted(unknown)}; there are {sorted(field)}")
    chosen = {n: f for n, f in field.items() if n in (arguments.losses or field)}
    photos = torch.stack(photographs(arguments.photos, arguments.size, arguments.count, seed=11))
    if len(photos) < 2:  # it would start from itself, and be recovered at once
        parser.error("one start is another photograph, and the `val` split has 1: give more")
    operators = tuple(operator_names())[: arguments.operators]
    figures: dict[str, dict] = {}
    pictures: dict[str, list[Tensor]] = {}
    for name, distance in chosen.items():
        found: dict = {"recovery": recovery(distance, photos, arguments.steps)}
        found["scans"] = scans(distance, photos, operators)
        found["gradients"] = gradients(distance, photos)
        found["finite"] = {
            word: finiteness(distance, dtype)._asdict() for word, dtype in PRECISIONS.items()
        }
        found["attacks"] = attacks(distance, photos)
        found["equal error"], pictures[name] = extremes(distance, photos[0])
        figures[name] = found
        print(f"{name}: {found}", file=sys.stderr, flush=True)

    version = find_weights(arguments.weights).version
    report = render(figures, photos)
    lines = (
        f"{len(photos)} photographs of the `val` split at {arguments.size}², {arguments.steps} "
        f"steps of Adam, {len(operators)} operators. `{command()}`. " + provenance(version)
    )
    report = f"{lines}\n\n{report}"
    show(report, arguments.out)
    keep({"weights": version, "command": command(), "losses": figures}, arguments.json)
    if arguments.sheet:
        sheet(arguments.sheet, photos[0], pictures)


def render(figures: dict[str, dict], photos: Tensor) -> str:
    """The tables, from the figures alone (and the photographs' own spectrum)."""
    natural = ", ".join(f"{spectrum_peak(photos, s):.2f}" for s in STRIDES)
    recovered = []
    for name, each in figures.items():
        found = each["recovery"]
        peaks = [f"{found['peak'][stride]:.2f}" for stride in STRIDES]
        recovered.append(
            [
                name,
                *(f"{found[f'from {kind}']:.1f}" for kind in STARTS),
                f"{found['final / first']:.4f}",
                *peaks,
                f"{found['drift']:.2f}",
            ]
        )
    header = ["loss", *(f"from {kind}, dB" for kind in STARTS), "final / first"]
    header += [f"peak, stride {stride}" for stride in STRIDES]
    parts = [
        "#### Recovery, and patterns in what comes out\n\nPeak: amplitude at the frequencies of a "
        f"grid over that of their neighbourhoods (of the photographs themselves: {natural}). "
        "Drift: of the mean colour, in 8-bit levels. Final / first: median.\n\n"
        + table((*header, "drift"), recovered)
    ]
    rows = []
    for name, each in figures.items():
        scan, slope = each["scans"], each["gradients"]
        failing = scan["failing"]
        some = ", ".join(failing[:3]) + (" …" if len(failing) > 3 else "")
        rows.append(
            [
                name,
                f"{scan['monotone']:.1%}",
                scan["minima"],
                f"{len(failing)}: {some}" if failing else "none",
                f"{slope['cosine']:.3f}",
                f"{slope['cosine near']:.3f}",
                f"{slope['near / far']:.2f}",
            ]
        )
    parts.append(
        "#### Line scans and gradients\n\nCosine of descent with the way back to the reference, "
        "for distorted images and for noise of one level; ratio of the gradient's norms there.\n\n"
        + table(
            (
                "loss",
                "monotone",
                "local minima",
                "operators that fail",
                "cosine",
                "cosine near identity",
                "norm near / far",
            ),
            rows,
        )
    )
    rows = [
        [
            name,
            *(
                f"{found['bad']:.2%}"
                + (f" (refuses {', '.join(found['refused'])})" if found["refused"] else "")
                for found in each["finite"].values()
            ),
        ]
        for name, each in figures.items()
    ]
    parts.append(
        f"#### Non-finite gradients under autocast, on pairs: {', '.join(EXTREMES)}\n\n"
        + table(("loss", *PRECISIONS), rows)
    )
    keys = [*next(iter(figures.values()))["attacks"]]
    rows = [
        [name, *(f"{each['attacks'][key]:.2f}" for key in keys)] for name, each in figures.items()
    ]
    parts.append(
        "#### Adversarial changes\n\nMedian shift of a distorted image's value in units of .2 of "
        "severity; flips: share of images that come to look better than one of .2 less.\n\n"
        + table(("loss", *keys), rows)
    )
    rows = [
        [
            name,
            over_best(each["equal error"]),
            " / ".join(f"{value:.2f}" for value in each["equal error"]["dB"]),
        ]
        for name, each in figures.items()
    ]
    parts.append(
        "#### Best and worst image of equal error\n\n"
        + table(("loss", "worst value / best", "PSNR of best / worst"), rows)
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
