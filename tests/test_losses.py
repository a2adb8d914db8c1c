"""Losses as modules inside a user's program."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from steps import gradient, images, pair
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from relqa_loss import RelationalLoss, SpatialMapWeightedLoss, relational_distance
from relqa_loss._weighted import RELATIONAL_WEIGHT
from relqa_loss.network import find_weights

Loss = RelationalLoss | SpatialMapWeightedLoss


@pytest.fixture(
    params=[
        (RelationalLoss, "relqa-base"),
        (RelationalLoss, "relqa-nano"),
        (SpatialMapWeightedLoss, "relqa-base"),
    ],
    ids=lambda param: f"{param[0].__name__}-{param[1]}",
)
def loss(request: pytest.FixtureRequest) -> Loss:
    kind, weights = request.param
    built: Loss = kind(channel_weights={"noise": 2.0}, weights=weights)
    return built


def test_nothing_to_train_or_to_save(loss: Loss) -> None:
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    parent = nn.Sequential(nn.Conv2d(3, 3, 1), loss)
    assert sorted(parent.state_dict()) == ["0.bias", "0.weight"]
    assert len(list(parent.parameters())) == 2
    parent.load_state_dict(parent.state_dict())


def test_train_changes_nothing(loss: Loss) -> None:
    before = loss(*pair())
    parent = nn.Sequential(loss).train()
    assert parent.training
    assert not any(module.training for module in loss.modules())
    assert loss.train() is loss
    assert torch.equal(loss(*pair()), before)


def test_copies_agree(loss: Loss) -> None:
    before = loss(*pair())
    stream = io.BytesIO()
    torch.save(loss, stream)
    stream.seek(0)
    for other in (
        copy.deepcopy(loss),
        pickle.loads(pickle.dumps(loss)),
        torch.load(stream, weights_only=False),
    ):
        assert torch.equal(other(*pair()), before)
        assert repr(other) == repr(loss)
        assert other.state_dict() == {}


def test_version_and_print_out_name_weights_and_options(loss: Loss) -> None:
    version = find_weights(loss.version.partition("@")[0]).version
    for text in (loss.version, repr(loss), repr(nn.Sequential(loss))):
        assert version in text
        assert "'noise': 2.0" in text
    assert "\n" not in repr(loss)
    assert repr(type(loss)()) != repr(loss)


def test_identity_is_zero_without_gradient(loss: Loss) -> None:
    for image in (images(1, 1, 3, 45, 61), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)):
        value, grad = gradient(loss, image, image)
        assert value == 0
        assert torch.equal(grad, torch.zeros_like(grad))


def test_grey_images_are_taken(loss: Loss) -> None:
    preds, target = images(2, 2, 2, 1, 40, 40)
    torch.testing.assert_close(
        loss(preds, target), loss(preds.repeat(1, 3, 1, 1), target.repeat(1, 3, 1, 1))
    )


def test_gradient_is_finite_and_not_zero(loss: Loss) -> None:
    _, grad = gradient(loss, *pair())
    assert grad.isfinite().all()
    assert (grad != 0).float().mean() > 0.99


def test_the_reference_is_encoded_without_gradient(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    encode = loss.network.encode

    def watch(image: Tensor, **options: bool) -> object:
        states.append(torch.is_grad_enabled())
        return encode(image, **options)

    monkeypatch.setattr(loss.network, "encode", watch)
    preds, target = pair()
    loss(preds.requires_grad_(), target)
    assert states == [False]  # and the image not at all
    states.clear()
    loss(preds, target.requires_grad_()).backward()
    assert states == [True]
    assert target.grad is not None
    assert target.grad.abs().max() > 0


def test_one_pass_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = SpatialMapWeightedLoss()
    calls = []
    for part in (loss.network.encoder, loss.network.mapper, loss.network.error):
        part.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    loss(*pair())
    assert sorted(calls) == ["Encoder", "Mapper", "RadialDistance"]


def test_detached_maps_are_constants() -> None:
    preds, target = pair()
    with torch.no_grad():
        maps = RelationalLoss().relation(preds, target).maps
    amount = maps.abs().sum(1, keepdim=True).repeat_interleave(4, 2).repeat_interleave(4, 3)
    leaf = preds.clone().requires_grad_()
    ((leaf - target).abs() * (1 + amount[..., :45, :61])).mean().backward()
    _, grad = gradient(SpatialMapWeightedLoss("l1", relational_weight=0), preds, target)
    torch.testing.assert_close(grad, leaf.grad)
    _, other = gradient(
        SpatialMapWeightedLoss("l1", relational_weight=0, detach_maps=False), preds, target
    )
    assert not torch.allclose(grad, other, rtol=1e-3, atol=0)
    _, distance = gradient(RelationalLoss(pixel_weight=0), preds, target)
    _, both = gradient(SpatialMapWeightedLoss("l1", relational_weight=0.5), preds, target)
    torch.testing.assert_close(both, grad + 0.5 * distance)
    _, default = gradient(SpatialMapWeightedLoss("l1"), preds, target)
    torch.testing.assert_close(default, grad + RELATIONAL_WEIGHT * distance)


def test_constant_maps_keep_nothing_for_a_gradient() -> None:
    preds, target = pair()
    preds.requires_grad_()

    def kept(loss: Loss) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss(preds, target)
        return sum(sizes.values())

    flowing, detached, distance = (
        kept(loss)
        for loss in (
            SpatialMapWeightedLoss(detach_maps=False),
            SpatialMapWeightedLoss(),
            RelationalLoss(pixel_weight=0),
        )
    )
    assert detached - distance < 0.2 * (flowing - distance)


class _Weighted(nn.Module):
    """A base with a buffer of its own, as one with filters has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shares", torch.tensor([3.0, 2.0, 1.0]).view(1, 3, 1, 1))

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        return self.get_buffer("shares") * (preds - target).abs()


