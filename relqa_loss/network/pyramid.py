"""The pixel pyramid: an opponent-colour difference in bands, whose sum is the difference itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = 4
"""Bands at strides 1, 2, 4 and 8; the low-pass rest at stride 16 comes on top."""

PYRAMID_BANDS = (9, 3, 3)
"""Channels gathered on the grids at strides 4, 8 and 16."""

# JPEG's YCbCr (ITU-T T.871). The columns of its inverse have a mean absolute value of at most 1,
# hence mean|difference in RGB| <= mean of the summed |differences| in these three channels.
_OPPONENT = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


class PixelPyramid(nn.Module):
    """Absolute band differences, gathered on the grids at strides 4, 8 and 16.

    Every band is ``e − up(down(e))`` with nearest up-sampling, so bands and rest add up to the
    difference at full resolution: by the triangle inequality the sum of their mean magnitudes is
    never below the mean magnitude of the difference. Nothing but the magnitude is non-linear, so
    each output is a convex function of the image.
    """

    opponent: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("opponent", torch.tensor(_OPPONENT), persistent=False)

    def forward(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``N×3×H×W`` → ``N×9×H/4×W/4`` (bands 1, 2, 4), ``N×3×H/8×W/8``, ``N×3×H/16×W/16``."""
        # Not as a matrix product: its backward pass would be one too, and autocast would halve it.
        matrix = self.opponent.to(difference.dtype)[:, :, None, None]
        current = F.conv2d(difference.contiguous(), matrix)
        bands = []
        for _ in range(BANDS):
            coarse = self._coarser(current)
            up = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
            bands.append((current - up).abs())
            current = coarse
        fine = [F.avg_pool2d(bands[0], 4), F.avg_pool2d(bands[1], 2), bands[2]]
        return torch.cat(fine, 1), bands[3], current.abs()

    def _coarser(self, image: Tensor) -> Tensor:
        """Half the resolution, by means over 4×4 pixels.

        Windows overlap so that no period of the grid goes unseen at the next level. At the border
        the mean is over what there is, so that constants stay constant.
        """
        # ``avg_pool2d(image, 4, 2, 1, count_include_pad=False)``, for a fraction of its time.
        padded = F.pad(image, (1, 1, 1, 1))
        even, odd = torch.unflatten(padded, -2, (-1, 2)).unbind(-2)
        rows = even + odd
        rows = rows[..., :-1, :] + rows[..., 1:, :]
        even, odd = torch.unflatten(rows, -1, (-1, 2)).unbind(-1)
        columns = even + odd
        sums = columns[..., :-1] + columns[..., 1:]
        height, width = (_shares(sums, side) for side in sums.shape[-2:])
        return sums * (height[:, None] * width)


def _shares(like: Tensor, size: int) -> Tensor:
    """One over how many rows each window has inside."""
    rows = torch.full((size,), 4.0, dtype=like.dtype, device=like.device)
    rows[0] -= 1
    rows[-1] -= 1
    return 1 / rows
