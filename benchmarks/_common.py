"""What the benchmark scripts share: photographs, tables, and the line that says where it ran."""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from relqa_loss._files import write_atomically
from relqa_loss.network.pretrained import WeightsRecord
from relqa_loss.training.photos import find_photos, random_crop, read_photo

PLACE = re.compile(
    r"(?P<begin><!-- measured: (?P<what>[^\n]+?) -->\n)(?P<content>.*?)"
    r"(?P<end><!-- measured end -->)",
    re.DOTALL,
)
"""A place for a table in the documentation, as ``fill_docs.py`` describes it."""


def photographs(folder: Path, size: int, count: int | None = None, seed: int = 0) -> list[Tensor]:
    """One ``size``² crop of each validation photograph, evenly thinned to ``count``."""
    files = find_photos(folder, "val", least_side=size).files
    if count is not None and count < len(files):
        files = tuple(files[i * len(files) // count] for i in range(count))
    generator = torch.Generator().manual_seed(seed)
    return [random_crop(read_photo(path), size, generator, scales=(0.6, 1.0)) for path in files]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table; floats with three digits."""

    def cell(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def in_readme(readme: str, begin: str, content: str, end: str) -> str:
    """The README with other content between two of its lines.

    Raises:
        ValueError: If it lacks one of them.
    """
    before, opened, rest = readme.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"the README lacks {begin.strip()!r} or {end!r}")
    return f"{before}{begin}\n{content}\n\n{end}{after}"


def show(report: str, out: Path | None) -> None:
    """Print a report, and write it to ``out`` as well, in a folder that need not be there yet."""
    print(report)
    if out:
        write_atomically(out, f"{report}\n".encode())


def keep(figures: object, path: Path | None) -> None:
    """Write figures as JSON where that is asked for, in a folder that need not be there yet."""
    if path:
        write_atomically(path, (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode())


def keep_apart(folder: Path, **made_from: object) -> None:
    """Make a folder for results that are found again, and see that all in it were made alike.

    Raises:
        ValueError: If those in it were made from something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "made_from.json"
    if not path.is_file():
        keep(made_from, path)
    before = json.loads(path.read_text("utf-8"))
    other = [name for name, value in made_from.items() if before.get(name) != value]
    if other:
        raise ValueError(
            f"{folder} holds results that were made from other {' and '.join(other)}, by {path}; "
            "choose another --folder"
        )


def in_folder(path: Path) -> Path:
    """The path, in a folder that is there now: for pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def command() -> str:
    """The command line of this run, for whoever wants to repeat it."""
    return shlex.join(["python", "/".join(Path(sys.argv[0]).parts[-2:]), *sys.argv[1:]])


def told_apart(records: Sequence[WeightsRecord]) -> list[str]:
    """Names of weights; with their hashes where several files of one name are compared."""
    names = [record.name for record in records]
    return [each.name if names.count(each.name) == 1 else each.version for each in records]


def provenance(weights: str, device: str | torch.device = "cpu") -> str:
    """What it ran on, versions, weights and date, to stand under every table."""
    # A machine with a GPU measures most things on its processor all the same.
    on_gpu = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else _processor()
    return (
        f"Weights {weights}; {name}, {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}; "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}."
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
