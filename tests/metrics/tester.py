"""What every metric must do, whatever it measures: checks that raise ``AssertionError``.

They ask for what torchmetrics asks of its own metrics, and for what this library promises beyond:
no weights inside, sums that keep their precision. ``test_conformance.py`` runs them on all metrics
of the library, and on metrics broken on purpose.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, MetricTracker
from torchmetrics.wrappers import BootStrapper, MinMaxMetric

Batch = Mapping[str, Tensor]
Values = dict[str, float]
CONSTANTS = (
    "higher_is_better",
    "is_differentiable",
    "full_state_update",
    "plot_lower_bound",
    "plot_upper_bound",
)


def flat(value: Any) -> Values:
    """Numbers by name; a scalar is called ``value``."""
    if isinstance(value, Mapping):
        return {name: float(part) for name, part in value.items()}
    return {"value": float(value)}


def read(metric: Metric) -> Values:
    """The result alone."""
    return flat(metric.compute())


@dataclass(frozen=True)
class Case:
    """A metric, images for it, and what it must say about them.

    Everything is sent to other processes, so functions must be those of a module.
    """

    build: Callable[..., Metric]
    batches: Sequence[Batch]
    """By argument's name, in the order of ``update``; sizes and counts differ, the last is odd."""
    reference: Callable[[Sequence[Batch]], Values]
    """The same from the network's bare output, one image at a time, summed by Python."""
    constants: Mapping[str, object]
    """Expected class constants."""
    read: Callable[[Metric], Values] = read
    """All results; ``reference`` has a value for each."""
    scalar: bool = True
    rounding: float = 2e-5
    """How far batches of other sizes, in which convolutions round differently, may put results
    apart, relative to them."""

    def expect(self, batches: Sequence[Batch] | None = None) -> Values:
        return self.reference(self.batches if batches is None else batches)

    def filled(self, batches: Sequence[Batch] | None = None, **options: Any) -> Metric:
        metric = self.build(**options)
        for batch in self.batches if batches is None else batches:
            metric.update(*batch.values())
        return metric


def assert_close(found: Values, expected: Values, what: str, rtol: float = 1e-4) -> None:
    """All that was found must be expected, up to the rounding of float32."""
    assert found, f"{what}: no result"
    for name, value in found.items():
        other = expected[name]
        same = math.isclose(value, other, rel_tol=rtol, abs_tol=1e-6)
        assert same, f"{what}: {name} is {value}, expected {other}"


def check_result(case: Case) -> None:
    metric = case.filled()
    assert_close(case.read(metric), case.expect(), "overall")
    assert case.read(metric).keys() == case.expect().keys(), "results and reference differ in kind"
    assert_close(case.read(metric), case.expect(), "read twice")
    metric.update(*case.batches[0].values())
    assert_close(case.read(metric), case.expect([*case.batches, case.batches[0]]), "continued")


def check_forward(case: Case) -> None:
    metric = case.build()
    for batch in case.batches:
        assert_close(flat(metric(*batch.values())), case.expect([batch]), "batch value")
    assert_close(case.read(metric), case.expect(), "overall, after forward")
    by_name = case.build()
    for batch in case.batches:
        by_name.update(**batch)
    assert case.read(by_name) == case.read(case.filled()), "arguments by name"


def check_split(case: Case) -> None:
    single = [
        {name: images[index : index + 1] for name, images in batch.items()}
        for batch in case.batches
        for index in range(len(batch["preds"]))
    ]
    for order in (single, single[::-1]):
        assert_close(case.read(case.filled(order)), case.expect(), "one image at a time")


def check_reset(case: Case) -> None:
    metric = case.filled()
    metric.compute()
    metric.reset()
    for name, default in metric._defaults.items():
        same = torch.allclose(getattr(metric, name), default, rtol=0, atol=0, equal_nan=True)
        assert same, f"reset leaves {name}"
    assert not metric.update_called, "reset leaves the count of updates"
    metric.update(*case.batches[0].values())
    assert_close(case.read(metric), case.expect(case.batches[:1]), "after reset")


def check_copies(case: Case) -> None:
    first, *rest = case.batches
    metric = case.filled([first])
    copies = [metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))]
    for batch in rest:
        metric.update(*batch.values())
    for other in copies:
        assert_close(case.read(other), case.expect([first]), "copy follows its original")
        for batch in rest:
            other.update(*batch.values())
        assert case.read(other) == case.read(metric), "copy"
        assert repr(other) == repr(metric), "print-out of the copy"
        assert hash(other) != hash(metric), "a copy is another metric"


def check_state(case: Case) -> None:
    metric = case.filled()
    assert not list(metric.parameters()), "a metric with parameters would be trained"
    assert not list(metric.buffers()), "buffers would be saved in checkpoints"
    assert dict(metric.state_dict()) == {}, "state_dict() must be empty by default"
    assert not list(metric.children()), "a metric must not hold modules"
    assert len(pickle.dumps(metric)) < 20_000, "a pickled metric carries weights"
    for name in metric._defaults:
        assert isinstance(getattr(metric, name), Tensor), f"state {name} grows with the data"
        assert getattr(metric, name).numel() <= 64, f"state {name} is large"
    # A user can ask for states in checkpoints, and get them.
    metric.persistent(True)
    other = case.build()
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    other._update_count = metric._update_count  # not among the states of torchmetrics
    assert case.read(other) == case.read(metric), "states loaded"


