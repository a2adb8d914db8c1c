"""A denoiser in plain PyTorch, with the loss, the metric, the maps and the choice dropped in.

    python examples/denoise_pytorch.py [--photos DIR] [--out DIR]

The lines that relqa_loss adds to the loop are marked with a plus.
"""

from __future__ import annotations

import time

import torch
from _data import data, options
from _networks import denoiser
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from relqa_loss import RelationalLoss  # +
from relqa_loss.loggers import MapLogger  # +
from relqa_loss.selection import CheckpointSelector, ImageScores  # +


def main() -> None:
    chosen = options(__doc__)
    train, validation = data(chosen, batch=8)
    model = denoiser()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    criterion = RelationalLoss(on_out_of_range="ignore")  # +
    writer = SummaryWriter(chosen.out / "logs")
    maps = MapLogger(writer, tag="val/maps")  # +
    selector = CheckpointSelector(chosen.out / "selection", veto={"ringing": 0.1})  # +
    spent = {"validation": 0.0, "relqa_loss": 0.0}

    def validate(step: int) -> None:
        began = time.perf_counter()
        ours = 0.0
        model.eval()
        scores = ImageScores(on_out_of_range="clamp")  # +
        for batch in DataLoader(validation, batch_size=8):
            with torch.no_grad():
                restored = model(batch["noisy"]).clamp(0, 1)
            asked = time.perf_counter()
            scores.add(restored, batch["labels"])  # +
            ours += time.perf_counter() - asked
        asked = time.perf_counter()
        decision = selector.update(  # +
            step, scores.values, state=model.state_dict(), profile=scores.profile
        )
        writer.add_scalar("val/relational_loss", decision.mean, step)  # +
        maps(restored, batch["labels"], step)  # +
        model.train()
        now = time.perf_counter()
        spent["relqa_loss"] += ours + now - asked
        spent["validation"] += now - began

    validate(0)  # the baseline of the veto
    for step, batch in enumerate(DataLoader(train, batch_size=8), start=1):
        restored = model(batch["noisy"])
        loss = criterion(restored, batch["labels"])  # +
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        writer.add_scalar("train/loss", loss.item(), step)
        if step % chosen.every == 0 or step == chosen.steps:
            validate(step)
    writer.close()

    model.load_state_dict(selector.load())  # +
    print(f"scoring, choosing and drawing: {spent['relqa_loss']:.1f} s of "
          f"{spent['validation']:.1f} s of validation")  # fmt: skip
    print(selector.reason)


if __name__ == "__main__":
    main()
