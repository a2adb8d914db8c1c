"""Losses under ``torch.compile``: one graph, with the values of the plain call."""

from __future__ import annotations

import pytest
import torch
from compiled import assert_same, build
from steps import images, pair

from relqa_loss import RelationalLoss


@pytest.mark.parametrize(
    ("kind", "weights"), [("steered", "relqa-nano"), ("spatial", "relqa-base")]
)
def test_compiles_as_one_graph(kind: str, weights: str) -> None:
    torch._dynamo.reset()
    loss = build(kind, weights)
    # aot_eager traces forward and backward as any backend does, without generating code.
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    preds, target = pair(2, (32, 48))
    assert_same(compiled, loss, preds, target)
    weight = images(5, 2, 1, 32, 48)
    torch.testing.assert_close(compiled(preds, target, weight), loss(preds, target, weight))


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    torch._dynamo.reset()
    loss = RelationalLoss()
    compiled = torch.compile(loss, fullgraph=True, dynamic=False)
    assert_same(compiled, loss, *pair(1, (32, 48)))
