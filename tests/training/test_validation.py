"""Figures of validation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from relqa_loss.training.validation import spearman


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
def test_spearman_equals_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    first, second = torch.tensor(pairs).double().T
    assume(len(first.unique()) > 1 and len(second.unique()) > 1)
    expected = spearmanr(first.numpy(), second.numpy()).statistic
    assert spearman(first, second) == pytest.approx(float(expected), abs=1e-9)
