"""``relqa engine``: the bank of distortions, as a list, as a picture, as a data set."""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relqa_loss._files import encoded, write_atomically
from relqa_loss.cli._common import (
    columns_of,
    empty_folder,
    images_in,
    progress,
    refuse_inputs,
    say,
    say_notes,
)
from relqa_loss.cli._sheets import (
    SEVERITIES,
    Shown,
    bank_sheet,
    contact_sheet,
    png,
    shown_of,
    thumbnail,
)

if TYPE_CHECKING:
    from torch import Tensor

    from relqa_loss.distortions import Operator, Sample

_MANIFEST = "manifest.jsonl"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "engine",
        help="the bank of distortions: list it, draw it, write data sets with it",
        description="The distortion engine. Operators of installed third-party packages take part.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="print the bank")
    listing.add_argument("--channel", help="only operators of this dominant channel")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=run_list)

    sheet = actions.add_parser("sheet", help="every operator at five severities as one picture")
    sheet.add_argument("photo", type=Path, metavar="PHOTO")
    sheet.add_argument("--out", type=Path, default=Path("sheet.png"), metavar="PNG")
    sheet.add_argument("--operators", nargs="+", metavar="NAME", help="only these")
    sheet.add_argument("--tile", type=int, default=128, help="side of a tile (default: 128)")
    sheet.add_argument("--seed", type=int, default=0)
    sheet.add_argument("--force", action="store_true", help="replace an existing picture")
    sheet.set_defaults(run=run_sheet)

    sample = actions.add_parser(
        "sample",
        help="write triplets (reference, distorted, maps) to disk",
        description="Write N triplets: PNGs of reference and distorted image, the dense signed "
        "maps as .npz (float16, with channel names), a manifest with recipes as JSON lines and "
        "CSV, and a contact sheet. The same seed and photographs give the same data.",
    )
    sample.add_argument("--photos", type=Path, required=True, metavar="DIR")
    sample.add_argument("--out", type=Path, required=True, metavar="DIR")
    sample.add_argument("-n", "--number", type=int, required=True, metavar="N")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument(
        "--crop", type=int, default=256, help="side of the crops; 0: whole (default: 256)"
    )
    sample.add_argument("--operators", nargs="+", metavar="NAME", help="draw from these only")
    sample.add_argument("--exclude", nargs="+", default=[], metavar="NAME", help="never draw these")
    sample.add_argument("--force", action="store_true", help="replace an earlier sample there")
    sample.set_defaults(run=run_sample)


def run_list(arguments: argparse.Namespace) -> int:
    """Run ``engine list``."""
    from relqa_loss.distortions import list_operators

    operators = list_operators(arguments.channel)
    if arguments.json:
        print(json.dumps([_record(operator) for operator in operators], indent=2))
        return 0
    rows = [["name", "family", "channel", "sign", "side", "runs on", "about"]]
    rows += [
        [
            operator.name,
            operator.family,
            operator.channel,
            _sign(operator.sign),
            ", ".join(f"{name} {weight:+g}" for name, weight in operator.side.items()),
            "any device" if operator.runs_on == "torch" else "CPU",
            operator.about,
        ]
        for operator in operators
    ]
    sys.stdout.write(columns_of(rows, "<<<^<<<"))
    families = len({operator.family for operator in operators})
    channels = len({operator.channel for operator in operators})
    print(f"\n{len(operators)} operators in {families} families over {channels} channels")
    return 0


def _record(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name,
        "family": operator.family,
        "channel": operator.channel,
        "sign": operator.sign,
        "side": dict(operator.side),
        "parameter": asdict(operator.curve),
        "runs_on": operator.runs_on,
        "differentiable": operator.differentiable,
        "mildest": operator.mildest,
        "one_directional": operator.one_directional,
        "about": operator.about,
    }


def _sign(sign: int) -> str:
    return "+" if sign > 0 else "−"


