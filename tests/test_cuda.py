"""On a CUDA device: values of the CPU, reproducible, under AMP, graphs, compilation and NCCL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from steps import gradient
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from relqa_loss import (
    RelationalLoss,
    SpatialMapWeightedLoss,
    distortion_maps,
    relational_score,
)
from relqa_loss.cli.main import main
from relqa_loss.metrics import RelationalDistance
from relqa_loss.tiling import measure_in_tiles

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WEIGHTS = ("relqa-base", "relqa-nano")
Loss = RelationalLoss | SpatialMapWeightedLoss


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions in float32: PyTorch's default on CUDA is TF32, with three digits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(
    params=[
        lambda: RelationalLoss(on_out_of_range="ignore"),
        lambda: RelationalLoss(on_out_of_range="clamp", weights="relqa-nano"),
        lambda: RelationalLoss(on_out_of_range="ignore", channel_weights={"noise": 2.0}),
        lambda: SpatialMapWeightedLoss(on_out_of_range="ignore"),
    ],
    ids=["base", "nano", "steered", "spatial"],
)
def loss(request: pytest.FixtureRequest) -> Loss:
    built: Loss = request.param()
    return built


def pair(count: int = 2, side: tuple[int, int] = (93, 118)) -> tuple[Tensor, Tensor]:
    """A noisy image and its reference, a smooth pattern with edges."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    target = nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    preds = (target + 0.05 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    return preds, target


