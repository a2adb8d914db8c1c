"""Selection in PyTorch-Ignite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ignite", reason="PyTorch-Ignite is not installed")

from ignite.engine import Engine, Events

from relqa_loss.selection.adapters.ignite import RelationalSelection


def evaluator_of(model: Any) -> Engine:
    def step(engine: Engine, batch: Any) -> Any:
        with torch.no_grad():
            return model(batch[0]), batch[1]

    return Engine(step)


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