def test_a_base_with_buffers_moves_with_the_loss() -> None:
    preds, target = pair()
    loss = SpatialMapWeightedLoss(base=_Weighted())
    before = loss(preds, target)
    found = loss.double()(preds.double(), target.double())
    torch.testing.assert_close(found.float(), before)


def test_clamped_values_keep_the_gradient_of_the_base() -> None:
    preds, target = pair()
    preds[:, :, :8] += 2
    _, grad = gradient(SpatialMapWeightedLoss(on_out_of_range="clamp"), preds, target)
    assert (grad[:, :, :8] > 0).all()
    _, grad = gradient(RelationalLoss(on_out_of_range="ignore"), preds, target)
    assert grad[:, :, :8].abs().max() > 0


@pytest.mark.parametrize("channels", [3, 1])
def test_the_pixel_term_is_added(channels: int) -> None:
    alone, mixed = RelationalLoss(pixel_weight=0), RelationalLoss(pixel_weight=7.0)
    preds, target = images(8, 2, 2, channels, 45, 61)
    error = (preds - target).abs()
    torch.testing.assert_close(mixed(preds, target), alone(preds, target) + 7 * error.mean())
    weight = images(9, 2, 1, 45, 61)
    share = weight / weight.sum((1, 2, 3), keepdim=True)
    torch.testing.assert_close(
        mixed(preds, target, weight),
        alone(preds, target, weight) + 7 * (error.mean(1, keepdim=True) * share).sum() / 2,
    )
    torch.testing.assert_close(mixed.distance_to(mixed.encode(target), preds), mixed(preds, target))
    white = RelationalLoss(pixel_weight=7.0, data_range=255.0)
    torch.testing.assert_close(white(255 * preds, 255 * target), mixed(preds, target))
    assert "pixel_weight=7" in repr(mixed)
    with pytest.raises(ValueError, match="pixel_weight"):
        RelationalLoss(pixel_weight=-1.0)


def test_a_wrong_pixel_weight_is_refused() -> None:
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="pixel_weight must be finite and non-negative"):
            RelationalLoss(pixel_weight=wrong)
    with pytest.raises(TypeError, match="pixel_weight must be a number, got '6e2'"):
        RelationalLoss(pixel_weight="6e2")  # type: ignore[arg-type]


def test_the_pixel_term_brings_overshoot_back() -> None:
    preds, target = pair()
    preds[:, :, :8] += 2
    for amount in (0.0, 7.0):
        loss = RelationalLoss(pixel_weight=amount, on_out_of_range="clamp")
        _, grad = gradient(loss, preds, target)
        assert bool((grad[:, :, :8] > 0).all()) == (amount > 0)


