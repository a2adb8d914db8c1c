"""Pairs of image files: matching them by name, and relating them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from relqa_loss.cli._common import images_in
from relqa_loss.network import Relation

_NO_IMAGES = "has no image files in it"


class Pair(NamedTuple):
    """Two files to be related."""

    reference: Path
    image: Path


class Failure(NamedTuple):
    """A file that could not be used, and why."""

    image: Path
    error: str
    reference: Path | None = None


class Outcome(NamedTuple):
    """What the network says about a pair of files."""

    pair: Pair
    reference: Tensor
    image: Tensor
    relation: Relation
    distance_map: Tensor | None
    words: str
    notes: tuple[str, ...]


def pair_up(
    reference: Path,
    images: Sequence[Path],
    *,
    allow_missing: bool = False,
    out: Path | None = None,
) -> tuple[list[Pair], list[Failure]]:
    """Match images with references.

    A reference file goes with every image, and with every image of a folder. In a folder of
    references, an image's partner has the same path inside the folder; failing that, the same
    path but for the ending, and for how accents are composed. What lies under ``out``, a folder
    within one of them, is no image. A folder of outputs without images is a failure, beside
    which others are of use.

    Raises:
        ValueError: If a folder of references has no images in it.
    """
    pairs: list[Pair] = []
    failures: list[Failure] = []
    if not reference.is_dir():
        for image in images:
            files = _outputs(image, out, failures, reference) if image.is_dir() else [image]
            pairs.extend(Pair(reference, file) for file in files)
        return pairs, failures
    references = images_in(reference, out)
    if not references:
        raise ValueError(f"{reference} {_NO_IMAGES}")
    exact = {path.relative_to(reference): path for path in references}
    by_stem: dict[str, list[Path]] = {}
    for path in references:
        by_stem.setdefault(_stem(path.relative_to(reference)), []).append(path)
    for image in images:
        matched: set[Path] = set()
        files = _outputs(image, out, failures) if image.is_dir() else [image]
        if not files:
            continue
        for file in files:
            key = file.relative_to(image) if image.is_dir() else Path(file.name)
            candidates = [exact[key]] if key in exact else by_stem.get(_stem(key), [])
            if len(candidates) == 1:
                pairs.append(Pair(candidates[0], file))
                matched.add(candidates[0])
            elif candidates:
                names = ", ".join(path.name for path in candidates)
                failures.append(Failure(file, f"several references fit: {names}"))
                matched.update(candidates)
            elif not file.exists():
                # A folder that is mistyped is taken for a file, which has no reference.
                failures.append(Failure(file, "no such file or folder"))
            else:
                failures.append(
                    Failure(file, f"no reference named {key.with_suffix('')} in {reference}")
                )
        if image.is_dir() and not allow_missing:
            failures.extend(
                Failure(image / path.relative_to(reference), "no image for this reference", path)
                for path in references
                if path not in matched
            )
    return pairs, failures


def _stem(path: Path) -> str:
    """The path without its ending, each accent with its letter: on a Mac they may be apart."""
    return unicodedata.normalize("NFC", str(path.with_suffix("")))


def _outputs(
    folder: Path, out: Path | None, failures: list[Failure], reference: Path | None = None
) -> list[Path]:
    """The images in a folder, of which ``reference`` is none; without any, it is a failure."""
    found = images_in(folder, out)
    files = [file for file in found if reference is None or file.resolve() != reference.resolve()]
    if not files:
        failures.append(Failure(folder, f"{_NO_IMAGES}{' but the reference' if found else ''}"))
    return files


LARGE = 1536 * 1536
"""Pixels beyond which an image is related in tiles: no slower from there on, and soon faster."""


class Examiner:
    """Relates pairs of files, encoding a reference once for all the images that follow it.

    Images of more than :data:`LARGE` pixels are related in tiles, in bounded memory.

    Raises:
        ValueError: For unknown or damaged weights.
    """

    def __init__(self, weights: str, device: str) -> None:
        from relqa_loss.network import Encoding, find_weights, load_pretrained

        self._weights = find_weights(weights)
        self.version = self._weights.version
        self.network = load_pretrained(self._weights).to(device)
        self.device = device
        self._last: tuple[Path, Tensor, tuple[str, ...]] | None = None
        self._encoding: Encoding | None = None  # of the last reference, unless it is large

    def __call__(self, pair: Pair, *, distance_map: bool = False) -> Outcome:
        """Relate one pair.

        Raises:
            ImageReadError: For a file that cannot be used.
            ValueError: If the two differ in size or are too small.
        """
        import torch

        from relqa_loss.imageio import load_image
        from relqa_loss.tiling import relate_in_tiles
        from relqa_loss.words import describe

        loaded = load_image(pair.image)
        with torch.inference_mode():
            if self._last is None or self._last[0] != pair.reference:
                self._last = self._encoding = None
                reference, notes = load_image(pair.reference)
                _check_size(pair.reference, reference)
                if _area(reference) <= LARGE:
                    self._encoding = self.network.encode(reference[None].to(self.device))
                self._last = (pair.reference, reference, notes)
            _, reference, notes = self._last
            _check_size(pair.image, loaded.pixels)
            if loaded.pixels.shape != reference.shape:
                raise ValueError(
                    f"{pair.image} is {_size(loaded.pixels)}, but its reference {pair.reference} "
                    f"is {_size(reference)}; resize or crop one of them"
                )
            where: Tensor | None
            if self._encoding is None:
                tiled = relate_in_tiles(
                    loaded.pixels[None], reference[None], weights=self._weights, device=self.device
                )
                relation, where = Relation(*tiled[:3]), tiled.distance_map
            else:
                encoded = self.network.encode(loaded.pixels[None].to(self.device))
                relation = self.network.relate(self._encoding, encoded)
                where = self.network.distance_map(self._encoding, encoded) if distance_map else None
        relation = Relation(*(part.cpu() for part in relation))
        return Outcome(
            pair,
            reference,
            loaded.pixels,
            relation,
            where.cpu() if where is not None else None,
            describe(relation.maps[0], reference, channels=self.network.channels),
            (*(f"reference: {n}" for n in notes), *(f"image: {n}" for n in loaded.notes)),
        )


def _check_size(path: Path, image: Tensor) -> None:
    if min(image.shape[-2:]) < 32:
        raise ValueError(f"{path} is {_size(image)}; images must be at least 32×32")


def _area(image: Tensor) -> int:
    return image.shape[-1] * image.shape[-2]


def _size(image: Tensor) -> str:
    """Width × height, as image viewers say it."""
    return f"{image.shape[-1]}×{image.shape[-2]}"
