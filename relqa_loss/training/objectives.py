"""What the network is trained for: signed maps, and an order without human labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.channels import CHANNELS
from relqa_loss.network.mapper import Streams
from relqa_loss.network.model import Encoding, ParityNetwork
from relqa_loss.training.sets import NO_ORDER

_SHARPNESS = 10.0  # a channel that leads by 0.3 is as good as certain
_PRESENT = 0.02  # least severity at which a channel counts as distorted
_ANCHOR = 0.2  # least share of the plain error pyramid in the distance
_FAR = 0.4  # the same in the distance of noise, for a distance of patches
_RELATED = 4  # every fourth image of the ranked sets
MAP_PARTS = ("network.mapper.", "network.direction_")
_CLEAR = math.log(1.35)  # by how much a known order should show in the distances
_KAPPA = 1e-3  # keeps the logarithm of near-threshold distances from ruling the ranking
_TASTE = tuple(
    CHANNELS.index(name) for name in ("luminance", "contrast", "saturation", "temperature", "tint")
)
_MOST_TASTE = 0.25  # share of a difference that is a matter of taste


Learn = Literal["both", "maps", "distance"]
RankBy = Literal["pairs", "list"]


@dataclass(frozen=True)
class ObjectiveWeights:
    """Weights of the terms of the training objective."""

    maps: float = 10.0
    type: float = 0.2
    region: float = 0.3
    presence: float = 1.0
    sign: float = 0.5
    path: float = 0.3
    ladder: float = 1.0
    consensus: float = 2.0
    direction: float = 0.5
    relative: float = 0.3
    outputs: float = 0.5
    anchor: float = 2.0
    far: float = 2.0
    facts: float = 4.0
    teacher: float = 10.0


class Pairs(NamedTuple):
    """Windows of pairs, for the maps: ``PAIRS_PER_SET`` rows for each of some sets.

    In the rows of a set, a photograph is compared with four distorted images of it, then the first
    of these with the second.
    """

    reference: Tensor  # N×3×S×S
    image: Tensor  # N×3×S×S
    maps: Tensor  # N×K×h×w
    worse: Tensor  # N: 1 where the image is certainly the worse one, −1 where it is the better one


PAIRS_PER_SET = 5


class Facts(NamedTuple):
    """F sets of M images whose order is known in part."""

    reference: Tensor  # F×3×S×S
    images: Tensor  # F×M×3×S×S
    order: Tensor  # F×Q×2
    taught: Tensor | None = None  # F×M


class Lessons(NamedTuple):
    """L sets of M images of which nothing is known but a teacher's distances."""

    reference: Tensor  # L×3×S×S
    images: Tensor  # L×M×3×S×S
    taught: Tensor  # L×M


class Batch(NamedTuple):
    """B ranked sets with M images each, on the training device, images in [0, 1]."""

    reference: Tensor  # B×3×S×S
    images: Tensor  # B×M×3×S×S
    maps: Tensor  # B×M×K×h×w
    ranks: Tensor  # B×M×P: each panel member's badness as its quantile in the pool
    order: Tensor  # B×Q×2
    worse: Tensor  # B×M
    partner: Tensor  # B×M: the image that each one is compared with as a distorted pair
    pairs: Pairs
    facts: Facts | None = None
    taught: Tensor | None = None  # B×M: a teacher's distances
    lessons: Lessons | None = None

    def to(self, device: torch.device) -> Batch:
        """A copy on ``device``."""
        return _moved(self, device)


T = TypeVar("T")


def _moved(value: T, device: torch.device) -> T:
    if isinstance(value, Tensor):
        return value.to(device)  # type: ignore[return-value]
    if isinstance(value, tuple):  # all that there are have names
        return type(value)(*(_moved(each, device) for each in value))
    return value