def test_weight(loss: Loss) -> None:
    preds, target = pair()
    plain = loss(preds, target)
    torch.testing.assert_close(loss(preds, target, torch.ones(2, 1, 45, 61)), plain)
    for amount in (5.0, 1e-6):
        alike = torch.full((1, 1, 45, 61), amount)
        torch.testing.assert_close(loss(preds, target, alike), plain)
    mask = torch.zeros(2, 1, 45, 61, dtype=torch.bool)
    assert loss(preds, target, mask) == 0
    mask[..., :20] = True
    assert loss(preds, target, mask) > 0
    with pytest.raises(ValueError, match="weight must have shape"):
        loss(preds, target, torch.ones(2, 45, 61))


def test_gradients_can_be_accumulated(loss: Loss) -> None:
    preds, target = pair(4)
    _, together = gradient(loss, preds, target)
    halves = [gradient(loss, preds[part], target[part])[1] for part in (slice(2), slice(2, None))]
    torch.testing.assert_close(torch.cat(halves) / 2, together)


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_a_reference_can_be_encoded_once(weights: str) -> None:
    loss = RelationalLoss(reduction="none", weights=weights)
    preds, target = pair(3)
    encoding = loss.encode(target)
    assert not any(feature.requires_grad for feature in encoding.features)
    assert torch.equal(loss.distance_to(encoding, preds), loss(preds, target))
    single = loss.encode(target[:1])
    torch.testing.assert_close(
        loss.distance_to(single, preds), loss(preds, target[:1].expand(3, -1, -1, -1))
    )
    leaf = preds.clone().requires_grad_()
    loss.distance_to(encoding, leaf).mean().backward()
    same = RelationalLoss(weights=weights)
    torch.testing.assert_close(leaf.grad, gradient(same, preds, target)[1])
    with torch.inference_mode():
        made = loss.encode(target)
    again = preds.clone().requires_grad_()
    loss.distance_to(made, again).mean().backward()
    assert again.grad is not None
    assert leaf.grad is not None
    assert torch.equal(again.grad, leaf.grad)
    with pytest.raises(ValueError, match="encoding is of 3 image"):
        loss.distance_to(encoding, preds[:2])
    with pytest.raises(ValueError, match="45×61"):
        loss.distance_to(encoding, preds[..., :60])
    with pytest.raises(ValueError, match="encoding is on cpu, preds are on meta"):
        RelationalLoss(weights=weights).to("meta").distance_to(encoding, preds.to("meta"))
    with pytest.raises(ValueError, match=r"float32, the loss in torch\.float64: encode .* again"):
        RelationalLoss(weights=weights).double().distance_to(encoding, preds)
    with pytest.raises(TypeError, match=r"from encode\(target\), got a tensor"):
        loss.distance_to(target, preds)  # type: ignore[arg-type]


def test_a_loss_says_that_it_is_not_where_the_images_are(loss: Loss) -> None:
    preds, target = (image.to("meta") for image in pair(2))
    said = r'images are on meta, the loss is on cpu: move the loss there, loss\.to\("meta"\)'
    with pytest.raises(ValueError, match=said):
        loss(preds, target)
    if isinstance(loss, RelationalLoss):
        with pytest.raises(ValueError, match=said):
            loss.encode(target)
        with pytest.raises(ValueError, match=said):
            loss.distance_to(loss.encode(pair(2)[1]), preds)
        with pytest.raises(ValueError, match=said):
            loss.relation(preds, target)
    assert loss.to("meta")(preds, target).is_meta


def test_an_encoding_outlives_its_image() -> None:
    loss = RelationalLoss()
    preds, target = pair()
    expected, encoding = loss(preds, target), loss.encode(target)
    target.zero_()
    torch.testing.assert_close(loss.distance_to(encoding, preds), expected)


@pytest.mark.parametrize(
    ("factors", "share"),
    [({}, 1.0), ({"noise": 3.0}, 1.0), ({"noise": 3.0, "ringing": 0.5}, 0.5), ({"noise": 0}, 0.05)],
)
def test_the_floor_is_that_of_the_least_channel(factors: dict[str, float], share: float) -> None:
    loss = RelationalLoss(channel_weights=factors)
    assert loss.floor == pytest.approx(share * loss.network.floor)


def test_grey_pixels_that_were_clamped_count_as_in_colour() -> None:
    loss = RelationalLoss(on_out_of_range="clamp")
    preds, target = images(2, 2, 2, 1, 40, 40)
    preds = preds + 0.5
    colour = preds.expand(2, 3, 40, 40), target.expand(2, 3, 40, 40)
    torch.testing.assert_close(loss(preds, target), loss(*colour))
    encoding = loss.encode(target)
    torch.testing.assert_close(loss.distance_to(encoding, preds), loss(*colour))


