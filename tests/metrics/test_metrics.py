"""Metrics against plain loops over images."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torchmetrics import MetricCollection

from relqa_loss import CHANNELS, functional
from relqa_loss.metrics import DistortionProfile, RelationalDistance, RelationalScore
from relqa_loss.network import find_weights, load_pretrained

METRICS = (RelationalDistance, RelationalScore, DistortionProfile)
Pair = tuple[Tensor, Tensor]


def batches() -> list[Pair]:
    """Batches of several sizes and of several images."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, 32, 32), (1, 45, 61), (2, 40, 33), (4, 32, 48))
    return [
        tuple(torch.rand(2, count, 3, *side, generator=generator).unbind())  # type: ignore[misc]
        for count, *side in sizes
    ]


def flat(value: Any) -> dict[str, float]:
    if isinstance(value, dict):
        return {name: float(part) for name, part in value.items()}
    return {"value": float(value)}


def by_loop(kind: type, data: list[Pair]) -> dict[str, float]:
    """One image at a time through the bare network, summed by Python."""
    network = load_pretrained()
    found: dict[str, list[float]] = {}
    for preds, target in data:
        for image, reference in zip(preds, target, strict=True):
            with torch.no_grad():
                maps, score, distance = network(reference[None], image[None])
            if kind is RelationalDistance:
                found.setdefault("value", []).append(distance.item())
            elif kind is RelationalScore:
                found.setdefault("value", []).append(score.item())
            else:
                for index, name in enumerate(CHANNELS):
                    cells = maps[0, index].flatten().tolist()
                    mean = math.fsum(cells) / len(cells)
                    size = math.fsum(map(abs, cells)) / len(cells)
                    found.setdefault(f"{name}_signed", []).append(mean)
                    found.setdefault(f"{name}_absolute", []).append(size)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def close(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[name], other[name], rel_tol=1e-4, abs_tol=1e-6) for name in one
    )


@pytest.mark.parametrize("kind", METRICS)
def test_equals_a_plain_loop(kind: type) -> None:
    metric = kind()
    for preds, target in batches():
        metric.update(preds, target)
    assert close(flat(metric.compute()), by_loop(kind, batches()))


@pytest.mark.parametrize("kind", METRICS)
def test_batches_can_be_split_anyhow(kind: type) -> None:
    whole, single = kind(), kind()
    for preds, target in batches():
        whole.update(preds, target)
        for index in range(len(preds)):
            single.update(preds[index : index + 1], target[index : index + 1])
    assert close(flat(whole.compute()), flat(single.compute()))


@pytest.mark.parametrize("kind", METRICS)
def test_forward_gives_the_batch_and_keeps_the_sum(kind: type) -> None:
    metric = kind()
    for preds, target in batches():
        assert close(flat(metric(preds, target)), by_loop(kind, [(preds, target)]))
    assert close(flat(metric.compute()), by_loop(kind, batches()))


@pytest.mark.parametrize("kind", METRICS)
def test_reset_clone_and_pickle(kind: type) -> None:
    metric = kind(channel_weights={"noise": 2.0})
    first, second = batches()[:2]
    metric.update(*first)
    copies = [metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))]
    metric.update(*second)
    expected = flat(metric.compute())
    for other in copies:
        other.update(*second)
        assert close(flat(other.compute()), expected)
        assert repr(other) == repr(metric)
    metric.reset()
    metric.update(*second)
    fresh = kind(channel_weights={"noise": 2.0})
    fresh.update(*second)
    assert close(flat(metric.compute()), flat(fresh.compute()))


@pytest.mark.parametrize("kind", METRICS)
def test_no_weights_inside(kind: type) -> None:
    metric = kind()
    metric.update(*batches()[0])
    assert dict(metric.state_dict()) == {}
    assert list(metric.parameters()) == []
    assert list(metric.buffers()) == []
    assert len(pickle.dumps(metric)) < 20_000


@pytest.mark.parametrize("kind", METRICS)
def test_no_result_before_the_first_image(kind: type) -> None:
    with pytest.warns(UserWarning, match="before the ``update``"):
        value = flat(kind().compute())
    assert all(math.isnan(part) for part in value.values())


def test_class_constants() -> None:
    assert RelationalDistance.higher_is_better is False
    assert RelationalScore.higher_is_better is True
    assert RelationalDistance.plot_lower_bound == 0
    for kind in METRICS:
        assert kind.full_state_update is False
        assert kind.is_differentiable is False


def test_print_out_names_weights_and_options() -> None:
    metric = RelationalDistance(channel_weights={"noise": 2.0})
    for text in (repr(metric), metric.version):
        assert find_weights().version in text
        assert "noise" in text


