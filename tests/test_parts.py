"""On a CPU large batches are worked out a few images at a time, which nobody is to notice."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from relqa_loss import (
    RelationalLoss,
    SpatialMapWeightedLoss,
    _parts,
    distortion_maps,
    relate,
    relational_distance,
    relational_preference,
)
from relqa_loss.functional import maps_and_distance
from relqa_loss.losses import PreferenceLoss
from relqa_loss.network.model import ParityNetwork

SIDE = 32
COUNT = 5
WEIGHTED = {"noise": 2.0}

Measure = Callable[[Tensor, Tensor, Tensor], "Tensor | tuple[Tensor, ...]"]
MEASURES: dict[str, Measure] = {
    "loss": lambda a, b, _: RelationalLoss().double()(a, b),
    "loss, nano": lambda a, b, _: RelationalLoss(weights="relqa-nano").double()(a, b),
    "loss, clamped": lambda a, b, _: RelationalLoss(on_out_of_range="clamp").double()(3 * a - 1, b),
    "loss, weights": lambda a, b, w: RelationalLoss(channel_weights=WEIGHTED).double()(a, b, w),
    "loss, a weight for all": lambda a, b, w: RelationalLoss(reduction="none").double()(
        a, b, w[:1]
    ),
    "loss, encoded": lambda a, b, w: (each := RelationalLoss().double()).distance_to(
        each.encode(b), a, w
    ),
    "loss, one encoded": lambda a, b, _: (each := RelationalLoss().double()).distance_to(
        each.encode(b[:1]), a
    ),
    "relation": lambda a, b, w: RelationalLoss().double().relation(a, b, w),
    "spatial": lambda a, b, w: SpatialMapWeightedLoss(detach_maps=False).double()(a, b, w),
    "spatial, maps alone": lambda a, b, _: SpatialMapWeightedLoss(
        detach_maps=False, relational_weight=0
    ).double()(a, b),
    "preference loss": lambda a, b, w: PreferenceLoss().double()(a, a.detach().flip(0), b, w),
    "relate": lambda a, b, w: relate(a, b, channel_weights=WEIGHTED, weight=w),
    "distance": lambda a, b, w: relational_distance(a, b, reduction="none", weight=w),
    "maps": lambda a, b, _: distortion_maps(a, b),
    "maps and distance": lambda a, b, _: maps_and_distance(
        a,
        b,
        data_range=1.0,
        weights="relqa-base",
        channel_weights=None,
        on_out_of_range="raise",
    ),
    "preference": lambda a, b, w: relational_preference(a, a.detach().flip(0), b, weight=w),
    "preference by score": lambda a, b, _: relational_preference(
        a, a.detach().flip(0), b, by="score"
    ),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the network sees at a time, in the order of its calls."""
    counts: list[int] = []
    for name in ("density", "_streams", "distance_and_error"):
        original = getattr(ParityNetwork, name)

        def counted(self: ParityNetwork, *given: Tensor, of: Callable[..., object] = original):  # type: ignore[no-untyped-def]
            counts.append(len(given[-1] if isinstance(given[-1], Tensor) else given[-1].image))
            return of(self, *given)

        monkeypatch.setattr(ParityNetwork, name, counted)
    return counts


