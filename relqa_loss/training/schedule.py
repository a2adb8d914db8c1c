"""Learning rate and weight averaging over a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

WARM_UP = 200  # steps


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a half cosine down to 1% of ``peak``."""
    warm = min(WARM_UP, max(1, steps // 10))
    if step < warm:
        return peak * (step + 1) / warm
    progress = min(1.0, (step - warm) / max(1, steps - warm))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class AveragedWeights:
    """Exponential moving average of a module's state: what is validated and shipped."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Fold in the current weights; early steps count more, so that it forgets its start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.state[name].lerp_(value, 1 - decay)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore from a checkpoint."""
        for name, value in state.items():
            self.state[name].copy_(value)