@pytest.mark.parametrize("kind", METRICS)
def test_wrong_options_and_images_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="data_range"):
        kind(data_range=0)
    with pytest.raises(ValueError, match="no weights named"):
        kind(weights="none")
    with pytest.raises(ValueError, match="unknown channels"):
        kind(channel_weights={"hue": 1.0})
    metric = kind()
    with pytest.raises(ValueError, match="must lie in"):
        metric.update(*(255 * image for image in batches()[0]))
    metric.update(*batches()[0])
    assert close(flat(metric.compute()), by_loop(kind, batches()[:1]))


def test_no_gradient_is_recorded() -> None:
    preds, target = batches()[0]
    metric = RelationalDistance()
    value = metric(preds.requires_grad_(), target)
    assert not value.requires_grad
    assert not metric.distance_sum.requires_grad


def test_autocast_changes_nothing() -> None:
    plain, mixed = RelationalScore(), RelationalScore()
    plain.update(*batches()[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.update(*batches()[0])
    assert torch.equal(plain.compute(), mixed.compute())


def test_a_collection_runs_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    collection = MetricCollection([kind() for kind in METRICS], prefix="val_")
    data = batches()
    collection.update(*data[0])
    calls = []
    original = functional.encode_pair

    def count(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(functional, "encode_pair", count)
    for pair in data[1:]:
        collection.update(*pair)
    assert len(calls) == len(data) - 1
    result = {name: float(value) for name, value in collection.compute().items()}
    expected = {
        "val_RelationalDistance": by_loop(RelationalDistance, data)["value"],
        "val_RelationalScore": by_loop(RelationalScore, data)["value"],
    } | {f"val_{name}": value for name, value in by_loop(DistortionProfile, data).items()}
    assert close(result, expected)


def test_a_perfect_first_batch_does_not_merge_different_metrics() -> None:
    collection = MetricCollection(
        {"plain": RelationalDistance(), "noise": RelationalDistance(channel_weights={"noise": 9})}
    )
    image = torch.rand(1, 3, 32, 32)
    collection.update(image, image)
    collection.update(*batches()[0])
    alone = RelationalDistance(channel_weights={"noise": 9})
    alone.update(image, image)
    alone.update(*batches()[0])
    result = collection.compute()
    assert result["noise"] == alone.compute()
    assert result["noise"] > result["plain"]


def test_sums_keep_their_precision() -> None:
    metric = RelationalDistance()
    parent = nn.ModuleList([metric])
    parent.to(torch.bfloat16)
    parent.half()
    metric.set_dtype(torch.bfloat16)
    metric.update(*batches()[0])
    assert metric.distance_sum.dtype == metric.count.dtype == torch.float64
    metric.reset()
    assert metric.distance_sum.dtype == torch.float64


def test_devices_without_float64_get_float32() -> None:
    def to_such_a_device(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.clone()

    metric = RelationalDistance()
    metric._apply(to_such_a_device)
    for _ in range(2):
        for pair in batches():
            metric.update(*pair)
        assert metric.distance_sum.dtype == torch.float32
        assert close(flat(metric.compute()), by_loop(RelationalDistance, batches()))
        metric.reset()


@pytest.mark.parametrize("kind", METRICS)
def test_plots(kind: type) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metric = kind()
    value = metric(*batches()[0])
    figure, axes = metric.plot()
    assert axes.figure is figure
    _, into = plt.subplots()
    assert metric.plot(value, ax=into)[1] is into
    if kind is DistortionProfile:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == [name.replace("_", " ") for name in CHANNELS]
        signed = [bar.get_width() for bar in axes.patches[len(CHANNELS) :]]
        assert signed == pytest.approx([float(value[f"{name}_signed"]) for name in CHANNELS])
    plt.close("all")


def test_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = DistortionProfile()
    metric.update(*batches()[0])
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        metric.plot()


class Unsynchronised(RelationalDistance):
    """What a metric with a forgotten reduction would be."""

    def __init__(self) -> None:
        super().__init__(distributed_available_fn=_never)


def _never() -> bool:
    return False


SYNCHRONISED = (*METRICS, Unsynchronised)


def _sync_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for kind in SYNCHRONISED:
        metric = kind()
        # Shares of unequal size: a mean of the processes' means would be wrong.
        for pair in batches()[:1] if rank else batches()[1:]:
            metric.update(*pair)
        results[kind.__name__] = flat(metric.compute())
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(_sync_worker, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for kind in METRICS:
            assert close(found[kind.__name__], by_loop(kind, batches()))
        # The same comparison notices a metric that is not synchronised.
        assert not close(found["Unsynchronised"], by_loop(RelationalDistance, batches()))
