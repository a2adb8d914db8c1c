"""Orders that psychophysics is sure of: of two versions of equal error, which one people mind more.

Ladders say nothing across operators, and the panel shares the blind spots of hand-made metrics: it
has contrast lost and gained on a par, and takes a shift of a pixel for ruin. What is known about
such pairs in general (no opinion score of any image is involved) is taught by pairs made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.distortions import get_operator
from relqa_loss.distortions._filters import blur, from_ycbcr, to_ycbcr

_LOST_CONTRAST = ("contrast_down", "inverse_s_curve")
_GAINED_CONTRAST = ("contrast_up", "s_curve")
_LOST_COLOUR = ("saturation_down", "hsv_saturation_down", "lab_saturation_down")
_GAINED_COLOUR = ("saturation_up", "hsv_saturation_up", "lab_saturation_up")
_SHIFTED_MEAN = ("mean_shift_up", "mean_shift_down")
_BLUR = ("gaussian_blur", "lens_blur", "mean_blur", "bilinear_resize", "bicubic_resize")
_OVER_SMOOTHED = ("guided_filter", "total_variation", "bilateral", "non_local_means", "median")
_CODECS = ("jpeg", "jpeg_444", "jpeg2000", "webp")
_NOISE = ("white_noise", "luma_noise", "poisson_gaussian")
_HIDDEN_NOISE = ("high_frequency_noise", "chroma_noise")
_SEEN_NOISE = ("correlated_noise", "impulse_noise")


@dataclass(frozen=True)
class Fact:
    """At equal PSNR, any of ``worse`` is minded more than any of ``better``.

    Args:
        worse: Names of operators, or of :data:`EXTRA`.
        better: The same.
        psnr: Range in dB in which it holds; ``None`` where it holds at equal severity.
        source: Who found it.
        handicap: Up to how many dB the worse one may be ahead in PSNR, and is still worse.
        share: How often it is drawn, relative to the others. Some follow from little more than
            what vision resolves, and need few examples.
        alike: Whether either is minded about as much as the other: both orders are then wrong by
            more than a clear step. The two are drawn with the same random numbers.
    """

    worse: tuple[str, ...]
    better: tuple[str, ...]
    psnr: tuple[float, float] | None
    source: str
    handicap: float = 0.0
    share: float = 1.0
    alike: bool = False


FACTS: tuple[Fact, ...] = (
    Fact(_LOST_CONTRAST, _GAINED_CONTRAST, (21, 34), "Ponomarenko et al., CADSM 2011", share=8),
    Fact(
        _LOST_COLOUR,
        _GAINED_COLOUR,
        (24, 36),
        "Fedorovskaya et al., Color Res. Appl. 22 (1997)",
        share=4,
    ),
    Fact(
        (*_NOISE, *_BLUR, *_CODECS, *_SEEN_NOISE),
        (*_SHIFTED_MEAN, *_GAINED_CONTRAST),
        (21, 32),
        "Wang and Bovik, IEEE Signal Process. Mag. 26 (2009)",
        share=2,
    ),
    Fact(
        (*_BLUR, *_OVER_SMOOTHED, *_CODECS),
        (*_NOISE, "high_frequency_noise"),
        (18, 25.5),
        "Sheikh, Sabir and Bovik, IEEE Trans. Image Process. 15 (2006); "
        "Larson and Chandler, J. Electron. Imaging 19 (2010)",
        share=5,
    ),
    # Once more by itself: on soft photographs it takes a strong blur, and few of the pairs above.
    Fact(_BLUR, _NOISE, (20, 25.5), "Sheikh, Sabir and Bovik (2006)", share=5),
    Fact(
        (*_BLUR, *_CODECS),
        ("misplaced_patches",),
        (20, 28),
        "Ponomarenko et al., TID2008, Adv. Mod. Radioelectron. 10 (2009)",
        share=5,
    ),
    Fact(
        _SEEN_NOISE,
        _HIDDEN_NOISE,
        (22, 34),
        "Ponomarenko et al., TID2008, Adv. Mod. Radioelectron. 10 (2009)",
    ),
    Fact(
        ("white_noise",),
        _HIDDEN_NOISE,
        (22, 34),
        "Mannos and Sakrison, IEEE Trans. Inf. Theory 20 (1974); Mullen, J. Physiol. 359 (1985)",
    ),
    Fact(("correlated_noise",), ("white_noise",), (22, 34), "Mannos and Sakrison (1974)"),
    Fact(
        (*_BLUR, *_CODECS, *_NOISE, *_SEEN_NOISE, *_OVER_SMOOTHED),
        ("translation",),
        (17, 34),
        "Wang and Bovik (2009); Ghildyal and Liu, ECCV 2022",
        handicap=10.0,
        share=8,
    ),
    Fact(
        ("alien_block",),
        (*_NOISE, "high_frequency_noise", *_CODECS),
        (34, 42),
        "Larson and Chandler (2010): at high quality, what is visible at all",
        share=7,
    ),
    # Not at equal PSNR: its squares would be smaller than the blur.
    Fact(
        ("nearest_enlarged",),
        ("bilinear_enlarged", "bicubic_enlarged"),
        None,
        "Mitchell and Netravali, SIGGRAPH 1988",
        share=5,
    ),
    Fact(("coarse_420",), ("coarse_444",), None, "by construction: less colour", share=3),
    Fact(("luma_blur",), ("chroma_blur",), (28, 38), "Mullen, J. Physiol. 359 (1985)", share=3),
    # The panel sees hardly any of a wave of four pixels: at half resolution it is two long, and
    # differences of next but one neighbours are blind to it.
    Fact(
        ("wave",),
        ("longer_wave",),
        (24, 40),
        "Campbell and Robson, J. Physiol. 197 (1968): contrast sensitivity is smooth",
        share=10,
        alike=True,
    ),
    # Nor of one of four pixels in both directions, nor of those that lie badly on its grid.
    Fact(
        ("wave",),
        ("turned_wave",),
        (24, 40),
        "Campbell, Kulikowski and Levinson, J. Physiol. 187 (1966): from axis to diagonal, "
        "contrast sensitivity falls smoothly",
        share=10,
        alike=True,
    ),
)


def _translation(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """The whole image elsewhere, by up to 1.5 pixels."""
    angle = float(torch.rand(1, generator=generator)) * 2 * torch.pi
    if float(torch.rand(1, generator=generator)) < 0.5:  # along an axis, as codecs and crops do
        angle = round(angle / (torch.pi / 2)) * (torch.pi / 2)
    offset = (
        1.5 * severity * torch.tensor([angle]).cos(),
        1.5 * severity * torch.tensor([angle]).sin(),
    )
    height, width = image.shape[-2:]
    rows = torch.linspace(-1, 1, height) + 2 * offset[0] / (height - 1)
    columns = torch.linspace(-1, 1, width) + 2 * offset[1] / (width - 1)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)[None]
    # Bicubic, since bilinear would blur as well.
    return F.grid_sample(image, grid, "bicubic", "border", align_corners=True)


def _alien_block(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """A square with a piece from elsewhere, or of one colour, and more of it as severity rises."""
    height, width = image.shape[-2:]
    side = 2 + round(severity * min(height, width) / 4)
    spots = torch.rand(2, 2, generator=generator)
    colour = torch.rand(1, 3, 1, 1, generator=generator).round()
    corners = (spots * torch.tensor([height - side, width - side])).long().tolist()
    (top, left), (other_top, other_left) = corners
    piece = image[..., other_top : other_top + side, other_left : other_left + side]
    if float(torch.rand(1, generator=generator)) < 0.7:
        piece = colour.expand(1, 3, side, side)
    changed = image.clone()
    changed[..., top : top + side, left : left + side] = piece
    return changed


def _enlarged(mode: str) -> Distort:
    def distort(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """From 1/2 to 1/4 of the resolution and back."""
        size = [max(1, round(side / (2 + 2 * severity))) for side in image.shape[-2:]]
        small = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
        corners = {} if mode == "nearest-exact" else {"align_corners": False}
        return F.interpolate(small, image.shape[-2:], mode=mode, **corners)

    return distort


def _coarse(name: str) -> Distort:
    def distort(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """A codec with the example tables of JPEG times 2 to 7 (qualities 25 to 7)."""
        return get_operator(name).apply(image, 2 + 5 * severity, generator)

    return distort


def _blurred_planes(kept: slice) -> Distort:
    def distort(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """YCbCr, blurred but for the planes ``kept``."""
        planes = to_ycbcr(image)
        blurred = blur(planes, 0.3 + 24 * severity**2)
        blurred[:, kept] = planes[:, kept]
        return from_ycbcr(blurred)

    return distort


def _wave(factor: float = 1.0, turned: float = 0.0) -> Distort:
    def distort(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """Grey waves of 2.2 to 8 pixels times ``factor``, some with others across."""
        place, near, turn, crossed, *phases = torch.rand(6, generator=generator).tolist()
        # Half of them where the panel misses one of a pair, and half of these of four pixels
        # exactly, as upscaling by four leaves them: each lies on the grid in one way only.
        least, most = (2.2, 8.0) if near > 0.5 else (3.4, 4.5) if near > 0.25 else (4.0, 4.0)
        length = factor * least * (most / least) ** place
        # Half of them along an axis, as the grids of networks and codecs are.
        quarter = torch.pi / 2
        angle = torch.tensor(quarter * (round(2 * turn) if turn < 0.5 else 4 * turn - 2) + turned)
        height, width = image.shape[-2:]
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        turns = (angle, angle + quarter)[: 2 if crossed < 0.3 else 1]
        waves = [
            2 * torch.pi * ((rows * t.sin() + columns * t.cos()) / length + phase)
            for t, phase in zip(turns, phases, strict=False)
        ]
        return image + 0.2 * severity * torch.stack(waves).cos().sum(0)

    return distort


class Pair(NamedTuple):
    """Two versions of an image, each 1×3×H×W."""

    worse: Tensor
    better: Tensor
    alike: bool
    """Whether neither is the worse one."""


Distort = Callable[[Tensor, float, torch.Generator], Tensor]

EXTRA: dict[str, Distort] = {
    "translation": _translation,
    "alien_block": _alien_block,
    "nearest_enlarged": _enlarged("nearest-exact"),
    "bilinear_enlarged": _enlarged("bilinear"),
    "bicubic_enlarged": _enlarged("bicubic"),
    "coarse_420": _coarse("jpeg"),
    "coarse_444": _coarse("jpeg_444"),
    "wave": _wave(),
    "longer_wave": _wave(factor=1.12),
    "turned_wave": _wave(turned=torch.pi / 15),
    "luma_blur": _blurred_planes(slice(1, 3)),
    "chroma_blur": _blurred_planes(slice(0, 1)),
}
"""What facts are about and the bank does not have."""

_TRIALS = 7
_DRAWS = 5
_CLOSE = 0.3  # dB


def draw_pair(image: Tensor, operators: Sequence[str], generator: torch.Generator) -> Pair | None:
    """Two versions of ``image`` (1×3×H×W in [0, 1], 8-bit values) whose order is known.

    Args:
        image: The reference.
        operators: Names that may be used.
        generator: Decides the fact, the operators, the PSNR and their noise.

    Returns:
        The two, or ``None`` where a drawn operator does not reach the drawn PSNR on this
        photograph.
    """
    shares = torch.tensor([float(fact.share) for fact in FACTS])
    fact = FACTS[int(torch.multinomial(shares, 1, generator=generator))]
    # Not every operator reaches every PSNR on every photograph; another fact instead would leave
    # the kinds of which that is true behind.
    for _ in range(_DRAWS):
        found = _draw(fact, image, operators, generator)
        if found is not None:
            return found
    return None


def _draw(
    fact: Fact, image: Tensor, operators: Sequence[str], generator: torch.Generator
) -> Pair | None:
    allowed = {*operators, *EXTRA}
    sides = [[name for name in names if name in allowed] for names in (fact.worse, fact.better)]
    level, ahead, *picks = torch.rand(4, generator=generator).tolist()
    seed = int(torch.randint(2**31, (1,), generator=generator))
    if not all(sides):
        return None
    worse, better = (side[int(pick * len(side))] for side, pick in zip(sides, picks, strict=True))
    other = seed if fact.alike else seed + 1
    if fact.psnr is None:
        return Pair(_at(image, worse, level, other), _at(image, better, level, seed), fact.alike)
    target = fact.psnr[0] + level * (fact.psnr[1] - fact.psnr[0])
    first = at_psnr(image, better, target, seed)
    # Above the range, neither of the two would be seen.
    ahead_at = min(target + ahead * fact.handicap, fact.psnr[1])
    second = None if first is None else at_psnr(image, worse, ahead_at, other)
    return None if first is None or second is None else Pair(second, first, fact.alike)


def at_psnr(image: Tensor, name: str, target: float, seed: int) -> Tensor | None:
    """``image`` under an operator, at the severity whose PSNR is ``target`` in dB."""
    low, high = 0.0, 1.0
    best, gap = None, _CLOSE
    for _ in range(_TRIALS):
        severity = (low + high) / 2
        changed = _at(image, name, severity, seed)
        error = float((changed - image).square().mean())
        psnr = float("inf") if error == 0 else -10 * torch.tensor(error).log10().item()
        if abs(psnr - target) < gap:
            best, gap = changed, abs(psnr - target)
        low, high = (severity, high) if psnr > target else (low, severity)
    return best


def _at(image: Tensor, name: str, severity: float, seed: int) -> Tensor:
    distort: Distort = EXTRA[name] if name in EXTRA else get_operator(name)
    changed = distort(image, severity, torch.Generator().manual_seed(seed))
    return eight_bit(changed)
