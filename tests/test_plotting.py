"""Figures of relations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relqa_loss.channels import CHANNELS
from relqa_loss.network import Relation
from relqa_loss.plotting import (
    DIVERGING,
    MIN_LIMIT,
    UNKNOWN,
    colourise,
    direction_words,
    plot_relation,
    strongest_channels,
    symmetric_limit,
)

Text = pytest.importorskip("matplotlib.text").Text
to_rgba = pytest.importorskip("matplotlib.colors").to_rgba


@pytest.fixture
def relation() -> Relation:
    maps = torch.zeros(1, len(CHANNELS), 16, 24)
    maps[0, CHANNELS.index("noise"), :, :12] = -0.6
    maps[0, CHANNELS.index("ringing")] = 0.2
    return Relation(maps, torch.tensor([-0.5]), torch.tensor([0.25]))


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96)


def test_strongest_channels_are_drawn_on_one_symmetric_scale(pair, relation) -> None:  # type: ignore[no-untyped-def]
    figure = plot_relation(*pair, relation, channels=2)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title in CHANNELS] == ["noise", "ringing"]
    scales = {
        axes.images[0].get_clim()
        for axes in figure.axes
        if axes.get_title(loc="left") in ("noise", "ringing")
    }
    assert len(scales) == 1
    low, high = scales.pop()
    assert low == -high
    assert high == pytest.approx(0.6)
    assert "distance 0.25" in figure.texts[0].get_text()
    assert "−0.5" in figure.texts[0].get_text()


@pytest.mark.parametrize("strength", [0.0, 0.25])
def test_the_scale_of_where_ends_at_the_largest_if_there_is_any(pair, relation, strength) -> None:  # type: ignore[no-untyped-def]
    figure = plot_relation(*pair, relation._replace(maps=strength * relation.maps.abs().sign()))
    where = next(axes for axes in figure.axes if axes.get_title(loc="left") == "where they differ")
    ends = [text.get_text() for text in where.images[0].colorbar.ax.get_xticklabels()]
    assert ends == (["none", "0.5"] if strength else ["none"])  # two channels in the left half


def test_titles_and_names_are_drawn_as_they_are(pair, relation) -> None:  # type: ignore[no-untyped-def]
    names = [name.replace("noise", "a$5_b$") for name in CHANNELS]
    figure = plot_relation(*pair, relation, channels=1, names=names, title="cost$5_and$6.png")
    assert figure.texts[0].get_text() == "cost$5_and$6.png"
    assert not figure.texts[0].get_parse_math()
    drawn = [text for axes in figure.axes for text in axes.findobj(Text) if "$" in text.get_text()]
    assert drawn
    assert not any(text.get_parse_math() for text in drawn)


@pytest.mark.parametrize("length", [20, 90, 180])
def test_titles_are_drawn_to_their_end(pair, relation, length: int) -> None:  # type: ignore[no-untyped-def]
    title = plot_relation(*pair, relation, title="w" * length).texts[0]
    canvas = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg(title.figure)
    extent = title.get_window_extent(canvas.get_renderer())
    assert extent.x0 >= 0
    assert extent.x1 <= canvas.get_width_height()[0]
    assert (title.get_fontsize() == 13) == (length == 20)


def test_legend_has_the_words_of_both_directions(pair, relation) -> None:  # type: ignore[no-untyped-def]
    figure = plot_relation(*pair, relation, channels=["sharpness"])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "− blurrier" in texts
    assert "sharper +" in texts
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert any("more than the reference" in label for label in labels)


def test_the_data_drawn_is_the_data_given(pair, relation) -> None:  # type: ignore[no-untyped-def]
    where = torch.rand(1, 1, 16, 24)
    figure = plot_relation(*pair, relation, channels=["noise"], distance_map=where)
    shown = {axes.get_title(loc="left"): axes.images[0] for axes in figure.axes if axes.images}
    assert torch.equal(torch.tensor(shown["noise"].get_array().data), relation.maps[0, 1])
    assert torch.equal(torch.tensor(shown["where they differ"].get_array().data), where[0, 0])
    assert torch.allclose(torch.tensor(shown["image"].get_array()), pair[1][0].permute(1, 2, 0))


def test_zero_has_no_minus(pair, relation) -> None:  # type: ignore[no-untyped-def]
    faint = relation._replace(maps=-0.001 * relation.maps.abs().sign())
    figure = plot_relation(*pair, faint, channels=["ringing", "tint"])
    means = [axes.get_title(loc="right") for axes in figure.axes if axes.images]
    assert means[-2:] == ["mean +0.00", "mean +0.00"]


def test_what_is_drawn_where_nothing_is_said_of_it(pair, relation) -> None:  # type: ignore[no-untyped-def]
    figure = plot_relation(*pair, relation, channels=["ringing", "noise"])
    shown = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}
    where = shown["where they differ"]
    total = relation.maps[0].abs().sum(0)
    assert torch.equal(torch.tensor(where.images[0].get_array().data), total)
    assert where.images[0].get_clim() == pytest.approx((0, float(total.max())))
    assert where.get_title(loc="right") == "sum of |maps|"
    assert shown["noise"].get_title(loc="right") == "mean −0.30"
    assert shown["ringing"].get_title(loc="right") == "mean +0.20"
    # The scale is that of the maps that are drawn.
    [faint] = (
        axes.images[0].get_clim()
        for axes in plot_relation(*pair, relation, channels=["ringing"]).axes
        if axes.get_title(loc="left") == "ringing"
    )
    assert faint == pytest.approx((-0.2, 0.2))


@pytest.mark.parametrize("part", [slice(0, 4), slice(None)])
def test_what_is_no_number_is_not_drawn_as_no_difference(pair, relation, part: slice) -> None:  # type: ignore[no-untyped-def]
    image, maps = pair[1].clone(), relation.maps.clone()
    image[..., part, :], maps[..., part, :] = torch.nan, torch.nan
    names = ["ringing", "noise"]
    figure = plot_relation(pair[0], image, relation._replace(maps=maps), channels=names)
    shown = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}
    grey = pytest.approx(to_rgba(UNKNOWN), abs=0.01)
    for name in ("image", "where they differ", *names):
        axes = shown[name]
        drawn = axes.images[0]
        assert tuple(drawn.make_image(None, unsampled=True)[0][0, 0] / 255) == grey
        assert axes.get_title(loc="right") == "grey: not a number"
    # What is a number is on the scale that it would have had.
    rest = maps[0, [CHANNELS.index(name) for name in names], 4:] if part.stop else torch.zeros(1)
    limit = max(MIN_LIMIT, float(rest.abs().max()))
    assert shown["noise"].images[0].get_clim() == pytest.approx((-limit, limit))
    top = float(rest.abs().sum(0).max()) if part.stop else 1.0
    assert shown["where they differ"].images[0].get_clim() == pytest.approx((0, top))
    assert strongest_channels(maps, 1) == (("noise",) if part.stop else CHANNELS[:1])
    assert shown["reference"].get_title(loc="right") == ""


@pytest.mark.parametrize("shape", [(64, 96), (32, 320), (320, 32), (33, 34)])
def test_pictures_and_maps_are_not_stretched(relation, shape: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    figure = plot_relation(torch.rand(3, *shape), torch.rand(3, *shape), relation, channels=1)
    drawings = 0
    for drawn in (axes.images[0] for axes in figure.axes[:5] if axes.get_title(loc="left")):
        left, right, bottom, top = drawn.get_extent()
        corners = drawn.axes.transData.transform([(left, bottom), (right, top)])
        width, height = corners[1] - corners[0]
        assert height / width == pytest.approx(shape[0] / shape[1])
        panel = drawn.axes.bbox
        assert max(width / panel.width, height / panel.height) == pytest.approx(1)
        middle = corners.mean(0) - (panel.x0 + panel.width / 2, panel.y0 + panel.height / 2)
        assert middle == pytest.approx(0, abs=1e-6)
        drawings += 1
    assert drawings == 4


def test_tensors_of_a_training_are_drawn(pair, relation) -> None:  # type: ignore[no-untyped-def]
    halves = [(2 * image).half().requires_grad_() for image in pair]  # beyond white
    learned = relation._replace(maps=relation.maps.half().requires_grad_())
    figure = plot_relation(*halves, learned, distance_map=learned.maps.sum(1))
    shown = {axes.get_title(loc="left"): axes.images[0] for axes in figure.axes if axes.images}
    expected = (2 * pair[0][0]).clamp(0, 1).permute(1, 2, 0)
    drawn = torch.tensor(shown["reference"].get_array())
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-3)
    assert shown["noise"].get_array().min() == pytest.approx(-0.6, abs=1e-3)


def test_saves_without_pyplot(tmp_path: Path, pair, relation) -> None:  # type: ignore[no-untyped-def]
    import sys

    before = "matplotlib.pyplot" in sys.modules
    plot_relation(*pair, relation).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize("count", [0, 1, 13])
def test_any_number_of_maps_and_grey_images(relation, count: int) -> None:  # type: ignore[no-untyped-def]
    grey = torch.rand(1, 64, 96)
    figure = plot_relation(grey, grey, relation, channels=count)
    assert len(figure.axes) == 4 + count + (count > 0)


def test_errors(pair, relation) -> None:  # type: ignore[no-untyped-def]
    reference, image = pair
    with pytest.raises(ValueError, match="unknown channels"):
        plot_relation(reference, image, relation, channels=["sharpnes"])
    with pytest.raises(ValueError, match="sizes differ"):
        plot_relation(reference, image[..., :32], relation)
    with pytest.raises(ValueError, match="the image must be 3×H×W"):
        plot_relation(reference, image.repeat(2, 1, 1, 1), relation)
    with pytest.raises(ValueError, match="one pair"):
        plot_relation(reference, image, relation._replace(maps=relation.maps.repeat(2, 1, 1, 1)))
    for shape in ((2, 1, 16, 24), (24,), (0, 24)):
        with pytest.raises(ValueError, match=r"distance_map must be h×w or .* got shape \("):
            plot_relation(reference, image, relation, distance_map=torch.zeros(shape))
    # They would be drawn white.
    with pytest.raises(TypeError, match=r"the image must be floating.*uint8; divide .* by 255"):
        plot_relation(reference, (255 * image).byte(), relation)
    with pytest.raises(ValueError, match="the reference has no pixels"):
        plot_relation(reference[..., :0], image[..., :0], relation)


def test_colourise_is_centred_on_zero_and_saturates() -> None:
    values = torch.tensor([[-9.0, -0.5, 0.0, 0.5, 9.0]])
    colours = (colourise(values, 0.5) * 255).round().int()[:, 0].T.tolist()
    as_hex = ["#" + "".join(f"{c:02x}" for c in colour) for colour in colours]
    assert as_hex == [DIVERGING[0], DIVERGING[0], DIVERGING[3], DIVERGING[-1], DIVERGING[-1]]
    with pytest.raises(ValueError, match="h×w"):
        colourise(torch.zeros(1, 2, 2), 1)
    with pytest.raises(ValueError, match="positive"):
        colourise(torch.zeros(2, 2), 0)


def test_colours_lie_between_those_of_the_scale() -> None:
    values = torch.linspace(-1, 1, 101)
    table = [[int(colour[at : at + 2], 16) / 255 for colour in DIVERGING] for at in (1, 3, 5)]
    nodes = np.linspace(-1, 1, len(DIVERGING))
    expected = torch.tensor(np.array([np.interp(values, nodes, each) for each in table]))
    found = colourise((0.3 * values)[None].requires_grad_(), 0.3)
    torch.testing.assert_close(found[:, 0].double(), expected, rtol=0, atol=1e-5)
    rough = colourise((0.3 * values)[None].half(), 0.3)
    torch.testing.assert_close(rough, found, rtol=0, atol=5e-3)
    unknown = colourise(torch.full((1, 1), torch.nan), 0.3).flatten()
    grey = torch.tensor([int(UNKNOWN[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    torch.testing.assert_close(unknown, grey)
    with torch.device("meta"):
        assert torch.equal(colourise((0.3 * values)[None], 0.3), found)


def test_limit() -> None:
    assert symmetric_limit(torch.zeros(0)) == MIN_LIMIT
    assert symmetric_limit(torch.full((3, 8, 8), 0.5).half()) == 0.5
    assert symmetric_limit(torch.zeros(3, 8, 8)) == MIN_LIMIT
    assert symmetric_limit(torch.full((3, 8, 8), -0.4)) == pytest.approx(0.4)
    assert symmetric_limit(torch.full((3, 8, 8), 4.0)) == 1.0
    one_outlier = torch.full((1, 100, 100), 0.2)
    one_outlier[0, 0, 0] = 1
    assert symmetric_limit(one_outlier) == pytest.approx(0.2)
    one_outlier[0, 0] = 0.8  # a hundredth of them all
    assert symmetric_limit(one_outlier) == pytest.approx(0.8)


def test_order_of_channels() -> None:
    maps = torch.zeros(2, len(CHANNELS), 4, 4)
    maps[0, 5], maps[1, 7] = 0.5, -0.8
    assert strongest_channels(maps, 3) == (CHANNELS[7], CHANNELS[5], CHANNELS[0])
    with pytest.raises(ValueError, match="must be"):
        strongest_channels(maps[:, :3])
    with pytest.raises(ValueError, match="must be"):
        strongest_channels(torch.zeros(len(CHANNELS), 4))
    with pytest.raises(ValueError, match="count must not be negative, got -1"):
        strongest_channels(maps, -1)
    # By magnitude, which does not cancel, and over the whole map, not where it is strongest.
    mixed = torch.zeros(len(CHANNELS), 4, 4)
    mixed[5, :, ::2], mixed[5, :, 1::2], mixed[2, 0, 0] = 0.5, -0.5, 1.0
    assert strongest_channels(mixed, 2) == (CHANNELS[5], CHANNELS[2])
    assert direction_words("noise") == ("noisier", "smoother")
    assert direction_words("moire") == ("more moire", "less moire")
