"""The denoiser under the Hugging Face Trainer: a metric that it understands, and a callback.

    python examples/denoise_huggingface.py [--photos DIR] [--out DIR]

The lines that relqa_loss adds are marked with a plus.
"""

from __future__ import annotations

import torch
from _data import data, options
from _networks import denoiser
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from transformers import EvalPrediction, Trainer, TrainingArguments

from relqa_loss import RelationalLoss  # +
from relqa_loss.loggers import MapLogger  # +
from relqa_loss.selection.adapters.transformers import RelationalMetrics, RelationalSelection  # +


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = denoiser()
        self.criterion = RelationalLoss(on_out_of_range="ignore")  # +

    def forward(self, noisy: Tensor, labels: Tensor) -> dict[str, Tensor]:
        restored = self.net(noisy)
        loss = self.criterion(restored, labels)  # +
        return {"loss": loss, "restored": restored.clamp(0, 1)}


def main() -> None:
    chosen = options(__doc__)
    train, validation = data(chosen, batch=8)
    writer = SummaryWriter(chosen.out / "logs")
    maps = MapLogger(writer, tag="val/maps")  # +
    metrics = RelationalMetrics()  # +
    selection = RelationalSelection(  # +
        chosen.out / "selection", metrics, veto={"ringing": 0.1}
    )

    def compute_metrics(
        prediction: EvalPrediction, compute_result: bool = True
    ) -> dict[str, float]:
        restored, clean = (torch.as_tensor(each) for each in prediction)
        maps(restored, clean, trainer.state.global_step)  # +
        return metrics(prediction, compute_result)  # +

    arguments = TrainingArguments(
        str(chosen.out / "trainer"),
        max_steps=chosen.steps,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        learning_rate=2e-3,
        max_grad_norm=1000.0,  # + gradients are those of L1 times 600 and more
        eval_strategy="steps",
        eval_steps=min(chosen.every, chosen.steps),
        save_strategy="steps",
        save_steps=min(chosen.every, chosen.steps),
        load_best_model_at_end=True,
        batch_eval_metrics=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **metrics.best_model_arguments(),  # +
    )
    trainer = Trainer(
        Denoiser(),
        arguments,
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=compute_metrics,  # +
        callbacks=[selection],  # +
    )
    trainer.evaluate()  # the baseline of the veto
    trainer.train()
    writer.close()
    if selection.selector is None:
        raise SystemExit("this process does not write checkpoints")
    print(selection.selector.reason)


if __name__ == "__main__":
    main()
