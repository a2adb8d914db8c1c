"""Distortions do not depend on what the program around them has made the default.

Neither on the default device, nor on the default type: other types have other random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MADE_OF_DEFAULT_TYPE = (torch.rand, torch.randn, torch.zeros, torch.ones, torch.linspace)


@contextmanager
def drawn_alike() -> Iterator[None]:
    """A context in which tensors of no named device or type are made on the CPU, as the generators
    are, and in single precision."""
    with ExitStack() as contexts:
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            contexts.enter_context(_InSinglePrecision())
        yield


class _InSinglePrecision(TorchFunctionMode):
    # In place of `torch.set_default_dtype`, which other threads would see.
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _MADE_OF_DEFAULT_TYPE:
            options.setdefault("dtype", torch.float32)
        return func(*args, **options)
