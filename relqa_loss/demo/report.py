"""The demo's report: one HTML file with everything inside, and the same pictures as PNGs."""

from __future__ import annotations

import html
import json
import math
import platform
import string
from collections.abc import Callable, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from relqa_loss._files import encoded, write_atomically
from relqa_loss._html import figure_png, inline, png, signed, style
from relqa_loss._version import __version__
from relqa_loss.demo.charts import charts, curve_png
from relqa_loss.demo.data import TEST_BLUR, TEST_NOISE, Photographs, degrade_for_test
from relqa_loss.demo.training import DemoResult, psnr, restore
from relqa_loss.network import Relation, find_weights, load_pretrained
from relqa_loss.plotting import (
    DIVERGING,
    colourise,
    direction_words,
    plot_relation,
    strongest_channels,
    symmetric_limit,
)
from relqa_loss.words import describe

REPORT = "report.html"
_SHOWN = 5  # channels whose maps are printed
_DETAIL = 72  # side of the enlarged cut, in pixels


class _Stage(NamedTuple):
    """One image of a photograph beside its reference."""

    image: Tensor
    relation: Relation
    distance_map: Tensor
    psnr: float
    words: str


class _Case(NamedTuple):
    """A photograph before and after."""

    name: str
    reference: Tensor
    before: _Stage
    after: _Stage
    change: str
    """The restored image against the degraded one, in words."""
    gain: float
    """Score of the restored image against the degraded one."""


def write_report(
    result: DemoResult, photographs: Photographs, folder: Path, *, command: str
) -> tuple[Path, str]:
    """Write ``report.html``, the pictures and ``figures.json`` into ``folder``.

    Args:
        result: From :func:`train_restorer`.
        photographs: The ones it was trained with; the ``show`` part is pictured.
        folder: Exists; files of the same names are replaced.
        command: What was typed, to be printed.

    Returns:
        Path of the report, and a one-line summary.

    Raises:
        ImportError: If Pillow or Matplotlib is not installed.
    """
    network = load_pretrained(result.config.weights)
    channels = network.channels
    relate = _relate_with(network)
    cases = {
        part: [
            _case(name, photo, result, relate, channels)
            for name, photo in getattr(photographs, part).items()
        ]
        for part in ("show", "select")
    }
    shown = cases["show"][0]
    both = torch.cat([shown.before.relation.maps, shown.after.relation.maps])
    named = strongest_channels(both, _SHOWN, channels=channels)
    limit = symmetric_limit(both[:, [channels.index(name) for name in named]])

    pictures = {
        "before.png": png(shown.before.image),
        "after.png": png(shown.after.image),
        "reference.png": png(shown.reference),
        "maps-before.png": _figure(shown, shown.before, "before", named, channels),
        "maps-after.png": _figure(shown, shown.after, "after", named, channels),
        "curve.png": curve_png(result),
    }
    for name, content in pictures.items():
        write_atomically(folder / name, content)
    write_atomically(folder / "figures.json", encoded(_json(result, cases, command)))

    record = find_weights(result.config.weights)
    untrained = "placeholder" in str(record.training.get("note", ""))
    fell = 1 - _ratio(shown.after.relation.distance, shown.before.relation.distance)
    verb = "fell" if fell >= 0 else "rose"
    duration = f"{result.seconds:.0f} seconds" if result.seconds >= 1 else "under a second"
    gain_db = shown.after.psnr - shown.before.psnr
    template = string.Template(
        resources.files("relqa_loss.demo").joinpath("report.html").read_text("utf-8")
    )
    text = template.substitute(
        style=style(),
        title=f"A restorer, trained in {duration} with RelationalLoss",
        lead=html.escape(
            f"On a photograph it has never seen, the relational distance to the original {verb} "
            f"by {abs(fell):.0%} and PSNR went {'up' if gain_db >= 0 else 'down'} by "
            f"{abs(gain_db):.1f} dB. Compared with its input, the output is: {shown.change}."
        ),
        tiles=_tiles(shown, result),
        show_note=html.escape(
            f"Photograph “{shown.name}”, neither trained on nor used to choose the checkpoint; "
            f"degraded by a blur of σ = {TEST_BLUR:.1f} pixels and noise of σ = "
            f"{TEST_NOISE * 255:.0f} levels. Second row: a detail, enlarged."
        ),
        pictures=_triple(shown),
        details=_details(shown),
        sentences=_sentences(shown),
        gradient=", ".join(DIVERGING),
        limit=f"{limit:.2f}",
        maps=_maps(shown, named, limit, channels),
        selection_note=html.escape(
            f"Validated {len(result.history)} times on “{', '.join(photographs.select)}”, also "
            "never trained on. The checkpoint with the lowest RelationalDistance is kept: step "
            f"{result.chosen.step} of {result.history[-1].step}."
        ),
        charts=charts(result),
        figures=_table(cases),
        facts=_facts(result, photographs, command, record.version),
        weights_note="<b>These weights are an untrained placeholder: the maps mean nothing yet.</b>"
        if untrained
        else "",
    )
    report = folder / REPORT
    write_atomically(report, encoded(text))
    summary = (
        f"{shown.name}, never seen before: distance {float(shown.before.relation.distance):.3f} → "
        f"{float(shown.after.relation.distance):.3f}, PSNR {shown.before.psnr:.1f} → "
        f"{shown.after.psnr:.1f} dB; {shown.change}"
    )
    return report, summary


