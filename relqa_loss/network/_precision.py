"""Where half precision would cost what the network is there to see."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast | nullcontext[None]:
    """Switch autocast off on the device of ``like``.

    A difference of features near 1 keeps two to three digits in half precision: errors near the
    threshold of visibility, the ones that matter at the end of a training, would be rounding.
    """
    device = like.device.type
    if device == "meta":
        return nullcontext()
    # Ten times a step, and five times as quick. A graph may be called under autocast later.
    if not torch.compiler.is_compiling() and not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
