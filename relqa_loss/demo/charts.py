"""How distance and PSNR went while the demo trained."""

from __future__ import annotations

import math
from collections.abc import Callable

from relqa_loss._html import figure_png
from relqa_loss.demo.training import DemoResult, Validation


def charts(result: DemoResult) -> str:
    """Distance and PSNR by step, as SVG."""
    return _chart(
        result, lambda entry: entry.distance, "RelationalDistance", "lower is closer", "--accent", 3
    ) + _chart(result, lambda entry: entry.psnr, "PSNR in dB", "for comparison", "--cool", 1)


def _chart(
    result: DemoResult,
    value: Callable[[Validation], float],
    title: str,
    aside: str,
    colour: str,
    digits: int,
) -> str:
    width, height, left, right, top, bottom = 520, 240, 46, 16, 22, 34
    points = [(entry.step, value(entry)) for entry in result.history if math.isfinite(value(entry))]
    low, high = min(v for _, v in points), max(v for _, v in points)
    pad = 0.08 * (high - low) or 0.5
    low, high = low - pad, high + pad
    last = max(1, points[-1][0])

    def place(step: float, v: float) -> tuple[float, float]:
        x = left + (width - left - right) * step / last
        return x, top + (height - top - bottom) * (high - v) / (high - low)

    parts = []
    for tick in ticks(low, high):
        _, y = place(0, tick)
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="var(--line)"/>'
            f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in ticks(0, last):
        if tick != int(tick):
            continue
        x, _ = place(tick, low)
        parts.append(
            f'<text x="{x:.1f}" y="{height - bottom + 17}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(
        f'<text x="{width - right}" y="{height - 2}" text-anchor="end">optimiser steps</text>'
    )
    line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="var({colour})" stroke-width="2.2" '
        'stroke-linejoin="round"/>'
    )
    for point in points:
        x, y = place(*point)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var({colour})"/>')
    chosen = value(result.chosen)
    if math.isfinite(chosen):
        x, y = place(result.chosen.step, chosen)
        anchor = "end" if x > width * 0.6 else "start"
        above = y > height / 2
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}" '
            'stroke="var(--soft)" stroke-dasharray="3 4"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="none" stroke="var(--ink)" '
            'stroke-width="2"/>'
            f'<text class="pick" x="{x + (-12 if anchor == "end" else 12):.1f}" '
            f'y="{y + (-14 if above else 22):.1f}" text-anchor="{anchor}">'
            f"chosen: {chosen:.{digits}f}</text>"
        )
    return (
        f'<div class="chart"><h3>{title} <span>{aside}</span></h3>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title} by step">'
        f"{''.join(parts)}</svg></div>"
    )


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers inside [low, high]."""
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def curve_png(result: DemoResult) -> bytes:
    """The distance by step, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    steps = [entry.step for entry in result.history]
    axes.plot(steps, [entry.distance for entry in result.history], "o-", color="#d8691c", ms=4)
    axes.plot(
        [result.chosen.step],
        [result.chosen.distance],
        "o",
        ms=12,
        mfc="none",
        mec="#22252a",
        mew=1.8,
        label=f"chosen: step {result.chosen.step}",
    )
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("RelationalDistance (lower is closer)")
    axes.grid(color="#e4e1da", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure_png(figure)
