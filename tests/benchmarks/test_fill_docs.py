"""Tables go from the benchmarks' files to their places in the documentation, and nowhere else."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

FIGURES = """12 photographs. Weights relqa-base@12345678.

### denoiser: white noise

| loss | PSNR |
| --- | --- |
| L1 | 27.7 |

Some text.

| better by | PSNR |
| --- | --- |
| ours over L1 | +0.1 |

### deblurring

| loss | PSNR |
| --- | --- |
| L1 | 29.1 |
"""


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("fill_docs")


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "restoration.md").write_text(FIGURES, "utf-8")
    return folder


def place(what: str, content: str = "old\n") -> str:
    return f"<!-- measured: {what} -->\n{content}<!-- measured end -->"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("restoration", "12 photographs. Weights relqa-base@12345678."),
        ("restoration / denoiser", "| loss | PSNR |\n| --- | --- |\n| L1 | 27.7 |"),
        (
            "restoration / denoiser / 2",
            "| better by | PSNR |\n| --- | --- |\n| ours over L1 | +0.1 |",
        ),
        ("restoration / deblurring", "| loss | PSNR |\n| --- | --- |\n| L1 | 29.1 |"),
    ],
)
def test_finds_its_table(fill: ModuleType, figures: Path, what: str, expected: str) -> None:
    assert fill.looked_up(what, figures) == expected


def test_fills_a_document_and_leaves_the_rest(
    fill: ModuleType,
    figures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    before = f"# Title\n\n{place('restoration / deblurring')}\n\ntext\n\n{place('other')}\n"
    (docs / "a.md").write_text(before, "utf-8")
    (docs / "b.md").write_text("no place", "utf-8")
    monkeypatch.setattr(
        sys, "argv", ["fill_docs.py", "--figures", str(figures), "--docs", str(docs)]
    )
    assert fill.main() == 0
    assert capsys.readouterr().out == "a.md, left as they were: other\n"
    after = (docs / "a.md").read_text("utf-8")
    new = "\n| loss | PSNR |\n| --- | --- |\n| L1 | 29.1 |\n\n"
    assert after == before.replace(
        place("restoration / deblurring"), place("restoration / deblurring", new)
    )
    fill.main()
    assert (docs / "a.md").read_text("utf-8") == after


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("restoration / nothing", "0 headings"),
        ("restoration / de", "2 headings"),
        ("restoration / denoiser / 3", "table 3 of 2"),
    ],
)
def test_refuses_what_is_not_there(
    fill: ModuleType, figures: Path, what: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fill.looked_up(what, figures)


def test_the_places_of_the_documentation_are_filled(fill: ModuleType) -> None:
    documents = list(fill.documents(ROOT / "docs"))
    assert documents
    for path in documents:
        text = path.read_text("utf-8")
        found = list(fill.PLACE.finditer(text))
        assert len(found) == text.count("<!-- measured: ") == text.count("<!-- measured end -->")
        for match in found:
            content = match[0].removeprefix(match["begin"]).removesuffix(match["end"]).strip()
            assert content, f"{path.name}: nothing at {match['what']}"


@pytest.mark.parametrize(
    "broken",
    [
        f"<!-- measured: restoration -->\nold\n\ntext\n\n{place('restoration / deblurring')}\n",
        f"{place('restoration / deblurring')}\n\ntext\n\n<!-- measured: restoration -->\nold\n",
        f"{place('restoration / deblurring')}\n\ntext\n\n<!-- measured end -->\n",
    ],
    ids=["without an end, before another", "without an end", "without a beginning"],
)
def test_a_place_without_an_end_is_refused(
    fill: ModuleType,
    figures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    page = tmp_path / "docs" / "a.md"
    page.parent.mkdir()
    page.write_text(broken, "utf-8")
    given = ["x", "--figures", str(figures), "--docs", str(page.parent)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit):
        fill.main()
    assert "a.md: a place lacks its end, or an end its place" in capsys.readouterr().err
    assert page.read_text("utf-8") == broken


def test_nothing_and_two_of_a_kind_are_no_figures(fill: ModuleType, figures: Path) -> None:
    (figures / "x.md").write_text("### a\n\n| 1 |\n| --- |\n\n### a\n\n| 2 |\n| --- |\n", "utf-8")
    with pytest.raises(ValueError, match="2 headings that start with 'a'"):
        fill.looked_up("x / a", figures)
    with pytest.raises(ValueError, match="nothing before its first heading"):
        fill.looked_up("x", figures)


CONTEST = """
| better by | PSNR, dB | DSS | judges won / lost |
| --- | --- | --- | --- |
| RelationalLoss over L1 | -0.10 [-0.20, -0.05] worse | +0.1 [+0.0, +0.2] better | 1 / 0 of 1 |
| RelationalLoss over MS-SSIM + L1 | +2.00 [+1.00, +3.00] better | +0.1 [-0.1, +0.2] | 0 / 0 of 1 |

"""


def test_the_readme_shows_the_gains_of_the_recipes(fill: ModuleType) -> None:
    readme, recipes = (
        (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/recipes.md")
    )
    assert readme == fill.with_gains(readme, recipes), "run python benchmarks/fill_docs.py"


def test_gains_follow_the_recipes(
    fill: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = importlib.import_module("_gains")
    docs, readme = tmp_path / "docs", tmp_path / "README.md"
    docs.mkdir()
    recipes = "\n".join(place(job, CONTEST) for job in gains.JOBS)
    (docs / "recipes.md").write_text(recipes, "utf-8")
    readme.write_text(f"before\n{gains.BEGIN}old\n{gains.END}\nafter\n", "utf-8")
    monkeypatch.setattr(
        sys,
        "argv",
        ["fill_docs.py", "--figures", str(tmp_path), "--docs", str(docs), "--readme", str(readme)],
    )
    assert fill.main() == 0
    text = readme.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    row = "−0.10 dB, 1 / 0 of 1 | +2.00 dB, 0 / 0 of 1 |"
    assert text.count(row) == len(gains.JOBS)
    with pytest.raises(ValueError, match="no row 'RelationalLoss over L1'"):
        gains.gains("")
    with pytest.raises(ValueError, match="README lacks"):
        gains.with_gains("nothing", recipes)
