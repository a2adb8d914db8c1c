"""SciPy, which is an extra."""

from __future__ import annotations

import importlib
from typing import Any


def scipy_module(name: str, purpose: str) -> Any:
    """The module ``scipy.NAME``.

    Args:
        name: Such as ``special``.
        purpose: What needs it, as the beginning of a sentence.

    Raises:
        ImportError: If SciPy is not installed.
    """
    try:
        # With its parent: one that was imported before is found even where that is forbidden now.
        importlib.import_module("scipy")
        return importlib.import_module(f"scipy.{name}")
    except ImportError as error:
        raise ImportError(
            f"{purpose} SciPy, which is not installed: pip install 'relqa-loss[train]'"
        ) from error