def test_relation_does_not_depend_on_reduction() -> None:
    preds, target = pair()
    relation = RelationalLoss(reduction="sum").relation(preds, target)
    assert relation.distance.shape == relation.score.shape == (2,)
    assert torch.equal(relation.distance, relational_distance(preds, target, reduction="none"))


def test_a_loss_does_not_ask_what_an_error_is_known_as() -> None:
    """A metric counts moves for less and strong blurs for more; networks learn better without."""
    target = F.avg_pool2d(images(10, 1, 3, 70, 70), 7, 1)
    target = (0.5 + 4 * (target - 0.5)).clamp(0, 1)
    moved = target.roll(1, -1)
    blurred = F.avg_pool2d(F.pad(target, (2, 2, 2, 2), mode="reflect"), 5, 1)
    for weights in ("relqa-base", "relqa-nano"):
        loss = RelationalLoss(pixel_weight=0, weights=weights)
        ratio = {}
        for preds in (moved, blurred):
            metric = relational_distance(preds, target, weights=weights)
            assert torch.equal(loss.relation(preds, target).distance[0], metric)
            ratio[preds] = float(metric / loss(preds, target))
        assert ratio[moved] < 0.8
        assert ratio[blurred] > 1.2


def test_float64_passes_gradcheck(loss: Loss) -> None:
    double = loss.double()
    preds, target = images(3, 2, 1, 3, 33, 35).double()
    assert double(preds, target).dtype == torch.float64
    if isinstance(loss, SpatialMapWeightedLoss):
        loss.detach_maps = False  # constants on purpose are no derivatives
    assert torch.autograd.gradcheck(
        lambda image: double(image, target), (preds.requires_grad_(),), fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_inside(loss: Loss, dtype: torch.dtype) -> None:
    preds, target = pair()
    faint = (target + (preds - target) / 255).clamp(0, 1)
    value, grad = gradient(loss, faint, target)
    with torch.autocast("cpu", dtype=dtype):
        mixed, mixed_grad = gradient(loss, faint, target)
        relation = RelationalLoss().relation(faint, target)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, value)
    assert torch.equal(mixed_grad, grad)
    assert {part.dtype for part in relation} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_taken(loss: Loss, dtype: torch.dtype) -> None:
    preds, target = pair()
    value, grad = gradient(loss, preds.to(dtype), target)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    assert grad.isfinite().all()
    torch.testing.assert_close(value, loss(preds, target), rtol=0.02, atol=0)


@pytest.mark.parametrize("kind", ["constant", "identical", "black", "white", "apart", "outside"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_image_gives_a_gradient_that_is_not_finite(
    loss: Loss, dtype: torch.dtype, kind: str
) -> None:
    noise = images(6, 2, 3, 32, 40)
    black, white = torch.zeros_like(noise), torch.ones_like(noise)
    preds, target = {
        "constant": (black + 0.4, black + 0.6),
        "identical": (noise, noise),
        "black": (black, black),
        "white": (white, white),
        "apart": (black, white),
        "outside": (40 * noise - 20, noise),
    }[kind]
    loss.on_out_of_range = "ignore"
    layer = nn.Conv2d(3, 3, 1, bias=False)
    layer.weight.data = torch.eye(3)[:, :, None, None]
    leaf = preds.clone().requires_grad_()
    # As in training under AMP: the last layer of a network answers in half precision.
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = layer(leaf)
        value = loss(output, target)
    assert output.dtype == dtype
    value.backward()
    assert value.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    same = kind in {"black", "white"} or (kind == "identical" and dtype == torch.float32)
    assert bool(leaf.grad.any()) != same


def test_a_parents_half_keeps_the_weights(loss: Loss) -> None:
    before = loss(*pair())
    nn.Sequential(loss).half().bfloat16().to(torch.float16)
    assert {buffer.dtype for buffer in loss.buffers()} == {torch.float32}
    assert torch.equal(loss(*pair()), before)


def test_weights_that_were_rounded_are_refused(loss: Loss) -> None:
    """FSDP writes to the data of the buffers, past all methods of a module."""
    for buffer in loss.buffers():
        buffer.data = buffer.data.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"rounded to torch\.bfloat16.*buffer_dtype"):
        loss(*pair())
    if isinstance(loss, RelationalLoss):
        with pytest.raises(ValueError, match=r"rounded to torch\.bfloat16"):
            loss.encode(pair()[1])


@pytest.mark.parametrize("filler", [0.0, 1e29, float("nan")])
def test_weights_that_were_replaced_are_refused(loss: Loss, filler: float) -> None:
    """``from_pretrained`` of transformers gives what is in no checkpoint memory without values."""
    for module in loss.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.clone())
    assert loss(*pair()).isfinite()  # the same values in other tensors
    for module in loss.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.full_like(buffer, filler))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"weights of the loss were replaced.*from_pretrained"):
            loss(*pair())


