"""Figures on held-out photographs during training."""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss.network.model import ParityNetwork
from relqa_loss.training.batches import Batches
from relqa_loss.training.sets import NO_ORDER


@torch.no_grad()
def validate(
    network: ParityNetwork, batches: Batches, steps: int, device: torch.device
) -> dict[str, float]:
    """Rank, order and map figures over the first ``steps`` batches.

    Returns:
        ``srcc_panel`` (Spearman with the mean quantile of the training panel), ``ordered`` (share
        of certain pairs in the right order), ``map_mae``, ``dominant`` (share of single-operator
        images, severity ≥ 0.3, whose strongest channel is the right one), ``sign``,
        ``direction`` (share of certainly worse images with a negative score).
    """
    network.eval()
    distances, ranks = [], []
    right = certain = dominant = sign = strong = 0.0
    below = worse = error = cells = 0.0
    for step in range(steps):
        batch = batches[step]
        count = batch.images.shape[1]
        for row in range(len(batch.reference)):
            reference = batch.reference[row].expand(count, -1, -1, -1).to(device)
            relation = network(reference, batch.images[row].to(device))
            distance = relation.distance.cpu()
            distances.append(distance)
            ranks.append(batch.ranks[row].mean(-1))
            for bad, good in batch.order[row].tolist():
                if bad != NO_ORDER:
                    certain += 1
                    right += float(distance[bad] > distance[good])
            maps, target = relation.maps.cpu(), batch.maps[row]
            error += float((maps - target).abs().sum())
            cells += target.numel()
            is_worse = batch.worse[row] > 0
            worse += float(is_worse.sum())
            below += float((relation.score.cpu()[is_worse] < 0).sum())
            for image in (1, 2, 4, 5):  # single operators
                peak = target[image].abs().amax((-1, -2))
                channel = int(peak.argmax())
                if peak[channel] < 0.3:
                    continue
                where = target[image, channel].abs() > 0.5 * peak[channel]
                inside = maps[image][:, where].mean(-1)
                strong += 1
                dominant += float(int(inside.abs().argmax()) == channel)
                wanted = target[image, channel][where].mean()
                sign += float(inside[channel] * wanted > 0)
    return {
        "srcc_panel": spearman(torch.cat(distances), torch.cat(ranks)),
        "ordered": right / max(certain, 1),
        "map_mae": error / max(cells, 1),
        "dominant": dominant / max(strong, 1),
        "sign": sign / max(strong, 1),
        "direction": below / max(worse, 1),
    }


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two vectors (ties by their mean rank)."""
    ranks = torch.stack([mean_ranks(a), mean_ranks(b)])
    return float(torch.corrcoef(ranks)[0, 1])


def mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1, ties by their mean."""
    inverse: Tensor
    counts: Tensor
    _, inverse, counts = torch.unique(values.double(), return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts - 1) / 2)[inverse]
