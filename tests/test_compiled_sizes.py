"""Losses under ``torch.compile`` for sizes that vary, which takes minutes: in a file of its own, so
that another process has the other compiled ones."""

from __future__ import annotations

import pytest
import torch
from compiled import assert_same, build
from steps import pair


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
