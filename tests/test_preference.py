"""Preferences and the loss made of them, against formulas on public distances and scores."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relqa_loss import (
    PreferenceLoss,
    RelationalLoss,
    preference_loss,
    relational_distance,
    relational_preference,
    relational_score,
)
from relqa_loss.metrics import RelationalPreference
from relqa_loss.network import Encoding, ParityNetwork, find_weights

EPS = 1e-3
Triple = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def triple() -> Triple:
    """Five images: two clear wins, two clear losses, a tie."""
    generator = torch.Generator().manual_seed(0)
    target, noise, other = torch.rand(3, 5, 3, 40, 45, generator=generator)
    amount = torch.tensor([0.1, 0.2, 0.5, 0.4, 0.3]).reshape(5, 1, 1, 1)
    preds = target.lerp(noise, amount)
    baseline = target.lerp(other, amount.flip(0))
    baseline[0] = target[0].lerp(other[0], 0.6)
    baseline[2] = target[2].lerp(other[2], 0.2)  # of equal amounts, the weights would decide
    baseline[4] = preds[4]
    return preds, baseline, target


def distances(triple: Triple, **options: object) -> list[Tensor]:
    """As metrics report them."""
    preds, baseline, target = triple
    return [
        relational_distance(image, target, reduction="none", **options)  # type: ignore[arg-type]
        for image in (preds, baseline)
    ]


def minimised(triple: Triple, weight: Tensor | None = None, **options: object) -> list[Tensor]:
    """As losses minimise them."""
    preds, baseline, target = triple
    loss = RelationalLoss(pixel_weight=0, reduction="none", **options)  # type: ignore[arg-type]
    return [loss(image, target, weight) for image in (preds, baseline)]


def gradients(loss: nn.Module, triple: Triple) -> tuple[Tensor, list[Tensor | None]]:
    leaves = [image.clone().requires_grad_() for image in triple]
    value = loss(*leaves)
    value.sum().backward()
    return value.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_preference_is_a_ratio_of_distances(triple: Triple, slope: float) -> None:
    ours, theirs = (value.double() + EPS for value in distances(triple))
    expected = theirs**slope / (ours**slope + theirs**slope)
    found = relational_preference(*triple, slope=slope, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    assert found[4] == 0.5
    assert (found[:2] > 0.5).all()
    assert (found[2:4] < 0.5).all()


def test_preference_by_score_is_logistic_in_the_difference(triple: Triple) -> None:
    preds, baseline, target = triple
    lead = relational_score(preds, target, reduction="none") - relational_score(
        baseline, target, reduction="none"
    )
    found = relational_preference(*triple, by="score", slope=2.0, reduction="none")
    torch.testing.assert_close(found, 1 / (1 + torch.exp(-2 * lead)))
    assert found[4] == 0.5


@pytest.mark.parametrize("by", ["distance", "score"])
def test_swapping_gives_the_complement(triple: Triple, by: str) -> None:
    preds, baseline, target = triple
    for slope in (1.0, math.inf):
        one, other = (
            relational_preference(*pair, target, by=by, slope=slope, reduction="none")  # type: ignore[arg-type]
            for pair in ((preds, baseline), (baseline, preds))
        )
        torch.testing.assert_close(one + other, torch.ones(5))


def test_an_infinite_slope_counts_wins(triple: Triple) -> None:
    found = relational_preference(*triple, slope=math.inf, reduction="none")
    assert found.tolist() == [1, 1, 0, 0, 0.5]
    assert relational_preference(*triple, slope=math.inf) == RelationalPreference()(*triple)


def test_images_that_cannot_be_measured_have_no_preference(triple: Triple) -> None:
    preds, baseline, target = triple
    preds[1, 0, 0, 0] = math.nan
    for slope in (1.0, math.inf):
        found = relational_preference(
            preds, baseline, target, slope=slope, reduction="none", on_out_of_range="ignore"
        )
        assert found.isnan().tolist() == [False, True, False, False, False]
    metric = RelationalPreference(on_out_of_range="ignore")
    metric.update(preds, baseline, target)
    assert metric.compute().isnan()
    assert all(bound.isnan() for bound in metric.interval())


@pytest.mark.parametrize("function", [relational_preference, preference_loss])
def test_reductions_ranges_and_dtypes(function: object, triple: Triple) -> None:
    each, mean, total = (
        function(*triple, reduction=kind)  # type: ignore[operator]
        for kind in ("none", "mean", "sum")
    )
    assert each.shape == (5,)
    torch.testing.assert_close(mean, each.mean())
    torch.testing.assert_close(total, each.sum())
    assert torch.equal(function(*triple), mean)  # type: ignore[operator]
    byte = [(255 * image).round().to(torch.uint8) for image in triple]
    torch.testing.assert_close(
        function(*byte, data_range=255),  # type: ignore[operator]
        function(*(image.float() / 255 for image in byte)),  # type: ignore[operator]
    )
    assert function(*(image.double() for image in triple)).dtype == torch.float64  # type: ignore[operator]
    assert function(*(image.half() for image in triple)).dtype == torch.float32  # type: ignore[operator]
    beyond = [image * 1.5 for image in triple]
    clamped = [image.clamp(0, 1) for image in beyond]
    assert torch.equal(
        function(*beyond, on_out_of_range="clamp"),  # type: ignore[operator]
        function(*clamped),  # type: ignore[operator]
    )


@pytest.mark.parametrize("function", [relational_preference, preference_loss])
def test_weights_of_pixels_and_channels_reach_both_distances(
    function: object, triple: Triple
) -> None:
    cells = torch.zeros(5, 1, 40, 45)
    cells[..., :20] = 1
    options = {"weight": cells, "channel_weights": {"noise": 5.0, "sharpness": 0.2}}
    measure = minimised if function is preference_loss else distances
    ours, theirs = measure(triple, **options)  # type: ignore[operator]
    expected = (theirs + EPS) / (ours + theirs + 2 * EPS)
    found = function(*triple, reduction="none", **options)  # type: ignore[operator]
    if function is preference_loss:
        found = torch.exp(-found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    plain = function(*triple, reduction="none")  # type: ignore[operator]
    assert not torch.allclose(found, plain, rtol=1e-3)


@pytest.mark.parametrize("function", [relational_preference, preference_loss])
def test_what_is_wrong_is_refused(function: object, triple: Triple) -> None:
    preds, baseline, target = triple

    def refuses(error: type[Exception], match: str, *images: object, **options: object) -> None:
        with pytest.raises(error, match=match):
            function(*(images or triple), **options)  # type: ignore[operator]

    refuses(ValueError, "slope must be positive", slope=0)
    refuses(ValueError, "slope must be positive", slope=math.nan)
    refuses(TypeError, "slope must be a number, got str", slope="steep")
    refuses(ValueError, "reduction", reduction="avg")
    refuses(ValueError, "data_range", data_range=0)
    refuses(ValueError, "no weights named", weights="none")
    refuses(ValueError, "baseline must lie in", preds, 2 * baseline, target)
    refuses(ValueError, "baseline contains NaN", preds, baseline * math.nan, target)
    refuses(TypeError, "baseline must be a tensor, got float", preds, 1.0, target)
    refuses(ValueError, r"preds, baseline and target must have .* and \(5, 3, 40, 45\)",
            preds, baseline[:1], target)  # fmt: skip
    refuses(ValueError, "same device, got cpu, meta and cpu", preds, baseline.to("meta"), target)
    if function is preference_loss:
        refuses(ValueError, "positive and finite", slope=math.inf)
        for margin in (math.nan, math.inf, -math.inf):
            refuses(ValueError, "margin must be finite", margin=margin)
        refuses(TypeError, "margin must be a number, got bool", margin=True)
        with pytest.raises(ValueError, match="positive and finite"):
            PreferenceLoss(slope=math.inf)
    else:
        refuses(ValueError, "by must be one of", by="maps")


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("margin", [0.0, math.log(2), -0.5])
def test_loss_is_minus_the_log_of_the_preference(
    triple: Triple, slope: float, margin: float, structureless: Path
) -> None:
    found = preference_loss(*triple, slope=slope, margin=margin, reduction="none")
    ours, theirs = (value.double() + EPS for value in minimised(triple))
    expected = torch.log1p((ours / theirs * math.exp(margin)) ** slope)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    if not margin:
        options = {"slope": slope, "reduction": "none", "weights": structureless}
        likely = relational_preference(*triple, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(preference_loss(*triple, **options), -likely.log())  # type: ignore[arg-type]
    module = PreferenceLoss(slope=slope, margin=margin, reduction="none")
    assert torch.equal(module(*triple), found)


def test_module_and_function_agree_on_all_options(triple: Triple) -> None:
    options = {
        "channel_weights": {"noise": 2.0},
        "data_range": 2.0,
        "reduction": "sum",
        "on_out_of_range": "ignore",
    }
    cells = torch.rand(5, 1, 40, 45, generator=torch.Generator().manual_seed(1))
    module = PreferenceLoss(**options)  # type: ignore[arg-type]
    assert torch.equal(
        module(*triple, cells),
        preference_loss(*triple, weight=cells, **options),  # type: ignore[arg-type]
    )


def test_gradients_reach_preds_only(triple: Triple) -> None:
    _, (preds, baseline, target) = gradients(PreferenceLoss(), triple)
    assert baseline is None
    assert target is None
    assert preds is not None
    assert preds.isfinite().all()
    assert (preds != 0).float().mean() > 0.99
    _, (ours, theirs, target) = gradients(PreferenceLoss(detach_baseline=False), triple)
    assert target is None
    assert theirs is not None
    torch.testing.assert_close(ours, preds)
    # Descending would push the baseline away from the target: why it is detached by default.
    worse = triple[1] - 1e-2 * theirs / theirs.abs().amax((1, 2, 3), keepdim=True)
    moved = minimised((triple[0], worse, triple[2]), on_out_of_range="ignore")[1]
    assert (moved > minimised(triple)[1]).all()


@pytest.mark.parametrize("slope", [0.5, 1.0, 20.0])
def test_finite_wherever_images_are_equal(triple: Triple, slope: float) -> None:
    preds, baseline, target = triple
    loss = PreferenceLoss(slope=slope, margin=0.5, detach_baseline=False)
    for images in (
        (target, baseline, target),
        (preds, target, target),
        (target, target, target),
        (preds, preds, target),
        (torch.zeros_like(target),) * 3,
        (target + 1e-6 * torch.randn_like(target), target, target),
    ):
        value, grads = gradients(PreferenceLoss(slope=slope, on_out_of_range="ignore"), images)
        assert value.isfinite()
        assert grads[0] is not None
        assert grads[0].isfinite().all()
        value, grads = gradients(loss, tuple(image.clamp(0, 1) for image in images))  # type: ignore[arg-type]
        assert all(grad.isfinite().all() for grad in grads[:2] if grad is not None)
    assert loss(target, target, target) == pytest.approx(math.log1p(math.exp(0.5 * slope)))
    _, grads = gradients(PreferenceLoss(slope=slope), (target, baseline, target))
    assert grads[0] is not None
    assert not grads[0].any()


def test_the_target_is_the_minimum(triple: Triple) -> None:
    preds, baseline, target = triple
    loss = PreferenceLoss(reduction="none")
    way = torch.stack(
        [loss(target.lerp(preds, t), baseline, target) for t in torch.linspace(0, 1, 6)]
    )
    assert (way.diff(dim=0) > 0).all()
    assert (way[0] > 0).all()


def test_descending_beats_the_baseline(triple: Triple) -> None:
    preds, baseline, target = (image[2:4] for image in triple)
    loss = PreferenceLoss(on_out_of_range="clamp")
    leaf = preds.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.02)
    assert relational_preference(preds, baseline, target, slope=math.inf) == 0
    for _ in range(20):
        optimizer.zero_grad()
        loss(leaf, baseline, target).backward()
        optimizer.step()
    end = leaf.detach().clamp(0, 1)
    assert relational_preference(end, baseline, target, slope=math.inf) == 1


def test_the_reference_is_encoded_once(triple: Triple, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    original = ParityNetwork.encode

    def encode(network: ParityNetwork, image: Tensor, **options: bool) -> Encoding:
        encoded.append(image)
        return original(network, image, **options)

    monkeypatch.setattr(ParityNetwork, "encode", encode)
    for prefer in (PreferenceLoss(), partial(relational_preference, by="score")):
        encoded.clear()
        prefer(*triple)
        assert sum(torch.equal(image, triple[2]) for image in encoded) == 1


@pytest.mark.filterwarnings("error")
def test_numbers_of_numpy_are_numbers(triple: Triple) -> None:
    two: Any = np.float32(2)
    assert torch.equal(
        PreferenceLoss(slope=two, margin=two)(*triple), PreferenceLoss(slope=2, margin=2)(*triple)
    )


def test_the_loss_says_that_it_is_not_where_the_images_are(triple: Triple) -> None:
    with pytest.raises(ValueError, match="images are on meta, the loss is on cpu: move the loss"):
        PreferenceLoss()(*(image.to("meta") for image in triple))


def test_nothing_to_train_or_to_save(triple: Triple) -> None:
    loss = PreferenceLoss(slope=2.0, margin=0.1, channel_weights={"noise": 2.0})
    before = loss(*triple)
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    parent = nn.Sequential(loss).train()
    parent.half().bfloat16()
    assert not loss.training
    assert {buffer.dtype for buffer in loss.buffers()} == {torch.float32}
    assert torch.equal(loss(*triple), before)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(other(*triple), before)
        assert repr(other) == repr(loss)
    for text in (loss.version, repr(loss)):
        for part in (find_weights().version, "slope=2", "margin=0.1", "'noise': 2.0"):
            assert part in text
        assert "detach_baseline=True" in text


def test_autocast_changes_nothing(triple: Triple) -> None:
    value, grads = gradients(PreferenceLoss(), triple)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, mixed_grads = gradients(PreferenceLoss(), triple)
        likely = relational_preference(*triple)
    assert torch.equal(mixed, value)
    assert torch.equal(mixed_grads[0], grads[0])  # type: ignore[arg-type]
    assert likely.dtype == torch.float32


@pytest.mark.slow
def test_compiles_vmaps_and_exports(triple: Triple) -> None:
    loss = PreferenceLoss(reduction="none", detach_baseline=False)
    images = tuple(image[:2, :, :32, :40].contiguous() for image in triple)
    value, grads = gradients(loss, images)  # type: ignore[arg-type]
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    fast, fast_grads = gradients(compiled, images)  # type: ignore[arg-type]
    torch.testing.assert_close(fast, value)
    for one, other in zip(fast_grads[:2], grads[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(loss, images, dynamic_shapes=({0: batch},) * 3)
    more = tuple(image[:3, :, :32, :40] for image in triple)
    torch.testing.assert_close(program.module()(*more), loss(*more))
    each = torch.func.vmap(lambda *parts: loss(*(part[None] for part in parts))[0])(*images)
    torch.testing.assert_close(each, value)


@pytest.mark.parametrize("detach_baseline", [True, False])
def test_a_weight_that_is_learned_has_its_gradient(detach_baseline: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(3, 2, 3, 33, 35, generator=generator).double()
    weight = (0.5 + torch.rand(2, 1, 33, 35, generator=generator).double()).requires_grad_()
    loss = PreferenceLoss(slope=2.0, detach_baseline=detach_baseline).double()
    assert torch.autograd.gradcheck(
        lambda weight: loss(*images, weight=weight), (weight,), fast_mode=True
    )


def test_float64_passes_gradcheck() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(3, 1, 3, 33, 35, generator=generator).double()
    loss = PreferenceLoss(slope=2.0, detach_baseline=False).double()
    leaves = tuple(image.requires_grad_() for image in images[:2].clone().unbind())
    assert torch.autograd.gradcheck(
        lambda preds, baseline: loss(preds, baseline, images[2]), leaves, fast_mode=True
    )
