"""Functions of autograd, as all of the network's are."""

from __future__ import annotations

import inspect
from typing import Any

from torch.autograd import Function


class QuickFunction(Function):
    """A function that ``torch.func`` can transform, and that is called without further ado.

    At every call PyTorch asks for the signature of a ``forward`` that has a ``setup_context``, and
    Python puts it together anew unless it is at hand. On a small image that takes as long as an
    operation.
    """

    generate_vmap_rule = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]
