"""Names of weights, without those of wrappers around the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COMPILED = "_orig_mod."


def bare_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of ``torch.compile(model)`` as one of ``model``; of others, a copy.

    Names of parts that are compiled by themselves stay: the model expects them.
    """
    while state and all(name.startswith(_COMPILED) for name in state):
        state = {name.removeprefix(_COMPILED): value for name, value in state.items()}
    return dict(state)