def _relate_with(
    network: torch.nn.Module,
) -> Callable[[Tensor, Tensor], tuple[Relation, Tensor]]:
    def relate(reference: Tensor, image: Tensor) -> tuple[Relation, Tensor]:
        with torch.inference_mode():
            first, second = network.encode(reference[None]), network.encode(image[None])  # type: ignore[operator]
            return network.relate(first, second), network.distance_map(first, second)  # type: ignore[operator]

    return relate


def _case(
    name: str,
    photo: Tensor,
    result: DemoResult,
    relate: Callable[[Tensor, Tensor], tuple[Relation, Tensor]],
    channels: Sequence[str],
) -> _Case:
    degraded = degrade_for_test(photo, result.config.seed)
    restored = restore(result.model, degraded)
    stages = []
    for image in (degraded, restored):
        relation, where = relate(photo, image)
        words = describe(relation.maps[0], photo, channels=channels)
        stages.append(_Stage(image, relation, where, psnr(image, photo), words))
    change, _ = relate(degraded, restored)
    return _Case(
        name,
        photo,
        stages[0],
        stages[1],
        describe(change.maps[0], photo, channels=channels),
        float(change.score),
    )


def _ratio(after: Tensor, before: Tensor) -> float:
    return float(after) / float(before) if float(before) else 1.0


def _tiles(case: _Case, result: DemoResult) -> str:
    def tile(value: str, label: str, better: bool | None = None) -> str:
        kind = "" if better is None else f' class="{"better" if better else "worse"}"'
        return f'<div class="tile"><b{kind}>{value}</b><span>{label}</span></div>'

    before, after = case.before, case.after
    near, far = float(after.relation.distance), float(before.relation.distance)
    return "".join(
        (
            tile(f"{far:.3f} → {near:.3f}", "distance, lower is closer", near < far),
            tile(
                f"{signed(float(before.relation.score))} → {signed(float(after.relation.score))}",
                "score, 0 equals the reference",
                float(after.relation.score) > float(before.relation.score),
            ),
            tile(
                f"{before.psnr:.1f} → {after.psnr:.1f} dB",
                "PSNR, higher is closer",
                after.psnr > before.psnr,
            ),
            tile(f"step {result.chosen.step}", f"chosen out of {result.history[-1].step}"),
        )
    )


def _triple(case: _Case) -> str:
    def figure(image: Tensor, name: str, detail: str) -> str:
        return (
            f'<figure><img src="{inline(png(image))}" alt="{name}">'
            f"<figcaption><b>{name}</b> {detail}</figcaption></figure>"
        )

    def detail(stage: _Stage) -> str:
        return f"distance {float(stage.relation.distance):.3f}, {stage.psnr:.1f} dB"

    return (
        figure(case.before.image, "Before", detail(case.before))
        + figure(case.after.image, "After", detail(case.after))
        + figure(case.reference, "Reference", "")
    )


