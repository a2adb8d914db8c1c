"""Losses under ``torch.compile``: one graph, for all sizes, with the values of the plain call."""

from __future__ import annotations

import pytest
import torch
from steps import gradient, images, pair
from torch import Tensor, nn

from relqa_loss import RelationalLoss, SpatialMapWeightedLoss

Loss = RelationalLoss | SpatialMapWeightedLoss


def build(kind: str, weights: str) -> Loss:
    """A loss with channel weights has the mapper in its graph, too."""
    if kind == "spatial":
        return SpatialMapWeightedLoss(channel_weights={"noise": 2.0}, weights=weights)
    return RelationalLoss(
        channel_weights={"noise": 2.0} if kind == "steered" else None, weights=weights
    )


def assert_same(compiled: nn.Module, loss: nn.Module, preds: Tensor, target: Tensor) -> None:
    value, grad = gradient(loss, preds, target)
    fast, fast_grad = gradient(compiled, preds, target)
    torch.testing.assert_close(fast, value)
    # Sums in another order, whose terms may cancel.
    rounding = 1e-6 * float(grad.abs().max())
    torch.testing.assert_close(fast_grad, grad, rtol=1e-4, atol=rounding)


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
@pytest.mark.parametrize("kind", ["steered", "spatial"])
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
@pytest.mark.parametrize(
    ("kind", "weights", "dynamic"),
    [
        # Symbolic sizes make graphs of the mapper take minutes: not every one of them in each way.
        ("plain", "relqa-base", None),
        ("plain", "relqa-nano", None),
        ("plain", "relqa-nano", True),
        ("steered", "relqa-base", True),
        ("spatial", "relqa-base", None),
        ("spatial", "relqa-base", True),
    ],
    ids=lambda value: {None: "by itself", True: "from the start"}.get(value, value),
)
def test_compiles_once_for_all_sizes(kind: str, weights: str, dynamic: bool | None) -> None:
    torch._dynamo.reset()
    loss = build(kind, weights)
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for count, side in ((2, (32, 48)), (3, (64, 80)), (4, (50, 81)), (2, (96, 96))):
        # Left to itself, the compiler takes a second size to see that sizes vary.
        sure = count == 4 or side == (96, 96)
        with torch._dynamo.config.patch(error_on_recompile=sure):
            assert_same(compiled, loss, *pair(count, side))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_with_inductor(dynamic: bool) -> None:
    # Symbolic strides are put in order by the backend alone.
    torch._dynamo.reset()
    loss = RelationalLoss()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic)
    assert_same(compiled, loss, *pair(1, (32, 48)))
