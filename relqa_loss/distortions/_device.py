"""Distortions do not depend on what the program around them has made the default device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def drawn_on_cpu() -> AbstractContextManager[Any]:
    """A context in which tensors of no named device are made on the CPU, as the generators are."""
    if torch.get_default_device().type == "cpu":
        return nullcontext()
    return torch.device("cpu")
