"""The photographs that training starts from."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._files import encoded, files_below
from relqa_loss._levels import eight_bit
from relqa_loss.imageio import ImageReadError, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif"})

SPLITS = ("train", "val", "test")
"""Of a manifest. Nothing here reads ``test``, which is for users' own."""


@dataclass(frozen=True)
class PhotoFolder:
    """Readable photographs of one split, and what was left out."""

    files: tuple[Path, ...]
    skipped: tuple[Path, ...]
    fingerprint: str
    """SHA-256 over names and contents, so that a training record names its data."""


def find_photos(folder: Path, split: str | None = None, least_side: int = 32) -> PhotoFolder:
    """Find the photographs in a folder.

    Args:
        folder: Searched recursively, linked folders as well and hidden ones not, unless it holds a
            ``MANIFEST.csv`` with the columns ``file`` and ``split``, which then says which files
            belong to which split.
        split: ``train`` or ``val``. Without a manifest every tenth photograph (by the hash of its
            name) is ``val``. ``None`` takes all. Of a manifest's splits, those that are none of
            :data:`SPLITS` are left out, of which ``train`` warns.
        least_side: Photographs with a shorter side are skipped like unreadable ones, and so are
            those with transparent pixels, whose colours nobody has seen.

    Raises:
        ValueError: If the folder does not exist, its manifest lacks a column or is not in UTF-8,
            names none, has a split without a file or a file in two splits, none of its
            photographs is in the split, or none of these can be used.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a folder of photographs")
    manifest = folder / "MANIFEST.csv"
    if manifest.is_file():
        try:
            rows = _read_manifest(manifest)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{manifest} is not text in UTF-8 ({error}): save it with that encoding"
            ) from error
        named = [(folder / name, its_split) for name, its_split in rows]
        _refuse_two_splits(manifest, named)
        if split == "train":  # once: a run looks for the others, too
            _tell_of_other_splits(manifest, [its_split for _, its_split in named])
    else:
        paths = [path for path in files_below(folder) if path.suffix.lower() in SUFFIXES]
        named = [(path, _split_of(path.name)) for path in paths if path.is_file()]
    wanted = sorted(path for path, its_split in named if split in (None, its_split))
    if named and not wanted:
        raise ValueError(_nothing_in(split, manifest, [its_split for _, its_split in named]))
    if not named and manifest.is_file():
        raise ValueError(f"{manifest} names no photograph; remove it, or add a row for each")
    files: list[Path] = []
    skipped: list[Path] = []
    small = 0
    digest = hashlib.sha256()
    for path in wanted:
        try:
            with _open(path) as image:
                deep = _is_deep(image)
                _check(path, image)
                usable = min(image.size) >= least_side
            small += not usable
            content = path.read_bytes()
        except (OSError, SyntaxError, ValueError) as error:
            logger.warning("skipped %s: %s", path, error)
            usable = False
        if not usable:
            skipped.append(path)
            continue
        files.append(path)
        digest.update(encoded(path.name) + b"\0" + hashlib.sha256(content).digest())
        if deep:  # pools from before these were read in full hold them as white
            digest.update(b"\0deep")
    if not files:
        raise ValueError(
            f"no usable photograph in {folder}"
            + (f" for split {split!r}" if split else "")
            + f": {len(skipped)} could not be read or have a side under {least_side} pixels; "
            f"formats are {', '.join(sorted(SUFFIXES))}"
        )
    if skipped:
        # Not by name, as the others are: they may be thousands.
        sides = f", {small} of them with a side under {least_side} pixels" if small else ""
        logger.warning("%d of %d photographs were skipped%s", len(skipped), len(wanted), sides)
    return PhotoFolder(tuple(files), tuple(skipped), digest.hexdigest())


def read_photo(path: Path) -> Tensor:
    """A photograph as 3×H×W in [0, 1].

    8-bit pixels are taken as they are stored, without turning them or converting their profile;
    16-bit grey is read in full, and of 16-bit colour the upper 8 bits.
    """
    with _open(path) as image:
        if _is_deep(image):
            return read_image(path)
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def random_crop(
    photo: Tensor, size: int, generator: torch.Generator, scales: tuple[float, float] = (0.5, 1.0)
) -> Tensor:
    """A ``size``² crop at a random scale, 8-bit like every photograph that a user has.

    Crops with next to no detail are drawn again (a few times): skies teach little.
    """
    height, width = photo.shape[-2:]
    least = size / min(height, width)
    low, high = max(scales[0], least), max(scales[1], least)
    scale = low + (high - low) * float(torch.rand(1, generator=generator))
    if scale != 1.0:
        target = (max(size, round(height * scale)), max(size, round(width * scale)))
        photo = F.interpolate(photo[None], target, mode="bicubic", antialias=True)[0]
        height, width = photo.shape[-2:]
    crop = photo[:, :size, :size]
    for _ in range(4):
        top = int(torch.randint(height - size + 1, (1,), generator=generator))
        left = int(torch.randint(width - size + 1, (1,), generator=generator))
        crop = photo[:, top : top + size, left : left + size]
        if float(crop.std()) > 0.06:
            break
    return eight_bit(crop)


def _open(path: Path) -> Image:
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ImportError(
            "reading photographs needs Pillow: pip install 'relqa-loss[train]'"
        ) from error
    try:
        return pillow.open(path)
    except pillow.DecompressionBombError as error:
        raise ValueError(f"too large: {error}") from error


def _is_deep(image: Image) -> bool:
    """Whether its samples are such as Pillow cuts off at 255 in a conversion."""
    return image.mode.startswith(("I", "F"))


def _check(path: Path, image: Image) -> None:
    """Decode, and raise ``ValueError`` for what has no pixels that a viewer would see."""
    image.load()
    # A channel of alpha that is opaque everywhere hides nothing.
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise ValueError("has transparent pixels; save it without them")
    if _is_deep(image):
        try:
            read_image(path)
        except ImageReadError as error:
            raise ValueError(error.reason) from error


def _read_manifest(path: Path) -> list[tuple[str, str]]:
    """Files and their splits."""
    # Spreadsheets write a byte-order mark, which would be part of the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        columns = reader.fieldnames or ()
        missing = [repr(name) for name in ("file", "split") if name not in columns]
        if missing:
            raise ValueError(
                f"{path} has no column {' and '.join(missing)}; it has "
                f"{', '.join(map(repr, columns)) or 'none'}, and columns are separated by commas"
            )
        rows = []
        for row in reader:
            # A row that is cut short has no split at all, or no file where that column is last.
            name, split = row["file"] or "", (row["split"] or "").strip().lower()
            if name:
                rows.append((name, split))
            elif split:
                raise ValueError(f"{path}, line {reader.line_num}: split {split!r} without a file")
        return rows


def _refuse_two_splits(manifest: Path, named: Sequence[tuple[Path, str]]) -> None:
    """A photograph of both would be validated on after training on it."""
    splits: dict[Path, str] = {}
    for path, split in named:
        before = splits.setdefault(path.resolve(), split)
        if before != split:
            raise ValueError(
                f"{manifest} has {path.name} in split {before!r} and in split {split!r}; keep one"
            )


def _tell_of_other_splits(manifest: Path, splits: Sequence[str]) -> None:
    """Who mistypes a split would train on fewer photographs, and not know."""
    for split, count in sorted(Counter(splits).items()):
        if split not in SPLITS:
            logger.warning(
                "%s: %d photographs are in split %r, which is none of %s, and are left out",
                manifest,
                count,
                split,
                ", ".join(SPLITS),
            )


def _nothing_in(split: str | None, manifest: Path, splits: Sequence[str]) -> str:
    """That a split is empty, and what to do about it."""
    known = ", ".join(map(repr, sorted({str(each) for each in splits})))
    why = (
        f"it has {known}"
        if manifest.is_file()
        else "about a tenth is 'val', by the hash of their names"
    )
    return (
        f"none of the {len(splits)} photographs in {manifest.parent} is in split {split!r}: {why}; "
        f"say which ones are in {manifest} (columns file and split), or give more photographs"
    )


def _split_of(name: str) -> str:
    return "val" if hashlib.sha256(encoded(name)).digest()[0] % 10 == 0 else "train"
