"""What functions of autograd have in common."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
import torch
from torch.autograd import Function

from relqa_loss import RelationalLoss
from relqa_loss.network._function import QuickFunction


def of_the_network(base: type = Function) -> Iterator[type[Function]]:
    for each in base.__subclasses__():
        yield from of_the_network(each)
        if each.__module__.startswith("relqa_loss.network") and each is not QuickFunction:
            yield each


def test_all_are_quick() -> None:
    found = list(of_the_network())
    assert found
    assert all(issubclass(each, QuickFunction) for each in found)
    assert all(each.generate_vmap_rule for each in found)


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_a_step_puts_no_signature_together(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = RelationalLoss(weights=weights)
    preds, target = torch.rand(2, 1, 3, 32, 32)
    loss(preds.requires_grad_(), target)
    built: list[object] = []
    init = inspect.Signature.__init__

    def counted(self: inspect.Signature, *arguments: object, **options: object) -> None:
        built.append(self)
        init(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(inspect.Signature, "__init__", counted)
    loss(preds, target).backward()
    assert not built


def test_a_signature_is_that_of_its_own_forward() -> None:
    class Scaled(QuickFunction):
        @staticmethod
        def forward(image: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
            return image * factor

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
            ctx.factor = inputs[1]

        @staticmethod
        def backward(ctx, grad):  # type: ignore[no-untyped-def]
            return grad * ctx.factor, None

    assert list(inspect.signature(Scaled.forward).parameters) == ["image", "factor"]
    image = torch.rand(3, requires_grad=True)
    Scaled.apply(image).sum().backward()
    assert torch.equal(image.grad, torch.full((3,), 2.0))
    each = torch.func.vmap(torch.func.grad(lambda x: Scaled.apply(x, 3.0)))(image.detach())
    assert torch.equal(each, torch.full((3,), 3.0))
