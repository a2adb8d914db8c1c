"""The README's table of what training with our loss gives, from those in ``docs/recipes.md``."""

from __future__ import annotations

from collections.abc import Iterator

from _common import PLACE, in_readme, table
from _contest import OURS, RIVALS

BEGIN = "<!-- gains: from docs/recipes.md, by benchmarks/fill_docs.py -->\n"
END = "<!-- gains end -->"
JOBS = {
    "restoration / denoiser / 2": "denoising, three seeds",
    "restoration / ×2 / 2": "×2 super-resolution, three seeds",
    "restoration / deblurring / 2": "deblurring, three seeds",
    "codec / learned / 2": "a learned codec, three seeds",
}
"""Places in the recipes, and what the README calls the job."""


def gains(recipes: str) -> str:
    """A row for each job: PSNR gained, judges won and lost.

    Raises:
        ValueError: If the recipes lack a table, or it lacks one of the rivals.
    """
    rows = [
        [job, *(_gain(recipes, place, rival) for rival in RIVALS)] for place, job in JOBS.items()
    ]
    first, *others = (f"against {rival}" for rival in RIVALS)
    return table((f"`{OURS}`", f"{first}: PSNR, judges won / lost", *others), rows)


def with_gains(readme: str, recipes: str) -> str:
    """The README with its table as the recipes have it now."""
    return in_readme(readme, BEGIN, gains(recipes), END)


def _gain(recipes: str, place: str, rival: str) -> str:
    name = f"{OURS} over {rival}"
    for row in _rows(recipes, place):
        if row[0] == name:
            return f"{row[1].split()[0].replace('-', '−')} dB, {row[-1]}"
    raise ValueError(f"no row {name!r} in the place {place!r} of the recipes")


def _rows(recipes: str, place: str) -> Iterator[list[str]]:
    texts = [found["content"] for found in PLACE.finditer(recipes) if found["what"] == place]
    for line in "".join(texts).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]
