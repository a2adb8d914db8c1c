"""The report of an offline selection: one HTML file with everything inside."""

from __future__ import annotations

import html
import math
import string
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from relqa_loss._files import encoded, write_atomically
from relqa_loss._html import inline, png, signed, style
from relqa_loss.plotting import (
    DIVERGING,
    colourise,
    direction_words,
    strongest_channels,
    symmetric_limit,
)
from relqa_loss.selection.comparison import Comparison, Measured, Standing

if TYPE_CHECKING:
    from relqa_loss.cli._pairs import Outcome

_WON, _LOST = 3, 2  # images shown for and against the choice
_MAPS = 2  # channels per image
_THUMB, _DETAIL = 320, 96  # pixels
_LISTED = 200  # files that could not be used


def write_report(
    path: Path,
    comparison: Comparison,
    table: Mapping[str, Mapping[str, Measured]],
    reference: Path,
    files: Mapping[tuple[str, str], Path],
    document: Mapping[str, Any],
    examine: Callable[[Path, Path], Outcome],
) -> None:
    """Write the page.

    Args:
        path: Of the file, replaced whole.
        comparison: From :func:`~relqa_loss.selection.comparison.compare`.
        table: What it compared.
        reference: Folder of the references.
        files: Output by candidate and image.
        document: The result as JSON, for settings and failures.
        examine: Relates ``(reference, output)``, for the pictures.

    Raises:
        ImportError: If Pillow is not installed.
        OSError: If the page cannot be written.
    """
    channels = list(comparison.standings[0].signed)
    template = string.Template(
        resources.files("relqa_loss.selection").joinpath("report.html").read_text("utf-8")
    )
    chosen, rival = comparison.recommended, comparison.rival
    decision_note, decision = _decision(
        comparison,
        table,
        reference,
        files,
        1 if document["metric"] == "score" else -1,
        tuple(document["veto"]),
        channels,
        examine,
    )
    text = template.substitute(
        style=style(),
        title=f"Recommended: {html.escape(chosen)}" if chosen else "No candidate is recommended",
        reason=html.escape(comparison.reason) + ".",
        tiles=_tiles(comparison),
        ranking_note=(
            f"By mean {html.escape(document['metric'])}; every candidate against "
            f"{html.escape(chosen or 'none')}, with a paired bootstrap interval over the images "
            f"that both have ({100 * document['confidence']:g}%). It speaks of these images, not "
            "of others, and not of the luck of the best among many."
        ),
        ranking=_ranking(comparison),
        decision_note=decision_note,
        decision=decision,
        preferences=_preferences(comparison),
        veto_note=_veto_note(document["veto"], comparison.baseline),
        profile=_profile(comparison, channels),
        failures=_failures(document["failures"]),
        facts=_facts(document, rival),
    )
    write_atomically(path, encoded(text))


def _tiles(comparison: Comparison) -> str:
    by_name = {standing.name: standing for standing in comparison.standings}
    out = sum(standing.rejected is not None for standing in comparison.standings)
    tiles = [
        (str(len(comparison.standings)), "candidates"),
        (str(comparison.images), "references"),
        (str(out), "candidates ruled out"),
    ]
    if comparison.recommended is not None and comparison.rival is not None:
        duel = comparison.duels[comparison.recommended][comparison.rival]
        if duel.images:
            tiles.append((f"{duel.rate:.0%}", f"of images better than {comparison.rival}"))
    elif comparison.recommended is not None:
        tiles.append((f"{by_name[comparison.recommended].mean:.4g}", "mean of the recommended"))
    return "".join(
        f'<div class="tile"><b>{value}</b><span>{html.escape(label)}</span></div>'
        for value, label in tiles
    )


def _ranking(comparison: Comparison) -> str:
    rows = (
        "<tr><th>candidate</th><th>images</th><th>mean</th><th>better than the recommended by</th>"
        '<th>interval</th><th class="note"></th></tr>'
    )
    for standing in comparison.standings:
        chosen = standing.name == comparison.recommended
        gain, interval = "", ""
        if standing.gain is not None:
            gain = _number(standing.gain.mean)
            interval = f"[{_number(standing.gain.low)}, {_number(standing.gain.high)}]"
            if standing.gain.covers_zero:
                interval += " may be noise"
        note = "recommended" if chosen else standing.rejected or ""
        cells = (
            html.escape(standing.name),
            f"{standing.images} of {comparison.images}",
            "–" if math.isnan(standing.mean) else f"{standing.mean:.4g}",
            gain,
            interval,
        )
        rows += (
            ('<tr class="chosen">' if chosen else "<tr>")
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + f'<td class="note">{html.escape(note)}</td></tr>'
        )
    return rows


