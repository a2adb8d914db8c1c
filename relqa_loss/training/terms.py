"""Terms of the training objective, each a function of what the network says and what is known."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.training.sets import NO_ORDER

_SHARPNESS = 10.0  # a channel that leads by 0.3 is as good as certain
_PRESENT = 0.02  # least severity at which a channel counts as distorted
_ANCHOR = 0.2  # least share of the plain error pyramid in the distance
_FAR = 0.4  # the same in the distance of noise, for a distance of patches
_CLEAR = math.log(1.35)  # by how much a known order should show in the distances
_KAPPA = 1e-3  # keeps the logarithm of near-threshold distances from ruling the ranking
_TASTE = tuple(
    CHANNELS.index(name) for name in ("luminance", "contrast", "saturation", "temperature", "tint")
)
_MOST_TASTE = 0.25  # share of a difference that is a matter of taste


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


def map_loss(predicted: Tensor, target: Tensor) -> Tensor:
    # Most cells of most channels are zero. A large weight on the others would wake the maps sooner,
    # and make them claim what is merely possible: with 6 their error was twice that of all zeros.
    weight = 1 + 1.0 * (target.abs() > 0.01)
    loss = F.huber_loss(predicted, target, reduction="none", delta=0.3) / 0.3
    return (weight * loss).mean()


def type_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the strongest channel in every distorted cell."""
    strength, channel = target.abs().max(1)
    loss = F.cross_entropy(_SHARPNESS * predicted.abs(), channel, reduction="none")
    return _mean(loss, strength)


def region_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """The same for the mean over the region of the image's strongest channel: what it is, seen
    as a whole."""
    strength = target.abs()
    peak, channel = strength.amax((-1, -2)).max(1)
    region = strength[torch.arange(len(strength)), channel][:, None]
    region = region * (region > 0.5 * peak[:, None, None, None])
    within = (predicted * region).sum((-1, -2)) / region.sum((-1, -2)).clamp(min=1e-6)
    loss = F.cross_entropy(_SHARPNESS * within.abs(), channel, reduction="none")
    return _mean(loss, peak)


def presence_loss(logits: Tensor, target: Tensor) -> Tensor:
    present = (target.abs() > _PRESENT).to(logits)
    return F.binary_cross_entropy_with_logits(logits, present, 1 + 3 * present)


def sign_loss(sign: Tensor, target: Tensor) -> Tensor:
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


def consensus_loss(distance: Tensor, ranks: Tensor, slope: Tensor) -> Tensor:
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


def direction_loss(direction: Tensor, target: Tensor, worse: Tensor) -> Tensor:
    # Near the threshold nobody could tell; those images count for less.
    visible = (target.abs().amax((1, 2, 3)) / 0.1).clamp(max=1)
    return _mean(F.softplus(4 * worse * direction), worse.abs() * visible)


def relative_loss(direction: Tensor, ranks: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # `first` is the reference of the pair: a positive direction says that `second` is better.
    sign, confidence = consensus(ranks)
    return _mean(F.softplus(-4 * sign[first, second] * direction), confidence[first, second])


def more_than_taste(apart: Tensor) -> Tensor:
    """Which of N×K×h×w differences are not of tones and colours.

    The brighter of two outputs is the better one as often as not, and neither shows which: asked of
    that, the score unlearns what it knows of tones beside a photograph.
    """
    amount = apart.abs().mean((-1, -2))
    return amount[:, _TASTE].sum(1) < _MOST_TASTE * amount.sum(1)


def outputs_loss(direction: Tensor, first: Tensor, second: Tensor, asked: Tensor) -> Tensor:
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
