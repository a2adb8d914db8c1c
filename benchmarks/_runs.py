"""Training one small network under one loss, kept on disk so that it is done once."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from _common import keep
from _contest import Ramped, build_loss, is_ours, judge
from _tasks import TASKS, Output, crops, network_for
from torch import Tensor, nn

from relqa_loss import CHANNELS, relate
from relqa_loss.network import find_weights

_LATER = {"options": "", "precision": "float32"}
_FIRST_EXPONENT = -3.0  # a fresh codec learns to show something before it learns to save
_RATE_GAIN = 0.01  # three times as much starves it, and takes hundreds of steps to let go
_LEFT_OUT = 16  # train photographs that settings are chosen on
_RAMP = 0.6  # share of the steps over which a ramped distance comes in


@dataclass(frozen=True)
class Settings:
    """All that a trained network depends on."""

    task: str
    loss: str
    seed: int
    steps: int
    width: int = 32
    blocks: int = 3
    batch: int = 4
    crop: int = 96
    rate: float = 2e-3
    bits: float = 0.6
    """Bits per pixel that codecs are held to while training."""
    precision: str = "float32"
    """Of autocast around network and loss: ``"bfloat16"`` or none."""
    photos: str = ""
    """Fingerprint of the photographs trained on."""
    weights: str = ""
    """Start of the hash of our weights, for losses that use them."""
    options: str = ""
    """Of such losses: their defaults may change."""

    @property
    def key(self) -> str:
        """Name of the folder that the run is kept in."""
        known = asdict(self)
        if not TASKS[self.task].compresses:
            known.pop("bits")
        # What came later and is not used: earlier runs are found again.
        known = {k: v for k, v in known.items() if k not in _LATER or v != _LATER[k]}
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
        slug = "".join(c if c.isalnum() else "-" for c in self.loss.lower())
        return f"{self.task}-{slug}-s{self.seed}-{digest}"


def left_out(files: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """Photographs to train on, and those of the same split to choose settings by.

    Raises:
        ValueError: If none is left to train on.
    """
    if len(files) <= _LEFT_OUT:
        raise ValueError(
            f"{_LEFT_OUT} of the `train` split are left out of training, and it has {len(files)}: "
            "give more photographs"
        )
    return files[:-_LEFT_OUT], files[-_LEFT_OUT:]


class RateControl:
    """Weight of the rate that holds a codec to its bits per pixel, whatever the loss's unit.

    Comparing losses at one weight of the rate would compare codecs at different rates.
    """

    def __init__(self, bits: float) -> None:
        self.bits = bits
        self.exponent = _FIRST_EXPONENT
        self.unit: float | None = None

    def __call__(self, distortion: Tensor, rate: Tensor) -> Tensor:
        now = float(distortion.detach())
        self.unit = now if self.unit is None else 0.95 * self.unit + 0.05 * now
        total: Tensor = distortion / self.unit + math.exp(self.exponent) * rate
        excess = math.log(max(float(rate.detach()), 1e-3) / self.bits)
        self.exponent += _RATE_GAIN * min(max(excess, -1.0), 1.0)
        return total


def schedule(done: float) -> float:
    """Learning rate over its peak: warm-up over a twentieth, then a cosine."""
    return min(1.0, (done + 0.005) / 0.05) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    settings: Settings,
    photos: list[Tensor],
    folder: Path,
    *,
    weights: str,
    device: str = "cpu",
    loss: nn.Module | None = None,
) -> Path:
    """Train unless it has been done, and return the run's folder.

    Seed and step alone decide the first weights and every batch, so that runs that differ in
    their loss see the same. ``loss`` stands in for the one that ``settings.loss`` names.

    Raises:
        _contest.Unavailable: If the loss needs weights that are not here.
    """
    measure = (loss or build_loss(settings.loss, weights)).to(device)
    if is_ours(settings.loss):
        options = str(getattr(measure, "version", "")).partition("(")[2]
        digest = find_weights(weights).sha256[:8]
        settings = replace(settings, weights=digest, options=options)
    run = folder / settings.key
    record = run / "record.json"
    if record.is_file():
        return run
    task = TASKS[settings.task]
    generator = torch.Generator().manual_seed(settings.seed)
    times, curve = [], []
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = network_for(task, settings.width, settings.blocks)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.rate)
        control = RateControl(settings.bits)
        for step in range(settings.steps):
            clean = crops(photos, settings.batch, settings.crop, generator)
            given = task.degrade(clean, generator, False)
            clean, given = (
                images.to(device, memory_format=torch.channels_last) for images in (clean, given)
            )
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * schedule(step / settings.steps)
            if isinstance(measure, Ramped):
                measure.share = min(1.0, step / (_RAMP * settings.steps))
            began = time.perf_counter()
            with torch.autocast(
                device.partition(":")[0],
                dtype=torch.bfloat16,
                enabled=settings.precision == "bfloat16",
            ):
                output: Output = network(given)
                distortion = measure(output.images, clean)
            total = distortion
            if output.rate is not None:
                total = control(distortion, output.rate.mean())
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            curve.append(float(distortion.detach()))
            times.append(1000 * (time.perf_counter() - began))
    run.mkdir(parents=True, exist_ok=True)
    torch.save(network.cpu().state_dict(), run / "network.pt")
    content = {
        "settings": asdict(settings),
        "step ms": statistics.median(times),
        "seconds": sum(times) / 1000,
        "parameters": sum(p.numel() for p in network.parameters()),
        "loss": curve[:: max(1, len(curve) // 50)],
        "finite": all(map(math.isfinite, curve)),
    }
    keep(content, record)
    return run


def load_network(run: Path) -> tuple[Settings, nn.Module]:
    """The settings and the trained network of a run."""
    settings = Settings(**json.loads((run / "record.json").read_text("utf-8"))["settings"])
    with torch.random.fork_rng():
        network = network_for(TASKS[settings.task], settings.width, settings.blocks)
    network.load_state_dict(torch.load(run / "network.pt", weights_only=True))
    return settings, network.eval()


def given_image(task: str, clean: Tensor, number: int) -> Tensor:
    """The degraded version of one 3×H×W test photograph, the same in every run."""
    generator = torch.Generator().manual_seed(number)
    return TASKS[task].degrade(clean[None], generator, True)[0]


def restore(network: nn.Module, image: Tensor) -> tuple[Tensor, float]:
    """The output for one image as a file would hold it, and its bits per pixel (NaN for none)."""
    with torch.no_grad():
        output: Output = network(image[None])
    bits = math.nan if output.rate is None else float(output.rate[0])
    return (output.images[0].clamp(0, 1) * 255).round() / 255, bits


def evaluate(run: Path, tests: list[Tensor], weights: str, tag: str) -> dict[str, list[float]]:
    """Every figure of every test photograph; kept beside the network, by photographs and weights.

    PSNR, bits per pixel and the independent judges do not depend on our weights; the distance
    and the signed profile do.
    """
    content = hashlib.sha256()
    for clean in tests:  # as many others of this size are not the same
        content.update(clean.numpy().tobytes())
    tag = f"{tag}-{content.hexdigest()[:8]}"
    judged = run / f"judges-{tag}.json"
    profiled = run / f"profile-{tag}-{find_weights(weights).sha256[:8]}.json"
    if not (judged.is_file() and profiled.is_file()):
        settings, network = load_network(run)
        restored = [
            restore(network, given_image(settings.task, clean, number))
            for number, clean in enumerate(tests)
        ]
        if not judged.is_file():
            found: dict[str, list[float]] = {}
            for (image, bits), clean in zip(restored, tests, strict=True):
                values = judge(image, clean)
                for name, value in {"PSNR": values.psnr, "bpp": bits, **values.judges}.items():
                    found.setdefault(name, []).append(value)
            keep(found, judged)
        own: dict[str, list[float]] = {}
        for (image, _), clean in zip(restored, tests, strict=True):
            with torch.no_grad():
                relation = relate(image[None], clean[None], weights=weights)
            signed = relation.maps[0].mean((1, 2)).tolist()
            values = {
                "distance": float(relation.distance),
                **dict(zip(CHANNELS, signed, strict=True)),
            }
            for name, value in values.items():
                own.setdefault(name, []).append(value)
        keep(own, profiled)
    return json.loads(judged.read_text("utf-8")) | json.loads(profiled.read_text("utf-8"))
