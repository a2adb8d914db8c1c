"""A ×2 super-resolver in plain PyTorch: the loss, metrics, the best checkpoint, and what is left.

    python examples/upscale_pytorch.py [--photos DIR] [--out DIR]

The lines that relqa_loss adds to the loop are marked with a plus.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from _data import Crops, data, options
from _networks import upscaler
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import MetricCollection

from relqa_loss import RelationalLoss, relate  # +
from relqa_loss.metrics import DistortionProfile, RelationalDistance  # +
from relqa_loss.plotting import plot_relation  # +
from relqa_loss.selection import ImageScores  # +
from relqa_loss.selection.best import BestCheckpoint  # +
from relqa_loss.words import describe  # +


def reduced(images: Tensor) -> Tensor:
    return F.interpolate(images, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


def main() -> None:
    chosen = options(__doc__)
    train, validation = data(chosen, batch=8, kind=Crops)
    model = upscaler()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    criterion = RelationalLoss(on_out_of_range="ignore")  # +
    metrics = MetricCollection(  # +
        {"relational_distance": RelationalDistance(), "profile": DistortionProfile()}
    )
    best = BestCheckpoint(chosen.out / "best.safetensors", mode="min")  # +
    writer = SummaryWriter(chosen.out / "logs")
    kept = {}

    def restored(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model(reduced(images)).clamp(0, 1)

    def validate(step: int) -> float:
        model.eval()
        scores = ImageScores(maps=False)  # +
        for batch in DataLoader(validation, batch_size=8):
            preds = restored(batch["labels"])
            metrics.update(preds, batch["labels"])  # +
            scores.add(preds, batch["labels"])  # +
        # Chosen by the loss, which chooses better than the distance alone (docs/selection.md).
        found = {**metrics.compute(), "relational_loss": scores.mean}  # +
        metrics.reset()  # +
        for name, value in found.items():
            writer.add_scalar(f"val/{name}", value, step)  # ringing_signed among them
        if best.update(scores.mean, model.state_dict(), step=step):  # +
            kept.update(found)
        model.train()
        return float(found["relational_distance"])

    bicubic = validate(0)  # what an untrained network gives
    for step, batch in enumerate(DataLoader(train, batch_size=8), start=1):
        loss = criterion(model(reduced(batch["labels"])), batch["labels"])  # +
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        writer.add_scalar("train/loss", loss.item(), step)
        if step % chosen.every == 0 or step == chosen.steps:
            validate(step)
    writer.close()

    model.load_state_dict(best.load())  # +
    clean = validation[0]["labels"][None]
    preds = restored(clean)
    relation = relate(preds, clean)  # +
    words = describe(relation.maps[0], clean[0])  # +
    plot_relation(clean, preds, relation, title=words).savefig(chosen.out / "left.png")  # +
    print(f"left of the first crop's distortion: {words}")
    distance = float(kept["relational_distance"])
    print(f"step {best.step} is kept: distance {distance:.2f}, {bicubic:.2f} if bicubic")


if __name__ == "__main__":
    main()
