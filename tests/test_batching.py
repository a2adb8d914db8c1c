"""Images of mixed sizes give what each gives by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss import RelationalLoss
from relqa_loss.batching import by_size

SIZES = st.sampled_from([(32, 32), (32, 48), (48, 32), (40, 56)])


def images(sizes: list[tuple[int, int]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


@settings(deadline=None, max_examples=25)
@given(st.lists(SIZES, min_size=1, max_size=7))
def test_groups_are_a_partition_of_the_pairs(sizes: list[tuple[int, int]]) -> None:
    preds, target = ([each.requires_grad_() for each in images(sizes, seed)] for seed in (0, 1))
    groups = list(by_size(preds, target))
    assert len(groups) == len(set(sizes))
    assert sorted(torch.cat([group.rows for group in groups]).tolist()) == [*range(len(sizes))]
    for group in groups:
        for row, image, reference in zip(*group, strict=True):
            assert torch.equal(image, preds[int(row)])
            assert torch.equal(reference, target[int(row)])
            assert image.requires_grad
            assert reference.requires_grad
    firsts = [int(group.rows[0]) for group in groups]
    assert firsts == sorted(firsts)


def test_values_and_gradients_are_those_of_each_pair_by_itself() -> None:
    sizes = [(48, 64), (64, 48), (48, 64), (33, 95)]
    target = images(sizes, 1)
    grouped, alone = ([each.requires_grad_() for each in images(sizes, 0)] for _ in range(2))
    criterion = RelationalLoss(reduction="none")
    values = torch.empty(len(sizes))
    for group in by_size(grouped, target):
        values[group.rows] = criterion(group.preds, group.target)
    each = torch.cat([criterion(x[None], y[None]) for x, y in zip(alone, target, strict=True)])
    torch.testing.assert_close(values, each)
    values.sum().backward()
    each.sum().backward()
    for one, other in zip(grouped, alone, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_dtypes_and_devices_are_not_mixed() -> None:
    plain = images([(32, 32)] * 2, 0)
    double, elsewhere = [plain[0].double(), plain[1]], [plain[0].to("meta"), plain[1]]
    for preds, target in ((double, plain), (plain, double), (double, double)):
        groups = list(by_size(preds, target))
        assert [group.preds.dtype for group in groups] == [image.dtype for image in preds]
        assert [group.target.dtype for group in groups] == [image.dtype for image in target]
    groups = list(by_size(elsewhere, elsewhere))
    for part in ("rows", "preds", "target"):
        assert [getattr(group, part).device.type for group in groups] == ["meta", "cpu"]


@pytest.mark.parametrize(
    ("preds", "target", "error", "message"),
    [
        (torch.rand(2, 3, 32, 32), [torch.rand(3, 32, 32)], TypeError, "one tensor of shape"),
        ([torch.rand(3, 32, 32), 0.5], [torch.rand(3, 32, 32)] * 2, TypeError, r"preds\[1\]"),
        ([torch.rand(3, 32, 32)], torch.rand(1, 3, 32, 32), TypeError, "target must be a sequence"),
        ([torch.rand(3, 32, 32)], [None], TypeError, r"target\[0\] must be a tensor"),
        ([torch.rand(1, 3, 32, 32)], [torch.rand(3, 32, 32)], ValueError, r"preds\[0\] must be C"),
        ([torch.rand(3, 32, 32)], [torch.rand(3, 32, 48)], ValueError, r"target\[0\] has"),
        ([torch.rand(3, 32, 32)], [], ValueError, "got 1 and 0"),
        ([], [], ValueError, "at least one"),
    ],
)
def test_what_cannot_be_grouped_is_refused(preds, target, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        list(by_size(preds, target))