def _again(module: nn.Module) -> None:
    """What initialisers do to the layers that they know, by class or by its name."""
    known = type(module).__name__
    if isinstance(module, (nn.Conv2d, nn.Linear)) or "Conv" in known or "Linear" in known:
        nn.init.constant_(module.weight, 0.1)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.1)


def test_a_parents_initialisers_do_not_reach_the_weights(loss: Loss) -> None:
    before, layer = loss(*pair()), nn.Conv2d(3, 3, 3)
    parent = nn.Sequential(layer, loss)
    parent.apply(_again)
    for module in parent.modules():
        _again(module)
    assert (layer.weight == 0.1).all()
    assert torch.equal(loss(*pair()), before)


def test_to_empty_keeps_the_weights(loss: Loss) -> None:
    before = loss(*pair())
    nn.Sequential(loss).to_empty(device="cpu")
    assert torch.equal(loss(*pair()), before)


def test_a_parents_layout_is_followed(loss: Loss) -> None:
    before = loss(*pair())
    nn.Sequential(loss).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kernels = [buffer for buffer in loss.buffers() if buffer.dim() == 4]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in kernels)
    torch.testing.assert_close(loss(*pair()), before)


def test_per_sample_gradients(loss: Loss) -> None:
    # Of one in a hundred, rounding takes an error across zero, where slopes jump.
    model = nn.Conv2d(3, 3, 3, padding=1)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    noisy, target = pair(3, (32, 40))

    def one(parameters: dict[str, Tensor], image: Tensor, reference: Tensor) -> Tensor:
        output = torch.func.functional_call(model, parameters, (image[None],))
        value: Tensor = loss(output.sigmoid(), reference[None])
        return value

    together = torch.func.vmap(torch.func.grad(one), (None, 0, 0))(weights, noisy, target)
    for index in range(3):
        alone = torch.func.grad(one)(weights, noisy[index], target[index])
        for name, value in alone.items():
            # What cancels to nearly nothing is known as well as what it is a sum of.
            scale = float(value.abs().max())
            torch.testing.assert_close(together[name][index], value, rtol=1e-4, atol=1e-6 * scale)


def test_exports(loss: Loss) -> None:
    preds, target = pair(2, (32, 48))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        loss, (preds, target), dynamic_shapes=({0: batch}, {0: batch}, None)[:2]
    )
    more = pair(3, (32, 48))
    torch.testing.assert_close(program.module()(*more), loss(*more))


class Restorer(nn.Module):
    """A user's network that holds its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.loss = RelationalLoss()

    def forward(self, noisy: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss((noisy + self.body(noisy)).sigmoid(), target)
        return value


def _train(model: nn.Module, noisy: Tensor, target: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(noisy, target).backward()
        optimizer.step()


def _ddp_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(rank)  # DDP must make the start alike
    model = Restorer()
    wrapped = DistributedDataParallel(model)
    noisy, target = pair(4, (32, 40))
    if rank == 0:
        torch.save(model.body.state_dict(), f"{folder}/start.pt")
    _train(wrapped, noisy[rank::2], target[rank::2])
    if rank == 0:
        torch.save(model.state_dict(), f"{folder}/end.pt")
    dist.destroy_process_group()


def test_distributed_training_equals_one_process(tmp_path: Path) -> None:
    mp.spawn(_ddp_worker, (str(tmp_path),), nprocs=2)
    model = Restorer()
    model.body.load_state_dict(torch.load(tmp_path / "start.pt"))
    _train(model, *pair(4, (32, 40)))
    end = torch.load(tmp_path / "end.pt")
    assert sorted(end) == ["body.bias", "body.weight"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(end[name], value, rtol=1e-4, atol=1e-6)