def _number(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def _preferences(comparison: Comparison) -> str:
    names = [standing.name for standing in comparison.standings]
    rows = "<tr><th></th>" + "".join(f"<th>{html.escape(name)}</th>" for name in names) + "</tr>"
    for first in names:
        rows += f"<tr><td>{html.escape(first)}</td>"
        for second in names:
            duel = comparison.duels[first].get(second)
            known = duel is not None and duel.images
            title = f' title="{duel.wins} won, {duel.ties} tied of {duel.images}"' if duel else ""
            rows += f"<td{title}>{f'{duel.rate:.0%}' if duel and known else '–'}</td>"
        rows += "</tr>"
    return rows


def _profile(comparison: Comparison, channels: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(c.replace('_', ' '))}</th>" for c in channels)
    rows = f"<tr><th>candidate</th>{head}</tr>"
    for standing in comparison.standings:
        rows += f"<tr><td>{html.escape(standing.name)}</td>"
        rows += "".join(f"<td>{_profile_cell(standing, c)}</td>" for c in channels) + "</tr>"
    return rows


def _profile_cell(standing: Standing, channel: str) -> str:
    value, size = standing.signed[channel], standing.absolute[channel]
    return "–" if math.isnan(value) else f"{signed(value)} <small>({size:.3f})</small>"


def _veto_note(veto: Mapping[str, float], baseline: str | None) -> str:
    if not veto:
        return " No channel was limited."
    limits = ", ".join(
        f"{'less' if name.startswith('-') else 'more'} {name.removeprefix('-')} by {tolerance:g}"
        for name, tolerance in veto.items()
    )
    return html.escape(f" Limits, against {baseline}: {limits}.")


def _failures(failures: Sequence[Mapping[str, str]]) -> str:
    if not failures:
        return '<p class="soft">None.</p>'
    rows = '<tr><th>candidate</th><th class="note">file</th><th class="note">reason</th></tr>'
    for failure in failures[:_LISTED]:
        rows += (
            f"<tr><td>{html.escape(failure['candidate'])}</td>"
            f'<td class="note">{html.escape(failure["image"])}</td>'
            f'<td class="note">{html.escape(failure["error"])}</td></tr>'
        )
    more = len(failures) - _LISTED
    rest = f"<p>and {more} more, in the JSON file.</p>" if more > 0 else ""
    note = f'<p class="soft">{len(failures)}; they count for no comparison.</p>'
    return f'{note}<div class="wide"><table class="figures">{rows}</table></div>{rest}'


def _facts(document: Mapping[str, Any], rival: str | None) -> str:
    facts = {
        "References": document["reference"],
        "Metric": f"relational {document['metric']}",
        "Rule": document["rule"],
        "Told apart from": rival or "none",
        "Weights": document["weights"],
        "Version": f"relqa-loss {document['relqa_loss']}",
    }
    return "".join(
        f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items()
    )


def _decision(
    comparison: Comparison,
    table: Mapping[str, Mapping[str, Measured]],
    reference: Path,
    files: Mapping[tuple[str, str], Path],
    sign: int,
    veto: Sequence[str],
    channels: Sequence[str],
    examine: Callable[[Path, Path], Outcome],
) -> tuple[str, str]:
    chosen, rival = comparison.recommended, comparison.rival
    if chosen is None or rival is None:
        return "There were no two candidates to be told apart.", ""
    ours, theirs = table[chosen], table[rival]
    shared = [key for key in ours if key in theirs]
    lead = {key: sign * (ours[key].value - theirs[key].value) for key in shared}
    order = sorted(shared, key=lead.__getitem__, reverse=True)
    won = [key for key in order if lead[key] > 0][:_WON]
    lost = [key for key in reversed(order) if lead[key] < 0][:_LOST]
    vetoed = any(s.name == rival and s.rejected is not None for s in comparison.standings)
    limits = [name.removeprefix("-") for name in veto] if vetoed else []
    if limits:
        # What decided is the limited channel, so the images that have most of it are shown.
        at = [channels.index(name) for name in limits]
        excess = {k: max(abs(theirs[k].signed[c] - ours[k].signed[c]) for c in at) for k in shared}
        won, lost = sorted(shared, key=excess.__getitem__, reverse=True)[:_WON], []
    note = html.escape(
        f"{chosen} and {rival} on the images with "
        + (
            "the greatest difference in the limited channels."
            if limits
            else f"the greatest differences for and against {chosen}."
        )
    )
    parts = []
    for key in (*won, *lost):
        word = "better" if lead[key] > 0 else "worse"
        head = f"{key}: {chosen} is {word} by {abs(lead[key]):.2g}"
        if lead[key] == 0:  # shown for what is limited
            head = f"{key}: {chosen} and {rival} are a tie"
        try:
            body = _case(reference / key, chosen, rival, files, key, limits, channels, examine)
        except (ValueError, OSError) as error:  # the file has gone since it was measured
            body = f"<p>{html.escape(str(error))}</p>"
        parts.append(f"<h3>{html.escape(head)}</h3>{body}")
    return note, "".join(parts) or "<p>They are the same on every image.</p>"


def _case(
    reference: Path,
    chosen: str,
    rival: str,
    files: Mapping[tuple[str, str], Path],
    key: str,
    limits: Sequence[str],
    channels: Sequence[str],
    examine: Callable[[Path, Path], Outcome],
) -> str:
    ours, theirs = (examine(reference, files[name, key]) for name in (chosen, rival))
    maps = [outcome.relation.maps[0] for outcome in (ours, theirs)]
    strongest = strongest_channels(maps[0] - maps[1], _MAPS, channels=channels)
    named = list(dict.fromkeys((*limits, *strongest)))[: max(_MAPS, len(limits))]
    index = [list(channels).index(name) for name in named]
    limit = max(symmetric_limit(part[index]) for part in maps)
    top, left = _place(ours, theirs)
    pictures, details = "", ""
    for image, name, words in (
        (ours.reference, "reference", ""),
        (ours.image, chosen, ours.words),
        (theirs.image, rival, theirs.words),
    ):
        label = html.escape(name)
        pictures += (
            f'<figure><img src="{inline(png(image, _THUMB))}" alt="{label}">'
            f"<figcaption><b>{label}</b> {html.escape(words)}</figcaption></figure>"
        )
        cut = image[:, top : top + _DETAIL, left : left + _DETAIL * 3 // 2]
        details += (
            f'<figure><img class="sharp" src="{inline(png(cut))}" alt="{label}, enlarged"></figure>'
        )
    rows = (
        f'<tr><th class="name"></th><th>{html.escape(chosen)}</th><th>{html.escape(rival)}</th>'
        "</tr>"
    )
    for k, name in zip(index, named, strict=True):
        more, less = direction_words(name)
        rows += (
            f'<tr><th class="name"><b>{html.escape(name.replace("_", " "))}</b>'
            f'<span style="color:var(--cool)">−&nbsp;{html.escape(less)}</span><br>'
            f'<span style="color:var(--accent)">+&nbsp;{html.escape(more)}</span></th>'
        )
        for part, candidate in zip(maps, (chosen, rival), strict=True):
            source = inline(png(colourise(part[k], limit)))
            label = html.escape(f"map of {name.replace('_', ' ')}, {candidate}")
            rows += (
                f'<td><img class="sharp" src="{source}" alt="{label}">'
                f'<div class="mean">mean {signed(float(part[k].mean()), 2)}</div></td>'
            )
        rows += "</tr>"
    legend = (
        f'<div class="legend"><div class="bar" style="background: linear-gradient(90deg, '
        f'{", ".join(DIVERGING)})"></div><div class="ends"><span>−{limit:.2f} less than the '
        f"reference</span><span>0</span><span>more +{limit:.2f}</span></div></div>"
    )
    return (
        f'<div class="row">{pictures}</div><div class="row">{details}</div>'
        f'{legend}<table class="maps">{rows}</table>'
    )


def _place(ours: Outcome, theirs: Outcome) -> tuple[int, int]:
    """Corner of the detail in which the two differ most."""
    import torch.nn.functional as F

    height, width = ours.image.shape[-2:]
    first, second = _cells(ours), _cells(theirs)
    across = min(_DETAIL * 3 // 2, width)
    down = min(_DETAIL, height)
    scale = (first.shape[-2] / height, first.shape[-1] / width)
    window = (max(1, int(down * scale[0])), max(1, int(across * scale[1])))
    sums = F.avg_pool2d((first - second).abs()[None, None], window, stride=1)[0, 0]
    at = int(sums.argmax())
    row, column = divmod(at, sums.shape[-1])
    top = min(int(row / scale[0]), height - down)
    return top, min(int(column / scale[1]), width - across)


def _cells(outcome: Outcome) -> Tensor:
    where = outcome.distance_map
    cells = outcome.relation.maps[0].abs().sum(0) if where is None else where
    return cells.reshape(cells.shape[-2:])
