"""What is known about the order in which people put distortions, and who knows it.

A :class:`Fact` names two versions of any photograph, the first of which people find worse. Facts
are taken from the literature in words; no opinion score was used to find or to tune them. Facts
that are ``firm`` follow from what several independent studies agree on, or hold by construction;
the others are stated for the record, where the literature leans one way, and count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relqa_loss.evaluation.stimuli import Stimuli, Stimulus, psnr

Badness = Callable[[Tensor, Tensor], Tensor]
"""``(reference 1×3×H×W, images N×3×H×W) -> N``, higher is worse."""

ALIKE_ABOVE = 45.0
"""PSNR in dB between two versions that nobody could tell apart."""
_BATCH = 8

WANG_BOVIK = (
    "Wang and Bovik, IEEE Signal Processing Magazine 26 (2009), doi:10.1109/MSP.2008.930649: of "
    "versions of equal MSE, those of shifted mean, stretched contrast and shifted place look "
    "good, those of noise, impulses, blur and JPEG bad"
)
HMA = (
    "Ponomarenko et al., 'Modified image visual quality metrics for contrast change and mean "
    "shift accounting', CADSM 2011: a loss of contrast annoys far more than a gain, and both it "
    "and a shifted mean less than the error says"
)
CHROMA = (
    "Fedorovskaya, de Ridder and Blommaert, Color Research and Application 22 (1997): viewers "
    "like a little more chroma than natural, and mind less of it more"
)
TID = (
    "Ponomarenko et al., 'TID2008', Advances of Modern Radioelectronics 10 (2009): peculiarities "
    "of vision for which the types of noise were chosen"
)
CSF = (
    "Mannos and Sakrison, IEEE Transactions on Information Theory 20 (1974): contrast sensitivity "
    "falls towards high frequencies"
)
MULLEN = (
    "Mullen, Journal of Physiology 359 (1985): contrast sensitivity to colour falls off at lower "
    "frequencies than that to luminance"
)
MASKING = (
    "Legge and Foley, Journal of the Optical Society of America 70 (1980): texture masks what is "
    "added to it"
)
MAD = (
    "Larson and Chandler, Journal of Electronic Imaging 19 (2010), doi:10.1117/1.3267105: at high "
    "quality people look for what is visible at all, at low quality for what is left of the content"
)
ACROSS = (
    "Sheikh, Sabir and Bovik, IEEE Transactions on Image Processing 15 (2006), "
    "doi:10.1109/TIP.2006.881959: PSNR is good within a type of distortion and not across types"
)
J2K = (
    "Ebrahimi, Chamik and Winkler, 'JPEG vs. JPEG 2000', SPIE 5558 (2004), doi:10.1117/12.564835: "
    "at low rates JPEG 2000 is the better one"
)
SHIFT = (
    "Ghildyal and Liu, 'Shift-tolerant perceptual similarity metric', ECCV 2022, arXiv "
    "2207.13686: small shifts are not noticed"
)
FILTERS = (
    "Mitchell and Netravali, 'Reconstruction filters in computer graphics', SIGGRAPH 1988, "
    "doi:10.1145/378456.378514: squares and blur against a good compromise"
)
ALIKE = "no order is known: the three are about alike"
BY_DESIGN = "by construction: the same file without half of the colour"


@dataclass(frozen=True)
class Fact:
    """Of two versions of a photograph, the first is worse."""

    group: str
    """Kind of failure."""
    worse: Stimulus
    better: Stimulus
    source: str
    firm: bool = True
    """Whether it counts; otherwise the literature leans this way, or nothing is known."""

    def __str__(self) -> str:
        return f"{self.worse} > {self.better}"


def _equal(
    group: str, worse: str, better: str, level: float, source: str, firm: bool = True
) -> Fact:
    return Fact(group, Stimulus(worse, level), Stimulus(better, level), source, firm)


def _as_far(group: str, worse: str, better: str, source: str) -> Fact:
    """Of equal PSNR as well, but that of the better version."""
    return Fact(group, Stimulus(worse, better), Stimulus(better), source)


def _fixed(group: str, worse: str, better: str, source: str, firm: bool = True) -> Fact:
    return Fact(group, Stimulus(worse), Stimulus(better), source, firm)


def _all() -> Iterable[Fact]:
    for level in (28.0, 24.0):
        yield _equal("contrast", "contrast loss", "contrast gain", level, HMA)
    for worse in ("white noise", "Gaussian blur", "JPEG"):
        yield _equal("contrast", worse, "contrast gain", 25.0, WANG_BOVIK)
    for level in (30.0, 26.0):
        yield _equal("saturation", "saturation loss", "saturation gain", level, CHROMA)
    for moved in ("mean 14 levels up", "mean 14 levels down"):
        for worse in ("white noise", "impulse noise", "Gaussian blur", "JPEG", "JPEG 2000"):
            yield _as_far("mean shift", worse, moved, f"{WANG_BOVIK}; {HMA}")
    for worse in ("Gaussian blur", "JPEG"):
        yield _equal("patches and blocks", worse, "misplaced patches", 24.0, TID)
        yield _equal("patches and blocks", worse, "alien blocks", 22.0, TID, firm=False)
    for better in ("white noise", "high-frequency noise", "JPEG"):
        yield _equal("patches and blocks", "one alien block", better, 38.0, MAD)
    for worse in ("over-smoothing", "total variation"):
        yield _equal("over-smoothing", worse, "white noise", 25.0, f"{MAD}; {ACROSS}")
        yield _equal("over-smoothing", worse, "high-frequency noise", 25.0, f"{MAD}; {ACROSS}")
    for level in (30.0, 25.0):
        for worse in ("correlated noise", "impulse noise"):
            for better in ("chroma noise", "high-frequency noise"):
                yield _equal("noise", worse, better, level, f"{TID}; {CSF}; {MULLEN}")
        yield _equal("noise", "correlated noise", "white noise", level, CSF)
        yield _equal("noise", "white noise", "high-frequency noise", level, CSF)
        yield _equal("noise", "white noise", "chroma noise", level, MULLEN)
        yield _equal("noise", "impulse noise", "white noise", level, TID, firm=False)
    yield _equal("noise", "noise in flat parts", "noise in texture", 30.0, MASKING)
    for worse in ("Gaussian blur", "JPEG", "JPEG 2000"):
        yield _equal("blur and codecs", worse, "white noise", 24.0, f"{MAD}; {ACROSS}")
        yield _equal("blur and codecs", worse, "high-frequency noise", 24.0, f"{MAD}; {ACROSS}")
    # Not firm at the size of these crops, where the headers of the files are a part of the rate.
    yield _fixed(
        "blur and codecs",
        "JPEG quality 10",
        "JPEG 2000 of the size of JPEG quality 10",
        J2K,
        firm=False,
    )
    for worse, better in (
        ("Gaussian blur", "JPEG"),
        ("Gaussian blur", "JPEG 2000"),
        ("JPEG", "JPEG 2000"),
    ):
        yield _equal("blur and codecs", worse, better, 26.0, ALIKE, firm=False)
    shift = "one-pixel shift"
    for worse in ("white noise", "Gaussian blur", "JPEG"):
        yield _as_far(shift, worse, shift, f"{WANG_BOVIK}; {SHIFT}")
    for worse in ("JPEG quality 30", "Gaussian blur of σ 1"):
        yield _fixed(shift, worse, shift, SHIFT)
    yield _fixed(shift, "JPEG quality 85", shift, SHIFT, firm=False)
    yield _fixed("upscaling", "nearest × 3", "bilinear × 3", FILTERS)
    yield _fixed("upscaling", "nearest × 3", "Lanczos × 3", FILTERS)
    yield _fixed("upscaling", "bilinear × 3", "Lanczos × 3", FILTERS, firm=False)
    yield _fixed("4:2:0", "4:2:0 at quality 10", "4:4:4 at quality 10", BY_DESIGN)
    yield _equal("4:2:0", "luma blur", "chroma blur", 28.0, MULLEN)
    yield _fixed(
        "4:2:0",
        "4:4:4 of the size of 4:2:0 at quality 15",
        "4:2:0 at quality 15",
        MULLEN,
        firm=False,
    )


FACTS: tuple[Fact, ...] = tuple(_all())
"""In groups, as they are reported."""


@dataclass(frozen=True)
class Verdict:
    """What one metric says about one fact on one photograph."""

    fact: Fact
    worse: float
    """Badness of the version that people find worse."""
    better: float

    @property
    def holds(self) -> bool:
        """A tie is a failure: people do see a difference."""
        return self.worse > self.better


def judge(badness: Badness, stimuli: Stimuli, facts: Sequence[Fact] = FACTS) -> list[Verdict]:
    """Hold one metric against facts, on one photograph.

    Args:
        badness: The metric.
        stimuli: Of the photograph.
        facts: Those whose two versions the photograph admits, and which differ visibly, are
            judged.

    Returns:
        At most one verdict per fact, in their order.

    Example:
        >>> import torch
        >>> from relqa_loss.evaluation.facts import FACTS, judge
        >>> from relqa_loss.evaluation.stimuli import Stimuli
        >>> def mse(reference, images):
        ...     return (images - reference).square().mean((1, 2, 3))
        >>> facts = [fact for fact in FACTS if fact.group == "noise"]
        >>> [verdict] = judge(mse, Stimuli(torch.rand(3, 64, 64)), facts[:1])
        >>> str(verdict.fact), abs(verdict.worse / verdict.better - 1) < 0.1
        ('correlated noise at 30 dB > chroma noise at 30 dB', True)
    """
    found = judge_all(lambda reference, images: {"": badness(reference, images)}, stimuli, facts)
    return found.get("", [])


def judge_all(
    metrics: Callable[[Tensor, Tensor], Mapping[str, Tensor]],
    stimuli: Stimuli,
    facts: Sequence[Fact] = FACTS,
) -> dict[str, list[Verdict]]:
    """:func:`judge` for several metrics, which may share their work.

    Args:
        metrics: As :data:`Badness`, with the values of each metric by its name.
        stimuli: Of the photograph.
        facts: As for :func:`judge`.

    Returns:
        Metric → verdicts; empty if no fact applies.
    """
    asked = [fact for fact in facts if _differ(stimuli[fact.worse], stimuli[fact.better])]
    versions = list(dict.fromkeys(v for fact in asked for v in (fact.worse, fact.better)))
    values: dict[str, dict[Stimulus, float]] = {}
    for start in range(0, len(versions), _BATCH):
        part = versions[start : start + _BATCH]
        images = torch.stack([image for v in part if (image := stimuli[v]) is not None])
        with torch.no_grad():
            found = metrics(stimuli.photo[None], images)
        for name, column in found.items():
            values.setdefault(name, {}).update(zip(part, column.tolist(), strict=True))
    return {
        name: [Verdict(fact, column[fact.worse], column[fact.better]) for fact in asked]
        for name, column in values.items()
    }


def _differ(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether there is an order to be told: 4:2:0 of a grey photograph is its 4:4:4."""
    return one is not None and other is not None and psnr(one, other) < ALIKE_ABOVE
