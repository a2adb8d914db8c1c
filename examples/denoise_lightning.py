"""The denoiser in Lightning: a callback scores, logs, chooses and keeps.

    python examples/denoise_lightning.py [--photos DIR] [--out DIR]

The lines that relqa_loss adds are marked with a plus.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from _data import data, options
from _networks import denoiser
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from relqa_loss import RelationalLoss  # +
from relqa_loss.loggers import MapLogger  # +
from relqa_loss.selection.adapters.lightning import RelationalSelection  # +

Batch = dict[str, Tensor]


class Denoiser(pl.LightningModule):
    def __init__(self, maps: MapLogger) -> None:
        super().__init__()
        self.net = denoiser()
        self.criterion = RelationalLoss(on_out_of_range="ignore")  # +
        self.maps = maps  # +

    def training_step(self, batch: Batch, _: int) -> Tensor:
        restored = self.net(batch["noisy"])
        loss = self.criterion(restored, batch["labels"])  # +
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        restored = self.net(batch["noisy"]).clamp(0, 1)
        if number == 0 and not self.trainer.sanity_checking:
            self.maps(restored, batch["labels"], self.global_step)  # +
        return {"preds": restored, "target": batch["labels"]}  # +

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=2e-3)


def main() -> None:
    chosen = options(__doc__)
    train, validation = (DataLoader(part, batch_size=8) for part in data(chosen, batch=8))
    logger = TensorBoardLogger(chosen.out, name="logs")
    selection = RelationalSelection(chosen.out / "selection", veto={"ringing": 0.1})  # +
    trainer = pl.Trainer(
        max_steps=chosen.steps,
        val_check_interval=min(chosen.every, chosen.steps),
        accelerator="cpu",
        logger=logger,
        callbacks=[selection],  # +
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    model = Denoiser(MapLogger(logger, tag="val/maps"))
    trainer.validate(model, validation, verbose=False)  # the baseline of the veto
    trainer.fit(model, train, validation)
    if selection.selector is None:
        raise SystemExit("this process does not write checkpoints")
    model.load_state_dict(selection.selector.load())  # +
    print(selection.selector.reason)


if __name__ == "__main__":
    main()