class Objectives(nn.Module):
    """The network and its training losses in one module, so that DDP sees one forward.

    Args:
        network: What is trained.
        weights: Of the terms.
        half_maps: Whether maps take bfloat16. Distances never do: they are compared with one
            another down to the threshold of visibility.
        learn: What is learned: maps (and the direction of the score) and distance share no
            parameters, and the one that is left out is frozen and costs nothing.
        rank_by: How distances learn the panel's order of a batch: pair by pair, each with the
            panel's confidence in it, or as one list.
        two_outputs: Whether the direction learns from the distance which of two distorted versions
            of a photograph is the better one.
    """

    def __init__(
        self,
        network: ParityNetwork,
        weights: ObjectiveWeights | None = None,
        *,
        half_maps: bool = False,
        learn: Learn = "both",
        rank_by: RankBy = "pairs",
        two_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.rank_by = rank_by
        self.weights = weights or ObjectiveWeights()
        self.half_maps = half_maps
        self.learn = learn
        self.two_outputs = two_outputs
        # Sharpness of the preference: how many times a distance must grow to be surely worse.
        self.log_slope = nn.Parameter(torch.tensor(1.0))
        if learn != "both":
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith(MAP_PARTS) == (learn == "maps"))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """All terms, and their weighted sum as ``total``."""
        terms: dict[str, Tensor] = {}
        if self.learn != "distance":
            terms |= self._map_terms(batch.pairs)
            terms["relative"] = self._relative_term(batch)
            if self.two_outputs:
                terms["outputs"] = self._outputs_term(batch.pairs)
        if self.learn != "maps":
            terms |= self._rank_terms(batch)
        terms["total"] = sum(
            (getattr(self.weights, name) * value for name, value in terms.items()),
            start=batch.reference.new_zeros(()),
        )
        return terms

    def _map_terms(self, pairs: Pairs) -> dict[str, Tensor]:
        streams, direction = self._relate(pairs.reference, pairs.image)
        maps, target = streams.maps, pairs.maps
        rows = maps.view(-1, PAIRS_PER_SET, *maps.shape[1:])
        return {
            "maps": _map_loss(maps, target),
            "type": _type_loss(maps, target),
            "region": _region_loss(maps, target),
            "presence": _presence_loss(streams.presence, target),
            "sign": _sign_loss(streams.sign, target),
            "path": F.l1_loss(rows[:, 0] + rows[:, -1], rows[:, 1]),
            "direction": _direction_loss(direction, target, pairs.worse),
        }

    def _relative_term(self, batch: Batch) -> Tensor:
        # Some images are related to another one of their set: neither is pristine.
        sets, count = batch.images.shape[:2]
        pixels = batch.images.flatten(0, 1)
        first = torch.arange(sets * count)[::_RELATED]
        second = (first // count) * count + batch.partner.cpu().flatten()[::_RELATED]
        _, direction = self._relate(pixels[first], pixels[second])
        return _relative_loss(direction, batch.ranks.flatten(0, 1), first, second)

    def _outputs_term(self, pairs: Pairs) -> Tensor:
        # Of the four distorted images of each set, the first and the third, the second and the
        # fourth: a model's outputs differ in kind as they do. Labels cost a distance each.
        rows = torch.arange(len(pairs.image)).view(-1, PAIRS_PER_SET)
        first, second = rows[:, :2].flatten(), rows[:, 2:4].flatten()
        _, direction = self._relate(pairs.image[first], pairs.image[second])
        asked = _more_than_taste(pairs.maps[second] - pairs.maps[first])
        return _outputs_loss(direction, self._away(pairs, first), self._away(pairs, second), asked)

    @torch.no_grad()
    def _away(self, pairs: Pairs, rows: Tensor) -> Tensor:
        encoding = self.network.encode(_channels_last(pairs.reference[rows]))
        return self.network.distance(encoding, _channels_last(pairs.image[rows]))

    def _rank_terms(self, batch: Batch) -> dict[str, Tensor]:
        distance, plain = self._distances(batch.reference, batch.images)
        flat = distance.flatten()
        ranks = batch.ranks.flatten(0, 1)
        slope = self.log_slope.exp()
        consensus_loss = listwise_loss if self.rank_by == "list" else _consensus_loss
        terms = {
            "ladder": certain_loss(distance, batch.order, slope),
            "consensus": consensus_loss(flat, ranks, slope),
            "anchor": anchor_loss(plain, flat),
        }
        if self.network.config.distance == "patches":
            terms["far"] = far_loss(*self._from_noise(batch.reference))
        lessons = [(distance, batch.taught)]
        if batch.facts is not None:
            known, _ = self._distances(batch.facts.reference, batch.facts.images)
            magnitude = 0.5 * (known + self._distances_back(*batch.facts[:2]))
            order = batch.facts.order
            terms["facts"] = 0.5 * (facts_loss(known, order) + facts_loss(magnitude, order))
            lessons.append((known, batch.facts.taught))
        if batch.lessons is not None:
            lessons.append((self._distances(*batch.lessons[:2])[0], batch.lessons.taught))
        learned = [
            (own.flatten(), taught.flatten()) for own, taught in lessons if taught is not None
        ]
        if learned:
            terms["teacher"] = teacher_loss(*map(torch.cat, zip(*learned, strict=True)))
        return terms

    def _distances(self, reference: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """B×M distances of B×M×3×S×S images, and the plain part of each, flat."""
        sets, count = images.shape[:2]
        pixels = _channels_last(images.flatten(0, 1))
        encoding = self._encode(_channels_last(reference))
        repeated = _select(encoding, torch.arange(sets).repeat_interleave(count))
        distance = self.network.distance(repeated, pixels).view(sets, count)
        return distance, self.network.plain_distance(repeated, pixels)

    def _distances_back(self, reference: Tensor, images: Tensor) -> Tensor:
        """B×M distances of the references from their images: the other half of a score."""
        sets, count = images.shape[:2]
        encoding = self._encode(_channels_last(images.flatten(0, 1)))
        pixels = _channels_last(reference.repeat_interleave(count, 0))
        return self.network.distance(encoding, pixels).view(sets, count)

    def _from_noise(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of noise from each reference, and the plain part of each."""
        generator = torch.Generator().manual_seed(0)  # the same at every step
        noise = torch.rand(reference.shape, generator=generator).to(reference)
        encoding = self._encode(reference)
        return self.network.distance(encoding, noise), self.network.plain_distance(encoding, noise)

    def _encode(self, reference: Tensor) -> Encoding:
        # Distances as losses minimise them. What metrics add by formula would be made up for:
        # learned distances of blurs fell, and deblurring networks were taught less.
        return self.network.encode(reference, structure=False)

    def _relate(self, reference: Tensor, image: Tensor) -> tuple[Streams, Tensor]:
        kind = image.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.half_maps):
            streams, direction = self.network.streams_and_direction(
                _channels_last(reference), _channels_last(image)
            )
        return Streams(*(stream.float() for stream in streams)), direction


def log_distance(distance: Tensor) -> Tensor:
    """The scale on which distances are compared: equal ratios are equal steps."""
    return torch.log(distance + _KAPPA)


def consensus(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Pairwise order of the panel with its confidence.

    Args:
        ranks: N×P, each member's badness as a quantile in [0, 1]; NaN where none was asked.

    Returns:
        ``(sign, confidence)``, both N×N: sign +1 where row is worse than column; confidence 0
        where the panel is split, rising to 1 with unanimity and with the size of the gap.
    """
    judged = ~ranks.isnan().any(-1)
    ranks = ranks.nan_to_num()
    gaps = ranks[:, None] - ranks[None]
    agreement = gaps.sign().mean(-1)
    margin = gaps.mean(-1)
    unanimity = ((agreement.abs() - 0.4) / 0.6).clamp(0, 1)
    confidence = unanimity * (margin.abs() / 0.05).clamp(max=1)
    return margin.sign(), confidence * (judged[:, None] & judged[None])


def _select(encoding: Encoding, rows: Tensor) -> Encoding:
    rows = rows.to(encoding.image.device)
    return Encoding(encoding.image[rows], tuple(f[rows] for f in encoding.features))


def _channels_last(image: Tensor) -> Tensor:
    # Convolutions follow the layout of their input; in this one they are fastest.
    return image.contiguous(memory_format=torch.channels_last)


def _map_loss(predicted: Tensor, target: Tensor) -> Tensor:
    # Most cells of most channels are zero. A large weight on the others would wake the maps sooner,
    # and make them claim what is merely possible: with 6 their error was twice that of all zeros.
    weight = 1 + 1.0 * (target.abs() > 0.01)
    loss = F.huber_loss(predicted, target, reduction="none", delta=0.3) / 0.3
    return (weight * loss).mean()


def _type_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the strongest channel in every distorted cell."""
    strength, channel = target.abs().max(1)
    loss = F.cross_entropy(_SHARPNESS * predicted.abs(), channel, reduction="none")
    return _mean(loss, strength)


def _region_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """The same for the mean over the region of the image's strongest channel: what it is, seen
    as a whole."""
    strength = target.abs()
    peak, channel = strength.amax((-1, -2)).max(1)
    region = strength[torch.arange(len(strength)), channel][:, None]
    region = region * (region > 0.5 * peak[:, None, None, None])
    within = (predicted * region).sum((-1, -2)) / region.sum((-1, -2)).clamp(min=1e-6)
    loss = F.cross_entropy(_SHARPNESS * within.abs(), channel, reduction="none")
    return _mean(loss, peak)


def _presence_loss(logits: Tensor, target: Tensor) -> Tensor:
    present = (target.abs() > _PRESENT).to(logits)
    return F.binary_cross_entropy_with_logits(logits, present, 1 + 3 * present)


def _sign_loss(sign: Tensor, target: Tensor) -> Tensor:
    return _mean(F.softplus(-4 * sign * target.sign()), target.abs())


def certain_loss(distance: Tensor, order: Tensor, slope: Tensor) -> Tensor:
    """For pairs whose order is beyond doubt: the farther apart the better."""
    gap, valid = _gaps(distance, order)
    return _mean(F.softplus(-slope * gap), valid)


def facts_loss(distance: Tensor, order: Tensor) -> Tensor:
    """For pairs of known order: apart by a clear step, and no more.

    What is known is which one is worse, not by how much; that is left to the panel. Where the other
    one is worse by a clear step, the square of what is beyond it counts as well: that is rare, and
    a mean of magnitudes would leave it so.
    """
    gap, valid = _gaps(distance, order)
    return _mean(F.relu(_CLEAR - gap) + F.relu(-_CLEAR - gap).square(), valid)


def teacher_loss(distance: Tensor, taught: Tensor) -> Tensor:
    """How far the logarithms of N distances are from a teacher's, whatever the unit.

    The unit is the median ratio of the two, so that some odd images do not shift all the others.
    Their magnitude and square together: what is wrong by a factor is rare, and a mean of
    magnitudes would leave it so. Images that the teacher finds identical do not count.
    """
    apart = taught > 0
    gap = log_distance(distance[apart]) - log_distance(taught[apart])
    if not len(gap):
        return distance.sum() * 0
    gap = gap - gap.detach().median()
    return (gap.abs() + gap.square()).mean()


def _gaps(distance: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """log of worse over better for each pair of ``order``, and 1 where there is one."""
    safe = order.clamp(min=0)
    worse = torch.gather(distance, 1, safe[..., 0])
    better = torch.gather(distance, 1, safe[..., 1])
    gap = log_distance(worse) - log_distance(better)
    return gap, (order != NO_ORDER).all(-1).to(gap)


def _consensus_loss(distance: Tensor, ranks: Tensor, slope: Tensor) -> Tensor:
    sign, confidence = consensus(ranks)
    logits = log_distance(distance)
    margin = slope * (logits[:, None] - logits[None]) * sign
    return _mean(F.softplus(-margin), confidence)


def listwise_loss(distance: Tensor, ranks: Tensor, slope: Tensor) -> Tensor:
    """Likelihood of the panel's mean order: the worst is drawn first, then the worst of the rest.

    The model is that of Plackett and Luce, with distances to the power ``slope`` as its weights.

    Args:
        distance: N distances.
        ranks: N×P, as in :func:`consensus`.
        slope: Sharpness of the preference.
    """
    judged = ~ranks.isnan().any(-1)
    worst_first = ranks[judged].mean(-1).argsort(descending=True)
    logits = slope * log_distance(distance[judged][worst_first])
    rest = logits.flip(0).logcumsumexp(0).flip(0)
    return (rest - logits).sum() / max(1, len(logits))


def _direction_loss(direction: Tensor, target: Tensor, worse: Tensor) -> Tensor:
    # Near the threshold nobody could tell; those images count for less.
    visible = (target.abs().amax((1, 2, 3)) / 0.1).clamp(max=1)
    return _mean(F.softplus(4 * worse * direction), worse.abs() * visible)


def _relative_loss(direction: Tensor, ranks: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # `first` is the reference of the pair: a positive direction says that `second` is better.
    sign, confidence = consensus(ranks)
    return _mean(F.softplus(-4 * sign[first, second] * direction), confidence[first, second])


def _more_than_taste(apart: Tensor) -> Tensor:
    """Which of N×K×h×w differences are not of tones and colours.

    The brighter of two outputs is the better one as often as not, and neither shows which: asked of
    that, the score unlearns what it knows of tones beside a photograph.
    """
    amount = apart.abs().mean((-1, -2))
    return amount[:, _TASTE].sum(1) < _MOST_TASTE * amount.sum(1)


def _outputs_loss(direction: Tensor, first: Tensor, second: Tensor, asked: Tensor) -> Tensor:
    # `first` is the reference of the pair, and both are distances from what neither shows.
    gap = log_distance(first) - log_distance(second)  # positive where `second` is better
    clear = (gap.abs() / _CLEAR).clamp(max=1)
    return _mean(F.softplus(-4 * gap.sign() * direction), clear * asked)


def anchor_loss(plain: Tensor, distance: Tensor) -> Tensor:
    # The unit of the distance is free, so ranking alone would let the learned part outgrow the
    # fixed one, which is what brings an optimiser the last way to the reference.
    # A mean over the batch: kinds of distortion may differ in their shares, or none could count
    # for more than four times its plain error.
    log_share = torch.log(plain + 1e-6) - torch.log(distance + 1e-6)
    return F.relu(math.log(_ANCHOR) - log_share.mean())


def far_loss(distance: Tensor, plain: Tensor) -> Tensor:
    """Keeps the share of the plain error in the distance of images that have nothing in common.

    There, what is learned is nearly flat but for its valleys, and there are fewer of its features
    than pixels: an optimiser that starts from noise must be led by the plain error.
    """
    return F.relu(math.log(_FAR) - torch.log(plain / distance)).mean()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
