"""A learned codec in plain PyTorch: the loss beside the rate, and the best trade of both kept.

    python examples/codec_pytorch.py [--photos DIR] [--out DIR]

The lines that relqa_loss adds to the loop are marked with a plus.
"""

from __future__ import annotations

import torch
from _data import Crops, data, options
from _networks import codec
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from relqa_loss import RelationalLoss  # +
from relqa_loss.loggers import MapLogger  # +
from relqa_loss.metrics import RelationalDistance  # +
from relqa_loss.selection.best import BestCheckpoint  # +

# Bits per pixel that a unit of the loss is worth: with more of it images get better and larger. The
# loss is 600 to 1000 times L1, so that .05 is a third to half a bit for each hundredth of L1.
QUALITY = 0.05


def main() -> None:
    chosen = options(__doc__)
    train, validation = data(chosen, batch=8, kind=Crops)
    model = codec()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    criterion = RelationalLoss(on_out_of_range="ignore")  # +
    per_image = RelationalLoss(reduction="none")  # +
    distance = RelationalDistance()  # +
    best = BestCheckpoint(chosen.out / "best.safetensors", mode="min")  # +
    writer = SummaryWriter(chosen.out / "logs")
    maps = MapLogger(writer, tag="val/maps")  # +
    kept = {}

    def validate(step: int) -> None:
        model.eval()
        rates, costs = [], []
        for batch in DataLoader(validation, batch_size=8):
            with torch.no_grad():
                decoded, rate = model(batch["labels"])
                decoded = decoded.clamp(0, 1)
                costs.append(rate + QUALITY * per_image(decoded, batch["labels"]))  # +
            rates.append(rate)
            distance.update(decoded, batch["labels"])  # +
        maps(decoded, batch["labels"], step)  # +
        found = {
            "rate": float(torch.cat(rates).mean()),
            "cost": float(torch.cat(costs).mean()),
            "relational_distance": float(distance.compute()),  # +
        }
        distance.reset()  # +
        for name, value in found.items():
            writer.add_scalar(f"val/{name}", value, step)
        if best.update(found["cost"], model.state_dict(), step=step):  # +
            kept.update(found)
        model.train()

    for step, batch in enumerate(DataLoader(train, batch_size=8), start=1):
        decoded, rate = model(batch["labels"])
        loss = rate.mean() + QUALITY * criterion(decoded, batch["labels"])  # +
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        writer.add_scalar("train/loss", loss.item(), step)
        if step % chosen.every == 0 or step == chosen.steps:
            validate(step)
    writer.close()

    model.load_state_dict(best.load())  # +
    print(
        f"step {best.step} is kept: distance {kept['relational_distance']:.2f} "
        f"at {kept['rate']:.2f} bits per pixel"
    )


if __name__ == "__main__":
    main()
