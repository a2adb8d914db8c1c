"""Functions of autograd, as all of the network's are."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
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
        if "forward" in vars(cls):  # not that of PyTorch's own class
            cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]


class SteeredFunction(QuickFunction):
    """A function that is linear in its first input, and steered by others, which have no gradient:
    they are all that its backward pass needs."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
