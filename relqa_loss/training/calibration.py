"""The distance's unit: fixed after training, so that different weights read alike."""

from __future__ import annotations

import torch

from relqa_loss.network.model import ParityNetwork
from relqa_loss.training.batches import Batches

_ANCHOR = 0.5


@torch.no_grad()
def calibrate_scale(
    network: ParityNetwork, batches: Batches, steps: int, device: torch.device
) -> None:
    """Set ``network.scale`` so that a mid-panel image has distance 0.5.

    Ranking fixes the order of distances and nothing else; the unit is chosen here: the median
    distance of validation images whose mean panel quantile lies between 0.4 and 0.6.
    """
    network.scale.fill_(1.0)
    middle = []
    for step in range(steps):
        batch = batches[step]
        rows = batch.ranks.mean(-1)
        for reference, images, ranks in zip(batch.reference, batch.images, rows, strict=True):
            chosen = images[(ranks > 0.4) & (ranks < 0.6)].to(device)
            if len(chosen):
                reference = reference.to(device).expand_as(chosen)
                middle.append(network(reference, chosen).distance.cpu())
    if middle:
        network.scale.fill_(_ANCHOR / float(torch.cat(middle).median()))
