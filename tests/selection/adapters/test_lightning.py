"""Selection in Lightning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from relqa_loss import RelationalLoss
from relqa_loss.selection import ImageScores

pl = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from relqa_loss.selection.adapters.lightning import RelationalSelection  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, tiny: nn.Module, gains: tuple[float, ...]) -> None:
        super().__init__()
        self.tiny = tiny
        self.loss = RelationalLoss(on_out_of_range="clamp")
        self.gains = gains

    def training_step(self, batch: Any, _: int) -> Tensor:
        value: Tensor = self.loss(self.tiny(batch[0]), batch[1])
        return value

    def on_validation_epoch_start(self) -> None:
        # What each epoch reaches is set here, so that the right choice is known.
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.tiny.gain.data.fill_(self.gains[self.current_epoch])

    def validation_step(self, batch: Any, _: int) -> dict[str, Tensor]:
        return {"preds": self.tiny(batch[0]), "target": batch[1]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def fit(folder: Path, tiny: Any, loader: Any, callback: Any, *more: Any) -> tuple[Any, Module]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(more),
        num_sanity_val_steps=1,
        callbacks=[*more, callback],
    )
    module = Module(tiny, (0.7, 1.2, 1.0, 0.9))
    trainer.validate(module, loader, verbose=False)
    trainer.fit(module, loader, loader)
    return trainer, module


def test_callback_and_model_checkpoint_choose_the_same(
    tmp_path: Path, tiny: Any, loader: Any, data: Any
) -> None:
    callback = RelationalSelection(tmp_path / "selection", keep=2)
    saver = ModelCheckpoint(
        tmp_path / "saved", filename="{step}", monitor=callback.monitor, mode=callback.mode
    )
    trainer, module = fit(tmp_path, tiny, loader, callback, saver)
    selector = callback.selector
    assert selector is not None
    # Step 0 by validate; the sanity check does not count; three batches an epoch.
    assert [entry.step for entry in selector.entries] == [0, 3, 6, 9, 12]
    assert selector.chosen is not None
    assert selector.chosen.step == 6
    assert callback.decision is not None
    assert callback.decision.chosen_step == 6
    torch.testing.assert_close(selector.load()["tiny.gain"], torch.full((3, 1, 1), 1.2))
    loss = RelationalLoss(reduction="none")
    expected = loss((data.tensors[0] * 1.2).clamp(0, 1), data.tensors[1])
    assert selector.chosen.values == pytest.approx(expected.tolist(), rel=1e-6)
    assert "step=6" in saver.best_model_path
    assert float(saver.best_model_score) == pytest.approx(selector.chosen.mean, rel=1e-6)
    assert trainer.callback_metrics[callback.monitor] == pytest.approx(
        selector.entries[-1].mean, rel=1e-6
    )
    # A validation after training is of whatever weights: it gives the mean, and is no checkpoint.
    module.tiny.gain.data.fill_(1.0)
    (logged,) = trainer.validate(module, loader, verbose=False)
    assert logged[callback.monitor] == pytest.approx(selector.entries[3].mean, rel=1e-5)
    assert len(selector.entries) == 5


def test_optimiser_and_checkpoint_never_see_the_network(
    tmp_path: Path, tiny: Any, loader: Any
) -> None:
    callback = RelationalSelection(tmp_path / "selection")
    saver = ModelCheckpoint(tmp_path / "saved", monitor=callback.monitor, mode="min")
    trainer, module = fit(tmp_path, tiny, loader, callback, saver)
    assert [name for name, _ in module.named_parameters()] == ["tiny.gain"]
    (group,) = trainer.optimizers[0].param_groups
    assert [id(p) for p in group["params"]] == [id(tiny.gain)]
    file = Path(saver.best_model_path)
    saved = torch.load(file, weights_only=False)
    assert list(saved["state_dict"]) == ["tiny.gain"]
    assert file.stat().st_size < 20_000
    assert callback.selector is not None
    assert list(callback.selector.load()) == ["tiny.gain"]


def test_resumes_and_needs_images(tmp_path: Path, tiny: Any, loader: Any) -> None:
    first = RelationalSelection(tmp_path / "selection")
    fit(tmp_path, tiny, loader, first)
    tiny.gain.data.fill_(0.5)
    again = RelationalSelection(tmp_path / "selection", resume=True)
    fit(tmp_path, tiny, loader, again)
    assert first.selector is not None
    assert again.selector is not None
    assert again.selector.entries == first.selector.entries
    with pytest.raises(FileExistsError, match="resume=True"):
        fit(tmp_path, tiny, loader, RelationalSelection(tmp_path / "selection"))
    wrong = RelationalSelection(tmp_path / "other", pairs=lambda outputs, batch: batch)
    with pytest.raises(ValueError, match="validation_step, or give pairs"):
        fit(tmp_path, tiny, loader, wrong)
    with pytest.raises(ValueError, match="contradicts"):
        RelationalSelection(tmp_path, mode="max")


@pytest.mark.parametrize("rehearsal", [False, True])
def test_scores_keys_and_options_reach_the_selection(
    tmp_path: Path, tiny: Any, data: Any, rehearsal: bool
) -> None:
    def named(outputs: Any, batch: Any) -> dict[str, Any]:
        return {**outputs, "keys": batch[2]}

    callback = RelationalSelection(
        tmp_path / "selection", scores=ImageScores("score"), pairs=named, keep=3, confidence=0.5
    )
    assert (callback.monitor, callback.mode) == ("val/relational_score", "max")
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = pl.Trainer(fast_dev_run=rehearsal, callbacks=[callback], **options)
    images = TensorDataset(*data.tensors, torch.tensor([3, 1, 4, 0, 2]))
    trainer.validate(Module(tiny, ()), DataLoader(images, batch_size=5), verbose=False)
    assert callback.monitor in trainer.callback_metrics
    assert callback.selector is not None
    assert callback.selector._ledger.images == ("0", "1", "2", "3", "4")
    settings = callback.selector._ledger.settings
    found = [settings[name] for name in ("mode", "metric", "keep", "confidence")]
    assert found == ["max", "score", 3, 0.5]


def test_trained_weights_are_no_step_0_in_a_new_trainer(
    tmp_path: Path, tiny: Any, loader: Any
) -> None:
    first = RelationalSelection(tmp_path / "selection", keep=None)
    trainer, module = fit(tmp_path, tiny, loader, first)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    ledger = (tmp_path / "selection" / "ledger.json").read_bytes()
    again = RelationalSelection(tmp_path / "selection", keep=None, resume=True)
    # Better than all of the training's: it would be chosen.
    tiny.gain.data.fill_(1.25)
    new = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[again])
    new.validate(module, loader, verbose=False)
    assert (tmp_path / "selection" / "ledger.json").read_bytes() == ledger
    assert again.selector is not None
    torch.testing.assert_close(again.selector.load(0)["tiny.gain"], torch.full((3, 1, 1), 0.5))
    # Nor are those of a checkpoint, of which a new folder knows nothing.
    other = RelationalSelection(tmp_path / "other")
    new = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[other])
    new.validate(module, loader, tmp_path / "last.ckpt", verbose=False)
    assert other.selector is not None
    assert other.selector.entries == ()


class Swapped(pl.Callback):  # type: ignore[misc, name-defined]
    """Validates other weights than those in training, as Lightning's ``WeightAveraging`` does."""

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.trained = pl_module.tiny.gain.detach().clone()
        pl_module.tiny.gain.data.mul_(0.5)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.tiny.gain.data.copy_(self.trained)


