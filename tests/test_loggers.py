"""Signed maps in real loggers, read back from what they wrote; and how seldom they are drawn."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from relqa_loss import loggers, relate
from relqa_loss.loggers import MapLogger, Picture, log_relation
from relqa_loss.network import NetworkConfig, ParityNetwork
from relqa_loss.network.pretrained import save_weights
from relqa_loss.words import describe


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    target = torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    return 0.7 * target, target


class Memory:
    """A logger that is a function."""

    def __init__(self) -> None:
        self.pictures: dict[tuple[str, int], Picture] = {}

    def __call__(self, tag: str, picture: Picture, step: int) -> None:
        self.pictures[tag, step] = picture


def expected(pair: tuple[Tensor, Tensor], step: int = 7, **options: Any) -> Picture:
    memory = Memory()
    log_relation(memory, *pair, step, **options)
    return memory.pictures["relqa/0", step]


def test_pictures_are_of_the_pair(pair: tuple[Tensor, Tensor]) -> None:
    memory = Memory()
    log_relation(memory, *pair, 7, images=2, tag="val")
    assert list(memory.pictures) == [("val/0", 7), ("val/1", 7)]
    first, second = memory.pictures.values()
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert first.shape == second.shape
    assert np.abs(first.astype(int) - second).max() > 50
    same = expected((pair[1], pair[1]))
    assert np.abs(same.astype(int) - expected(pair)).max() > 50


@pytest.mark.parametrize("colours", [3, 1])
def test_each_picture_is_of_its_own_pair(
    colours: int, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    plot = loggers.plot_relation

    def watch(*given: Any, **options: Any) -> Any:
        drawn.append((given, options))
        return plot(*given, **options)

    monkeypatch.setattr(loggers, "plot_relation", watch)
    target = pair[1][:, :colours]
    preds = target * torch.tensor([0.7, 0.9, 0.8]).view(3, 1, 1, 1)
    log_relation(Memory(), 255 * preds, 255 * target, 7, images=2, channels=3, data_range=255.0)
    whole = relate(preds[:2], target[:2])
    assert len(drawn) == 2
    for row, ((one, other, single), options) in enumerate(drawn):
        torch.testing.assert_close((one, other), (target[row], preds[row]))
        for found, wanted in zip(single, whole, strict=True):
            torch.testing.assert_close(found, wanted[row : row + 1], rtol=1e-3, atol=1e-4)
        assert options["channels"] == 3
        words = describe(single.maps[0], one.expand(3, -1, -1))
        assert options["title"] == f"step 7: {words}"


def test_other_ranges_give_the_same_picture(pair: tuple[Tensor, Tensor]) -> None:
    wide = (255 * pair[0], 255 * pair[1])
    difference = expected(wide, data_range=255.0).astype(int) - expected(pair)
    assert np.abs(difference).mean() < 0.1


def test_values_outside_the_range_and_graphs_are_no_obstacle(pair: tuple[Tensor, Tensor]) -> None:
    memory = Memory()
    log_relation(memory, (2 * pair[0]).requires_grad_(), pair[1], 7)
    [picture] = memory.pictures.values()
    clipped = (2 * pair[0]).clamp(0, 1)
    assert np.array_equal(picture, expected((clipped, pair[1])))


def test_the_default_device_does_not_matter(pair: tuple[Tensor, Tensor]) -> None:
    picture = expected(pair)
    with torch.device("meta"):
        assert np.array_equal(expected(pair), picture)


def test_weights_with_channels_of_their_own(pair: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    config = NetworkConfig(channels=("sharpness", "moire"))
    save_weights(ParityNetwork(config), tmp_path / "own.safetensors", config, {})
    own = expected(pair, weights=tmp_path / "own.safetensors")
    assert own.shape[0] < expected(pair).shape[0]  # a row of maps, not two


def test_tensorboard(pair: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with SummaryWriter(tmp_path) as writer:
        log_relation(writer, *pair, 7)
    events = EventAccumulator(str(tmp_path)).Reload()
    [event] = events.Images("relqa/0")
    assert event.step == 7
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
    assert np.array_equal(picture, expected(pair))


def test_lightning(pair: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="run")
    MapLogger(logger)(*pair, 7)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Images("relqa/0")] == [7]
    with pytest.raises(TypeError, match=r"SummaryWriter.*got \w*ExperimentWriter"):
        MapLogger(CSVLogger(tmp_path))


def test_wandb_offline(
    pair: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    with wandb.init(mode="offline", dir=str(tmp_path), project="test") as run:
        run.log({"loss": 1.0}, step=100)
        log_relation(run, *pair, 7)  # earlier than the latest step
        folder = Path(run.dir)
        summary = dict(run.summary)
    [file] = (folder / "media" / "images" / "relqa").glob("*.png")
    assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), expected(pair))
    assert summary["relqa/step"] == 7


def test_mlflow(
    pair: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        log_relation(mlflow, *pair, 7)
        mlflow.flush_artifact_async_logging()
    folder = tmp_path / "runs" / "0" / run.info.run_id / "artifacts" / "images"
    files = [file for file in folder.iterdir() if file.suffix == ".png"]
    assert len(files) == 1
    assert re.search(r"step\W7\W", files[0].name)
    assert np.array_equal(np.asarray(Image.open(files[0]).convert("RGB")), expected(pair))


def test_wandb_through_lightning(
    pair: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    with wandb.init(mode="offline", dir=str(tmp_path), project="test") as run:
        assert MapLogger(WandbLogger(experiment=run), tag="val/maps")(*pair, 7)
        folder = Path(run.dir)
        assert run.summary["val/maps/step"] == 7
        # Curves of the same group keep the axis that they have.
        assert "val/step" not in dict(run.summary)
    [file] = (folder / "media" / "images" / "val").glob("maps/*.png")
    assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), expected(pair))


def test_mlflow_through_lightning(
    pair: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    logger = MLFlowLogger(tracking_uri=(tmp_path / "runs").as_uri())
    try:
        assert MapLogger(logger)(*pair, 7)
        mlflow.flush_artifact_async_logging()
    finally:
        mlflow.end_run()  # the logger leaves its run active
    [folder] = (tmp_path / "runs").glob("*/*/artifacts/images")
    assert folder.parts[-3] == logger.run_id
    [file] = folder.glob("*.png")
    assert re.search(r"step\W7\W", file.name)
    assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), expected(pair))


def test_what_takes_no_pictures_is_refused(pair: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(TypeError, match=r"SummaryWriter.*got int"):
        log_relation(3, *pair, 0)
    with pytest.raises(ValueError, match="images must be at least 1"):
        log_relation(Memory(), *pair, 0, images=0)
    with pytest.raises(ValueError, match=r"\(3, 3, 64, 48\).*\(1, 3, 64, 48\)"):
        log_relation(Memory(), pair[0], pair[1][:1], 0)
    with pytest.raises(ValueError, match=r"got shape \(3, 64, 48\)"):
        log_relation(Memory(), pair[0][0], pair[1][0], 0)
    with pytest.raises(ValueError, match="every"):
        MapLogger(Memory(), every=0)
    for share in (0, 1.1):
        with pytest.raises(ValueError, match="share"):
            MapLogger(Memory(), share=share)
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"chanels": 3}, TypeError, "chanels"),
        ({"images": 0}, ValueError, "images must be at least 1"),
        ({"channels": -1}, ValueError, "channels must not be negative"),
        ({"channels": ["noise"]}, TypeError, r"channels must be an integer, got \['noise'\]"),
        ({"images": 1.5}, TypeError, "images must be an integer, got 1.5"),
        ({"every": 0.5}, TypeError, "every must be an integer, got 0.5"),
        ({"every": "100"}, TypeError, "every must be an integer, got '100'"),
        ({"data_range": 0}, ValueError, "data_range"),
        ({"weights": "no-such"}, ValueError, "no-such"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            MapLogger(Memory(), **options)


class Clock:
    """Time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loggers, "time", clock)
    return clock


