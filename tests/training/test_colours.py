"""Pairs whose images keep the colours of their reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import get_operator
from relqa_loss.distortions.colour import to_opponent
from relqa_loss.training.batches import Quantiles, collate
from relqa_loss.training.colours import keep_colours, without_colours
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER, RankedSet


def _photo(side: int = 64) -> Tensor:
    """Smooth colours and a fine pattern, away from black and white."""
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand(1, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(rough, (side, side), mode="bilinear")
    fine = torch.rand(1, 3, side, side, generator=generator)
    return (0.35 + 0.2 * smooth + 0.1 * fine).mul(255).round().div(255)


def _distorted(operator: str, photo: Tensor, strength: float) -> Tensor:
    images = get_operator(operator).apply(photo, strength, torch.Generator().manual_seed(1))
    return images.clamp(0, 1).mul(255).round().div(255)


def _maps(*names: str) -> Tensor:
    maps = torch.zeros(1, len(CHANNELS), 16, 16)
    maps[:, [CHANNELS.index(name) for name in names]] = 0.5
    return maps


@pytest.mark.parametrize(
    ("operator", "strength"), [("gaussian_blur", 2.0), ("jpeg", 5.0), ("mean_shift_up", 0.1)]
)
def test_luma_is_that_of_the_image_and_colour_that_of_the_reference(
    operator: str, strength: float
) -> None:
    photo = _photo()
    image = _distorted(operator, photo, strength)
    kept, maps = keep_colours(photo, image, _maps("sharpness", "chroma_bleed", "saturation"))
    luma, colours = to_opponent(kept)
    level = 1.5 / 255  # of rounding to 8 bits
    torch.testing.assert_close(luma, to_opponent(image)[0], atol=level, rtol=0)
    torch.testing.assert_close(colours, to_opponent(photo)[1], atol=level, rtol=0)
    assert not torch.equal(kept, image)
    assert torch.equal(maps, _maps("sharpness"))


@pytest.mark.parametrize(
    ("operator", "strength"), [("colour_diffusion", 6.0), ("saturation_down", 0.8)]
)
def test_an_error_of_colour_is_left_as_it_is(operator: str, strength: float) -> None:
    photo = _photo()
    image = _distorted(operator, photo, strength)
    kept, maps = keep_colours(photo, image, _maps("chroma_bleed"))
    assert torch.equal(kept, image)
    assert torch.equal(maps, _maps("chroma_bleed"))


def test_colours_move_with_the_image() -> None:
    photo = _photo()
    image = photo.roll(3, -1)
    kept, maps = keep_colours(photo, image, _maps("geometry"))
    assert torch.equal(kept, image)
    assert torch.equal(maps, _maps("geometry"))


def test_each_image_is_decided_by_itself() -> None:
    photo = _photo().expand(2, -1, -1, -1)
    images = torch.cat(
        [
            _distorted("gaussian_blur", photo[:1], 2.0),
            _distorted("colour_diffusion", photo[:1], 6.0),
        ]
    )
    kept, _ = keep_colours(photo, images, _maps("sharpness").expand(2, -1, -1, -1))
    assert not torch.equal(kept[0], images[0])
    assert torch.equal(kept[1], images[1])


def _set(*, ordered: bool) -> RankedSet:
    photo = _photo()
    image = _distorted("gaussian_blur", photo, 2.0)
    order = [[1, 0], [NO_ORDER, NO_ORDER]] if ordered else [[NO_ORDER, NO_ORDER]] * 2
    return RankedSet(
        reference=photo[0].mul(255).round().to(torch.uint8),
        images=image.mul(255).round().to(torch.uint8).expand(IMAGES_PER_SET, -1, -1, -1),
        maps=_maps("sharpness").mul(127).to(torch.int8).expand(IMAGES_PER_SET, -1, -1, -1),
        panel=torch.rand(IMAGES_PER_SET, 2),
        order=torch.tensor(order),
        worse=torch.ones(IMAGES_PER_SET),
    )


@pytest.mark.parametrize(
    ("operator", "strength", "seen"),
    [
        ("gaussian_blur", 2.0, True),
        ("colour_diffusion", 6.0, False),
        ("saturation_down", 0.8, False),
    ],
)
def test_of_a_grey_picture_distortions_of_luma_are_left(
    operator: str, strength: float, seen: bool
) -> None:
    photo = _photo()
    image = _distorted(operator, photo, strength)
    maps = _maps("sharpness", "saturation", "chroma_bleed")
    reference, images, left, worse = without_colours(photo, image, maps, torch.ones(1))
    for grey, coloured in ((reference, photo), (images, image)):
        assert torch.equal(grey, grey[:, :1].expand_as(grey))
        torch.testing.assert_close(grey[:, :1], to_opponent(coloured)[0], atol=1 / 255, rtol=0)
    assert torch.equal(left, _maps("sharpness") * seen)
    assert worse.tolist() == [float(seen)]


def _kinds(luma: float, grey: float, *, ordered: bool, count: int = 60) -> tuple[float, float]:
    """Of as many pairs, those whose image keeps the colours of its reference, and grey ones."""
    each = _set(ordered=ordered)
    kept = greys = 0
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        quantiles = Quantiles(each.panel)
        pairs = collate([each], quantiles, generator, luma_share=luma, grey_share=grey).pairs
        colours, clean = (to_opponent(some[:1])[1] for some in (pairs.image, pairs.reference))
        if float(clean.abs().max()) < 1e-6:
            assert float(colours.abs().max()) < 1e-6
            greys += 1
        else:
            kept += bool((colours - clean).abs().max() < 2 / 255)
    return kept / count, greys / count


def test_as_many_sets_as_asked_for_keep_or_lose_their_colours() -> None:
    assert _kinds(0, 0, ordered=False) == (0, 0)
    assert _kinds(1, 0, ordered=False) == (1, 0)
    assert _kinds(0, 1, ordered=False) == (0, 1)
    kept, grey = _kinds(0.5, 0.25, ordered=False)
    assert 0.3 < kept < 0.7
    assert 0.1 < grey < 0.4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grey", [False, True])
def test_maps_and_what_is_worse_follow_the_colours(grey: bool, seed: int) -> None:
    each = _set(ordered=False)
    bleeding = _distorted("colour_diffusion", _photo(), 6.0)[0].mul(255).round().to(torch.uint8)
    maps = _maps("sharpness", "chroma_bleed").mul(127).to(torch.int8)
    each = each._replace(
        images=torch.stack([each.images[0], bleeding] * (IMAGES_PER_SET // 2)),
        maps=maps.expand(IMAGES_PER_SET, -1, -1, -1),
    )
    plain, pairs = (
        collate([each], Quantiles(each.panel), torch.Generator().manual_seed(seed), **shares).pairs
        for shares in ({}, {"grey_share": 1.0} if grey else {"luma_share": 1.0})
    )
    last = len(plain.maps) - 1
    reference, images, maps, worse = (
        part[:last] for part in (plain.reference, plain.image, plain.maps, plain.worse)
    )
    if grey:
        reference, images, maps, worse = without_colours(reference, images, maps, worse)
    else:
        images, maps = keep_colours(reference, images, maps)
    assert not torch.equal(maps, plain.maps[:last])
    assert torch.equal(pairs.reference, torch.cat([reference, images[:1]]))
    assert torch.equal(pairs.image, torch.cat([images, images[1:2]]))
    assert torch.equal(pairs.maps, torch.cat([maps, maps[1:2] - maps[:1]]))
    assert torch.equal(pairs.worse, torch.cat([worse, torch.zeros(1)]))


def test_sets_of_known_order_are_left_as_they_are() -> None:
    assert _kinds(0.5, 0.5, ordered=True) == (0, 0)