def check_constants(case: Case) -> None:
    metric = case.build()
    kind = type(metric)
    for name in CONSTANTS:
        found = getattr(kind, name)
        assert found == case.constants.get(name), f"{name} is {found}"
        try:
            setattr(metric, name, found)
        except RuntimeError:
            continue
        raise AssertionError(f"{name} can be changed")


def check_empty(case: Case) -> None:
    metric = case.build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = case.read(metric)
    assert any("before the ``update``" in str(one.message) for one in caught), "no warning"
    assert all(math.isnan(value) for value in values.values()), f"{values} without images"


def check_precision(case: Case) -> None:
    metric = case.build()
    nn.ModuleList([metric]).half().bfloat16().to(torch.float16)
    metric.half()
    metric.set_dtype(torch.bfloat16)
    for batch in case.batches:
        metric.update(*(images.half() for images in batch.values()))
    states = {name: getattr(metric, name).dtype for name in metric._defaults if name != "options"}
    assert set(states.values()) == {torch.float64}, f"sums in {states}"
    rounded = [{n: images.half().float() for n, images in b.items()} for b in case.batches]
    assert_close(case.read(metric), case.expect(rounded), "half-precision images")
    result = metric.compute()
    for part in result.values() if isinstance(result, Mapping) else [result]:
        assert part.dtype == torch.float32, f"result in {part.dtype}"
    metric.reset()
    assert metric.count.dtype == torch.float64, "reset forgets the precision"

    def without_float64(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.clone()

    moved = case.build()
    moved._apply(without_float64)
    for _ in range(2):
        for batch in case.batches:
            moved.update(*batch.values())
        assert moved.count.dtype == torch.float32
        assert_close(case.read(moved), case.expect(), "sums in float32")
        moved.reset()


def check_differentiability(case: Case) -> None:
    metric = case.build()
    first, *others = case.batches[0].values()
    result = metric(first.clone().requires_grad_(), *others)
    for part in result.values() if isinstance(result, Mapping) else [result]:
        assert part.requires_grad is type(metric).is_differentiable, "is_differentiable is untrue"
    for name in metric._defaults:
        assert not getattr(metric, name).requires_grad, f"state {name} keeps the graph"


def check_collection(case: Case) -> None:
    same = {"a": case.build(), "b": case.build(), "other": case.build(on_out_of_range="clamp")}
    collection = MetricCollection(same, prefix="val_")
    for batch in case.batches:
        collection.update(**batch)
    groups = sorted(sorted(names) for names in collection.compute_groups.values())
    assert groups == [["a", "b"], ["other"]], f"compute groups {groups}"
    result = collection.compute()
    expected = case.expect()
    if case.scalar:
        for name in same:
            assert_close({"value": float(result[f"val_{name}"])}, expected, "collection")
    for name in collection:
        assert_close(case.read(collection[name]), expected, "member of a collection")
    collection.reset()
    for batch in case.batches:
        collection(**batch)
    assert_close(case.read(collection["b"]), expected, "collection, after forward")


def check_tracker(case: Case) -> None:
    better = case.constants["higher_is_better"]
    if better is None:
        try:
            MetricTracker(case.build(), maximize=None)
        except AttributeError:
            pass
        else:
            raise AssertionError("no direction, yet one of several values is called best")
    tracker = MetricTracker(case.build(), maximize=bool(better))
    for batch in case.batches:
        tracker.increment()
        tracker.update(**batch)
    each = [case.expect([batch]) for batch in case.batches]
    every = tracker.compute_all()
    if not case.scalar:
        for name, values in every.items():
            for value, expected in zip(values, each, strict=True):
                assert_close({name: float(value)}, expected, "tracker")
        return
    values = [expected["value"] for expected in each]
    for value, expected in zip(every, each, strict=True):
        assert_close({"value": float(value)}, expected, "tracker")
    best, step = tracker.best_metric(return_step=True)
    wanted = (max if better else min)(values)
    assert_close({"value": float(best)}, {"value": wanted}, "best of the tracker")
    assert values[step] == wanted, "step of the best"


def check_bootstrap(case: Case) -> None:
    # Resampling single images changes nothing, so that the result is known.
    strapper = BootStrapper(
        case.build(), num_bootstraps=3, raw=True, sampling_strategy="multinomial"
    )
    for batch in case.batches:
        for index in range(len(batch["preds"])):
            strapper.update(**{name: image[index : index + 1] for name, image in batch.items()})
    if not case.scalar:
        try:
            strapper.compute()
        except TypeError:
            return
        raise AssertionError("torchmetrics can bootstrap dictionaries now: check their values")
    result = strapper.compute()
    assert_close({"value": float(result["mean"])}, case.expect(), "bootstrap")
    # Not their deviation, which is not exactly 0: torch rounds the mean of three equal numbers.
    assert bool((result["raw"] == result["raw"][0]).all()), "bootstrap of single images"
    mixed = BootStrapper(case.build(), num_bootstraps=8, raw=True, sampling_strategy="multinomial")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixed.update(**case.batches[0])
    single = [
        case.expect([{n: x[i : i + 1] for n, x in case.batches[0].items()}])["value"]
        for i in range(len(case.batches[0]["preds"]))
    ]
    raw = mixed.compute()["raw"]
    # A batch and its images one by one may differ in their last digits.
    slack = 1e-5 * max(1.0, *(abs(value) for value in single))
    assert raw.min() >= min(single) - slack, "bootstrap below all images"
    assert raw.max() <= max(single) + slack, "bootstrap above all images"
    if len(set(single)) > 1:
        assert raw.std() > 0, "bootstrap does not resample"


def check_min_max(case: Case) -> None:
    wrapper = MinMaxMetric(case.build())
    if not case.scalar:
        wrapper.update(**case.batches[0])
        try:
            wrapper.compute()
        except RuntimeError:
            return
        raise AssertionError("torchmetrics takes extremes of dictionaries now: check their values")
    values = []
    for batch in case.batches:
        wrapper._base_metric.reset()
        wrapper.update(**batch)
        values.append(case.expect([batch])["value"])
        expected = {"raw": values[-1], "min": min(values), "max": max(values)}
        wrapper._computed = None
        assert_close(flat(wrapper.compute()), expected, "extremes")


def check_merge(case: Case) -> None:
    one, other = case.filled(case.batches[:1]), case.filled(case.batches[1:])
    if hasattr(one, "merge_state"):  # torchmetrics >= 1.5
        one.merge_state(other)
        assert_close(case.read(one), case.expect(), "merged")


def check_plot(case: Case) -> None:
    try:
        import matplotlib
    except ModuleNotFoundError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metric = case.build()
    values = [metric(*batch.values()) for batch in case.batches]
    figure, axes = metric.plot()
    assert axes.figure is figure
    _, into = plt.subplots()
    assert metric.plot(values[0], ax=into)[1] is into, "plot ignores the axes it is given"
    if case.scalar:
        _, axes = metric.plot(values)
        drawn = axes.lines[0].get_ydata()
        assert [float(value) for value in drawn] == [float(value) for value in values], "plot"
        low, high = axes.get_ylim()
        for name, limit in (("plot_lower_bound", low), ("plot_upper_bound", high)):
            bound = case.constants.get(name)
            near = bound is None or math.isclose(limit, float(bound), abs_tol=0.1 * (high - low))  # type: ignore[arg-type]
            assert near, f"{name}: the axis ends at {limit}"
    plt.close("all")


def check_print_out(case: Case) -> None:
    plain, other = case.build(), case.build(channel_weights={"noise": 2.0})
    assert plain._weights_version in repr(plain)  # type: ignore[operator]
    assert plain.version != other.version, "the version does not tell options apart"
    assert repr(plain) != repr(other), "the print-out does not tell options apart"
    assert "noise" in repr(other)


CHECKS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("check_"): value
    for name, value in list(globals().items())
    if name.startswith("check_")
}
"""Checks within one process, by name."""


