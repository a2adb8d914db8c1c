"""What the network is trained for: signed maps, and an order without human labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network.model import Encoding, ParityNetwork
from relqa_loss.training.sets import NO_ORDER

_SHARPNESS = 10.0  # a channel that leads by 0.3 is as good as certain
_ANCHOR = 0.2  # least share of the plain error pyramid in the distance
_KAPPA = 1e-3  # keeps the logarithm of near-threshold distances from ruling the ranking


@dataclass(frozen=True)
class ObjectiveWeights:
    """Weights of the terms of the training objective."""

    maps: float = 10.0
    type: float = 0.2
    path: float = 0.3
    ladder: float = 1.0
    consensus: float = 2.0
    direction: float = 0.3
    anchor: float = 2.0


class Batch(NamedTuple):
    """B ranked sets with M images each, on the training device, images in [0, 1]."""

    reference: Tensor  # B×3×S×S
    images: Tensor  # B×M×3×S×S
    maps: Tensor  # B×M×K×h×w
    ranks: Tensor  # B×M×P: each panel member's badness as its quantile in the pool
    order: Tensor  # B×Q×2
    worse: Tensor  # B×M
    partner: Tensor  # B×M: the image that each one is compared with as a distorted pair


class Objectives(nn.Module):
    """The network and its training losses in one module, so that DDP sees one forward."""

    def __init__(self, network: ParityNetwork, weights: ObjectiveWeights | None = None) -> None:
        super().__init__()
        self.network = network
        self.weights = weights or ObjectiveWeights()
        # Sharpness of the preference: how many times a distance must grow to be surely worse.
        self.log_slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """All terms, and their weighted sum as ``total``."""
        network, weights = self.network, self.weights
        sets, count = batch.images.shape[:2]
        reference = network.encode(batch.reference)
        images = network.encode(batch.images.flatten(0, 1))
        repeated = _select(reference, torch.arange(sets).repeat_interleave(count))
        maps, direction = network.maps_and_direction(repeated, images)
        flat = network.distance(repeated, images)
        distance = flat.view(sets, count)

        # Every second image is also related to another one of its set: neither is pristine.
        first = torch.arange(sets * count)[::2]
        second = (first // count) * count + batch.partner.cpu().flatten()[::2]
        maps_between, direction_between = network.maps_and_direction(
            _select(images, first), _select(images, second)
        )

        error = images.image - repeated.image
        plain = network.error.plain(error) * network.scale

        slope = self.log_slope.exp()
        target = batch.maps.flatten(0, 1)
        target_between = target[second] - target[first]
        terms = {
            "maps": 0.5 * (_map_loss(maps, target) + _map_loss(maps_between, target_between)),
            "type": _type_loss(maps, target),
            "path": F.l1_loss(maps[first] + maps_between, maps[second]),
            "ladder": _certain_loss(distance, batch.order, slope),
            "consensus": _consensus_loss(flat, batch.ranks.flatten(0, 1), slope),
            "direction": _direction_loss(direction, flat.detach(), batch.worse.flatten())
            + _relative_loss(direction_between, batch.ranks.flatten(0, 1), first, second),
            "anchor": _anchor_loss(plain, flat),
        }
        terms["total"] = sum(
            (getattr(weights, name) * value for name, value in terms.items()),
            start=distance.new_zeros(()),
        )
        return terms


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
    return Encoding(encoding.image[rows], tuple(f[rows] for f in encoding.features), encoding.size)


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


def _certain_loss(distance: Tensor, order: Tensor, slope: Tensor) -> Tensor:
    valid = (order != NO_ORDER).all(-1)
    safe = order.clamp(min=0)
    worse = torch.gather(distance, 1, safe[..., 0])
    better = torch.gather(distance, 1, safe[..., 1])
    margin = slope * (log_distance(worse) - log_distance(better))
    return _mean(F.softplus(-margin), valid.to(margin))


def _consensus_loss(distance: Tensor, ranks: Tensor, slope: Tensor) -> Tensor:
    sign, confidence = consensus(ranks)
    logits = log_distance(distance)
    margin = slope * (logits[:, None] - logits[None]) * sign
    return _mean(F.softplus(-margin), confidence)


def _direction_loss(direction: Tensor, distance: Tensor, worse: Tensor) -> Tensor:
    # Near the threshold nobody could tell; those images count for less.
    return _mean(F.softplus(4 * direction), worse * (distance / 0.1).clamp(max=1))


def _relative_loss(direction: Tensor, ranks: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # `first` is the reference of the pair: a positive direction says that `second` is better.
    sign, confidence = consensus(ranks)
    return _mean(F.softplus(-4 * sign[first, second] * direction), confidence[first, second])


def _anchor_loss(plain: Tensor, distance: Tensor) -> Tensor:
    # The unit of the distance is free, so ranking alone would let the learned part outgrow the
    # fixed one, which is what brings an optimiser the last way to the reference.
    # A mean over the batch: kinds of distortion may differ in their shares, or none could count
    # for more than four times its plain error.
    log_share = torch.log(plain + 1e-6) - torch.log(distance + 1e-6)
    return F.relu(math.log(_ANCHOR) - log_share.mean())


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
