"""Steps with a backward pass of their own, against the formulas that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss import RelationalLoss, load_pretrained
from relqa_loss.network._judgement import judged_density
from relqa_loss.network._layout import (
    by_position,
    depth_to_space,
    first,
    last,
    space_to_depth,
)
from relqa_loss.network._lean import (
    GLARING,
    LEAK,
    ONSET,
    UNSEEN,
    BlockKernel,
    block_conv,
    channel_error,
    frozen_conv,
    gated_step,
    mean_error,
    mean_magnitude,
    softplus,
)
from relqa_loss.network._patches import (
    blended,
    filtered,
    from_patches,
    magnitudes,
    merge,
    mixed,
    patch_kernel,
    product,
    saturated_cells,
    stepped,
    to_patches,
)
from relqa_loss.network._pooling import norm_of_cells
from relqa_loss.network._readings import readings
from relqa_loss.network.pyramid import PixelPyramid

Function = Callable[[Tensor], Tensor]
WEIGHTS = torch.rand(1, 6, 1, 1, generator=torch.Generator().manual_seed(1)).double()


KERNEL = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(3)).double()
MIX = torch.randn(6, 6, 3, 3, generator=torch.Generator().manual_seed(7)).double()
REDUCE = torch.randn(6, 6, 2, 2, generator=torch.Generator().manual_seed(8)).double()
MERGED = REDUCE.permute(2, 3, 1, 0).reshape(24, 6)
GATE = torch.randn(1, 16, 24, 6, generator=torch.Generator().manual_seed(9)).double()
SEEN = torch.rand(3, 1, 1, 1, 6, generator=torch.Generator().manual_seed(10)).double()
FILTERS = torch.randn(48, 5, generator=torch.Generator().manual_seed(4)).double()
PATCHES = patch_kernel(FILTERS.T)
PIXELS = torch.randn(5, 12, 3, 3, generator=torch.Generator().manual_seed(5)).double()
BIAS = torch.rand(5, generator=torch.Generator().manual_seed(6)).double()
BLOCKS = BlockKernel.of(PIXELS)
WIDE = torch.cat([PIXELS, PIXELS.flip(0)])
"""Of too many channels to work out two cells as one."""
TARGET = torch.zeros((), dtype=torch.float64)
PEAK = torch.tensor(0.7, dtype=torch.float64)


def plain_onset(error: Tensor) -> Tensor:
    return error * error.abs() / (error.abs() + ONSET)


def plain_sum(visible: Tensor) -> Tensor:
    saturated = visible / (1 + visible) + LEAK * visible
    return (saturated * WEIGHTS).sum(1, keepdim=True)


def plain_step(error: Tensor) -> Tensor:
    gated = F.conv2d(error, REDUCE, stride=2) * first(GATE)
    return gated + F.conv2d(gated, MIX, padding=1)


def strides(error: Tensor, count: int) -> list[Tensor]:
    """Magnitudes at strides 1, 2 and 4."""
    return [F.avg_pool2d(error.abs(), 2**level) for level in range(count)]


def joined(error: Tensor, count: int = 3) -> Tensor:
    judged = [last(each) for each in strides(error, count)]
    return first(judged_density(judged, SEEN[:count], [WEIGHTS.view(6, 1)] * count))


def plain_joined(error: Tensor, count: int = 3) -> Tensor:
    *finer, judged = strides(error, count)
    visible = judged * first(SEEN[count - 1])
    density = plain_sum(visible)
    for level, judged in reversed(list(enumerate(finer))):
        visible = (judged + F.interpolate(visible, scale_factor=2.0)) * first(SEEN[level])
        density = plain_sum(visible) + F.interpolate(density, scale_factor=2.0)
    return density


def plain_norm(density: Tensor, share: float, confined: float) -> Tensor:
    mean = share * density.mean((1, 2, 3))
    rms = (share * density.square().mean((1, 2, 3)) + 2.0**-20).sqrt() - 2.0**-10
    return torch.where(mean < confined * rms, confined * rms, mean) + PEAK * rms


def plain_pyramid(difference: Tensor) -> Tensor:
    return torch.cat([each.flatten(1) for each in plain_bands(difference)], 1)


def plain_bands(difference: Tensor) -> list[Tensor]:
    """By ``avg_pool2d`` and ``interpolate``: three at stride 4, then those at strides 8 and 16."""
    matrix = PixelPyramid().opponent.double()
    current = torch.einsum("oi,nihw->nohw", matrix, difference)
    found = []
    for level in range(4):
        coarse = F.avg_pool2d(current, 4, 2, 1, count_include_pad=False)
        band = (current - F.interpolate(coarse, scale_factor=2.0, mode="nearest")).abs()
        found.append(F.avg_pool2d(band, max(1, 4 >> level)))
        current = coarse
    return [*found, current.abs()]


def pyramid(difference: Tensor) -> Tensor:
    fine, *rest, _ = PixelPyramid().double()(difference)
    return torch.cat([each.flatten(1) for each in (*fine.split(3, 1), *rest)], 1)


def plain_smooth(image: Tensor, *, first: int = 4) -> Tensor:
    current = torch.einsum("oi,nihw->nohw", PixelPyramid().opponent.double(), image)
    for window in (first, 4):
        current = F.avg_pool2d(current, window, 2, window // 2 - 1, count_include_pad=False)
    return current


def plain_magnitudes(error: Tensor) -> Tensor:
    signed = plain_onset(error[:, :4])
    return torch.cat([signed, signed.abs(), error[:, 4:]], 1)


def read(image: Tensor, kernel: BlockKernel = BLOCKS) -> Tensor:
    """All readings of an odd size, flat."""
    image = image[..., :30, :43]
    found = readings(
        image, torch.full_like(image, 0.05), kernel, PixelPyramid().double(), mean=True
    )
    bands = torch.cat([each.flatten(1) for each in (*found.fine.split(3, 1), *found[2:4])], 1)
    others = (found.reduced, found.smooth, found.plain, found.error)
    others = [each.flatten(1) if each.ndim > 1 else each[:, None] for each in others]
    return torch.cat([bands, *others], 1)


def plain_read(image: Tensor) -> Tensor:
    error = image[..., :30, :43] - 0.05
    whole = F.pad(error, (0, 5, 0, 2))
    reduced = F.conv2d(F.pixel_unshuffle(whole, 2), PIXELS, padding=1)
    bands = plain_bands(whole)
    summed = sum(
        F.interpolate(band.sum(1, keepdim=True), bands[0].shape[-2:], mode="nearest")
        for band in bands
    )
    assert isinstance(summed, Tensor)
    others = (
        reduced.flatten(1),
        plain_smooth(whole).flatten(1),
        summed.flatten(1),
        error.abs().mean((1, 2, 3))[:, None],
    )
    return torch.cat([*(band.flatten(1) for band in bands), *others], 1)


CASES = {
    "mean magnitude": (
        mean_magnitude,
        lambda error: F.avg_pool2d(plain_onset(error).abs(), 2),
        6,
    ),
    "frozen convolution": (lambda error: frozen_conv(error, KERNEL, padding=1),
                           lambda error: F.conv2d(error, KERNEL, padding=1), 6),
    "frozen reduction": (lambda error: frozen_conv(error, KERNEL[..., 1:, 1:], stride=2),
                         lambda error: F.conv2d(error, KERNEL[..., 1:, 1:], stride=2), 6),
    "frozen convolution of blocks": (
        lambda image: block_conv(image, BLOCKS, BIAS),
        lambda image: F.conv2d(F.pixel_unshuffle(image, 2), PIXELS, BIAS, padding=1),
        3,
    ),
    "frozen convolution of blocks to more channels": (
        lambda image: block_conv(image, BlockKernel.of(WIDE)),
        lambda image: F.conv2d(F.pixel_unshuffle(image, 2), WIDE, padding=1),
        3,
    ),
    "channel error": (lambda error: channel_error(error, TARGET),
                      lambda error: (error - TARGET).abs().mean(1, keepdim=True), 3),
    "mean error": (lambda error: mean_error(error, TARGET),
                   lambda error: (error - TARGET).abs().mean((1, 2, 3)), 3),
    "pyramid": (pyramid, plain_pyramid, 3),
    "smooth difference": (lambda error: PixelPyramid().double()(error)[-1], plain_smooth, 3),
    "smooth difference alone": (lambda error: PixelPyramid().double().smooth_difference(error),
                                plain_smooth, 3),
    "smooth image": (lambda image: PixelPyramid().double().smooth(image),
                     lambda image: plain_smooth(image, first=2), 3),
    "frozen patch filters": (
        lambda error: first(filtered(error, FILTERS, PATCHES)[0]),
        lambda error: F.conv2d(error, FILTERS.T.reshape(5, 3, 4, 4), stride=4),
        3,
    ),
    "colours of patches": (
        lambda error: first(filtered(error, FILTERS, PATCHES)[1]),
        lambda error: F.avg_pool2d(error.abs(), 4),
        3,
    ),
    "frozen mixing of cells": (lambda error: first(mixed(last(error[:, :4]), KERNEL[:, :4])),
                               lambda error: F.conv2d(error[:, :4], KERNEL[:, :4], padding=1), 6),
    "frozen product": (lambda error: first(product(last(error), FILTERS[:6])),
                       lambda error: F.conv2d(error, FILTERS[:6].T[..., None, None]), 6),
    "frozen step of cells": (
        lambda error: first(stepped(last(error), MERGED, GATE, MIX)),
        plain_step,
        6,
    ),
    "frozen step": (lambda error: gated_step(error, REDUCE, first(GATE), MIX), plain_step, 6),
    "joined strides": (joined, plain_joined, 6),
    "one stride": (lambda error: joined(error, 1), lambda error: plain_joined(error, 1), 6),
    "magnitudes of cells": (
        lambda error: first(magnitudes(last(error[:, :4]), last(error[:, 4:]))),
        plain_magnitudes,
        6,
    ),
    "magnitudes alone": (
        lambda error: first(magnitudes(last(error[:, :4]))),
        lambda error: plain_magnitudes(error[:, :4]),
        6,
    ),
    "frozen readings": (read, plain_read, 3),
    "frozen blend": (
        lambda error: first(blended(last(error[:, :4]), last(error[:, 4:]), FILTERS[:10])),
        lambda error: F.conv2d(plain_magnitudes(error), FILTERS[:10].T[..., None, None]),
        6,
    ),
    "frozen blend alone": (
        lambda error: first(blended(last(error), None, FILTERS[:12])),
        lambda error: F.conv2d(
            torch.cat([plain_onset(error), plain_onset(error).abs()], 1),
            FILTERS[:12].T[..., None, None],
        ),
        6,
    ),
    "norm of cells": (
        lambda error: norm_of_cells(error.square(), 1.1, 0.4, PEAK),
        lambda error: plain_norm(error.square(), 1.1, 0.4),
        1,
    ),
    "norm of confined cells": (
        lambda error: norm_of_cells(error.square(), 1.1, 0.9, PEAK),
        lambda error: plain_norm(error.square(), 1.1, 0.9),
        1,
    ),
    "saturated cells": (
        lambda error: first(saturated_cells(last(error.abs()), WEIGHTS.view(6, 1))),
        lambda error: plain_sum(error.abs()),
        6,
    ),
}  # fmt: skip


def sample(channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(2, channels, 32, 48, generator=generator, dtype=torch.float64)


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[Function, Function, Tensor]:
    ours, plain, channels = CASES[request.param]
    return ours, plain, sample(channels)


def test_values_and_gradients(case: tuple[Function, Function, Tensor]) -> None:
    ours, plain, error = case
    error.requires_grad_()
    values, wanted = ours(error), plain(error)
    torch.testing.assert_close(values, wanted)
    weight = torch.randn(values.shape, generator=torch.Generator().manual_seed(2)).double()
    (grad,) = torch.autograd.grad(values, error, weight)
    (wanted_grad,) = torch.autograd.grad(wanted, error, weight)
    torch.testing.assert_close(grad, wanted_grad)


def test_channels_beside_one_another_make_no_difference(
    case: tuple[Function, Function, Tensor],
) -> None:
    ours, _, error = case
    other = error.to(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(other), ours(error))


def test_second_derivatives(case: tuple[Function, Function, Tensor]) -> None:
    ours, plain, error = case
    error.requires_grad_()

    def twice(function: Function) -> Tensor:
        (grad,) = torch.autograd.grad(function(error).square().sum(), error, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), error)
        return second

    torch.testing.assert_close(twice(ours), twice(plain))


def test_function_transforms(case: tuple[Function, Function, Tensor]) -> None:
    ours, _, error = case

    def loss(image: Tensor) -> Tensor:
        return ours(image[None]).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(error)
    alone = torch.stack([torch.func.grad(loss)(image) for image in error])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", CASES)
def test_no_gradient_at_zero(name: str) -> None:
    ours, _, channels = CASES[name]
    error = torch.zeros(1, channels, 32, 32, dtype=torch.float64, requires_grad=True)
    if name.startswith(("frozen", "smooth")) or name == "magnitudes of cells":
        pytest.skip("linear, or in part")
    ours(error).sum().backward()
    assert error.grad is not None
    assert not bool(error.grad.any())


def test_weights_of_the_sum_learn() -> None:
    cells, weights = last(sample(6).abs()), WEIGHTS.view(6, 1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda weights: saturated_cells(cells, weights), weights)


def test_patches_that_learn_give_the_same() -> None:
    error, learned = sample(3), FILTERS.clone().requires_grad_()
    torch.testing.assert_close(filtered(error, learned, PATCHES), filtered(error, FILTERS, PATCHES))
    cells, kernel = last(sample(6)), KERNEL.clone().requires_grad_()
    torch.testing.assert_close(mixed(cells, kernel), mixed(cells, KERNEL))
    layer = FILTERS[:6].clone().requires_grad_()
    torch.testing.assert_close(product(cells, layer), product(cells, FILTERS[:6]))
    found = filtered(error, learned, PATCHES)[0], mixed(cells, kernel), product(cells, layer)
    for value, weight in zip(found, (learned, kernel, layer), strict=True):
        value.square().sum().backward()
        assert weight.grad is not None
        assert bool(weight.grad.any())


def test_blends_and_readings_that_learn_give_the_same() -> None:
    cells, learned = last(sample(6)), FILTERS[:12].clone().requires_grad_()
    torch.testing.assert_close(blended(cells, None, learned), blended(cells, None, FILTERS[:12]))
    weight = PIXELS.clone().requires_grad_()
    torch.testing.assert_close(read(sample(3), BlockKernel.of(weight)), read(sample(3)))
    for value, parameter in (
        (blended(cells, None, learned), learned),
        (read(sample(3), BlockKernel.of(weight)), weight),
    ):
        value.square().sum().backward()
        assert parameter.grad is not None
        assert bool(parameter.grad.any())


def test_steps_and_strides_that_learn_give_the_same() -> None:
    error, cells = sample(6), last(sample(6))
    judged, weights = [last(each) for each in strides(error, 3)], [WEIGHTS.view(6, 1)] * 3
    for function, given in (
        (lambda weight: stepped(cells, weight, GATE, MIX), MERGED),
        (lambda gate: stepped(cells, MERGED, gate, MIX), GATE),
        (lambda weight: gated_step(error, weight, first(GATE), MIX), REDUCE),
        (lambda gate: gated_step(error, REDUCE, gate, MIX), first(GATE)),
        (lambda weight: judged_density(judged, SEEN, [*weights[1:], weight]), weights[0]),
        (lambda seen: judged_density(judged, [SEEN[1], SEEN[2], seen], weights), SEEN[0]),
    ):
        learned = given.clone().requires_grad_()
        found = function(learned)
        torch.testing.assert_close(found, function(given))
        found.square().sum().backward()
        assert learned.grad is not None
        assert bool(learned.grad.any())


@pytest.mark.parametrize("gives", ["image", "reference"])
def test_readings_without_the_mean(gives: str) -> None:
    one, other = sample(3).requires_grad_(), sample(3, seed=1).requires_grad_()
    source = one if gives == "image" else other
    grads = []
    for mean in (False, True):
        found = readings(one, other, BLOCKS, PixelPyramid().double(), mean=mean)
        grads += torch.autograd.grad(sum(each.square().sum() for each in found[:5]), source)
        assert bool(found.error.any()) == mean
    torch.testing.assert_close(*grads)


def test_what_readings_gain_by_the_image_they_lose_by_the_reference() -> None:
    pair = sample(3).requires_grad_(), sample(3, seed=1).requires_grad_()
    found = readings(*pair, BLOCKS, PixelPyramid().double(), mean=True)
    of_image, of_reference = torch.autograd.grad(sum(each.square().sum() for each in found), pair)
    torch.testing.assert_close(of_reference, -of_image)


def test_many_gradients_of_one_image() -> None:
    image = sample(3)[:1, :, :16, :16]
    reference = torch.zeros_like(image)

    def rest(image: Tensor) -> Tensor:
        found = readings(image, reference, BLOCKS, PixelPyramid().double(), mean=True)
        return torch.cat([found.rest.flatten(), found.error])

    values, backward = torch.func.vjp(rest, image)
    each = torch.eye(len(values), dtype=values.dtype)
    with torch.no_grad():  # steps in place meet gradients that are mapped, and signs that are not
        (together,) = torch.func.vmap(backward)(each)
    alone = [backward(row)[0] for row in each]
    torch.testing.assert_close(together, torch.stack(alone))


def test_patches_and_cells_lose_nothing() -> None:
    image = sample(3)
    assert torch.equal(from_patches(to_patches(image)), image)
    cells = last(sample(6))
    merged = merge(cells)
    assert merged.shape == (2, 16, 24, 24)
    corners = [cells[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    assert torch.equal(merged, torch.cat(corners, -1))


def test_backward_pass_under_autocast_is_in_full_precision() -> None:
    error = sample(3).float().requires_grad_()
    grads = []
    for enabled in (False, True):
        fine, *_ = PixelPyramid()(error)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            grads += torch.autograd.grad(fine.sum(), error)
    assert torch.equal(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_over_its_range(dtype: torch.dtype) -> None:
    logits = torch.linspace(UNSEEN, GLARING, 10001, dtype=dtype)
    torch.testing.assert_close(softplus(logits.clone()), F.softplus(logits), rtol=1e-6, atol=2e-7)
    learned = logits.clone().requires_grad_()
    softplus(learned).sum().backward()
    assert learned.grad is not None
    torch.testing.assert_close(learned.grad, torch.sigmoid(logits))


def test_space_to_depth_is_pixel_unshuffle_in_another_order() -> None:
    image = sample(3)
    weight = torch.randn(5, 12, 3, 3, generator=torch.Generator().manual_seed(3)).double()
    wanted = F.conv2d(F.pixel_unshuffle(image, 2), weight, padding=1)
    found = F.conv2d(space_to_depth(image), by_position(weight), padding=1)
    torch.testing.assert_close(found, wanted)
    assert space_to_depth(image).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(depth_to_space(space_to_depth(image)), image)


def test_convolutions_that_learn_get_their_gradient() -> None:
    error, kernel = sample(6), KERNEL.clone().requires_grad_()
    frozen_conv(error, kernel, padding=1).square().sum().backward()
    wanted = KERNEL.clone().requires_grad_()
    F.conv2d(error, wanted, padding=1).square().sum().backward()
    assert kernel.grad is not None
    torch.testing.assert_close(kernel.grad, wanted.grad)


@pytest.mark.parametrize("learned", [False, True])
def test_frozen_convolutions_do_not_keep_their_input(learned: bool) -> None:
    error, kept = sample(6).requires_grad_(), []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    kernel = KERNEL.clone().requires_grad_(learned)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        frozen_conv(error, kernel, padding=1)
    assert (error.shape in kept) == learned


@pytest.mark.parametrize("name", ["channel error", "mean error"])
def test_an_error_has_a_gradient_for_both(name: str) -> None:
    lean, dims = (channel_error, (1,)) if name == "channel error" else (mean_error, (1, 2, 3))
    first, second = sample(3, 1).requires_grad_(), sample(3, 2).requires_grad_()
    found = torch.autograd.grad(lean(first, second).square().sum(), (first, second))
    plain = (first - second).abs().mean(dims, keepdim=True)
    wanted = torch.autograd.grad(plain.square().sum(), (first, second))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
@pytest.mark.parametrize("size", [(64, 48), (37, 51)])
def test_the_error_that_comes_with_the_distance(weights: str, size: tuple[int, int]) -> None:
    network = load_pretrained(weights)
    generator = torch.Generator().manual_seed(0)
    preds, target = torch.rand(2, 2, 3, *size, generator=generator)
    encoding = network.encode(target)
    found = network.distance_and_error(encoding, preds.requires_grad_())
    wanted = (network.distance(encoding, preds), (preds - target).abs().mean((1, 2, 3)))
    torch.testing.assert_close(found, wanted)
    for one, other in zip(found, wanted, strict=True):
        slopes = [torch.autograd.grad(x.sum(), preds, retain_graph=True) for x in (one, other)]
        torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("weights", ["relqa-base", "relqa-nano"])
def test_no_number_of_the_backward_pass_is_denormal(weights: str) -> None:
    # Some processors take a hundred times as long for those: a fifth of the loss's time.
    generator = torch.Generator().manual_seed(0)
    preds, target = torch.rand(2, 1, 3, 256, 256, generator=generator)
    loss = RelationalLoss(weights=weights, pixel_weight=0)(preds.requires_grad_(), target)
    denormal: list[int] = []

    def count(grads: tuple[Tensor | None, ...]) -> None:
        found = [grad.abs() for grad in grads if grad is not None]
        tiny = torch.finfo(torch.float32).tiny
        denormal.extend(int(((each > 0) & (each < tiny)).sum()) for each in found)

    nodes: set[object] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            node.register_prehook(count)
            waiting.extend(parent for parent, _ in node.next_functions)
    loss.backward()
    assert len(denormal) > 20
    assert sum(denormal) == 0


def test_how_often_a_peak_counts_learns() -> None:
    density, peak = sample(1).square(), PEAK.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda peak: norm_of_cells(density, 1.0, 0.4, peak), peak)
    torch.testing.assert_close(
        norm_of_cells(density, 1.0, 0.4, peak), norm_of_cells(density, 1.0, 0.4, PEAK)
    )