def _details(case: _Case) -> str:
    height, width = case.reference.shape[-2:]
    # The most detailed square of a coarse grid, so that there is something to see.
    best, top, left = -1.0, 0, 0
    side = min(_DETAIL, height // 2, width // 2)
    across = side * 3 // 2
    for y in range(height // 8, max(height // 8 + 1, height - side - height // 8), side // 2):
        for x in range(width // 8, max(width // 8 + 1, width - across - width // 8), side // 2):
            spread = float(case.reference[:, y : y + side, x : x + across].std((1, 2)).mean())
            if spread > best:
                best, top, left = spread, y, x
    result = ""
    for image, name in (
        (case.before.image, "Before"),
        (case.after.image, "After"),
        (case.reference, "Reference"),
    ):
        cut = image[:, top : top + side, left : left + across]
        result += (
            f'<figure><img class="sharp" src="{inline(png(cut))}" alt="{name}, enlarged"></figure>'
        )
    return result


def _sentences(case: _Case) -> str:
    lines = (
        ("Before", f"{case.before.words}."),
        ("After", f"{case.after.words}."),
        (
            "Before → after",
            f"{case.change}; the score of after against before is {signed(case.gain)} "
            f"({'better' if case.gain > 0 else 'worse' if case.gain < 0 else 'equal'}).",
        ),
    )
    return "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in lines)


def _maps(case: _Case, named: Sequence[str], limit: float, channels: Sequence[str]) -> str:
    rows = '<tr><th class="name"></th><th>Before</th><th>After</th></tr>'
    for name in named:
        more, less = direction_words(name)
        rows += (
            f'<tr><th class="name"><b>{html.escape(name.replace("_", " "))}</b>'
            f'<span style="color:var(--cool)">−&nbsp;{html.escape(less)}</span><br>'
            f'<span style="color:var(--accent)">+&nbsp;{html.escape(more)}</span></th>'
        )
        for stage, when in ((case.before, "before"), (case.after, "after")):
            values = stage.relation.maps[0, list(channels).index(name)]
            source = inline(png(colourise(values, limit)))
            label = html.escape(f"map of {name.replace('_', ' ')}, {when}")
            rows += (
                f'<td><img class="sharp" src="{source}" alt="{label}">'
                f'<div class="mean">mean {signed(float(values.mean()), 2)}</div></td>'
            )
        rows += "</tr>"
    return rows


def _table(cases: dict[str, list[_Case]]) -> str:
    heads = (
        "photograph",
        "part",
        "distance before",
        "after",
        "score before",
        "after",
        "PSNR before",
        "after",
    )
    rows = "<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for part, words in (("show", "held out of everything"), ("select", "chosen on")):
        for case in cases[part]:
            before, after = case.before, case.after
            cells = (
                html.escape(case.name),
                words,
                f"{float(before.relation.distance):.4f}",
                f"{float(after.relation.distance):.4f}",
                signed(float(before.relation.score), 4),
                signed(float(after.relation.score), 4),
                f"{before.psnr:.2f} dB",
                f"{after.psnr:.2f} dB",
            )
            rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return rows


def _facts(result: DemoResult, photographs: Photographs, command: str, weights_version: str) -> str:
    config = result.config
    budget = f"{config.steps} steps" if config.steps is not None else f"{config.seconds:g} seconds"
    facts = {
        "Command": f"<code>{html.escape(command)}</code>",
        "Trained on": html.escape(
            f"{', '.join(photographs.train)} (from scikit-image), {result.history[-1].step} steps "
            f"of {config.batch} crops of {config.crop}×{config.crop} pixels; budget {budget}, "
            f"{result.seconds:.1f} s in all on {config.device} (threads: {torch.get_num_threads()})"
        ),
        "Network": f"residual convolutional network of {result.parameters} parameters",
        "Loss": f"<code>RelationalLoss({html.escape(result.loss)})</code>, nothing else",
        "Weights": f"<code>{html.escape(weights_version)}</code>",
        "Seed": str(config.seed),
        "Versions": html.escape(", ".join(f"{k} {v}" for k, v in _versions().items())),
    }
    return "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())


def _versions() -> dict[str, str]:
    return {
        "relqa-loss": __version__,
        "torch": str(torch.__version__),
        "scikit-image": version("scikit-image"),
        "Python": platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
    }


def _json(result: DemoResult, cases: dict[str, list[_Case]], command: str) -> str:
    def stage(one: _Stage) -> dict[str, object]:
        return {
            "distance": float(one.relation.distance),
            "score": float(one.relation.score),
            "psnr": one.psnr,
            "words": one.words,
        }

    record = {
        "command": command,
        "versions": _versions(),
        "loss": result.loss,
        "seed": result.config.seed,
        "seconds": result.seconds,
        "parameters": result.parameters,
        "chosen_step": result.chosen.step,
        # NaN is not JSON.
        "history": [
            {key: value if math.isfinite(value) else None for key, value in entry._asdict().items()}
            for entry in result.history
        ],
        "photographs": [
            {
                "name": case.name,
                "part": part,
                "before": stage(case.before),
                "after": stage(case.after),
                "change": case.change,
                "score_after_against_before": case.gain,
            }
            for part, entries in cases.items()
            for case in entries
        ],
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _figure(
    case: _Case, stage: _Stage, name: str, named: Sequence[str], channels: Sequence[str]
) -> bytes:
    figure = plot_relation(
        case.reference,
        stage.image,
        stage.relation,
        channels=named,
        distance_map=stage.distance_map,
        names=channels,
        title=f"{case.name}, {name}: distance {float(stage.relation.distance):.3f}, "
        f"score {signed(float(stage.relation.score))}",
    )
    return figure_png(figure)
