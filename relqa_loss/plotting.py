"""Pictures of a relation: signed maps beside the images they relate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relqa_loss._html import signed
from relqa_loss.channels import CHANNEL_TABLE, CHANNELS
from relqa_loss.network import Relation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_LIMIT = 0.1
"""Least end of the colour scale, so that a faint map does not look like a strong one."""

# Diverging through a light neutral; blue for less, orange for more, distinguishable in all common
# kinds of colour blindness. Shared by figures and reports.
DIVERGING = ("#0b3c7d", "#2f78c4", "#8fbbe3", "#f4f2ee", "#f2b27c", "#d8691c", "#7a2e05")
SEQUENTIAL = ("#f4f2ee", "#e7c3c9", "#c4688c", "#7c2a72", "#2c0f45")
UNKNOWN = "#8f949c"
"""For what is not a number: on neither scale, and far from the colour of no difference."""

_INK, _FAINT, _GRID = "#22252a", "#6b7078", "#d9d7d2"
_PANEL = 2.9  # inches
_HEADING = 13.0  # points
_MISSING = "figures need Matplotlib, which is not installed: pip install 'relqa-loss[demo]'"
_NO_NUMBER = "grey: not a number"
_WORDS = {channel.name: (channel.more, channel.less) for channel in CHANNEL_TABLE}


def strongest_channels(
    maps: Tensor, count: int = 6, *, channels: Sequence[str] = CHANNELS
) -> tuple[str, ...]:
    """Names of the channels whose maps have the greatest mean magnitude, strongest first.

    Args:
        maps: …×K×h×w signed maps; the mean is taken over every other dimension, of what is a
            number.
        count: How many names to return at most.
        channels: Names of the K maps.

    Raises:
        ValueError: If K does not match the names, or ``count`` is negative.

    Example:
        >>> import torch
        >>> from relqa_loss.plotting import strongest_channels
        >>> maps = torch.zeros(13, 8, 8)
        >>> maps[3] = -0.5
        >>> maps[1, :4] = 0.6
        >>> strongest_channels(maps, 2)
        ('ringing', 'noise')
    """
    if maps.dim() < 3 or maps.shape[-3] != len(channels):
        raise ValueError(f"maps must be …×{len(channels)}×h×w, got shape {tuple(maps.shape)}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    magnitude = maps.detach().float().abs().transpose(-3, 0).flatten(1).nanmean(1)
    order = torch.argsort(magnitude, descending=True, stable=True)
    return tuple(channels[int(index)] for index in order[:count])


def symmetric_limit(maps: Tensor) -> float:
    """End of a colour scale that is centred on zero and shows nearly all of ``maps``.

    The 99.5th percentile of the magnitude, between :data:`MIN_LIMIT` and 1; of what is a number.
    """
    values = maps.detach().float().abs().flatten()
    values = values[~values.isnan()]
    if values.numel() == 0:
        return MIN_LIMIT
    place = min(values.numel(), max(1, math.ceil(0.995 * values.numel())))
    return min(1.0, max(MIN_LIMIT, float(values.kthvalue(place).values)))


def colourise(values: Tensor, limit: float, colours: Sequence[str] = DIVERGING) -> Tensor:
    """Colours of h×w values by linear interpolation between ``colours``.

    Args:
        values: h×w. The first colour stands for −``limit``, the last for +``limit``,
            :data:`UNKNOWN` for NaN.
        limit: End of the scale, positive; values beyond it take the end's colour.
        colours: Hexadecimal, evenly spaced; the middle one stands for zero.

    Returns:
        3×h×w in [0, 1], on the CPU.

    Raises:
        ValueError: If ``values`` is not h×w or ``limit`` not positive.

    Example:
        >>> import torch
        >>> from relqa_loss.plotting import colourise
        >>> colourise(torch.tensor([[-1.0, 0.0, 1.0]]), 1.0, ("#0000ff", "#ffffff", "#ff0000"))[0]
        tensor([[0., 1., 1.]])
    """
    if values.dim() != 2:
        raise ValueError(f"values must be h×w, got shape {tuple(values.shape)}")
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    table = torch.stack([_rgb(colour) for colour in colours])
    values = values.detach().float().cpu()
    position = (values / limit).clamp(-1, 1).nan_to_num(0.0)
    position = (position + 1) / 2 * (len(colours) - 1)
    lower = position.floor().clamp(max=len(colours) - 2)
    fraction = (position - lower)[..., None]
    index = lower.long()
    mixed = table[index] * (1 - fraction) + table[index + 1] * fraction
    mixed[values.isnan()] = _rgb(UNKNOWN)
    return mixed.permute(2, 0, 1)


def plot_relation(
    reference: Tensor,
    image: Tensor,
    relation: Relation,
    *,
    channels: Sequence[str] | int = 6,
    distance_map: Tensor | None = None,
    names: Sequence[str] = CHANNELS,
    title: str | None = None,
) -> Figure:
    """Draw a pair, where they differ, and its signed maps on one symmetric colour scale.

    What is not a number is grey, and said to be.

    Args:
        reference: 3×H×W or 1×3×H×W in [0, 1].
        image: As ``reference``.
        relation: Of this one pair, as the network returns it.
        channels: Names of the maps to draw, or how many of the strongest.
        distance_map: 1×1×h×w, h×w or similar, from ``network.distance_map``; the summed
            magnitude of all maps stands in for it.
        names: Names of the relation's K maps.
        title: Above the figure, in smaller letters where it is long; distance and score by default.

    Returns:
        A :class:`matplotlib.figure.Figure` that belongs to no global state; save it with
        ``figure.savefig(path)``.

    Raises:
        TypeError: For images of integers.
        ValueError: For other shapes, a batch of several pairs, or unknown channel names.
        ImportError: If Matplotlib is not installed.

    Example:
        >>> import torch
        >>> from relqa_loss.network import load_pretrained
        >>> from relqa_loss.plotting import plot_relation
        >>> reference = torch.rand(1, 3, 64, 64)
        >>> image = 0.8 * reference
        >>> figure = plot_relation(reference, image, load_pretrained()(reference, image))
        >>> len(figure.axes)  # three pictures, six maps, two colour bars
        11
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import LinearSegmentedColormap, Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(_MISSING) from error
    left, right = _single(reference, "reference"), _single(image, "image")
    if left.shape != right.shape:
        raise ValueError(f"sizes differ: reference {left.shape[:2]}, image {right.shape[:2]}")
    maps = relation.maps.detach().float().cpu()
    if maps.dim() == 4 and maps.shape[0] == 1:
        maps = maps[0]
    if maps.dim() != 3 or maps.shape[0] != len(names):
        raise ValueError(
            f"relation.maps must be 1×{len(names)}×h×w (one pair), got {tuple(relation.maps.shape)}"
        )
    if isinstance(channels, int):
        channels = strongest_channels(maps, channels, channels=names)
    unknown = [name for name in channels if name not in names]
    if unknown:
        raise ValueError(f"unknown channels {unknown}; the maps have {tuple(names)}")
    where = maps.abs().sum(0) if distance_map is None else distance_map.detach().float().cpu()
    if where.dim() < 2 or where.shape[:-2].numel() != 1 or not where.numel():
        raise ValueError(
            f"distance_map must be h×w or 1×1×h×w (one pair), got shape {tuple(where.shape)}"
        )
    where = where.reshape(where.shape[-2:])

    columns = 3
    rows = math.ceil(len(channels) / columns)
    height, width = left.shape[:2]
    shape = height / width
    tile = min(max(shape, 0.45), 1.6) * _PANEL
    heading, band, gap = 0.34, 0.62, 0.16
    total_width = columns * _PANEL + (columns + 1) * gap
    block = tile + 0.36
    total_height = heading + block + (rows * block + band if rows else 0) + band
    figure = Figure(figsize=(total_width, total_height), dpi=130, facecolor="white")

    def place(row: float, column: int, below_bands: int) -> Any:
        x = gap + column * (_PANEL + gap)
        y = total_height - heading - (row + 1) * block - below_bands * band
        size = (x / total_width, y / total_height, _PANEL / total_width, tile / total_height)
        axes = figure.add_axes(size)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(_GRID)
            spine.set_linewidth(0.8)
        return axes

    def show(axes: Any, values: Any, **options: Any) -> Any:
        """Not stretched: where a picture has not the shape of its panel, room is left beside it."""
        shown = axes.imshow(values, aspect="auto", **options)
        rows, columns = values.shape[:2]
        panel = tile / _PANEL
        for limits, count, share in (
            (axes.set_xlim, columns, max(1.0, shape / panel)),
            (axes.set_ylim, -rows, max(1.0, panel / shape)),
        ):
            middle = (abs(count) - 1) / 2
            limits(middle - count * share / 2, middle + count * share / 2)
        return shown

    def bar(mappable: Any, below_row: int, above_bands: int, column: int, span: int) -> Any:
        x = gap + column * (_PANEL + gap)
        length = span * _PANEL + (span - 1) * gap
        y = total_height - heading - below_row * block - above_bands * band - 0.22
        inset = 0.0 if span == 1 else length * 0.2
        axes = figure.add_axes(
            (
                (x + inset) / total_width,
                y / total_height,
                (length - 2 * inset) / total_width,
                0.11 / total_height,
            )
        )
        colour_bar = figure.colorbar(mappable, cax=axes, orientation="horizontal")
        colour_bar.outline.set_visible(False)
        axes.tick_params(labelsize=7.5, colors=_FAINT, length=0, pad=3)
        return colour_bar

    def scale(name: str, colours: Sequence[str]) -> Any:
        return LinearSegmentedColormap.from_list(name, colours).with_extremes(bad=UNKNOWN)

    if title is None:
        distance, score = float(relation.distance.mean()), float(relation.score.mean())
        title = f"distance {distance:.4g}    score {score:+.4g}".replace("-", "−")
    head = figure.text(
        gap / total_width,
        1 - 0.2 / total_height,
        title,
        fontsize=_HEADING,
        color=_INK,
        fontweight="bold",
        va="center",
        parse_math=False,  # a file's name may have dollars in it
    )
    # Smaller rather than cut off: a sentence's last change or a long name's distance counts, too.
    room = (total_width - 2 * gap) * figure.dpi
    canvas: Any = FigureCanvasAgg(figure)
    size = _HEADING
    while (width := head.get_window_extent(canvas.get_renderer()).width) > room and size > 1:
        # Step by step, since letters are rounded to pixels.
        size *= min(0.98, room / width)
        head.set_fontsize(size)
    for column, (picture, name) in enumerate(((left, "reference"), (right, "image"))):
        axes = place(0, column, 0)
        unknown = np.isnan(picture).any(2)
        picture[unknown] = _rgb(UNKNOWN).numpy()
        show(axes, picture, interpolation="nearest")
        _caption(axes, name, _NO_NUMBER if unknown.any() else "")
    axes = place(0, 2, 0)
    sequential = scale("relqa_where", SEQUENTIAL)
    finite = where[where.isfinite()]
    top = float(finite.max()) if finite.numel() else 0.0  # none where the images are equal
    shown = show(axes, where.numpy(), cmap=sequential, norm=Normalize(0, top or 1))
    measure = "distance" if distance_map is not None else "sum of |maps|"
    _caption(axes, "where they differ", _NO_NUMBER if where.isnan().any() else measure)
    where_bar = bar(shown, 1, 0, 2, 1)
    ends = {0: "none"} | ({top: f"{top:.2g}"} if top else {})
    where_bar.set_ticks(list(ends), labels=list(ends.values()))
    for label, side in zip(where_bar.ax.get_xticklabels(), ("left", "right"), strict=False):
        label.set_ha(side)

    if rows:
        diverging = scale("relqa_signed", DIVERGING)
        index = [list(names).index(name) for name in channels]
        limit = symmetric_limit(maps[index])
        shown = None
        for position, (k, name) in enumerate(zip(index, channels, strict=True)):
            axes = place(1 + position // columns, position % columns, 1)
            shown = show(axes, maps[k].numpy(), cmap=diverging, norm=Normalize(-limit, limit))
            more, less = direction_words(name)
            mean = float(maps[k].mean())
            detail = _NO_NUMBER if maps[k].isnan().any() else f"mean {signed(mean, 2)}"
            _caption(axes, name.replace("_", " "), detail)
            for x, words, side, colour in (
                (0.02, less, "left", DIVERGING[0]),
                (0.98, more, "right", DIVERGING[-1]),
            ):
                axes.text(
                    x,
                    0.03,
                    f"− {words}" if side == "left" else f"{words} +",
                    transform=axes.transAxes,
                    ha=side,
                    va="bottom",
                    fontsize=7,
                    color=colour,
                    parse_math=False,
                    bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.82},
                )
        signed_bar = bar(shown, 1 + rows, 1, 0, columns)
        signed_bar.set_ticks(
            [-limit, 0, limit],
            labels=[
                f"−{limit:.2f}  less than the reference",
                "0",
                f"more than the reference  +{limit:.2f}",
            ],
        )
    return figure


