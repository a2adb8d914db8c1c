"""What the page of an offline selection says, and which images it shows for it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from relqa_loss.selection import report
from relqa_loss.selection.comparison import Measured, compare

CHANNELS = ("noise", "ringing", "sharpness")
LEADS = {"a": 0.5, "b": -0.2, "c": 0.3, "d": 0.4, "e": 0.1, "f": -0.05, "g": -0.02}
"""By how much one candidate is better than the other."""


def outcome(name: str, size: tuple[int, int] = (64, 80)) -> Any:
    """Both have the same noise; they differ in ringing and sharpness."""
    sign = 1.0 if name == "good" else -1.0
    image = torch.full((3, *size), 0.5)
    maps = torch.tensor([0.4, 0.1 * sign, 0.2 * sign])[None, :, None, None].expand(1, 3, 16, 20)
    return SimpleNamespace(
        reference=image,
        image=image,
        relation=SimpleNamespace(maps=maps),
        distance_map=None,
        words=f"words of {name}",
    )


def page(folder: Path, *, metric: str = "distance", **options: Any) -> str:
    """Of two candidates with the leads above."""
    sign = 1 if metric == "score" else -1
    worth = {"good": LEADS, "bad": dict.fromkeys(LEADS, 0.0)}
    # The last images differ most in the channels.
    ringing = {key: k / 10 for k, key in enumerate(LEADS)}
    table = {
        name: {
            key: Measured(
                sign * lead,
                (-0.25, ringing[key] * (name == "good"), 0.0),
                (0.75, ringing[key], 0.0),
            )
            for key, lead in leads.items()
        }
        for name, leads in worth.items()
    }
    found = compare(
        table,
        list(LEADS),
        CHANNELS,
        mode="max" if metric == "score" else "min",
        metric=metric,
        **options,
    )
    document = {
        "metric": metric,
        "veto": options.get("veto", {}),
        "confidence": 0.95,
        "failures": [{"candidate": "bad", "image": "x<y.png", "error": "truncated"}] * 201,
        "reference": "references",
        "rule": "best",
        "weights": "base@1",
        "relqa_loss": "1",
    }
    files = {(name, key): Path(name) for name in table for key in LEADS}
    out = folder / "report.html"
    report.write_report(
        out, found, table, folder, files, document, lambda reference, image: outcome(str(image))
    )
    return out.read_text("utf-8")


@pytest.mark.parametrize("metric", ["distance", "score"])
def test_images_that_speak_most_for_and_against_the_choice(tmp_path: Path, metric: str) -> None:
    text = page(tmp_path, metric=metric)
    assert re.findall(r"<h3>(.*?)</h3>", text) == [
        "a: good is better by 0.5",
        "d: good is better by 0.4",
        "c: good is better by 0.3",
        "b: good is worse by 0.2",
        "f: good is worse by 0.05",
    ]
    shown = re.findall(r'<th class="name"><b>(\w+)</b>', text)
    assert shown == 5 * ["sharpness", "ringing"]  # what the two differ in, the most first
    assert text.count("words of good") == text.count("words of bad") == 5


def test_a_veto_shows_the_images_with_most_of_what_it_limits(tmp_path: Path) -> None:
    limits = {"ringing": 0.02, "-sharpness": 0.5}
    text = page(tmp_path, veto=limits, baseline="bad")
    heads = re.findall(r"<h3>(.*?)</h3>", text)
    assert [head[0] for head in heads] == ["g", "f", "e"]
    assert heads[2] == "e: bad is worse by 0.1"
    assert "Limits, against bad: more ringing by 0.02, less sharpness by 0.5." in text
    assert '<td class="note">vetoed: more ringing than bad by 0.3 (tolerance 0.02)</td>' in text


def test_tables(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "<b>57%</b><span>of images better than bad</span>" in text
    assert '>–</td><td title="4 won, 0 tied of 7">57%</td>' in text
    assert '<td title="3 won, 0 tied of 7">43%</td><td>–</td>' in text
    mean = sum(LEADS.values()) / 7
    assert re.search(rf"<td>−{mean:.2g}</td><td>\[−0\.\d+, \+0\.\d+\] may be noise</td>", text)
    assert "<td>−0.250 <small>(0.750)</small></td><td>+0.300 <small>(0.300)</small></td>" in text
    assert text.count('<td>bad</td><td class="note">x&lt;y.png</td>') == 200
    assert "<p>and 1 more, in the JSON file.</p>" in text
    steady = compare(
        {n: {k: Measured(v, (), ()) for k in "abc"} for n, v in (("good", 0.25), ("bad", 0.5))},
        list("abc"),
        (),
    )
    assert "[−0.25, −0.25]</td>" in report._ranking(steady)  # without "may be noise"


@pytest.mark.parametrize("place", [(0, 0), (10, 150), (300, 20), (399, 599), (200, 300)])
def test_the_detail_is_where_the_two_differ(place: tuple[int, int]) -> None:
    ours, theirs = outcome("good", (400, 600)), outcome("bad", (400, 600))
    ours.distance_map, theirs.distance_map = torch.zeros(1, 1, 100, 150), torch.zeros(1, 100, 150)
    theirs.distance_map[..., place[0] // 4, place[1] // 4] = 1.0
    top, left = report._place(ours, theirs)
    assert 0 <= top <= min(place[0], 400 - 96)
    assert 0 <= left <= min(place[1], 600 - 144)
    assert place[0] < top + 96
    assert place[1] < left + 144
