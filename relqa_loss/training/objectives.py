"""What the network is trained for: signed maps, and an order without human labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relqa_loss.network.mapper import Streams
from relqa_loss.network.model import Encoding, ParityNetwork
from relqa_loss.training.batch import PAIRS_PER_SET, Batch, Pairs
from relqa_loss.training.terms import (
    anchor_loss,
    certain_loss,
    consensus_loss,
    direction_loss,
    facts_loss,
    far_loss,
    listwise_loss,
    map_loss,
    more_than_taste,
    outputs_loss,
    presence_loss,
    region_loss,
    relative_loss,
    sign_loss,
    teacher_loss,
    type_loss,
)

MAP_PARTS = ("network.mapper.", "network.direction_")
_RELATED = 4  # every fourth image of the ranked sets

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
            "maps": map_loss(maps, target),
            "type": type_loss(maps, target),
            "region": region_loss(maps, target),
            "presence": presence_loss(streams.presence, target),
            "sign": sign_loss(streams.sign, target),
            "path": F.l1_loss(rows[:, 0] + rows[:, -1], rows[:, 1]),
            "direction": direction_loss(direction, target, pairs.worse),
        }

    def _relative_term(self, batch: Batch) -> Tensor:
        # Some images are related to another one of their set: neither is pristine.
        sets, count = batch.images.shape[:2]
        pixels = batch.images.flatten(0, 1)
        first = torch.arange(sets * count)[::_RELATED]
        second = (first // count) * count + batch.partner.cpu().flatten()[::_RELATED]
        _, direction = self._relate(pixels[first], pixels[second])
        return relative_loss(direction, batch.ranks.flatten(0, 1), first, second)

    def _outputs_term(self, pairs: Pairs) -> Tensor:
        # Of the four distorted images of each set, the first and the third, the second and the
        # fourth: a model's outputs differ in kind as they do. Labels cost a distance each.
        rows = torch.arange(len(pairs.image)).view(-1, PAIRS_PER_SET)
        first, second = rows[:, :2].flatten(), rows[:, 2:4].flatten()
        _, direction = self._relate(pairs.image[first], pairs.image[second])
        asked = more_than_taste(pairs.maps[second] - pairs.maps[first])
        return outputs_loss(direction, self._away(pairs, first), self._away(pairs, second), asked)

    @torch.no_grad()
    def _away(self, pairs: Pairs, rows: Tensor) -> Tensor:
        encoding = self.network.encode(_channels_last(pairs.reference[rows]))
        return self.network.distance(encoding, _channels_last(pairs.image[rows]))

    def _rank_terms(self, batch: Batch) -> dict[str, Tensor]:
        distance, plain = self._distances(batch.reference, batch.images)
        flat = distance.flatten()
        ranks = batch.ranks.flatten(0, 1)
        slope = self.log_slope.exp()
        ranked = listwise_loss if self.rank_by == "list" else consensus_loss
        terms = {
            "ladder": certain_loss(distance, batch.order, slope),
            "consensus": ranked(flat, ranks, slope),
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


def _select(encoding: Encoding, rows: Tensor) -> Encoding:
    rows = rows.to(encoding.image.device)
    return Encoding(encoding.image[rows], tuple(f[rows] for f in encoding.features))


def _channels_last(image: Tensor) -> Tensor:
    # Convolutions follow the layout of their input; in this one they are fastest.
    return image.contiguous(memory_format=torch.channels_last)
