"""The consensus panel: well-understood full-reference metrics whose agreement gives an order.

Members are hand-made metrics from piq; none of them was fitted to opinion scores by us, and their
values are never regressed, only compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL: tuple[str, ...] = ("mdsi", "haarpsi", "vsi", "fsim")
"""Members used in training."""

JUDGES: tuple[str, ...] = ("ms_gmsd", "srsim", "dss")
"""Members kept out of training, to judge by."""


def panel_values(reference: Tensor, images: Tensor, members: tuple[str, ...] = PANEL) -> Tensor:
    """Badness of each image under each member: higher is worse, 0 at identity.

    Args:
        reference: N×3×H×W or 1×3×H×W in [0, 1].
        images: N×3×H×W in [0, 1].
        members: Names of piq metrics, see :data:`PANEL` and :data:`JUDGES`.

    Returns:
        N×P. All metrics see the pair at half resolution, the scale at which their authors report
        the best agreement with people on screen-sized photographs (on small crops their own size
        rule would skip the reduction).

    Raises:
        ImportError: If piq is not installed.
        ValueError: For an unknown member.
    """
    if not members:
        return images.new_zeros(len(images), 0)
    metrics = _metrics()
    unknown = set(members) - set(metrics)
    if unknown:
        raise ValueError(f"unknown panel members {sorted(unknown)}; known: {sorted(metrics)}")
    x = F.avg_pool2d(images, 2)
    y = F.avg_pool2d(reference, 2).expand_as(x)
    with torch.no_grad():
        return torch.stack([metrics[name](x, y) for name in members], 1)


def _metrics() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    try:
        import piq
    except ImportError as error:
        raise ImportError("the panel needs piq: pip install 'relqa-loss[train]'") from error

    def similarity(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
        return lambda x, y: 1 - function(x, y, reduction="none", **options)

    def distance(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
        return lambda x, y: function(x, y, reduction="none", **options)

    def one_by_one(metric: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, y: torch.cat([metric(a[None], b[None]) for a, b in zip(x, y, strict=True)])

    return {
        "mdsi": distance(piq.mdsi),
        "haarpsi": similarity(piq.haarpsi, subsample=False),
        "vsi": similarity(piq.vsi),
        "fsim": similarity(piq.fsim, chromatic=True),
        "ms_gmsd": distance(
            piq.multi_scale_gmsd, chromatic=True, scale_weights=torch.tensor([0.2, 0.4, 0.4])
        ),
        # piq normalises its saliency over the whole batch, so that images would depend on others.
        "srsim": one_by_one(similarity(piq.srsim, chromatic=True)),
        "dss": similarity(piq.dss),
        "gmsd": distance(piq.gmsd),
        "vif": similarity(piq.vif_p),
    }
