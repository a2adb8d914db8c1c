"""Selection in the Hugging Face Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from relqa_loss import RelationalLoss
from relqa_loss.selection import ImageScores

hf = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

from relqa_loss.selection.adapters.transformers import (  # noqa: E402
    RelationalMetrics,
    RelationalSelection,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

GAINS = (0.7, 1.2, 1.0, 0.9)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((3, 1, 1), 0.5))
        self.loss = RelationalLoss(on_out_of_range="clamp")

    def forward(self, image: Tensor, labels: Tensor) -> dict[str, Tensor]:
        restored = (image * self.gain).clamp(0, 1)
        return {"loss": self.loss(restored, labels), "restored": restored}


class SetGain(hf.TrainerCallback):  # type: ignore[misc, name-defined]
    """What each epoch reaches, so that the right choice is known."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].gain.data.fill_(GAINS[round(state.epoch) - 1])


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.data[index][0], "labels": self.data[index][1]}


def make(
    folder: Path,
    data: Any,
    *,
    by_batch: bool,
    score: bool = False,
    sets: Any = None,
    prefix: str = "eval",
    resume: bool = False,
) -> Any:
    metrics = RelationalMetrics(ImageScores("score") if score else None, metric_prefix=prefix)
    callback = RelationalSelection(folder / "selection", metrics, keep=2, resume=resume)
    arguments = hf.TrainingArguments(
        output_dir=str(folder / "hf"),
        num_train_epochs=len(GAINS),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        learning_rate=1e-6,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="no",
        load_best_model_at_end=True,
        batch_eval_metrics=by_batch,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **metrics.best_model_arguments(),
    )
    model = Model()
    trainer = hf.Trainer(
        model=model,
        args=arguments,
        train_dataset=Pairs(data),
        eval_dataset=sets or Pairs(data),
        compute_metrics=metrics,
        callbacks=[SetGain(), callback],
    )
    return trainer, callback, model