def run_sheet(arguments: argparse.Namespace) -> int:
    """Run ``engine sheet``."""
    from relqa_loss.distortions import get_operator, list_operators
    from relqa_loss.imageio import load_image

    if arguments.tile < 32:
        raise ValueError(f"--tile must be at least 32, got {arguments.tile}")
    if arguments.out.suffix.lower() != ".png":
        raise ValueError(f"--out {arguments.out}: the picture must end in .png")
    refuse_inputs(arguments.out, [arguments.photo], "--out")
    if arguments.out.exists() and not arguments.force:
        raise ValueError(f"{arguments.out} exists; choose another --out or give --force")
    names = arguments.operators
    operators = [get_operator(n) for n in names] if names else list_operators()
    loaded = load_image(arguments.photo)
    photo = thumbnail(loaded.pixels, 2 * arguments.tile)
    sheet = bank_sheet(photo, operators, arguments.tile, arguments.seed)
    write_atomically(arguments.out, png(sheet))
    say_notes(arguments.photo, loaded.notes)
    print(f"{arguments.out}: {len(operators)} operators at severities {SEVERITIES}")
    return 0


def run_sample(arguments: argparse.Namespace) -> int:
    """Run ``engine sample``."""
    import torch

    from relqa_loss.distortions import DistortionEngine, list_operators
    from relqa_loss.distortions._pillow import to_pillow
    from relqa_loss.imageio import ImageReadError, load_image

    if arguments.number < 1:
        raise ValueError(f"-n must be at least 1, got {arguments.number}")
    if arguments.crop and arguments.crop < 32:
        raise ValueError(f"--crop must be at least 32, or 0 for whole images: {arguments.crop}")
    if not -(1 << 31) <= arguments.seed < 1 << 32:
        # With the count behind it, a sample's own seed has 64 bits.
        raise ValueError(
            f"--seed must be from {-(1 << 31)} to {(1 << 32) - 1}, got {arguments.seed}"
        )
    if not arguments.photos.is_dir():
        raise ValueError(f"--photos {arguments.photos} is not a folder")
    engine = DistortionEngine(arguments.operators, exclude=arguments.exclude)
    out: Path = arguments.out
    target = out.resolve()
    if target in (arguments.photos.resolve(), *arguments.photos.resolve().parents):
        raise ValueError(f"--out {out} holds the photographs; choose another folder")
    # An earlier sample there, which --force replaces, is no photograph.
    files = images_in(arguments.photos, out)
    if not files:
        raise ValueError(f"{arguments.photos} has no image files in it")
    empty_folder(out, arguments.force)
    if arguments.force:
        _remove_earlier(out)
    for name in ("reference", "distorted", "maps"):
        (out / name).mkdir(exist_ok=True)

    order = torch.randperm(
        len(files), generator=torch.Generator().manual_seed(arguments.seed)
    ).tolist()
    unreadable: set[Path] = set()
    noted: set[Path] = set()
    entries: list[dict[str, Any]] = []
    shown: list[Shown] = []
    position = 0
    partial = out / f"{_MANIFEST}.part"
    with (
        progress("sampling", arguments.number) as advance,
        partial.open("wb") as manifest,
    ):
        while len(entries) < arguments.number:
            file = files[order[position % len(files)]]
            position += 1
            if file in unreadable:
                continue
            # 32 bits for the count: neighbouring seeds must not share samples.
            seed = (arguments.seed << 32) + position
            try:
                loaded = load_image(file)
            except ImageReadError as error:
                say(f"skipped: {error}")
                unreadable.add(file)
                if len(unreadable) == len(files):
                    raise ValueError(
                        f"none of the {len(files)} image files in {arguments.photos} is readable"
                    ) from None
                continue
            if file not in noted:  # each is used over and over
                noted.add(file)
                say_notes(file, loaded.notes)
                height, width = loaded.pixels.shape[-2:]
                if min(height, width) < arguments.crop:
                    sides = f"{width}×{height}, not {arguments.crop} on each side"
                    say_notes(file, [f"{sides}: kept as far as it goes"])
            # What is on disk is what was distorted: the reference is rounded first.
            photo = (_crop(loaded.pixels, arguments.crop, seed) * 255).round() / 255
            sample = engine.sample(photo, seed)
            stem = f"{len(entries):06d}"
            write_atomically(out / "reference" / f"{stem}.png", png(to_pillow(sample.reference)))
            write_atomically(out / "distorted" / f"{stem}.png", png(to_pillow(sample.distorted)))
            write_atomically(out / "maps" / f"{stem}.npz", _npz(sample.maps))
            entry = _entry(stem, file, sample)
            entries.append(entry)
            manifest.write(encoded(json.dumps(entry, ensure_ascii=False) + "\n"))
            if len(shown) < 24:
                shown.append(shown_of(sample, _recipe_text(entry)))
            advance()
    write_atomically(out / "manifest.csv", encoded(_csv(entries)))
    write_atomically(out / "sheet.png", png(contact_sheet(shown)))
    partial.replace(out / _MANIFEST)  # last: a manifest means that all is there
    used = {step["operator"] for entry in entries for step in entry["steps"]}
    photographs = {entry["photo"] for entry in entries}
    skipped = f", {len(unreadable)} unreadable files skipped" if unreadable else ""
    print(
        f"{out}: {len(entries)} triplets from {len(photographs)} photographs, "
        f"{len(used)} of {len(list_operators())} operators{skipped}"
    )
    return 0