def test_weights_that_were_validated_are_kept(
    tmp_path: Path, tiny: Any, loader: Any, data: Any
) -> None:
    callback = RelationalSelection(tmp_path / "selection")
    swapped = Swapped()
    # The module sets its gain after the callbacks, so only the validation of step 0 is swapped.
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[swapped, callback],
    )
    trainer.validate(Module(tiny, ()), loader, verbose=False)
    assert callback.selector is not None
    assert callback.selector.chosen is not None
    gain = callback.selector.load()["tiny.gain"]
    expected = RelationalLoss(reduction="none")(data.tensors[0] * gain, data.tensors[1])
    assert callback.selector.chosen.values == pytest.approx(expected.tolist(), rel=1e-6)
    assert torch.equal(tiny.gain, swapped.trained)


def test_a_fast_dev_run_leaves_the_folder_alone(tmp_path: Path, tiny: Any, loader: Any) -> None:
    folder = tmp_path / "selection"
    callback = RelationalSelection(folder)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    rehearsal = pl.Trainer(fast_dev_run=True, callbacks=[callback], **options)
    module = Module(tiny, (0.7,))
    rehearsal.validate(module, loader, verbose=False)
    rehearsal.fit(module, loader, loader)
    assert not folder.exists()
    assert callback.monitor in rehearsal.callback_metrics
    assert callback.decision is not None
    # The run itself, of all images, goes by the same callback or by a new one.
    tiny.gain.data.fill_(0.5)
    fit(tmp_path, tiny, loader, callback)
    assert callback.selector is not None
    assert [entry.step for entry in callback.selector.entries] == [0, 3, 6, 9, 12]
    assert callback.selector.load()["tiny.gain"].numel() == 3