class Kept:
    """A tensor that a graph holds on to: sets tell tensors apart by their numbers."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    preds, target = torch.rand(2, COUNT, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return preds, target


def values_and_gradient(measure: Measure) -> list[Tensor]:
    preds, target = images()
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(COUNT, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    preds.requires_grad_()
    found = measure(preds, target, weight)
    values = [found] if isinstance(found, Tensor) else [*found]
    (gradient,) = torch.autograd.grad(sum(each.square().sum() for each in values), preds)
    return [*values, gradient]


@pytest.mark.parametrize("name", MEASURES)
def test_parts_give_what_the_batch_gives(
    name: str, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = MEASURES[name]
    whole = values_and_gradient(measure)
    assert {*seen} == {COUNT}
    seen.clear()
    monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
    parts = values_and_gradient(measure)
    assert max(seen) < COUNT
    assert len(parts) == len(whole)
    for part, together in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, together)


@pytest.mark.parametrize(
    ("channel_weights", "gradient", "largest"),
    [(None, False, 4), (WEIGHTED, False, 2), (None, True, 4), (WEIGHTED, True, 2)],
)
def test_parts_are_as_large_as_their_pixels_allow_and_alike(
    channel_weights: dict[str, float] | None,
    gradient: bool,
    largest: int,
    seen: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
    loss = RelationalLoss(channel_weights=channel_weights)
    for count in range(1, 10):
        seen.clear()
        preds, target = torch.rand(2, count, 3, SIDE, SIDE)
        loss(preds.requires_grad_(gradient), target)
        parts = -(-count // largest)
        assert {*seen} == {count // parts, -(-count // parts)}


@pytest.mark.parametrize("name", ["loss", "loss, clamped", "loss, weights", "preference loss"])
def test_parts_can_be_differentiated_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def curvature() -> Tensor:
        preds, target = images()
        value = MEASURES[name](preds.requires_grad_(), target, torch.ones(COUNT, 1, SIDE, SIDE))
        (first,) = torch.autograd.grad(value.square(), preds, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), preds)
        return second

    whole = curvature()
    monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
    torch.testing.assert_close(curvature(), whole)


def test_autocast_does_not_round_what_is_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
    preds, target = (each.float() for each in images())
    found = []
    for enabled in (False, True):
        value = RelationalLoss()(preds.requires_grad_(), target)
        with torch.autocast("cpu", enabled=enabled):
            found += torch.autograd.grad(value, preds, create_graph=True)
    assert torch.equal(*found)


def test_all_that_asks_for_it_gets_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(shared: bool) -> list[Tensor]:
        """To both images; and of one reference for all, if that is ``shared``."""
        preds, target = images()
        loss = RelationalLoss(reduction="none").double()
        leaves = [preds.requires_grad_(), target[: 1 if shared else None].requires_grad_()]
        values = loss.distance_to(loss.encode(leaves[1]), preds) if shared else loss(*leaves)
        return [*torch.autograd.grad(values.square().sum(), leaves)]

    for shared in (False, True):
        monkeypatch.setattr(_parts, "PIXELS", 2**20)
        whole = gradients(shared)
        monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
        torch.testing.assert_close(gradients(shared), whole)


def test_what_has_no_say_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
    baseline, target = images()
    loss = PreferenceLoss()  # whose baseline is detached
    value = loss(baseline.flip(0), baseline.requires_grad_(), target)
    assert not value.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(value, loss(baseline.flip(0), baseline, target))
    preds = baseline.detach().flip(0).requires_grad_()
    loss(preds, baseline, target).backward()
    assert baseline.grad is None
    assert preds.grad is not None
    assert preds.grad.any()


def test_a_batch_keeps_its_gradient_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def keep(tensor: Tensor) -> Kept:
        kept.add(holder := Kept(tensor))
        return holder

    def held(pixels: int) -> int:
        """Numbers that wait for the backward pass, the images themselves left out."""
        monkeypatch.setattr(_parts, "PIXELS", pixels)
        preds, target = images()
        preds.requires_grad_()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda holder: holder.tensor):
            value = RelationalLoss().double()(preds, target)
        own = {each.untyped_storage().data_ptr() for each in (preds, target)}
        tensors = {each.tensor.untyped_storage().data_ptr(): each.tensor for each in kept}
        count = sum(tensor.numel() for at, tensor in tensors.items() if at not in own)
        value.backward()
        return count

    image = 3 * SIDE**2
    assert COUNT * image <= held(4 * SIDE**2) < 1.1 * COUNT * image
    assert held(2**20) > 2 * COUNT * image


def test_a_checkpoint_works_parts_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "PIXELS", 4 * SIDE**2)
    found = []
    for step in (RelationalLoss(), partial(checkpoint, RelationalLoss(), use_reentrant=False)):
        preds, target = images()
        step(preds.requires_grad_(), target).backward()
        found.append(preds.grad)
    torch.testing.assert_close(*found)


def test_an_image_with_more_pixels_is_not_divided(
    seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parts, "PIXELS", 10)
    RelationalLoss()(*torch.rand(2, 3, 3, SIDE, SIDE))
    assert seen == [1, 1, 1]


@pytest.mark.slow
def test_a_compiler_sees_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts would be calls in its graph, and another graph for each number of them."""
    monkeypatch.setattr(_parts, "PIXELS", 2 * SIDE**2)
    torch._dynamo.reset()
    loss = RelationalLoss(reduction="none")
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="eager")
    for count in (4, 5, 9):  # 3 would be taken for the number of colours
        images = torch.rand(2, count, 3, SIDE, SIDE)
        with torch._dynamo.config.patch(error_on_recompile=count > 4):
            torch.testing.assert_close(compiled(*images), loss(*images))
    torch._dynamo.reset()


def test_parts_can_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = RelationalLoss()
    preds, target = torch.rand(2, 2, 3, 3, SIDE, SIDE)
    whole = torch.func.vmap(torch.func.grad(loss))(preds, target)
    monkeypatch.setattr(_parts, "PIXELS", SIDE**2)
    parts = torch.func.vmap(torch.func.grad(loss))(preds, target)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, COUNT])
def test_what_was_made_in_inference_mode_can_be_learned_from(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A baseline's output in particular, which was taken or refused by how large the batch was."""
    monkeypatch.setattr(_parts, "PIXELS", COUNT * SIDE**2 // parts)
    preds, baseline, target = torch.rand(3, COUNT, 3, SIDE, SIDE)
    weight = torch.rand(COUNT, 1, SIDE, SIDE)
    with torch.inference_mode():
        made = [each.clone() for each in (baseline, target, weight, weight > 0.5)]
    losses: list[Callable[..., Tensor]] = [
        PreferenceLoss(),
        lambda image, _, *others: RelationalLoss()(image, *others),
        lambda image, _, *others: SpatialMapWeightedLoss()(image, *others),
    ]
    for loss in losses:
        for given in ((0, 1), (0, 1, 2), (0, 1, 3)):
            leaves = [preds.clone().requires_grad_() for _ in range(2)]
            plain = (baseline, target, weight, weight > 0.5)
            for leaf, others in zip(leaves, (plain, made), strict=True):
                loss(leaf, *(others[each] for each in given)).backward()
            assert leaves[0].grad is not None
            assert leaves[1].grad is not None
            assert torch.equal(leaves[0].grad, leaves[1].grad)
