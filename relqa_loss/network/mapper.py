"""Signed distortion maps of a pair of images, by an odd and an even stream."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network._precision import full_precision
from relqa_loss.network.parity import ParityBlock, even_conv, odd_conv, odd_softsign

_CONTRAST = 4.0
"""Brings pixel values around mid-grey to unit variance, where the activations bend."""
_KNEE = 0.05  # evidence at which a sign is half certain
_LARGEST = 2.0  # two distorted images can differ by twice the worst severity
_RARE = -2.5  # initial logit of a channel's presence: most channels are absent most of the time


class Streams(NamedTuple):
    """What the mapper knows of a pair at stride 4."""

    odd: Tensor
    """N×O×h×w: flips its sign when the images swap."""
    even: Tensor
    """N×E×h×w: does not change when the images swap."""
    maps: Tensor
    """N×K×h×w signed severities: sign · presence · severity."""
    sign: Tensor
    """N×K×h×w in (−1, 1), odd: in which direction each channel changed."""
    presence: Tensor
    """N×K×h×w logits, even: whether each channel changed at all."""


class Mapper(nn.Module):
    """Both streams from fine to coarse and back, in the manner of a U-Net.

    They part at the pixels. One linear filter bank sees both images; its difference and the
    difference of its magnitudes (has the local energy grown?) start the odd stream, its sum, the
    sum of its magnitudes and the magnitude of its difference the even one.

    *What* differs and *how much* are even questions, *in which direction* is an odd one: the heads
    keep them apart, so that doubt about the one does not shrink the other.

    Args:
        channels: Number of maps.
        stem: Filters of the bank.
        odd: Widths of the odd stream at strides 2, 4, 8 and 16.
        even: Widths of the even stream, likewise.
    """

    def __init__(self, channels: int, stem: int, odd: Sequence[int], even: Sequence[int]) -> None:
        super().__init__()
        self.stem = odd_conv(12, stem, 3)
        self.odd_start = odd_conv(2 * stem, odd[0])
        self.even_start = even_conv(3 * stem, even[0])
        self.odd_down = nn.ModuleList(odd_conv(4 * a, b) for a, b in pairwise(odd))
        self.even_down = nn.ModuleList(even_conv(4 * a, b) for a, b in pairwise(even))
        self.down = nn.ModuleList(ParityBlock(o, e) for o, e in zip(odd[1:], even[1:], strict=True))
        upwards = ((3, 2), (2, 1))
        self.odd_up = nn.ModuleList(odd_conv(odd[a], 4 * odd[b]) for a, b in upwards)
        self.even_up = nn.ModuleList(even_conv(even[a], 4 * even[b]) for a, b in upwards)
        self.up = nn.ModuleList(ParityBlock(odd[b], even[b]) for _, b in upwards)
        self.odd_head = odd_conv(odd[1], channels)
        self.even_head = even_conv(even[1], 3 * channels, gain=0.3)
        with torch.no_grad():
            self.even_head.bias[channels : 2 * channels] = _RARE  # type: ignore[index]

    def forward(self, reference: Tensor, image: Tensor) -> Streams:
        """Two images N×3×H×W, centred on mid-grey, sides divisible by 16."""
        odd, even = self._start(reference, image)
        levels = []
        for odd_down, even_down, block in zip(
            self.odd_down, self.even_down, self.down, strict=True
        ):
            odd = odd_down(F.pixel_unshuffle(odd, 2))
            even = F.silu(even_down(F.pixel_unshuffle(even, 2)))
            odd, even = block(odd, even)
            levels.append((odd, even))
        levels.pop()
        for odd_up, even_up, block in zip(self.odd_up, self.even_up, self.up, strict=True):
            fine_odd, fine_even = levels.pop()
            odd = fine_odd + F.pixel_shuffle(odd_up(odd), 2)
            even = fine_even + F.pixel_shuffle(even_up(even), 2)
            odd, even = block(odd, even)
        gain, presence, severity = self.even_head(even).chunk(3, 1)
        sign = odd_softsign(self.odd_head(odd) * (4 * torch.sigmoid(gain)), _KNEE)
        maps = sign * torch.sigmoid(presence) * (_LARGEST * torch.sigmoid(severity))
        return Streams(odd, even, maps, sign, presence)

    def _start(self, reference: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(image):
            x = F.pixel_unshuffle(_CONTRAST * image, 2)
            r = F.pixel_unshuffle(_CONTRAST * reference, 2)
            if x.is_contiguous() != r.is_contiguous():
                # Convolutions of channels-last images sum in another order: parity, and zeros of
                # equal images, would be lost to rounding.
                x, r = x.contiguous(), r.contiguous()
            x, r = self.stem(x), self.stem(r)
            difference, size_x, size_r = x - r, x.abs(), r.abs()
            odd = torch.cat([difference, size_x - size_r], 1)
            even = torch.cat([x + r, size_x + size_r, difference.abs()], 1)
        return self.odd_start(odd), F.silu(self.even_start(even))
