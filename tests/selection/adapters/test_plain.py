"""Selection in a loop of one's own, and the scores behind every adapter."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relqa_loss import RelationalLoss
from relqa_loss.metrics import DistortionProfile, RelationalDistance, RelationalScore
from relqa_loss.network.mapper import Mapper
from relqa_loss.selection import CheckpointSelector, ImageScores
from relqa_loss.selection.shared import SharedSelection


def test_plain_loop(tmp_path: Path, tiny: Any, loader: Any) -> None:
    optimiser = torch.optim.SGD(tiny.parameters(), lr=1e-6)
    selector = CheckpointSelector(tmp_path, veto={"ringing": 0.05})
    for step, gain in enumerate((0.5, 1.2, 0.9)):
        for degraded, clean in loader:
            optimiser.zero_grad()
            tiny.loss(tiny(degraded), clean).backward()
            optimiser.step()
        tiny.gain.data.fill_(gain)
        scores = ImageScores()
        with torch.no_grad():
            for degraded, clean in loader:
                scores.add(tiny(degraded), clean)
        selector.update(step, scores.values, state=tiny.state_dict(), profile=scores.profile)
    assert selector.chosen is not None
    assert selector.chosen.step == 1
    tiny.load_state_dict(selector.load())
    assert float(tiny.gain.detach().mean()) == pytest.approx(1.2)
    # Neither optimiser nor checkpoint has seen the network behind loss and scores.
    assert [id(p) for g in optimiser.param_groups for p in g["params"]] == [id(tiny.gain)]
    assert list(tiny.state_dict()) == list(selector.load()) == ["gain"]
    file = io.BytesIO()
    torch.save({"model": tiny.state_dict(), "optimiser": optimiser.state_dict()}, file)
    assert file.tell() < 10_000


@pytest.mark.parametrize("metric", ["distance", "score"])
def test_scores_agree_with_the_metrics(metric: Any, loader: Any) -> None:
    scores = ImageScores(metric)
    mean = RelationalDistance() if metric == "distance" else RelationalScore()
    profile = DistortionProfile()
    for degraded, clean in loader:
        scores.add(degraded, clean)
        mean.update(degraded, clean)
        profile.update(degraded, clean)
    assert len(scores) == len(scores.values) == 5
    assert scores.mode == ("max" if mean.higher_is_better else "min")
    assert scores.mean == pytest.approx(float(mean.compute()), abs=1e-6)
    expected = profile.compute()
    for channel, value in scores.profile.items():
        assert value == pytest.approx(float(expected[f"{channel}_signed"]), abs=1e-6)


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_the_default_is_the_loss_with_its_pixel_term(white: float) -> None:
    # Of some noise a little is a blur to the metric, which the loss does not ask for.
    preds, target = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scores = ImageScores(data_range=white)
    scores.add(preds * white, target * white)
    assert (scores.metric, scores.name, scores.mode) == ("loss", "relational_loss", "min")
    expected = RelationalLoss(reduction="none")(preds, target)
    assert scores.values == pytest.approx(expected.tolist(), rel=1e-4)
    alone = ImageScores("distance", data_range=white)
    alone.add(preds * white, target * white)
    assert all(a < b for a, b in zip(alone.values, scores.values, strict=True))


@pytest.mark.parametrize("mode", ["clamp", "ignore"])
def test_images_out_of_range_are_scored_as_losses_and_metrics_see_them(mode: Any) -> None:
    preds, target = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    preds = (1.4 * preds - 0.2).requires_grad_()
    scores = ImageScores(on_out_of_range=mode)
    rows = scores.measure(preds, target)
    assert not rows.requires_grad
    expected = RelationalLoss(reduction="none", on_out_of_range=mode)(preds, target)
    assert rows[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    alone = ImageScores("distance", on_out_of_range=mode, maps=False)
    alone.add(preds, target)
    metric = RelationalDistance(on_out_of_range=mode)
    metric.update(preds, target)
    assert alone.mean == pytest.approx(float(metric.compute()), rel=1e-5)
    with pytest.raises(ValueError, match="range"):
        ImageScores().add(preds, target)
    # Scores of half precision are collected in single precision, as others are.
    half = [image.detach().clamp(0, 1).bfloat16() for image in (preds, target)]
    single = scores.measure(*(image.float() for image in half))
    torch.testing.assert_close(scores.measure(*half), single)


def test_wrong_options_are_found_out_before_any_image(tmp_path: Path) -> None:
    for options, message in (
        ({"channel_weights": {"ringin": 2.0}}, "ringin"),
        ({"data_range": -1.0}, "data_range"),
        ({"on_out_of_range": "cut"}, "on_out_of_range"),
        ({"weights": "no-such"}, "no-such"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageScores(**options)  # type: ignore[arg-type]
    others = (("mode", "max"), ("metric", "score"), ("version", "other"))
    for name, value in others:
        with pytest.raises(ValueError, match=rf"{name}='{value}' contradicts scores of the loss"):
            SharedSelection(tmp_path, **{name: value})


def test_a_decision_forgets_its_scores_even_if_it_fails() -> None:
    shared = SharedSelection(None)
    row = [0.5, *[0.0] * len(shared.scores.channels)]
    shared.scores.add_rows([row, row])
    shared.decide(0, None)
    assert (len(shared.scores), shared.begun(), shared.has(0), shared.has(3)) == (
        0,
        False,
        True,
        False,
    )
    shared.scores.add_rows([row])
    with pytest.raises(ValueError, match="same images"):
        shared.decide(3, None)
    shared.scores.add_rows([row, row], ["a", "b"])
    with pytest.raises(ValueError, match="by key"):
        shared.decide(3, None)
    shared.scores.add_rows([row, row])
    shared.decide(3, None)
    assert shared.begun()
    assert shared.has(3)
    with pytest.raises(ValueError, match="one score per image"):
        shared.decide(6, None)


def test_what_was_gathered_has_the_options_of_its_parts() -> None:
    scores = ImageScores(
        "score",
        data_range=255.0,
        weights="relqa-nano",
        channel_weights={"ringing": 2.0},
        on_out_of_range="clamp",
        maps=False,
    )
    whole = scores.gathered([scores])
    for name in ("metric", "mode", "version", "data_range", "on_out_of_range", "maps"):
        assert getattr(whole, name) == getattr(scores, name)


@pytest.mark.parametrize("metric", ["loss", "distance", "score"])
def test_without_maps_the_values_are_the_same(metric: Any, loader: Any) -> None:
    full, lean = ImageScores(metric), ImageScores(metric, maps=False)
    for degraded, clean in loader:
        full.add(degraded, clean)
        lean.add(degraded, clean)
    assert lean.values == pytest.approx(full.values, rel=1e-6)
    assert lean.mean == pytest.approx(full.mean)
    assert lean.profile == {}
    assert lean.gathered([lean]).values == lean.values
    assert lean.gathered([lean]).profile == {}


def test_without_maps_the_network_that_draws_them_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the mapper was asked")

    monkeypatch.setattr(Mapper, "forward", fail)
    images = torch.rand(1, 3, 32, 32)
    ImageScores(maps=False).add(images, images)
    with pytest.raises(RuntimeError, match="mapper"):
        ImageScores().add(images, images)


def test_shared_selection_without_maps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="maps=True"):
        SharedSelection(tmp_path / "a", ImageScores(maps=False), veto={"ringing": 0.1})
    shared = SharedSelection(tmp_path / "b", ImageScores(maps=False))
    images = torch.rand(1, 3, 32, 32)
    shared.scores.add(images, images)
    assert shared.decide(0, {}).chosen
    assert shared.selector is not None
    assert shared.selector.entries[0].profile is None


def test_a_veto_on_no_channel_is_found_out_at_once(tmp_path: Path) -> None:
    for name in ("ringin", "-ringin"):
        with pytest.raises(ValueError, match=rf"no channel named '{name}'; there are .*ringing"):
            SharedSelection(tmp_path, veto={name: 0.1})
    SharedSelection(tmp_path, veto={"ringing": 0.1, "-sharpness": 0.1})


def test_keys_and_parts() -> None:
    parts = [ImageScores(), ImageScores()]
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    parts[0].add(images[:2] * 0.5, images[:2], ["a", "b"])
    parts[1].add(images[[2, 0]] * 0.5, images[[2, 0]], ["c", "a"])
    whole = ImageScores().gathered(parts)
    expected = ImageScores()
    expected.add(images * 0.5, images, ["a", "b", "c"])
    assert whole.values == pytest.approx(expected.values)
    assert whole.profile == pytest.approx(expected.profile)
    # A process that got no images knows of no keys, wherever it stands.
    for at in range(3):
        assert parts[0].gathered([*parts[:at], ImageScores(), *parts[at:]]).values == whole.values
    for keys, message in ((["a"], "unique"), (["x", "y"], "one per image"), (None, "or with none")):
        with pytest.raises(ValueError, match=message):
            parts[0].add(images[:1], images[:1], keys)
    with pytest.raises(ValueError, match="'distance' or 'score'"):
        ImageScores("psnr")  # type: ignore[arg-type]
    parts[0].reset()
    assert len(parts[0]) == 0
    assert not isinstance(parts[0], nn.Module)


@pytest.mark.parametrize(
    ("adapter", "package"),
    [
        ("lightning", "lightning"),
        ("transformers", "transformers"),
        ("ignite", "ignite"),
        ("accelerate", "accelerate"),
    ],
)
def test_a_missing_framework_is_named_with_the_extra(
    adapter: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"relqa_loss.selection.adapters.{adapter}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    for loaded in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    if package == "lightning":
        monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'relqa-loss\[adapters\]'"):
        __import__(name)


def test_selection_itself_imports_no_framework() -> None:
    code = (
        "import sys, relqa_loss.selection, relqa_loss.selection.adapters\n"
        "names = {'lightning', 'transformers', 'ignite', 'accelerate'}\n"
        "sys.exit(', '.join(names & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_of_another_metric_are_not_mixed_after_a_resume(tmp_path: Path) -> None:
    for begun, other in (("loss", "distance"), ("distance", "loss"), ("distance", "score")):
        folder = tmp_path / f"{begun}-{other}"
        CheckpointSelector(folder, version=ImageScores(begun).version).update(0, [1.0])
        CheckpointSelector(folder, version=ImageScores(begun).version, resume=True)
        with pytest.raises(ValueError, match="was begun with version="):
            CheckpointSelector(folder, version=ImageScores(other).version, resume=True)


def test_scores_of_other_weights_are_not_mixed_after_a_resume(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 32, 32)

    def resumed(folder: str = "run", **options: Any) -> Any:
        shared = SharedSelection(tmp_path / folder, ImageScores(maps=False, **options), resume=True)
        shared.scores.add(images, images * 0.9)
        shared.decide(0, {})
        return shared.selector

    first = resumed()
    others = [
        {"weights": "relqa-nano"},
        {"data_range": 2.0},
        {"channel_weights": {"ringing": 2.0}},
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"was begun with version='relqa-base@.*new folder"):
            resumed(**other)
    # What to do with an image out of range does not change the others' scores.
    assert resumed(on_out_of_range="clamp").entries == first.entries
    # To look at the choice takes no scores, and a ledger of before has no version.
    assert CheckpointSelector(tmp_path / "run", resume=True).entries == first.entries
    with pytest.raises(ValueError, match="was begun with version"):
        resumed(**others[0])
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text("utf-8"))
    del ledger["settings"]["version"]
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "ledger.json").write_text(json.dumps(ledger), "utf-8")
    (file,) = (tmp_path / "run").glob("*.safetensors")
    (tmp_path / "before" / file.name).write_bytes(file.read_bytes())
    assert resumed("before").entries == first.entries
    with pytest.raises(ValueError, match="was begun with version"):
        resumed("before", **others[0])


def test_keys_may_be_a_tensor_of_any_device() -> None:
    # As a loader leaves the indices of a batch, which a framework then moves to its device. The
    # text of a tensor says on which of them it is, so images that two processes share would differ.
    keys = torch.tensor([7, 3])
    for given in (keys, list(keys), keys.to(torch.int32)):
        scores = ImageScores(maps=False)
        scores.add_rows([[0.5], [0.25]], given)
        assert scores.values == {"7": 0.5, "3": 0.25}


def test_means_are_worked_out_on_the_cpu_whatever_the_default_device() -> None:
    scores = ImageScores()
    scores.add_rows([[0.5, *[0.25] * len(scores.channels)]])
    # Stands for one that has no float64, such as Apple's.
    with torch.device("meta"):
        assert scores.mean == 0.5
        assert set(scores.profile.values()) == {0.25}