def run_distributed(cases: Mapping[str, Case], folder: Path) -> list[dict[str, dict[str, Values]]]:
    """Two processes, started once for all cases; what each of them found, by case and kind."""
    mp.spawn(_worker, (str(folder), dict(cases)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def check_distributed(case: Case, found: Sequence[dict[str, Values]]) -> None:
    """The results of :func:`run_distributed` for this case, from both processes."""
    first = case.batches[0]
    expected = {
        "uneven": case.expect(),
        "again": case.expect(),
        "continued": case.expect([*case.batches, first, first]),
        "idle": case.expect([first]),
        "on_step": case.expect(case.batches[:2]),
        "collection": case.expect(),
    }
    for rank, results in enumerate(found):
        assert results.keys() == {*expected, "local"}, f"rank {rank} did not finish"
        for kind, values in expected.items():
            assert_close(results[kind], values, f"rank {rank}, {kind}", rtol=case.rounding)
        share = case.batches[:1] if rank else case.batches[1:]
        assert_close(results["local"], case.expect(share), f"rank {rank}, own share")


def _worker(rank: int, folder: str, cases: dict[str, Case]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # one process has no images, and is told so
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for name, case in cases.items():
        # Shares of unequal size: a mean of the processes' means would be wrong.
        share = case.batches[:1] if rank else case.batches[1:]
        metric = case.filled(share)
        results = {"uneven": case.read(metric), "again": case.read(metric)}
        metric.update(*case.batches[0].values())
        results["continued"] = case.read(metric)
        results["idle"] = case.read(case.filled([] if rank else case.batches[:1]))
        results["local"] = case.read(case.filled(share, sync_on_compute=False))
        results["on_step"] = flat(case.build(dist_sync_on_step=True)(*case.batches[rank].values()))
        collection = MetricCollection({"a": case.build(), "b": case.build()})
        for batch in share:
            collection.update(**batch)
        collection.compute()
        results["collection"] = case.read(collection["b"])
        found[name] = results
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
