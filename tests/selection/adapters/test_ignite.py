"""Selection in PyTorch-Ignite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("ignite", reason="PyTorch-Ignite is not installed")

from ignite.engine import Engine, Events

from relqa_loss import RelationalLoss
from relqa_loss.selection import ImageScores
from relqa_loss.selection.adapters.ignite import RelationalSelection


def evaluator_of(model: Any) -> Engine:
    def step(engine: Engine, batch: Any) -> Any:
        with torch.no_grad():
            return model(batch[0]), batch[1]

    return Engine(step)


def test_weights_of_a_compiled_model_are_those_of_the_bare_one(
    tmp_path: Path, tiny: Any, loader: Any
) -> None:
    compiled = torch.compile(tiny, backend="eager")
    trainer, evaluator = Engine(lambda engine, batch: None), evaluator_of(compiled)
    selection = RelationalSelection(tmp_path)
    selection.attach(evaluator, trainer, torch.nn.DataParallel(compiled))
    evaluator.run(loader)
    assert selection.selector is not None
    assert list(selection.selector.load()) == list(tiny.state_dict())


def test_chooses_by_the_evaluator(tmp_path: Path, tiny: Any, loader: Any) -> None:
    gains = (0.7, 1.2, 1.0)
    optimiser = torch.optim.SGD(tiny.parameters(), lr=1e-6)

    def train(engine: Engine, batch: Any) -> float:
        optimiser.zero_grad()
        loss = tiny.loss(tiny(batch[0]), batch[1])
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    trainer, evaluator = Engine(train), evaluator_of(tiny)
    selection = RelationalSelection(tmp_path)
    selection.attach(evaluator, trainer, torch.nn.DataParallel(tiny))
    seen = []

    @trainer.on(Events.STARTED)
    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        if engine.state.epoch:
            tiny.gain.data.fill_(gains[engine.state.epoch - 1])
        seen.append(evaluator.run(loader).metrics["relational_loss"])

    trainer.run(loader, max_epochs=3)
    selector = selection.selector
    assert selector is not None
    assert [entry.step for entry in selector.entries] == [0, 3, 6, 9]
    assert [entry.mean for entry in selector.entries] == seen
    assert selector.chosen is not None
    assert selection.decision is not None
    assert selector.chosen.step == selection.decision.chosen_step == 6
    assert list(selector.load()) == list(tiny.state_dict()) == ["gain"]
    torch.testing.assert_close(selector.load()["gain"], torch.full((3, 1, 1), 1.2))


def test_outputs_of_another_form(tmp_path: Path, tiny: Any, loader: Any) -> None:
    for folder, transform in (("a", None), ("b", lambda out: (out["y"], out["t"], out["k"]))):
        selection = RelationalSelection(tmp_path / folder, output_transform=transform)
        evaluator = Engine(
            lambda engine, b: {
                "y": b[1],
                "t": b[1],
                "k": [f"{engine.state.iteration}-{i}" for i in range(len(b[1]))],
            }
        )
        selection.attach(evaluator, Engine(lambda engine, batch: None), tiny)
        if transform is None:
            with pytest.raises(ValueError, match="output_transform"):
                evaluator.run(loader)
        else:
            assert evaluator.run(loader).metrics["relational_loss"] == 0
            assert selection.selector is not None
            assert selection.selector._ledger.images == ("1-0", "1-1", "2-0", "2-1", "3-0")


def test_scores_and_options_reach_the_selection(tmp_path: Path, tiny: Any, loader: Any) -> None:
    scores = ImageScores("score", maps=False)
    selection = RelationalSelection(tmp_path / "a", scores=scores, keep=3, confidence=0.5)
    evaluator = evaluator_of(tiny)
    selection.attach(evaluator, Engine(lambda engine, batch: None), tiny)
    assert list(evaluator.run(loader).metrics) == ["relational_score"]
    assert selection.selector is not None
    settings = selection.selector._ledger.settings
    found = [settings[name] for name in ("mode", "metric", "keep", "confidence")]
    assert found == ["max", "score", 3, 0.5]
    # A folder that cannot be used is found out before the training.
    again = RelationalSelection(tmp_path / "a")
    with pytest.raises(FileExistsError, match="resume=True"):
        again.attach(evaluator, Engine(lambda engine, batch: None), tiny)


def test_a_distributed_wrapper_is_looked_through(tmp_path: Path, tiny: Any, loader: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(tiny)
        selection, evaluator = RelationalSelection(tmp_path / "a"), evaluator_of(wrapped)
        selection.attach(evaluator, Engine(lambda engine, batch: None), wrapped)
        evaluator.run(loader)
        assert selection.selector is not None
        assert list(selection.selector.load()) == ["gain"]
    finally:
        dist.destroy_process_group()


def test_evaluations_after_the_training_do_not_count(tmp_path: Path, tiny: Any, data: Any) -> None:
    validation = [tuple(data.tensors)]
    # Of as many images, easier than those of the validation, and of fewer.
    others = [(clean, clean * 0.7) for clean in (data.tensors[1], data.tensors[1][:2])]

    def engines(**options: Any) -> tuple[Engine, Engine, RelationalSelection]:
        trainer, evaluator = Engine(lambda engine, batch: None), evaluator_of(tiny)
        selection = RelationalSelection(tmp_path / "run", **options)
        selection.attach(evaluator, trainer, tiny)
        return trainer, evaluator, selection

    trainer, evaluator, selection = engines()

    def validate(engine: Engine) -> None:
        evaluator.run(validation)

    # The last validation of a training may come when it has been completed.
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=2), validate)
    trainer.add_event_handler(Events.COMPLETED, validate)
    trainer.run([0, 1, 2])
    assert selection.selector is not None
    assert [entry.step for entry in selection.selector.entries] == [2, 3]
    ledger = (tmp_path / "run" / "ledger.json").read_bytes()
    tiny.gain.data.fill_(0.7)
    for other in others:
        expected = RelationalLoss()(other[0] * 0.7, other[1])
        metrics = evaluator.run([other]).metrics
        assert metrics["relational_loss"] == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    again = engines(resume=True)[1]
    again.run([others[0]])
    assert (tmp_path / "run" / "ledger.json").read_bytes() == ledger
