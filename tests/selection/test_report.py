"""What the page of an offline selection says, and which images it shows for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from relqa_loss._html import inline, png, style
from relqa_loss.plotting import colourise
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


def page(
    folder: Path,
    *,
    metric: str = "distance",
    leads: dict[str, float] = LEADS,
    lacking: str = "",
    examine: Callable[[Path, Path], Any] = lambda reference, image: outcome(str(image)),
    **options: Any,
) -> str:
    """Of two candidates with these leads, one of which may lack an image."""
    sign = 1 if metric == "score" else -1
    worth = {"good": leads, "bad": {key: 0.0 for key in leads if key != lacking}}
    # The last images differ most in the channels.
    ringing = {key: k / 10 for k, key in enumerate(leads)}
    table = {
        name: {
            key: Measured(
                sign * lead,
                (-0.25, ringing[key] * (name == "good"), 0.0),
                (0.75, ringing[key], 0.0),
            )
            for key, lead in values.items()
        }
        for name, values in worth.items()
    }
    found = compare(
        table,
        list(leads),
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
    files = {(name, key): Path(name) for name in table for key in leads}
    out = folder / "report.html"
    report.write_report(out, found, table, folder, files, document, examine)
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


def test_images_that_speak_for_neither_are_not_shown(tmp_path: Path) -> None:
    def heads(**options: Any) -> list[str]:
        return re.findall(r"<h3>(.*?)</h3>", page(tmp_path, **options))

    assert heads(leads={"a": 0.5, "b": 0.0}) == ["a: good is better by 0.5"]
    assert heads(leads={"a": 0.0, "b": 0.0}) == []
    assert "They are the same on every image." in page(tmp_path, leads={"a": 0.0})
    assert heads(leads={"a": 0.5, "b": 0.25}, lacking="a", coverage=0.5) == [
        "b: good is better by 0.25"
    ]


def test_pictures_and_maps_are_those_of_their_candidate(tmp_path: Path) -> None:
    asked: list[Path] = []

    def examine(reference: Path, image: Path) -> Any:
        asked.append(reference)
        found = outcome(str(image))
        found.image = torch.full((3, 64, 80), 0.25 if image.name == "good" else 0.75)
        return found

    text = page(tmp_path, leads={"a.png": 0.5}, examine=examine)
    assert asked == 2 * [tmp_path / "a.png"]
    for name, level in (("reference", 0.5), ("good", 0.25), ("bad", 0.75)):
        image = torch.full((3, 64, 80), level)
        assert f'<img src="{inline(png(image, 320))}" alt="{name}">' in text
        assert f'src="{inline(png(image))}" alt="{name}, enlarged">' in text
    # All maps of an image are on one scale, that of the largest of them.
    cells = re.findall(r'<td><img class="sharp" src="(.*?)".*?mean (.*?)</div>', text)
    expected = [
        (inline(png(colourise(torch.full((16, 20), mean), 0.2))), word)
        for mean, word in ((0.2, "+0.20"), (-0.2, "−0.20"), (0.1, "+0.10"), (-0.1, "−0.10"))
    ]
    assert cells == expected
    # And each is told from the others where it is not seen.
    maps = [f"map of {channel}, {name}" for channel in CHANNELS[:0:-1] for name in ("good", "bad")]
    assert re.findall(r'alt="(map .*?)">', text) == maps


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(scheme: str) -> None:
    found = re.findall(r"--(\w+): #([0-9a-f]{6})", style())
    half = len(found) // 2  # the dark ones come second
    colours = dict(found[:half] if scheme == "light" else found[half:])
    assert len(colours) == half > 6

    def light(name: str) -> float:
        levels = [int(colours[name][at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in ("ink", "soft", "accent", "cool", "good"):
        for behind in ("paper", "card"):
            low, high = sorted((light(name), light(behind)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, behind)  # WCAG 2, AA


def test_a_file_that_has_gone_costs_its_picture_only(tmp_path: Path) -> None:
    def examine(reference: Path, image: Path) -> Any:
        if reference.name == "a":
            raise FileNotFoundError(2, "No such file", str(reference))
        return outcome(str(image))

    text = page(tmp_path, examine=examine)
    assert "No such file" in text
    assert text.count("words of good") == 4


def test_a_limit_that_did_not_decide_decides_on_no_image(tmp_path: Path) -> None:
    text = page(tmp_path, veto={"ringing": 0.5})
    assert re.findall(r"<h3>(.*?):", text) == ["a", "d", "c", "b", "f"]


def test_a_veto_shows_the_images_with_most_of_what_it_limits(tmp_path: Path) -> None:
    limits = {"ringing": 0.02, "-sharpness": 0.5}
    text = page(tmp_path, veto=limits, baseline="bad")
    heads = re.findall(r"<h3>(.*?)</h3>", text)
    assert [head[0] for head in heads] == ["g", "f", "e"]
    assert heads[2] == "e: bad is worse by 0.1"
    tied = page(tmp_path, veto=limits, baseline="bad", leads=LEADS | {"g": 0.0})
    assert "<h3>g: bad and good are a tie</h3>" in tied
    assert "<b>1</b><span>candidates ruled out</span>" in text
    assert "Limits, against bad: more ringing by 0.02, less sharpness by 0.5." in text
    assert '<td class="note">vetoed: more ringing than bad by 0.3 (tolerance 0.02)</td>' in text


def test_tables(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "<b>0</b><span>candidates ruled out</span>" in text
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
