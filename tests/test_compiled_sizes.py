"""Losses under ``torch.compile`` for sizes that vary, which takes minutes: in a file of its own, so
that another process has the other compiled ones."""

from __future__ import annotations

import pytest
import torch
from compiled import assert_same, build
from steps import pair


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "weights", "dynamic", "backend"),
    [
        # Symbolic sizes take minutes: each network, each loss and each way once, not all
        # combinations.
        ("spatial", "relqa-base", None, "aot_eager"),
        # Symbolic strides are put in order by this backend alone.
        ("plain", "relqa-nano", True, "inductor"),
    ],
    ids=lambda value: {None: "by itself", True: "from the start"}.get(value, value),
)
def test_compiles_once_for_all_sizes(
    kind: str, weights: str, dynamic: bool | None, backend: str
) -> None:
    torch._dynamo.reset()
    loss = build(kind, weights)
    # As docs/performance.md says: on a CPU, inductor's own layouts would hold for one size each.
    options = {"layout_optimization": False} if backend == "inductor" else None
    compiled = torch.compile(
        loss, fullgraph=True, dynamic=dynamic, backend=backend, options=options
    )
    # Left to itself, the compiler takes a second size to see that sizes vary.
    needed = 1 if dynamic else 2
    sizes = ((2, (32, 48)), (3, (64, 80)), (4, (50, 81)), (2, (96, 96)))
    for calls, (count, side) in enumerate(sizes):
        with torch._dynamo.config.patch(error_on_recompile=calls >= needed):
            assert_same(compiled, loss, *pair(count, side))
