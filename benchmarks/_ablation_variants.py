"""What the ablation varies: the signal that the distance is trained on, and its input's colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.network.model import Encoding, ParityNetwork
from relqa_loss.training.batch import Batch
from relqa_loss.training.objectives import Objectives
from relqa_loss.training.panel import PANEL
from relqa_loss.training.sets import NO_ORDER
from relqa_loss.training.terms import (
    anchor_loss,
    certain_loss,
    consensus,
    facts_loss,
    listwise_loss,
    log_distance,
)

FURTHER = ("dss", "vif")
"""Members five and six of the largest panel; the judges of the ablation are neither."""
JUDGES = ("ms_gmsd", "srsim")
LADDER = 3  # the first images of a set are a ladder
PLAIN = (0, 1, 2, 4)  # ladder and one operator over the whole image: no masks, no composites


@dataclass(frozen=True)
class Variant:
    """A training signal.

    Args:
        name: In the table, and of the files.
        members: Of the panel; none for ladders alone.
        dominance: Whether composites and masks are ordered against their parts.
        confidence: Whether pairs count by the panel's unanimity and gap.
        across: Whether images of different photographs are compared.
        listwise: Plackett and Luce's likelihood of the order of a batch instead of pairs.
        images: Numbers of the images of each set that take part.
        least: Least mean quantile of an image that takes part.
        scales: The images are resized by one of them at each step.
        colour: ``"srgb"``, ``"linear"`` light or ``"opponent"`` (YCbCr).
        facts: Whether pairs whose order psychophysics is sure of take part.
    """

    name: str
    members: tuple[str, ...] = PANEL
    dominance: bool = True
    confidence: bool = True
    across: bool = True
    listwise: bool = False
    images: tuple[int, ...] = tuple(range(8))
    least: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    colour: str = "srgb"
    facts: bool = False

    @property
    def file(self) -> str:
        """For a file's name."""
        return "".join(c if c.isalnum() else "-" for c in self.name)


BASE = Variant("panel of 4")
VARIANTS: tuple[Variant, ...] = (
    BASE,
    Variant("ladders alone", members=(), dominance=False),
    Variant("ladders and dominance", members=()),
    replace(BASE, name="panel of 2", members=("mdsi", "haarpsi")),
    replace(BASE, name="panel of 6", members=(*PANEL, *FURTHER)),
    replace(BASE, name="without dominance", dominance=False),
    replace(BASE, name="without confidence", confidence=False),
    replace(BASE, name="without other photographs", across=False),
    replace(BASE, name="listwise", listwise=True),
    replace(BASE, name="without masks and composites", images=PLAIN),
    replace(BASE, name="without near-threshold images", least=0.25),
    replace(BASE, name="resized by 1/2 to 3/2", scales=(0.5, 0.75, 1.0, 1.5)),
    replace(BASE, name="linear light", colour="linear"),
    replace(BASE, name="opponent colours", colour="opponent"),
    replace(BASE, name="with facts", facts=True),
    *(
        replace(
            BASE,
            name=f"{'listwise, ' if listwise else ''}without {left}",
            listwise=listwise,
            members=tuple(m for m in PANEL if m != left),
        )
        for listwise in (False, True)
        for left in PANEL
    ),
)


class VariedObjectives(Objectives):
    """The distance's objective under a variant; ``columns`` names the panel of the batches."""

    def __init__(self, network: ParityNetwork, variant: Variant, columns: tuple[str, ...]) -> None:
        super().__init__(network, learn="distance")
        self.variant = variant
        self.chosen = [columns.index(member) for member in variant.members]

    def _rank_terms(self, batch: Batch) -> dict[str, Tensor]:
        variant = self.variant
        reference, images = resized(batch, variant.scales)
        distance, plain = self._distances(reference, images)
        slope = self.log_slope.exp()
        order = allowed(batch.order, variant)
        terms = {
            "ladder": certain_loss(distance, order, slope),
            "anchor": anchor_loss(plain, distance.flatten()),
        }
        if variant.members:
            ranks = batch.ranks[..., self.chosen].clone()
            out = [number for number in range(ranks.shape[1]) if number not in variant.images]
            ranks[:, out] = torch.nan
            ranks[ranks.mean(-1) < variant.least] = torch.nan
            terms["consensus"] = (
                listwise_loss(distance.flatten(), ranks.flatten(0, 1), slope)
                if variant.listwise
                else pairwise_loss(distance, ranks, slope, variant)
            )
        if variant.facts and batch.facts is not None:
            known, _ = self._distances(batch.facts.reference, batch.facts.images)
            terms["facts"] = facts_loss(known, batch.facts.order)
        return terms


def resized(batch: Batch, scales: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Reference and images of a batch at one of ``scales``, drawn by the batch's own draws."""
    scale = scales[int(batch.partner.sum()) % len(scales)]
    if scale == 1:
        return batch.reference, batch.images
    side = 16 * round(batch.reference.shape[-1] * scale / 16)
    images = batch.images.flatten(0, 1)
    small, many = (
        F.interpolate(each, (side, side), mode="bilinear", antialias=True, align_corners=False)
        for each in (batch.reference, images)
    )
    return small, many.unflatten(0, batch.images.shape[:2])


def allowed(order: Tensor, variant: Variant) -> Tensor:
    """The certain pairs that a variant knows of."""
    kept = torch.isin(order, torch.tensor(variant.images)).all(-1)
    if not variant.dominance:
        kept &= (order < LADDER).all(-1)
    return order.where(kept[..., None], NO_ORDER)


def pairwise_loss(distance: Tensor, ranks: Tensor, slope: Tensor, variant: Variant) -> Tensor:
    """As in training, by the variant's pairs and weights."""
    flat, columns = distance.flatten(), ranks.flatten(0, 1)
    sign, weight = consensus(columns)
    if not variant.confidence:
        judged = ~columns.isnan().any(-1)
        weight = ((sign != 0) & judged[:, None] & judged[None]).to(distance)
    if not variant.across:
        row = torch.arange(len(distance)).repeat_interleave(distance.shape[1])
        weight = weight * (row[:, None] == row[None])
    logits = log_distance(flat)
    margin = slope * (logits[:, None] - logits[None]) * sign
    return (weight * F.softplus(-margin)).sum() / weight.sum().clamp(min=1e-6)


class Recoloured(ParityNetwork):
    """A network whose images are brought to another colour space first."""

    colour = "srgb"

    def encode(self, image: Tensor, *, structure: bool = True) -> Encoding:
        return super().encode(recolour(image, self.colour), structure=structure)

    def distance(
        self, reference: Encoding, image: Tensor | Encoding, *arguments: Tensor | None
    ) -> Tensor:
        return super().distance(reference, self._seen(image), *arguments)

    def plain_distance(self, reference: Encoding, image: Tensor | Encoding) -> Tensor:
        return super().plain_distance(reference, self._seen(image))

    def _seen(self, image: Tensor | Encoding) -> Tensor | Encoding:
        return image if isinstance(image, Encoding) else recolour(image, self.colour)


def recolour(image: Tensor, colour: str) -> Tensor:
    """sRGB in [0, 1] to linear light (IEC 61966-2-1) or to YCbCr (ITU-T T.871), in [0, 1]."""
    if colour == "linear":
        low = image.clamp(max=0.04045) / 12.92
        high = ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
        return torch.where(image <= 0.04045, low, high)
    if colour == "opponent":
        red, green, blue = image.unbind(-3)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        return torch.stack([luma, 0.5 + (blue - luma) / 1.772, 0.5 + (red - luma) / 1.402], -3)
    return image
