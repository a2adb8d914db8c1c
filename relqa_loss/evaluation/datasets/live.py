"""LIVE, release 2."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from relqa_loss.evaluation._scipy import scipy_module
from relqa_loss.evaluation.datasets._tables import child, children, find_child
from relqa_loss.evaluation.datasets.records import OpinionDataset, RatedPair

REFERENCES = "refnames_all.mat"
FOLDERS = {
    "jp2k": "JPEG 2000",
    "jpeg": "JPEG",
    "wn": "white noise",
    "gblur": "Gaussian blur",
    "fastfading": "fast fading",
}
"""In the order in which the vectors of the .mat files run through them."""


def read_live(root: Path) -> OpinionDataset:
    """LIVE release 2: 29 references, 5 distortions, 779 distorted images, DMOS.

    Source: Sheikh, Sabir and Bovik, "A statistical evaluation of recent full reference image
    quality assessment algorithms", IEEE Transactions on Image Processing 15 (2006),
    doi:10.1109/TIP.2006.881959.

    Expects ``refimgs/``, the folders ``jp2k``, ``jpeg``, ``wn``, ``gblur`` and ``fastfading`` with
    ``img1.bmp``, ``img2.bmp``, …, ``refnames_all.mat`` (``refnames_all``) and
    ``dmos_realigned.mat`` (``dmos_new``, ``orgs``), which is preferred, or ``dmos.mat`` (``dmos``,
    ``orgs``). Their vectors run through the folders in that order, by number; the entries marked
    in ``orgs`` are copies of references and left out.

    Args:
        root: The folder ``databaserelease2``.

    Raises:
        FileNotFoundError: For missing labels or images; an image is named with its number in the
            vectors.
        ValueError: If the vectors do not fit the images, or are not as described.
        ImportError: If SciPy, which reads the .mat files, is not installed.
    """
    realigned = find_child(root, "dmos_realigned.mat")
    labels = realigned or child(root, "dmos.mat")
    scores = _vector(labels, "dmos_new" if realigned else "dmos")
    originals = _vector(labels, "orgs")
    names_file = child(root, REFERENCES)
    names = _vector(names_file, "refnames_all")
    images = [
        (path, kind) for name, kind in FOLDERS.items() for path in _numbered(child(root, name))
    ]
    if not len(scores) == len(originals) == len(names) == len(images):
        raise ValueError(
            f"{labels} has {len(scores)} scores and {len(originals)} marks, {names_file} has "
            f"{len(names)} names, but the folders have {len(images)} images; they must agree"
        )
    folder = child(root, "refimgs")
    references = children(folder)
    pairs = []
    for index, (image, kind) in enumerate(images):
        if int(originals[index]):
            continue
        name = str(names[index].item())
        reference = references.get(name.lower(), folder / name)
        for path in (image, reference):
            if not path.is_file():
                raise FileNotFoundError(f"{labels}, entry {index + 1}: no image {path}")
        score = float(scores[index])
        if score != score:
            raise ValueError(f"{labels}, entry {index + 1}: the score is not a number")
        pairs.append(RatedPair(reference, image, score, kind))
    scale = "realigned DMOS" if realigned else "DMOS"
    return OpinionDataset("live", root, scale, False, tuple(pairs))


def _vector(path: Path, name: str) -> list[Any]:
    reader = scipy_module("io", "reading .mat files needs")
    file = BytesIO(path.read_bytes())
    try:
        content = reader.loadmat(file)
    except Exception as error:  # of a file cut off: OSError without its name, zlib.error, …
        raise ValueError(f"{path}: not a MATLAB file that SciPy reads ({error})") from error
    if name not in content:
        known = ", ".join(key for key in content if not key.startswith("__"))
        raise ValueError(f"{path}: has no variable {name}, only {known or 'none'}")
    return list(content[name].ravel())


def _numbered(folder: Path) -> list[Path]:
    """``img1.bmp`` to the highest number, those that are missing as well."""
    found = children(folder)
    numbers = [name[3:-4] for name in found if name.startswith("img") and name.endswith(".bmp")]
    highest = max((int(text) for text in numbers if text.isdecimal()), default=0)
    names = [f"img{number}.bmp" for number in range(1, highest + 1)]
    return [found.get(name, folder / name) for name in names]