def _remove_earlier(out: Path) -> None:
    """Remove what an earlier sample wrote, and nothing else."""
    for name in (_MANIFEST, f"{_MANIFEST}.part", "manifest.csv", "sheet.png"):
        (out / name).unlink(missing_ok=True)
    for name, suffix in (("reference", "png"), ("distorted", "png"), ("maps", "npz")):
        for path in (out / name).glob(f"[0-9][0-9][0-9][0-9][0-9][0-9].{suffix}"):
            path.unlink()
        if (out / name).is_dir() and not any((out / name).iterdir()):
            shutil.rmtree(out / name)


def _entry(stem: str, file: Path, sample: Sample) -> dict[str, Any]:
    return {
        "reference": f"reference/{stem}.png",
        "distorted": f"distorted/{stem}.png",
        "maps": f"maps/{stem}.npz",
        "photo": str(file),
        "height": sample.reference.shape[-2],
        "width": sample.reference.shape[-1],
        "seed": sample.recipe.seed,
        "steps": [asdict(step) for step in sample.recipe.steps],
    }


def _recipe_text(entry: dict[str, Any]) -> str:
    return " + ".join(
        f"{step['operator']} {step['severity']:.2f} ({step['mask']})" for step in entry["steps"]
    )


def _csv(entries: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    fields = [key for key in entries[0] if key != "steps"]
    writer = csv.DictWriter(text, [*fields, "recipe"], lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        row = {key: entry[key] for key in fields}
        writer.writerow({**row, "recipe": _recipe_text(entry)})
    return text.getvalue()


def _npz(maps: Tensor) -> bytes:
    import numpy as np

    from relqa_loss.channels import CHANNELS

    buffer = io.BytesIO()
    values = maps.cpu().numpy().astype(np.float16)
    np.savez_compressed(buffer, maps=values, channels=np.array(CHANNELS))
    return buffer.getvalue()


def _crop(photo: Tensor, side: int, seed: int) -> Tensor:
    """A random square, or what there is of it in a smaller photograph."""
    import torch

    if not side:
        return photo
    generator = torch.Generator().manual_seed(seed)
    height, width = (min(side, length) for length in photo.shape[-2:])
    top = int(torch.randint(photo.shape[-2] - height + 1, (1,), generator=generator))
    left = int(torch.randint(photo.shape[-1] - width + 1, (1,), generator=generator))
    return photo[:, top : top + height, left : left + width]