def relative(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖."""
    return float((found.cpu() - wanted).norm() / wanted.norm())


@pytest.mark.usefixtures("exact")
def test_values_and_gradients_are_those_of_the_cpu(loss: Loss) -> None:
    value, grad = gradient(loss, *pair())
    there, there_grad = gradient(loss.cuda(), *(image.cuda() for image in pair()))
    assert there.is_cuda
    assert relative(there, value) < 1e-5
    assert relative(there_grad, grad) < 1e-4


def test_tf32_costs_little(loss: Loss) -> None:
    value, grad = gradient(loss, *pair())
    there, there_grad = gradient(loss.cuda(), *(image.cuda() for image in pair()))
    assert relative(there, value) < 1e-3
    assert relative(there_grad, grad) < 1e-2


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("weights", WEIGHTS)
def test_relations_are_those_of_the_cpu(weights: str) -> None:
    criterion = RelationalLoss(weights=weights)
    here = criterion.relation(*pair())
    there = criterion.cuda().relation(*(image.cuda() for image in pair()))
    for found, wanted in zip(there, here, strict=True):
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_what_holds_for_any_pair_holds_here(weights: str) -> None:
    criterion = RelationalLoss(weights=weights, pixel_weight=0).cuda()
    preds, target = (image.cuda() for image in pair())
    forth, back = criterion.relation(preds, target), criterion.relation(target, preds)
    assert torch.equal(forth.maps, -back.maps)
    assert torch.equal(forth.score, -back.score)
    value, grad = gradient(criterion, target, target)
    assert value == 0
    assert not grad.any()
    assert criterion(preds, target) >= criterion.floor * (preds - target).abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_inside(loss: Loss, dtype: torch.dtype) -> None:
    loss = loss.cuda()
    preds, target = (image.cuda() for image in pair())
    value, grad = gradient(loss, preds, target)
    with torch.autocast("cuda", dtype):
        mixed, mixed_grad = gradient(loss, preds, target)
    assert mixed.dtype == torch.float32
    # Not bit by bit: convolutions may sum in another order from call to call.
    assert relative(mixed, value.cpu()) < 1e-5
    assert relative(mixed_grad, grad.cpu()) < 1e-4


def test_trains_with_mixed_precision(loss: Loss) -> None:
    loss = loss.cuda()
    preds, target = (image.cuda() for image in pair(2, (64, 64)))
    model = nn.Conv2d(3, 3, 3, padding=1).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda")
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            value = loss((preds + model(preds)).sigmoid(), target)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        values.append(float(value))
    assert values[-1] < values[0]
    assert scaler.get_scale() > 0


def test_waits_for_nothing(loss: Loss) -> None:
    """Without a check of the range, no call makes the CPU wait for the device."""
    loss = loss.cuda()
    preds, target = (image.cuda() for image in pair())
    gradient(loss, preds, target)
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradient(loss, preds, target)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("on_out_of_range", ["raise", "ignore"])
def test_replays_in_a_cuda_graph(loss: Loss, on_out_of_range: str) -> None:
    loss = loss.cuda()
    loss.on_out_of_range = on_out_of_range  # type: ignore[assignment]
    first, target = (image.cuda() for image in pair())
    preds = first.clone().requires_grad_()

    def step() -> Tensor:
        preds.grad = None
        value = loss(preds, target)
        value.backward()
        return value

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    preds.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        static = step()
    for image in (first, first.flip(-1), 0.5 * first):
        with torch.no_grad():
            preds.copy_(image)
        graph.replay()
        value, grad = gradient(loss, image, target)
        assert preds.grad is not None
        torch.testing.assert_close(static.detach(), value)
        torch.testing.assert_close(preds.grad, grad)


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
def test_compiles_once_for_all_sizes(weights: str) -> None:
    torch._dynamo.reset()
    criterion = RelationalLoss(weights=weights).cuda()
    compiled = torch.compile(criterion, fullgraph=True, dynamic=True)
    for count, side in ((2, (64, 96)), (3, (128, 80)), (2, (160, 160))):
        preds, target = (image.cuda() for image in pair(count, side))
        with torch._dynamo.config.patch(error_on_recompile=count == 3 or side == (160, 160)):
            value, grad = gradient(compiled, preds, target)
        wanted, wanted_grad = gradient(criterion, preds, target)
        assert relative(value, wanted.cpu()) < 1e-3
        assert relative(grad, wanted_grad.cpu()) < 1e-2


_TWICE = """
import torch
from relqa_loss import RelationalLoss
torch.use_deterministic_algorithms(True)
generator = torch.Generator().manual_seed(0)
target, preds = torch.rand(2, 2, 3, 93, 118, generator=generator).cuda()
for options in ({}, {"weights": "relqa-nano"}, {"channel_weights": {"noise": 2.0}}):
    loss, found = RelationalLoss(**options).cuda(), []
    for _ in range(5):
        leaf = preds.clone().requires_grad_()
        value = loss(leaf, target)
        value.backward()
        found.append((value.detach(), leaf.grad))
    assert all(torch.equal(a, b) for more in found[1:] for a, b in zip(more, found[0]))
print("the same")
"""


def test_deterministic_mode_gives_the_same_twice() -> None:
    # In a process of its own: cuBLAS reads the variable once.
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    command = [sys.executable, "-c", _TWICE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the same"


class Restorer(nn.Module):
    """A user's network that holds its loss."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.loss = loss

    def forward(self, noisy: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss((noisy + self.body(noisy)).sigmoid(), target)
        return value


def test_trains_under_nccl(loss: Loss, tmp_path: Path) -> None:
    if not dist.is_nccl_available():
        pytest.skip("this PyTorch has no NCCL")
    preds, target = (image.cuda() for image in pair(2, (64, 64)))
    torch.manual_seed(0)
    alone = Restorer(loss).cuda()
    dist.init_process_group("nccl", f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(alone, device_ids=[torch.cuda.current_device()])
        wrapped(preds, target).backward()
        found = [value.grad.clone() for value in alone.parameters() if value.grad is not None]
        metric = RelationalDistance().cuda()
        metric.update(preds, target)
        gathered = metric.compute()
    finally:
        dist.destroy_process_group()
    alone.zero_grad()
    alone(preds, target).backward()
    assert len(found) == 2
    for value, parameter in zip(found, alone.parameters(), strict=True):
        assert parameter.grad is not None
        assert relative(value, parameter.grad.cpu()) < 1e-4
    assert gathered.is_cuda


@pytest.mark.usefixtures("exact")
def test_metrics_functions_and_tiles_follow_the_images() -> None:
    preds, target = pair(2, (160, 200))
    metric = RelationalDistance()
    wanted = metric(preds, target)
    moved = RelationalDistance().cuda()
    found = moved(preds.cuda(), target.cuda())
    assert found.is_cuda
    assert relative(found, wanted) < 1e-4
    score = relational_score(preds.cuda(), target.cuda())
    torch.testing.assert_close(score.cpu(), relational_score(preds, target), rtol=1e-4, atol=1e-4)
    tiles = measure_in_tiles(preds[:1], target[:1], tile=64, device="cuda")
    whole = RelationalLoss().relation(preds[:1], target[:1])
    torch.testing.assert_close(tiles.distance.cpu(), whole.distance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tiles.score.cpu(), whole.score, rtol=1e-4, atol=1e-4)
    assert distortion_maps(preds.cuda(), target.cuda()).is_cuda


@pytest.mark.slow
def test_weights_are_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("lightning")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colours in zip(("first", "second"), pair(2, (120, 140))[1], strict=True):
        values = (255 * colours).round().to(torch.uint8).permute(1, 2, 0).numpy()
        image.fromarray(values).save(photos / f"{name}.png")
    (photos / "MANIFEST.csv").write_text("file,split\nfirst.png,train\nsecond.png,val\n")
    out = tmp_path / "w.safetensors"
    options = "--steps 2 --sets 32 --validation-sets 32 --crop 64 --batch 1 --validate-every 2"
    files = ["--photos", photos, "--out", out, "--pool-folder", tmp_path / "pool"]
    arguments = ["train", *map(str, files), *options.split(), "--accelerator", "gpu"]
    assert main(arguments) == 0, capsys.readouterr().err
    found = RelationalLoss(weights=out).cuda()(*(each.cuda() for each in pair()))
    assert found.isfinite()


def test_images_on_two_devices_are_refused() -> None:
    preds, target = pair()
    with pytest.raises(ValueError, match="same device"):
        RelationalLoss().cuda()(preds.cuda(), target)
