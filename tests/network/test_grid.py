"""Whether an error counts wherever it lies on the grid of pixels."""

from __future__ import annotations

import statistics
from itertools import product

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss import relational_distance
from relqa_loss.distortions import get_operator
from relqa_loss.network.model import MAP_STRIDE


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
@pytest.mark.parametrize("name", ["block_dropouts", "local_block_intensity", "jpeg_transmission"])
def test_blocks_in_step_with_the_cells_are_seen(weights: str, name: str) -> None:
    # Cells are 4×4 pixels, blocks of a codec 8×8 or 16×16: a network of patches could take a
    # block that begins where a cell does for a mere change of brightness, as it did.
    side = 192 + MAP_STRIDE
    photo = torch.from_numpy(skimage.data.astronaut()[20 : 20 + side, 150 : 150 + side])
    photo = photo.permute(2, 0, 1)[None].float() / 255
    image = get_operator(name)(photo, 0.5, torch.Generator().manual_seed(1))
    seen = []
    for top, left in product(range(MAP_STRIDE), repeat=2):
        window = (..., slice(top, top + 192), slice(left, left + 192))
        seen.append(float(relational_distance(image[window], photo[window], weights=weights)))
    assert seen[0] > 0.6 * statistics.fmean(seen)
    assert min(seen) > 0.5 * statistics.fmean(seen)


def _waves_of_four_pixels(weights: str) -> Tensor:
    """The distance of each direction and phase over that of waves a little longer and shorter."""
    side, phases = 96, 8
    photo = torch.from_numpy(skimage.data.astronaut()[20 : 20 + side, 150 : 150 + side])
    photo = 0.25 + photo.permute(2, 0, 1)[None].float() / 510
    turns = torch.arange(phases)[:, None] / phases
    seen = {}
    for length in (4.5, 4.0, 3.5):
        rows = 0.05 * (2 * torch.pi * (torch.arange(side) / length + turns)).cos()
        waves = rows[:, None, :].expand(phases, side, side)
        waves = torch.cat([waves, waves.mT])[:, None]
        images = photo + waves.expand(-1, 3, -1, -1)
        seen[length] = relational_distance(
            images, photo.expand_as(images), weights=weights, reduction="none"
        )
    return seen[4.0] / torch.minimum(seen[4.5].mean(), seen[3.5].mean())


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_waves_of_four_pixels_are_seen_as_their_neighbours_are(weights: str) -> None:
    # The panel, which teaches, misses them: a fact about waves teaches them.
    seen = _waves_of_four_pixels(weights)
    assert float(seen.mean()) > 0.6
    # Least where they change sign between pixels 2n and 2n+1, so that means of two are nothing.
    assert float(seen.min()) > 0.4
