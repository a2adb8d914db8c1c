"""Agreement of rankings with metrics: those of the panel, and those kept out of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._levels import eight_bit
from relqa_loss.distortions import DistortionEngine
from relqa_loss.network.model import ParityNetwork, Relation
from relqa_loss.training.panel import panel_values
from relqa_loss.training.validation import spearman

Column = Callable[[Tensor, Tensor], Tensor]
"""``(reference 1×3×H×W, images N×3×H×W) -> N`` badness."""


def badness_columns(network: ParityNetwork) -> dict[str, Column]:
    """What is compared with the metrics: our distance and score, and two familiar baselines."""

    def distance(reference: Tensor, images: Tensor) -> Tensor:
        return network.distance(network.encode(reference), images)

    def score(reference: Tensor, images: Tensor) -> Tensor:
        relation: Relation = network(reference.expand_as(images), images)
        return -relation.score

    def psnr(reference: Tensor, images: Tensor) -> Tensor:
        error = (images - reference).square().mean((1, 2, 3))
        return 10 * torch.log10(error.clamp(min=1e-10))

    def ssim(reference: Tensor, images: Tensor) -> Tensor:
        import piq

        half = F.avg_pool2d(reference.expand_as(images), 2)
        similarity: Tensor = piq.ssim(F.avg_pool2d(images, 2), half, reduction="none")
        return 1 - similarity

    return {"distance": distance, "score": score, "PSNR": psnr, "SSIM": ssim}


def rank_agreement(
    columns: Mapping[str, Column],
    photos: Sequence[Tensor],
    operators: Sequence[str],
    metrics: tuple[str, ...],
    *,
    per_photo: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Spearman correlation across photographs, operators, composites and severities.

    Args:
        columns: See :func:`badness_columns`.
        photos: Each 3×H×W in [0, 1].
        operators: Drawn from by :class:`~relqa_loss.distortions.DistortionEngine`.
        metrics: Names known to :func:`relqa_loss.training.panel.panel_values`.
        per_photo: Distorted images of each photograph.
        seed: Decides the distortions.
        progress: Called with (photographs done, photographs in all).

    Returns:
        column → metric → SRCC.
    """
    engine = DistortionEngine(operators)
    ours: dict[str, list[Tensor]] = {name: [] for name in columns}
    theirs: list[Tensor] = []
    for row, photo in enumerate(photos):
        samples = [engine.sample(photo, (seed + row) * 1000 + k) for k in range(per_photo)]
        images = torch.stack([sample.distorted for sample in samples])
        images = eight_bit(images)
        with torch.no_grad():
            for name, column in columns.items():
                ours[name].append(column(photo[None], images))
        theirs.append(panel_values(photo[None], images, metrics))
        if progress is not None:
            progress(row + 1, len(photos))
    judged = torch.cat(theirs)
    return {
        name: {
            metric: spearman(torch.cat(values), judged[:, index])
            for index, metric in enumerate(metrics)
        }
        for name, values in ours.items()
    }
