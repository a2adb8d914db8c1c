"""Relations in words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relqa_loss.channels import CHANNEL_TABLE, CHANNELS
from relqa_loss.words import IDENTICAL, MOST, NO_DIFFERENCE, NOT_A_NUMBER, changes, describe


def maps(size: int = 16, **values: float) -> Tensor:
    result = torch.zeros(len(CHANNELS), size, size)
    for name, value in values.items():
        result[CHANNELS.index(name)] = value
    return result


def test_amounts_and_directions() -> None:
    assert describe(maps(sharpness=0.31)) == "sharper by 0.31"
    assert describe(maps(sharpness=-0.31)) == "blurrier by 0.31"
    assert (
        describe(maps(noise=-0.42, sharpness=0.31, ringing=0.08))
        == "smoother by 0.42 (texture or noise removed), sharper by 0.31, "
        "slightly more ringing by 0.08"
    )


@pytest.mark.parametrize("channel", CHANNEL_TABLE, ids=lambda channel: channel.name)
def test_every_channel_uses_its_words(channel) -> None:  # type: ignore[no-untyped-def]
    assert describe(maps(**{channel.name: 0.5})).startswith(channel.more.split(",")[0] + " by 0.50")
    assert describe(maps(**{channel.name: -0.5})).startswith(
        channel.less.split(",")[0] + " by 0.50"
    )


def test_nothing_to_say() -> None:
    assert describe(maps()) == IDENTICAL
    assert describe(maps(noise=0.04, tint=-0.04)) == NO_DIFFERENCE
    torch.manual_seed(0)
    assert describe(0.05 * torch.randn(len(CHANNELS), 32, 32)) == NO_DIFFERENCE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_is_not_called_invisible(value: float) -> None:
    some = maps(noise=0.5)
    some[3, 0, 0] = value
    assert describe(some) == NOT_A_NUMBER
    with pytest.raises(ValueError, match="finite"):
        changes(some)


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        (slice(0, 8), slice(0, 8), "in the upper left"),
        (slice(8, 16), slice(0, 8), "in the lower left"),
        (slice(2, 6), slice(10, 15), "in the upper right"),
        (slice(0, 16), slice(8, 16), "in the right half"),
        (slice(0, 8), slice(0, 16), "in the upper half"),
        (slice(8, 16), slice(0, 16), "in the lower half"),
        (slice(10, 15), slice(10, 15), "in the lower right"),
        (slice(6, 10), slice(6, 10), "in the centre"),
    ],
)
def test_positions(rows: slice, columns: slice, place: str) -> None:
    one = maps()
    one[CHANNELS.index("noise"), rows, columns] = 0.8
    assert describe(one).endswith(place)
    assert describe(one).startswith("noisier by 0.")


def test_the_amount_is_that_of_the_place() -> None:
    one = maps()
    one[CHANNELS.index("noise"), :8, :8] = 0.4
    assert describe(one) == "noisier by 0.40 in the upper left"


def test_edges_and_flat_areas() -> None:
    reference = torch.full((3, 128, 128), 0.3)
    reference[:, :, 64:] = 0.7
    near, away = maps(32), maps(32)
    near[CHANNELS.index("ringing"), :, 15:17] = 0.3
    away[CHANNELS.index("noise")] = 0.3
    away[CHANNELS.index("noise"), :, 13:19] = 0
    assert describe(near, reference) == "more ringing by 0.30 near edges"
    # Flat areas are nearly all of this image: not worth naming.
    assert describe(away, reference).startswith("noisier by 0.2")
    assert "flat" not in describe(away, reference)
    textured = reference.clone()
    textured[:, :64] = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(0))
    banding = maps(32)
    banding[CHANNELS.index("banding"), 17:, :14] = 0.4
    banding[CHANNELS.index("banding"), 17:, 18:] = 0.4
    assert describe(banding, textured).endswith("in flat areas")


@pytest.mark.parametrize(("step", "seen"), [(0.1, True), (0.03, False)])
def test_faint_edges_are_edges(step: float, seen: bool) -> None:
    reference = torch.full((3, 128, 128), 0.4)
    reference[:, :, 64:] += step
    near = maps(32)
    near[CHANNELS.index("ringing"), :, 15:17] = 0.3
    assert describe(near, reference).endswith("near edges") == seen


def test_structure_goes_before_a_position_that_fits_about_as_well() -> None:
    reference = torch.full((3, 128, 128), 0.4)
    texture = torch.rand(3, 128, 64, generator=torch.Generator().manual_seed(0))
    reference[:, :, 64:] = texture
    left = maps(32)
    left[CHANNELS.index("noise"), :, :14] = 0.4
    left[CHANNELS.index("noise"), :, 14:16] = 0.5  # by the texture, so that the half fits better
    assert describe(left).endswith("in the left half")
    assert describe(left, reference).endswith("in flat areas")


@pytest.mark.parametrize("width", [64, 192])
def test_edges_of_one_colour_and_of_images_of_any_shape(width: int) -> None:
    reference = torch.full((3, 64, width), 0.4)
    reference[2, :, width // 2 :] = 0.9
    near = torch.zeros(1, 16, width // 4)
    near[..., width // 8 - 1 : width // 8 + 1] = 0.3
    assert describe(near, reference, channels=["ringing"]) == "more ringing by 0.30 near edges"


def test_of_edges_everywhere_the_strongest_count() -> None:
    texture = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))
    reference = (0.2 + 0.2 * texture).expand(3, -1, -1).clone()
    reference[:, :, 64:] += 0.4
    near = maps(32)
    near[CHANNELS.index("ringing"), :, 15:17] = 0.6
    assert describe(near, reference).endswith("near edges")
    assert not describe(near).endswith("near edges")


@pytest.mark.parametrize("sign", [1, -1])
def test_scatter_against_the_main_direction_is_not_named(sign: int) -> None:
    one = maps()
    one[0] = 0.9 * sign
    one[0, :8, :8] = -0.3 * sign
    assert [change.amount * sign > 0 for change in changes(one)] == [True]
    one[0, :8, :8] = -0.95 * sign  # more than a third of it
    assert [change.amount * sign > 0 for change in changes(one)] == [False, True]


def test_both_directions_in_different_places() -> None:
    one = maps()
    one[0, :, :8] = 0.3
    one[0, :, 8:] = -0.4
    assert describe(one) == "blurrier by 0.40 in the right half, sharper by 0.30 in the left half"


def test_each_direction_of_a_mixture_is_named_for_itself() -> None:
    one = maps()
    one[0] = -0.5
    one[0, ::2, ::2] = one[0, 1::2, 1::2] = 0.35
    assert describe(one) == "sharper by 0.35 in places, slightly blurrier by 0.08"


@pytest.mark.parametrize(("value", "words"), [(0.9, "more corrupted"), (-0.9, "less corrupted")])
def test_small_strong_spots_are_found(value: float, words: str) -> None:
    one = maps(64)
    for row, column in ((3, 3), (3, 60), (60, 3), (60, 60), (30, 31)):
        one[CHANNELS.index("corruption"), row : row + 2, column : column + 2] = value
    assert describe(one) == f"{words} by 0.90 in places"
    # A block of 28×28 pixels, of which the quarter's mean says nothing.
    alone = maps(64)
    alone[CHANNELS.index("corruption"), 3:10, 40:47] = value
    assert describe(alone) == f"{words} by 0.90 in places in the upper right"


@pytest.mark.parametrize("most", [None, 2, MOST + 2])
def test_only_the_strongest_are_named(most: int | None) -> None:
    every = torch.linspace(0.2, 0.8, len(CHANNELS))[:, None, None].expand(-1, 8, 8)
    found = changes(every) if most is None else changes(every, most=most)
    assert [change.channel for change in found] == list(reversed(CHANNELS))[: most or MOST]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_lesser_direction_is_not_named_without_the_other(sign: int) -> None:
    values = maps(16)
    values[1:5] = torch.tensor([0.5, 0.4, 0.3, 0.2])[:, None, None]
    values[0] = -0.15 * sign
    values[0, ::3, ::3] = 0.45 * sign
    both = changes(values, most=6)
    assert [round(change.amount, 2) for change in both if change.channel == CHANNELS[0]] == [
        0.45 * sign,
        -0.07 * sign,
    ]
    # One more than there is room for: what the whole image is, and not the few cells that are not.
    assert changes(values, most=5) == [change for change in both if change.place != "in places"]
    assert [change.channel for change in changes(values, most=4)] == list(CHANNELS[1:5])
    # Where only the few cells are worth a word, they have it.
    values[0] = values[0].where(values[0] * sign > 0, -0.08 * sign)
    assert [c.channel for c in changes(values, most=2)] == [CHANNELS[1], CHANNELS[0]]


def test_fewer_than_none_are_refused() -> None:
    with pytest.raises(ValueError, match="most must not be negative, got -1"):
        changes(maps(8), most=-1)


def test_unknown_channels_have_words() -> None:
    assert describe(torch.full((1, 4, 4), 0.5), channels=["moire"]) == "more moire by 0.50"


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="index a batch first"):
        describe(torch.zeros(1, len(CHANNELS), 8, 8))
    for value in (1.0, 0.0, float("nan")):  # whatever there is to say of other maps
        with pytest.raises(ValueError, match="one per channel"):
            describe(torch.full((3, 8, 8), value))
    with pytest.raises(ValueError, match="one per channel"):
        describe(torch.ones(len(CHANNELS), 1, 8, 8))
    for shape in ((2, 32, 32), (1, 3, 32, 32), (3, 3, 32, 32)):
        with pytest.raises(ValueError, match="3×H×W"):
            describe(maps(noise=1), torch.zeros(shape))


def test_a_grey_reference_names_places_as_the_same_in_colour_does() -> None:
    grey = torch.zeros(1, 64, 64)
    grey[:, :, 30:34] = 1
    found = maps()
    found[0, :, 7:9] = 0.4
    said = describe(found, grey)
    assert said.endswith("near edges")
    assert said == describe(found, grey.expand(3, -1, -1))


def test_odd_sizes_and_gradients() -> None:
    one = torch.full((len(CHANNELS), 13, 9), 0.2, requires_grad=True)
    assert "by 0.20" in describe(one, torch.rand(3, 50, 35))
    assert "by 0.20" in describe(torch.full((len(CHANNELS), 1, 1), 0.2), torch.rand(3, 4, 4))


def test_half_precision() -> None:
    """Whose sums end at 65504, and for which there are no quantiles."""
    reference = torch.full((3, 64, 64), 0.5)
    reference[:, :, 32:] = 1.0
    one = torch.zeros(1, 512, 512)
    one[0, :, :256] = 0.75
    words = describe(one, reference, channels=["noise"])
    assert words == "noisier by 0.75 in the left half"
    assert describe(one.half(), reference.half(), channels=["noise"]) == words
