"""Values that are worked out together with their gradients, so that little has to be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from relqa_loss.network._precision import full_precision

Part = list[Tensor | None]


def backpropagated(*given: Tensor | None) -> bool:
    """Whether a gradient is wanted of some, and by autograd alone: :class:`WithGradients` knows
    nothing of functorch's transforms."""
    tensors = [each for each in given if each is not None]
    return (
        torch.is_grad_enabled()
        and any(each.requires_grad for each in tensors)
        and not any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))
    )


class WithGradients(torch.autograd.Function):
    """``torch.cat([function(*part) for part in divide(*given)])``, differentiable.

    Each of these N values depends on its own image alone, so that the gradient of any sum of them
    is known once the gradient of each is. That is as large as the images; what a part needs for its
    gradient is several times as large, and is given up before the next part is begun.

    Args:
        function: Gives a value for each image. Nothing but ``given`` gets a gradient.
        divide: Divides what is given into parts.
        given: Tensors, of N images each where a gradient is wanted, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        divide: Callable[..., Iterable[Part]],
        *given: Tensor | None,
    ) -> Tensor:
        needed = ctx.needs_input_grad[2:]
        values: list[Tensor] = []
        gradients: list[tuple[Tensor | None, ...]] = []
        for part in divide(*given):
            leaves = [
                None if each is None else each.detach().requires_grad_(need)
                for each, need in zip(part, needed, strict=True)
            ]
            sources = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
            with torch.enable_grad():
                found = function(*leaves)
                if found.requires_grad:
                    gradients.append(torch.autograd.grad(found.sum(), sources, allow_unused=True))
            values.append(found.detach())
        result = torch.cat(values)
        if not gradients:  # nothing that wants one has a say, such as a detached baseline
            ctx.mark_non_differentiable(result)
            return result
        ctx.function, ctx.divide = function, divide
        ctx.wanted = [place for place, need in enumerate(needed) if need]
        ctx.save_for_backward(*map(_joined, zip(*gradients, strict=True)), *given)
        return result

    @staticmethod
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # which a checkpoint gives once
        known, given = saved[: len(ctx.wanted)], saved[len(ctx.wanted) :]
        if torch.is_grad_enabled():
            # To be differentiated in turn, for which what was given up is needed.
            own = [None if each is None else each.view_as(each) for each in given]
            with full_precision(by_value):
                values = torch.cat([ctx.function(*part) for part in ctx.divide(*own)])
            sources = [own[place] for place in ctx.wanted]
            known = torch.autograd.grad(
                values, sources, by_value, create_graph=True, allow_unused=True
            )
        else:
            known = [None if each is None else _rows(by_value, each) * each for each in known]
        found: list[Tensor | None] = [None] * len(given)
        for place, gradient in zip(ctx.wanted, known, strict=True):
            found[place] = gradient
        return None, None, *found


def _joined(parts: Iterable[Tensor | None]) -> Tensor | None:
    """Of what no value depends on, no part has a gradient."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """N values → N×1×…×1."""
    return values.view(-1, *[1] * (like.ndim - 1))
