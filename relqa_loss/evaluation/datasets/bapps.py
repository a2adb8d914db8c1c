"""BAPPS, the part with two alternatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from relqa_loss._files import folders_below
from relqa_loss.evaluation.datasets._tables import child, children, find_child
from relqa_loss.evaluation.datasets.records import Comparison, OpinionDataset


def read_bapps(root: Path) -> OpinionDataset:
    """BAPPS 2AFC: which of two distorted 64×64 patches is closer to the reference.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual
    metric", CVPR 2018, doi:10.1109/CVPR.2018.00068.

    Expects, anywhere below ``root`` (``2afc/val``, say), folders such as ``traditional`` with
    ``ref/000000.png``, ``p0/000000.png``, ``p1/000000.png`` and ``judge/000000.npy``, an array of
    one number: the share of the votes for ``p1``. The folder's path is the type.

    Args:
        root: A folder above, or one of the folders themselves.

    Raises:
        FileNotFoundError: If there is no such folder, or an image of a judgement is missing.
        ValueError: If a judgement is not one number in [0, 1].
    """
    comparisons = []
    for folder in judged_folders(root):
        kind = folder.name if folder == root else folder.relative_to(root).as_posix()
        patches = {part: _patches(folder, part) for part in ("ref", "p0", "p1")}
        for judgement in sorted(child(folder, "judge").glob("[!.]*.[nN][pP][yY]")):
            name = f"{judgement.stem}.png"
            paths = {
                part: found.get(name.lower(), folder / part / name)
                for part, found in patches.items()
            }
            for path in paths.values():
                if not path.is_file():
                    raise FileNotFoundError(f"{judgement}: no image {path}")
            comparisons.append(
                Comparison(paths["ref"], paths["p0"], paths["p1"], _share(judgement), kind)
            )
    if not comparisons:
        raise FileNotFoundError(f"{root}: has no folder with ref, p0, p1 and judge/*.npy")
    scale = "share of votes for the second"
    return OpinionDataset("bapps", root, scale, True, comparisons=tuple(comparisons))


def judged_folders(root: Path) -> list[Path]:
    """Folders with judgements, ``root`` itself included, sorted."""
    return sorted(folder for folder in folders_below(root) if _is_judged(folder))


def _is_judged(folder: Path) -> bool:
    found = find_child(folder, "judge")
    return found is not None and found.is_dir()


def _patches(folder: Path, part: str) -> dict[str, Path]:
    """Files of one part by their names in lower case; none where there is no such folder."""
    found = find_child(folder, part)
    return children(found) if found else {}


def _share(path: Path) -> float:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a NumPy array ({error})") from None
    share = float(values.ravel()[0]) if np.size(values) == 1 else float("nan")
    if not 0 <= share <= 1:
        raise ValueError(f"{path}: expected one number in [0, 1], got {values.ravel()[:4]}")
    return share
