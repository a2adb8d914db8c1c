"""The benchmark of directions counts what a network says, on the pictures that it names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import direction  # noqa: E402

from relqa_loss.distortions import get_operator  # noqa: E402

OPERATORS = ("gaussian_blur", "white_noise", "saturation_down", "colour_diffusion")


class _Scored(NamedTuple):
    score: Tensor


class _Says:
    """Scores by a sign and the error; keeps what it was shown."""

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def encode(self, images: Tensor, structure: bool = True) -> Tensor:
        return images

    def relate(self, reference: Tensor, image: Tensor, *_: None) -> _Scored:
        self.pairs += zip(reference, image, strict=True)
        return _Scored(self.sign * (image - reference).square().mean((1, 2, 3)))


@pytest.fixture
def photo(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setattr(
        direction, "one_directional", lambda: [get_operator(name) for name in OPERATORS]
    )
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 128, 128, generator=generator) * 0.3 + 0.35  # nothing is clipped


@pytest.mark.parametrize(("sign", "share"), [(-1.0, "0.000"), (1.0, "1.000")])
def test_images_that_pass_for_better_are_counted(photo: Tensor, sign: float, share: str) -> None:
    found = direction.verdicts(_Says(sign), [photo, photo])  # type: ignore[arg-type]
    assert {direction._share(each) for each in found.values()} == {share}
    assert found["photograph", direction.ALL].images == 2 * len(OPERATORS)
    assert found["photograph", "saturation"].images == 2
    # Operators of colours take no part where colours are kept, and do nothing to grey pictures.
    for kind in (direction.LUMA, "grey"):
        assert found[kind, direction.ALL].images == 4
        assert (kind, "saturation") not in found
    assert {kind for kind, _ in found} == {direction.LUMA, *direction.REFERENCES}


def test_luma_alone_keeps_colours_and_grey_pictures_have_none(photo: Tensor) -> None:
    network = _Says(-1.0)
    direction.verdicts(network, [photo])  # type: ignore[arg-type]
    # Two of the four operators are of colours, and take no part in luma alone.
    plain, luma, grey = network.pairs[:4], network.pairs[4:6], network.pairs[6:10]
    for (reference, image), (_, coloured) in zip(luma, plain[:2], strict=True):
        gap = image - reference
        # One and the same change of red, green and blue: that of the luma.
        torch.testing.assert_close(gap, gap[:1].expand_as(gap), atol=1.1 / 255, rtol=0)
        change = direction.luma((coloured - reference)[None])[0]
        torch.testing.assert_close(gap[:1], change, atol=1.6 / 255, rtol=0)
    for pair in grey:
        for image in pair:
            assert torch.equal(image, image[:1].expand_as(image))
