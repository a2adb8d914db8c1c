"""The distance's own layers, beside those of PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from relqa_loss.network._layout import NARROW
from relqa_loss.network.distance import NarrowGate


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("outputs", [3, NARROW, NARROW + 1])
def test_a_gate_is_a_convolution_of_single_cells(outputs: int, frozen: bool) -> None:
    torch.manual_seed(0)
    gate = NarrowGate(5, outputs).requires_grad_(not frozen)
    if frozen:
        gate.settle()
    image = torch.rand(2, 5, 6, 8, requires_grad=True)
    found, wanted = gate(image), F.conv2d(image, gate.weight, gate.bias)
    torch.testing.assert_close(found, wanted)
    of = [image] if frozen else [image, gate.weight, gate.bias]
    grads = (torch.autograd.grad(each.square().sum(), of) for each in (found, wanted))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