def direction_words(channel: str) -> tuple[str, str]:
    """Short words for more and less of ``channel``, as used on legends."""
    more, less = _WORDS.get(channel, (f"more {channel}", f"less {channel}"))
    return more.partition(",")[0], less.partition(",")[0]


def _caption(axes: Any, name: str, detail: str = "") -> None:
    axes.set_title(name, loc="left", fontsize=9.5, color=_INK, pad=4, parse_math=False)
    if detail:
        axes.set_title(detail, loc="right", fontsize=8.5, color=_FAINT, pad=4)


def _rgb(colour: str) -> Tensor:
    """Of a hexadecimal colour: 3 in [0, 1]."""
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return torch.tensor(levels, device="cpu", dtype=torch.float32)


def _single(image: Tensor, name: str) -> NDArray[np.float32]:
    if image.dim() == 4 and image.shape[0] == 1:
        image = image[0]
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"the {name} must be 3×H×W or 1×3×H×W, got shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise TypeError(
            f"the {name} must be floating, in [0, 1], got {image.dtype}; divide 8-bit images by 255"
        )
    if not image.numel():
        raise ValueError(f"the {name} has no pixels, got shape {tuple(image.shape)}")
    image = image.detach().float().cpu().clamp(0, 1).expand(3, -1, -1)
    array: NDArray[np.float32] = image.permute(1, 2, 0).numpy().copy()  # to paint on
    return array