def test_drawings_take_no_more_than_their_share(
    pair: tuple[Tensor, Tensor], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = 0.0

    def draw(*_: Any, **__: Any) -> None:
        nonlocal spent
        cost = 0.5 + (clock.now % 3) / 3  # now quicker, now slower
        clock.now += cost
        spent += cost

    monkeypatch.setattr(loggers, "log_relation", draw)
    maps = MapLogger(Memory(), share=0.05)
    drawn = []
    for step in range(3000):
        drawn.append(maps(*pair, step))
        clock.now += 0.1
    assert drawn[0]
    assert 8 <= sum(drawn) <= 30
    assert spent / clock.now <= 0.05 + 1.5 / clock.now


def test_every(pair: tuple[Tensor, Tensor], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "log_relation", lambda *_, **__: None)
    maps = MapLogger(Memory(), every=10, share=1.0)
    assert [step for step in range(35) if maps(*pair, step)] == [0, 10, 20, 30]


def test_sitting_out_touches_no_image(clock: Clock) -> None:
    # Not even their shape: these are not images.
    maps = MapLogger(Memory(), every=10)
    assert not maps(None, None, 3)  # type: ignore[arg-type]
    assert not MapLogger(None)(None, None, 0)  # type: ignore[arg-type]


def test_processes_without_a_logger_of_their_own_do_not_draw(
    pair: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.loggers import TensorBoardLogger

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(loggers, "log_relation", lambda *_, **__: pytest.fail("drawn"))
    assert not MapLogger(TensorBoardLogger(tmp_path))(*pair, 0)


def test_options_reach_the_drawing(pair: tuple[Tensor, Tensor]) -> None:
    memory = Memory()
    assert MapLogger(memory, tag="maps", images=3)(*pair, 1)
    assert [tag for tag, _ in memory.pictures] == ["maps/0", "maps/1", "maps/2"]
