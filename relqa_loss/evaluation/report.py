"""Figures of several metrics as one HTML file with everything inside."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relqa_loss._html import figure_png, inline, shortened
from relqa_loss._version import __version__
from relqa_loss.evaluation.logistic import Logistic
from relqa_loss.evaluation.measure import Measured

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
small { color: #666; white-space: nowrap; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots img { width: 22rem; max-width: 100%; }
pre { white-space: pre-wrap; }
"""
_NAMES = {"srcc": "SRCC", "krcc": "KRCC", "plcc": "PLCC", "rmse": "RMSE", "two_afc": "2AFC"}


def write_html(record: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    """The report.

    Args:
        record: See :func:`relqa_loss.evaluation.summary.summarise`; ``settings`` and ``command``
            are shown if there.
        rows: Values of the same run.

    Returns:
        A page that needs no other file.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    metrics: Mapping[str, Any] = record["metrics"]
    compared = any("two_afc" in metric["overall"] for metric in metrics.values())
    parts = [
        f"<h1>Agreement with people: {html.escape(record['kind'])}</h1>",
        f"<p>{record['count']} {'comparisons' if compared else 'images'} of "
        f"{html.escape(record['path'])}; opinions: {html.escape(record['scale'])}. "
        f"Intervals of 95%, from {record['samples']} resamples of {record['resampled']}.</p>",
        _overall(metrics),
    ]
    if any(metric["by_type"] for metric in metrics.values()):
        parts += [
            f"<h2>{'2AFC' if compared else 'SRCC'} by type</h2>",
            _by_type(metrics, record["resampled"]),
        ]
    if record["differences"]:
        parts += ["<h2>Differences in SRCC, same images</h2>", _differences(record["differences"])]
    if not compared:
        parts += ["<h2>Values and opinions</h2>", _scatters(record, rows)]
    if record["excluded"]:
        parts.append(f"<h2>Left out: {len(record['excluded'])}</h2><ul>")
        parts += [
            f"<li>{html.escape(one['image'])}: {html.escape(one['error'])}</li>"
            for one in record["excluded"]
        ]
        parts.append("</ul>")
    parts.append(f"<p><small>relqa-loss {__version__}</small></p>")
    if "command" in record:
        parts.append(f"<pre>{html.escape(record['command'])}</pre>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>Agreement with people: {html.escape(record['kind'])}</title>"
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def figure_text(figure: Mapping[str, float | None]) -> str:
    """``0.912 [0.901, 0.922]``; a dash where there is no figure."""
    if figure["value"] is None:
        return "–"
    ends = [figure["low"], figure["high"]]
    shown = ", ".join("–" if end is None else f"{end:.3f}" for end in ends)
    return f"{figure['value']:.3f} [{shown}]"


def has_direction(metric: Mapping[str, Any]) -> bool:
    """Whether the data tell if a high value is better, which those of a constant do not."""
    return metric["overall"].get("srcc", {"value": 0.0})["value"] is not None


def _overall(metrics: Mapping[str, Any]) -> str:
    names = [name for name in _NAMES if name in next(iter(metrics.values()))["overall"]]
    lines = [["metric", *(_NAMES[name] for name in names), "a high value is"]]
    for spec, metric in metrics.items():
        direction = "better" if metric["higher_is_better"] else "worse"
        if not metric["direction_known"]:
            direction = f"{direction} (told from these data)" if has_direction(metric) else "–"
        figures = [figure_text(metric["overall"][name]) for name in names]
        lines.append([spec, *figures, direction])
    return _table(lines)


def _by_type(metrics: Mapping[str, Any], resampled: str) -> str:
    first = next(iter(metrics.values()))["by_type"]
    lines = [["type", "images", *metrics]]
    for name, overall in first.items():
        key = "two_afc" if "two_afc" in overall else "srcc"
        figures = [figure_text(metric["by_type"][name][key]) for metric in metrics.values()]
        lines.append([name or "(none)", str(overall["count"]), *figures])
    alone = [name or "(none)" for name, part in first.items() if part["resampled"] != resampled]
    if not alone:
        return _table(lines)
    names = html.escape(", ".join(alone))
    return _table(lines) + (
        f"<p><small>Resamples of pairs, for want of references: {names}.</small></p>"
    )


def _differences(differences: Sequence[Mapping[str, Any]]) -> str:
    lines = [["first − second", "difference", "p (paired bootstrap)", "p (Williams)"]]
    for one in differences:
        chances = [
            "–" if one[key] is None else f"{one[key]:.3g}" for key in ("p_bootstrap", "p_williams")
        ]
        lines.append([f"{one['first']} − {one['second']}", figure_text(one["srcc"]), *chances])
    return _table(lines) + (
        "<p><small>Williams' test takes images of one scene for independent; prefer the bootstrap "
        "where it resamples scenes. No correction for the number of comparisons.</small></p>"
    )


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *body = lines
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in body
    )
    return f"<table>\n<tr>{cells}</tr>\n{rows}</table>"


def _scatters(record: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    pictures = []
    for spec, metric in record["metrics"].items():
        picture = inline(_scatter(record, spec, metric, rows))
        name = html.escape(spec, quote=True)
        pictures.append(f'<img alt="Scatter plot of {name}" src="{picture}">')
    return '<div class="plots">\n' + "\n".join(pictures) + "\n</div>"


def _scatter(
    record: Mapping[str, Any], spec: str, metric: Mapping[str, Any], rows: Sequence[Measured]
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    good = [row for row in rows if not row.error]
    figure = Figure(figsize=(5, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    kinds = sorted({row.item.type for row in good})
    points = []
    for kind in kinds:
        here = [row for row in good if row.item.type == kind]
        points += axes.plot(
            [row.values[spec][0] for row in here],
            [row.item.opinion for row in here],
            ".",
            markersize=4,
            alpha=0.6,
        )
    values = np.array([row.values[spec][0] for row in good])
    line = np.linspace(values.min(), values.max(), 200)
    # The fit was made on values and opinions turned so that high is good.
    fit = Logistic(**metric["overall"]["logistic"])
    mapped = fit(line if metric["higher_is_better"] else -line)
    axes.plot(line, mapped if record["higher_is_better"] else -mapped, color="black", linewidth=1.5)
    # Dollars in a user's words are not mathematics.
    axes.set_xlabel(spec, parse_math=False)
    axes.set_ylabel(record["scale"], parse_math=False)
    value = metric["overall"]["srcc"]["value"]
    axes.set_title("" if value is None else f"SRCC {value:.3f}")
    if 1 < len(kinds) <= 8:
        # Set afterwards: Matplotlib leaves out what has no name, or one that begins with "_".
        legend = axes.legend(points, ["type"] * len(kinds), fontsize="x-small", markerscale=2)
        for text, kind in zip(legend.get_texts(), kinds, strict=True):
            text.set_parse_math(False)
            text.set_text(shortened(kind, 32) or "(none)")
    return figure_png(figure)