@pytest.mark.parametrize(("by_batch", "score"), [(False, False), (True, True)])
def test_trainer_and_selection_choose_the_same(
    tmp_path: Path, data: Any, by_batch: bool, score: bool
) -> None:
    trainer, callback, model = make(tmp_path, data, by_batch=by_batch, score=score)
    if not score:
        trainer.evaluate()
    trainer.train()
    name = "relational_score" if score else "relational_loss"
    selector = callback.selector
    steps = [3, 6, 9, 12] if score else [0, 3, 6, 9, 12]
    assert [entry.step for entry in selector.entries] == steps
    assert selector._ledger.settings["keep"] == 2
    # The distance certainly falls towards the reference. Which of these outputs of noise the score
    # prefers is up to the weights; what counts is that both take the highest.
    highest = max(selector.entries, key=lambda entry: entry.mean)
    step = highest.step if score else 6
    gain = torch.full((3, 1, 1), GAINS[step // 3 - 1])
    assert selector.chosen.step == callback.decision.chosen_step == step
    assert len(selector.chosen.values) == len(data)
    torch.testing.assert_close(selector.load()["gain"], gain)
    # The trainer's own choice: with greater_is_better left to its default, it takes the worst.
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{step}")
    assert trainer.state.best_metric == pytest.approx(selector.chosen.mean, abs=1e-6)
    torch.testing.assert_close(model.gain.detach(), gain)
    logged = [line[f"eval_{name}"] for line in trainer.state.log_history if f"eval_{name}" in line]
    # The trainer begins its log anew with the training.
    assert logged == pytest.approx([e.mean for e in selector.entries][-len(GAINS) :], abs=1e-6)
    # An evaluation after training is of whatever weights.
    trainer.evaluate()
    assert len(selector.entries) == len(steps)
    # Optimiser and checkpoints never see the network.
    file = tmp_path / "hf" / f"checkpoint-{step}" / "model.safetensors"
    assert list(load_file(file)) == ["gain"]
    assert sum(p.numel() for g in trainer.optimizer.param_groups for p in g["params"]) == 3
    assert max(f.stat().st_size for f in file.parent.iterdir()) < 50_000
    json.loads((file.parent / "trainer_state.json").read_text())


def test_the_same_object_is_needed_and_images(tmp_path: Path, data: Any) -> None:
    trainer, _, _ = make(tmp_path, data, by_batch=False)
    trainer.compute_metrics = RelationalMetrics()
    with pytest.raises(ValueError, match="same object"):
        trainer.train()
    trainer, _, _ = make(tmp_path / "renamed", data, by_batch=False)
    metrics = trainer.compute_metrics
    trainer.compute_metrics = lambda prediction: {"mine": sum(metrics(prediction).values())}
    with pytest.raises(ValueError, match="return what it returns"):
        trainer.evaluate()
    with pytest.raises(ValueError, match="images N×3×H×W"):
        RelationalMetrics()(hf.EvalPrediction({"a": 1}, {"a": 1}))
    images = torch.rand(16, 3, 32, 32).numpy()
    # As trainers hand on outputs of one image each.
    alone = RelationalMetrics(ImageScores(maps=False))
    assert alone(hf.EvalPrediction((images[:2],), [images[:2]])) == {"relational_loss": 0}
    for preds, target in ((images, images[:8]), (images[:8], images)):
        with pytest.raises(ValueError, match="shape"):
            alone(hf.EvalPrediction(preds, target))
    assert RelationalMetrics(ImageScores("score")).best_model_arguments() == {
        "metric_for_best_model": "eval_relational_score",
        "greater_is_better": True,
    }


def test_trained_weights_are_no_step_0_in_a_new_trainer(tmp_path: Path, data: Any) -> None:
    trainer, _, _ = make(tmp_path, data, by_batch=False)
    trainer.evaluate()
    trainer.train()
    ledger = (tmp_path / "selection" / "ledger.json").read_bytes()
    again, callback, model = make(tmp_path, data, by_batch=False, resume=True)
    # Better than all of the training's: it would be chosen.
    model.gain.data.fill_(1.25)
    again.evaluate()
    assert (tmp_path / "selection" / "ledger.json").read_bytes() == ledger
    assert callback.selector.chosen.step == 6


class EvaluateOthers(hf.TrainerCallback):  # type: ignore[misc, name-defined]
    """Evaluates further images during the training."""

    trainer: Any = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        others = self.trainer.eval_dataset["easy"]
        self.trainer.evaluate({"a": others, "b": others}, metric_key_prefix="further")


@pytest.mark.parametrize("by_batch", [False, True])
def test_of_several_sets_one_decides(tmp_path: Path, data: Any, by_batch: bool) -> None:
    # What is best for the easy set is worst for the hard one, and has the better mean.
    easy = Pairs([(clean, clean * 0.7) for _, clean in data])
    sets = {"easy": easy, "hard": Pairs(data), "hard_2": easy}
    trainer, callback, model = make(
        tmp_path, data, by_batch=by_batch, sets=sets, prefix="eval_hard"
    )
    others = EvaluateOthers()
    others.trainer = trainer
    trainer.add_callback(others)
    trainer.evaluate()
    trainer.train()
    selector = callback.selector
    assert [entry.step for entry in selector.entries] == [0, 3, 6, 9, 12]
    logged = [each for each in trainer.state.log_history if "eval_hard_relational_loss" in each]
    expected = [each["eval_hard_relational_loss"] for each in logged]
    assert [e.mean for e in selector.entries[1:]] == pytest.approx(expected, abs=1e-6)
    assert selector.chosen.step == 6
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-6")
    torch.testing.assert_close(model.gain.detach(), torch.full((3, 1, 1), 1.2))


@pytest.mark.parametrize(("prefix", "epochs"), [("eval", 1), ("eval_hrad", 2)])
def test_sets_of_which_none_decides_are_an_error(
    tmp_path: Path, data: Any, prefix: str, epochs: int
) -> None:
    sets = {"easy": Pairs(data), "hard": Pairs(data)}
    trainer, _, _ = make(tmp_path, data, by_batch=True, sets=sets, prefix=prefix)
    trainer.args.load_best_model_at_end = False
    trainer.args.metric_for_best_model = None
    with pytest.raises(ValueError, match=rf"{prefix}'.*metric_prefix='eval_easy'"):
        trainer.train()
    assert trainer.state.global_step == 3 * epochs


def test_a_training_after_one_that_was_interrupted_in_its_evaluation(
    tmp_path: Path, data: Any
) -> None:
    trainer, callback, model = make(tmp_path, data, by_batch=True)
    forward, calls = model.forward, []

    def interrupted(image: Tensor, labels: Tensor) -> dict[str, Tensor]:
        calls.append(model.training)
        if calls.count(False) == 2:
            raise KeyboardInterrupt
        result: dict[str, Tensor] = forward(image, labels)
        return result

    model.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    model.forward = forward
    trainer.train()
    assert [len(entry.values) for entry in callback.selector.entries] == [len(data)] * len(GAINS)
