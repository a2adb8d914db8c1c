"""Invariants that the architecture guarantees, whatever the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss.network import NetworkConfig, ParityNetwork, freeze, load_pretrained
from relqa_loss.network.model import _SHARE_EPS, LEAST_SHARE, prevailing_sign

NETWORKS = (
    "shipped",
    "initial",
    "seed 1",
    "seed 2",
    "small",
    "silent",
    "shipped nano",
    "patches",
    "patches, seed 3",
    "silent patches",
)


def _build(name: str) -> ParityNetwork:
    if name.startswith("shipped"):
        return load_pretrained("relqa-nano" if "nano" in name else "relqa-base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ord(name[-1]) if "seed" in name else len(name))
        small = NetworkConfig(
            widths=(8, 8, 12, 12),
            stem_width=4,
            odd_widths=(4, 4, 6, 8),
            even_widths=(4, 8, 8, 12),
            error_widths=(4, 6, 8, 8),
            judgement_width=6,
            floor=0.05,
        )
        large = NetworkConfig.nano() if "patches" in name else NetworkConfig.base()
        network = ParityNetwork(small if name == "small" else large)
        if "seed" in name:
            # Far from any initialisation: nothing may rely on biases of 0 or small weights.
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.normal_(0, 0.2)
                network.scale.fill_(0.7)
        if "silent" in name:
            # All that is learned of the distance says nothing: the guarantees alone remain.
            with torch.no_grad():
                network.peak.fill_(-100)
                network.mapper.odd_head.weight.mul_(1000)
                for weights in _weighing(network):
                    weights.fill_(-100)
        return freeze(network)


def _weighing(network: ParityNetwork) -> list[Tensor]:
    if network.config.distance == "patches":
        return list(network.error.weigh)
    return [judgement.weigh for judgement in network.error.judgements]


_cache: dict[str, ParityNetwork] = {}


def build(name: str) -> ParityNetwork:
    if name not in _cache:
        _cache[name] = _build(name)
    return _cache[name]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> ParityNetwork:
    return build(request.param)


def double(network: ParityNetwork) -> ParityNetwork:
    """A copy free of float32's rounding, which weights far from any training amplify."""
    return copy.deepcopy(network).double()


def images(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


sides = st.integers(32, 83)
seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=12, deadline=None)
@given(height=sides, width=sides, seed=seeds, gap=st.sampled_from([1.0, 1e-2, 1 / 255, 1e-6]))
def test_swapping_flips_every_sign_to_the_last_bit(
    name: str, height: int, width: int, seed: int, gap: float
) -> None:
    network = build(name)
    first, other = images(seed, 2, 2, 3, height, width)
    second = first + gap * (other - first)
    with torch.no_grad():
        forth, back = network(first, second), network(second, first)
    assert torch.equal(forth.maps, -back.maps)
    assert torch.equal(forth.score, -back.score)
    assert forth.maps.shape == (2, len(network.channels), -(-height // 4), -(-width // 4))
    assert forth.score.shape == forth.distance.shape == (2,)
    assert all(value.isfinite().all() for value in forth)


@pytest.mark.parametrize("name", NETWORKS)
def test_parity_and_identity_hold_between_layouts(name: str) -> None:
    """As of a channels-last network's output and a loader's target."""
    network = build(name)
    first, second = images(5, 2, 2, 3, 50, 81)
    other = first.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        forth, back = network(other, second), network(second, other)
        same = network(first, other)
    assert torch.equal(forth.maps, -back.maps)
    assert torch.equal(forth.score, -back.score)
    assert all(bool((value == 0).all()) for value in same)


@pytest.mark.parametrize("name", NETWORKS)
def test_swapping_flips_every_sign_with_weights(name: str) -> None:
    network = build(name)
    first, second = images(5, 2, 2, 3, 45, 61)
    factors = images(6, len(network.channels)) * 3
    cells = images(7, 2, 1, 12, 16)
    with torch.no_grad():
        forth = network(first, second, factors, cells)
        back = network(second, first, factors, cells)
    assert torch.equal(forth.maps, -back.maps)
    assert torch.equal(forth.score, -back.score)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None)
@given(height=sides, width=sides, seed=seeds)
def test_identity_is_exactly_zero(name: str, height: int, width: int, seed: int) -> None:
    image = images(seed, 1, 3, height, width)
    with torch.no_grad():
        relation = build(name)(image, image.clone())
    assert all(bool((value == 0).all()) for value in relation)


@pytest.mark.parametrize("kind", ["noise", "constant", "black", "white"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_at_identity_is_exactly_zero(
    network: ParityNetwork, kind: str, weighted: bool
) -> None:
    level = {"constant": 0.3, "black": 0.0, "white": 1.0}.get(kind)
    shape = (1, 3, 45, 61)
    reference = images(0, *shape) if level is None else torch.full(shape, level)
    image = reference.clone().requires_grad_()
    cells = images(1, 1, 1, 12, 16) if weighted else None
    relation = network(reference, image, None, cells)
    (gradient,) = torch.autograd.grad(relation.distance.sum(), image, retain_graph=True)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    (gradient,) = torch.autograd.grad(relation.score.sum() + relation.maps.sum(), image)
    assert gradient.isfinite().all()


def _pairs(kind: str, seed: int, count: int, side: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """References and images of one kind of difference, from everywhere to nearly nowhere."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, *side)
    if kind == "grating":  # patterns at the network's own strides
        reference = torch.full(shape, 0.5)
        period = 2 ** (torch.arange(count) % 5)[:, None]
        across = ((torch.arange(side[1]) // period) % 2).float() - 0.5
        return reference, reference + 0.2 * across[:, None, None, :]
    reference = torch.randint(0, 256, shape, generator=generator) / 255
    if kind == "flat":
        reference = reference[..., :1, :1].expand(shape).clone()
    if kind == "noise":
        return reference, torch.rand(shape, generator=generator)
    if kind == "faint":
        return reference, (reference + 1e-3 * torch.randn(shape, generator=generator)).clamp(0, 1)
    if kind == "shift":
        return reference, reference.roll(1, -1)
    image = reference.clone()  # "pixel" and "flat": one value, one 8-bit level
    flat = image.view(count, -1)
    where = torch.randint(0, flat.shape[1], (count, 1), generator=generator)
    value = flat.gather(1, where)
    flat.scatter_(1, where, torch.where(value > 0.5, value - 1 / 255, value + 1 / 255))
    return reference, image


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("shipped", 1.0),
        ("shipped nano", 1.0),
        ("silent", 1.0),
        ("silent patches", 1.0),
        ("seed 1", 0.1),
        ("seed 2", 0.1),
        ("small", 0.1),
        ("patches, seed 3", 0.1),
    ],
)
def test_distance_is_bounded_from_below_by_the_mean_difference(name: str, share: float) -> None:
    """``distance ≥ c · mean|x − r|`` on 10⁴ pairs for the shipped weights."""
    network = build(name)
    assert network.floor > 0
    total = 0
    for kind, count in {
        "pixel": 4000,
        "flat": 2000,
        "noise": 1000,
        "faint": 1200,
        "shift": 800,
        "grating": 1000,
    }.items():
        done = 0
        while done < count * share:
            side = ((32, 32), (32, 47), (33, 32), (64, 41))[done // 100 % 4]
            reference, image = _pairs(kind, done, 100, side)
            with torch.no_grad():
                distance = network.distance(network.encode(reference), network.encode(image))
            difference = (image - reference).abs().mean((1, 2, 3))
            assert (difference > 0).all()
            # The centred float32 image resolves a difference of one level to 10⁻⁵ of it.
            slack = distance - network.floor * difference * (1 - 1e-4)
            assert (slack > 0).all(), f"{kind}: below the bound by {-slack.min()}"
            done += 100
        total += done
    assert total >= 10_000 * share


@pytest.mark.parametrize("kind", ["pixel", "noise", "faint", "shift", "grating"])
def test_distance_falls_on_the_straight_way_to_the_reference(
    network: ParityNetwork, kind: str
) -> None:
    network = double(network)
    reference, image = (picture.double() for picture in _pairs(kind, 2, 6, (33, 47)))
    encoding = network.encode(reference)
    previous = torch.zeros(6)
    for share in (0.01, 0.1, 0.3, 0.6, 0.9, 1.0):
        step = (reference + share * (image - reference)).requires_grad_()
        distance = network.distance(encoding, step)
        assert (distance > previous).all()
        previous = distance.detach()
        (gradient,) = torch.autograd.grad(distance.sum(), step)
        # A small enough gradient step lowers the mean squared error.
        assert ((gradient * (step - reference)).sum((1, 2, 3)) > 0).all()


def test_channel_weights_leave_a_share_of_the_bound(network: ParityNetwork) -> None:
    none, ones = torch.zeros(len(network.channels)), torch.ones(len(network.channels))
    for kind in ("pixel", "noise", "faint", "shift", "grating"):
        reference, image = _pairs(kind, 1, 20, (33, 47))
        with torch.no_grad():
            encodings = network.encode(reference), network.encode(image)
            least = network.distance(*encodings, none)
            plain = network.distance(*encodings)
            assert torch.equal(network.distance(*encodings, ones), plain)
        difference = (image - reference).abs().mean((1, 2, 3))
        assert (least >= LEAST_SHARE * network.floor * difference * (1 - 1e-4)).all()
        assert (least <= plain).all()


@pytest.mark.parametrize("side", [(64, 64), (45, 61)])
def test_the_bound_holds_for_weighted_means(network: ParityNetwork, side: tuple[int, int]) -> None:
    reference, other = images(3, 2, 4, 3, *side)
    image = reference + 0.05 * (other - reference)
    rows, columns = -(-side[0] // 4), -(-side[1] // 4)
    cells = images(4, 4, 1, rows, columns).pow(4)
    with torch.no_grad():
        distance = network.distance(network.encode(reference), network.encode(image), weight=cells)
    full = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., : side[0], : side[1]]
    difference = (image - reference).abs().mean(1, keepdim=True)
    weighted = (full * difference).sum((1, 2, 3)) / full.sum((1, 2, 3))
    assert (distance >= network.floor * weighted * (1 - 1e-4)).all()


@pytest.mark.parametrize("side", [(64, 64), (45, 61), (33, 32)])
def test_a_weight_of_ones_equals_none(network: ParityNetwork, side: tuple[int, int]) -> None:
    reference, image = images(8, 2, 2, 3, *side)
    cells = torch.ones(2, 1, -(-side[0] // 4), -(-side[1] // 4))
    with torch.no_grad():
        plain = network(reference, image)
        for factor in (1.0, 7.0, 1e-6):  # only their ratios count
            weighted = network(reference, image, None, factor * cells)
            torch.testing.assert_close(weighted.distance, plain.distance, rtol=2e-6, atol=0)
            torch.testing.assert_close(weighted.score, plain.score, rtol=1e-4, atol=1e-6)
            assert torch.equal(weighted.maps, plain.maps)


def test_a_weight_of_zero_gives_zero(network: ParityNetwork) -> None:
    reference, other = images(9, 2, 2, 3, 32, 32)
    image = other.requires_grad_()
    cells = torch.zeros(2, 1, 8, 8)
    cells[1] = 1
    relation = network(reference, image, None, cells)
    relation.distance.sum().backward()
    assert relation.distance[0] == 0
    assert relation.distance[1] > 0
    assert relation.score[0] == 0
    assert image.grad is not None
    assert (image.grad[0] == 0).all()
    assert image.grad.isfinite().all()


def test_what_lies_far_outside_the_mask_does_not_count(network: ParityNetwork) -> None:
    reference = images(10, 1, 3, 32, 256)
    image = reference.clone()
    image[..., :16] = 1 - image[..., :16]
    cells = torch.zeros(1, 1, 8, 64)
    cells[..., 48:] = 1
    with torch.no_grad():
        inside = network(reference, image, None, cells)
        outside = network(reference, image, None, 1 - cells)
    assert inside.distance == 0
    assert outside.distance > 0


@pytest.mark.parametrize("side", [128, 8])
def test_distance_is_a_norm_of_its_density(network: ParityNetwork, side: int) -> None:
    reference, image = images(11, 2, 1, 3, 128, 128)
    image[..., side:, :], image[..., side:] = reference[..., side:, :], reference[..., side:]
    with torch.no_grad():
        encodings = network.encode(reference), network.encode(image)
        density = network.distance_map(*encodings)
        distance = network.distance(*encodings)
    assert (density >= 0).all()
    mean, rms = density.mean(), density.square().mean().sqrt()
    assert (rms > 3 * mean) == (side == 8)
    least = network.config.confined * rms
    expected = max(mean, least) + torch.nn.functional.softplus(network.peak) * rms
    # What keeps the root smooth at 0 takes up to 0.001 off it.
    torch.testing.assert_close(distance[0], expected, rtol=1e-2, atol=1e-3)


def test_what_is_confined_is_diluted_by_the_root_of_the_area() -> None:
    network, reference = build("shipped"), images(15, 1, 3, 256, 256)
    image = reference.clone()
    image[..., 120:136, 120:136] = 1 - image[..., 120:136, 120:136]
    middle = (..., slice(64, 192), slice(64, 192))
    with torch.no_grad():
        small, large = (
            network.distance(network.encode(r), i)
            for r, i in ((reference[middle], image[middle]), (reference, image))
        )
    torch.testing.assert_close(small / large, torch.full((1,), 2.0), rtol=0.02, atol=0)


def test_what_images_are_padded_with_is_grey(network: ParityNetwork) -> None:
    network = double(network)
    pair = images(23, 2, 2, 3, 45, 61).double()
    wider = torch.nn.functional.pad(pair, (0, 3, 0, 3), value=0.5)
    with torch.no_grad():
        (one, other), (wide, wide_other) = (map(network.encode, each) for each in (pair, wider))
        for function in (network.distortion_maps, network.distance_map):
            torch.testing.assert_close(function(one, other), function(wide, wide_other))


@pytest.mark.parametrize("side", [(48, 64), (45, 61)])
@pytest.mark.parametrize("name", ["silent", "silent patches"])
def test_the_plain_distance_is_all_where_nothing_is_learned(
    name: str, side: tuple[int, int]
) -> None:
    network = double(build(name))
    network.scale.fill_(0.7)
    reference, image = images(22, 2, 2, 3, *side).double()
    with torch.no_grad():
        encoding = network.encode(reference)
        distance = network.distance(encoding, image)
        for given in (image, network.encode(image)):
            torch.testing.assert_close(network.plain_distance(encoding, given), distance)


def test_parts_equal_the_whole(network: ParityNetwork) -> None:
    reference, image = images(12, 2, 2, 3, 45, 61)
    factors = images(13, len(network.channels))
    cells = images(14, 2, 1, 12, 16)
    with torch.no_grad():
        whole = network(reference, image, factors, cells)
        encodings = network.encode(reference), network.encode(image)
        maps, distance = network.maps_and_distance(*encodings, factors, cells)
        assert torch.equal(whole.maps, maps)
        assert torch.equal(whole.distance, distance)
        assert torch.equal(whole.maps, network.distortion_maps(*encodings))
        assert torch.equal(whole.maps, network.distortion_maps(reference, image))
        alike = network.maps_and_distance(encodings[0], image, factors, cells)
        assert all(torch.equal(*both) for both in zip(alike, (maps, distance), strict=True))
        assert torch.equal(whole.distance, network.distance(*encodings, factors, cells))
        assert torch.equal(whole.distance, network.distance(encodings[0], image, factors, cells))
        plain = network(reference, image, weight=cells).distance
        assert torch.equal(plain, network.distance(encodings[0], image, weight=cells))


def test_channel_weights_are_their_formula(network: ParityNetwork) -> None:
    reference, image = (each.double() for each in images(15, 2, 2, 3, 48, 64))
    network = copy.deepcopy(network).double()
    factors = torch.linspace(0, 3, len(network.channels), dtype=torch.float64)
    encoding = network.encode(reference)

    def by_hand(image: Tensor) -> Tensor:
        amount = network.distortion_maps(reference, image).abs()
        kept = torch.ones(2, 1, 12, 16, dtype=torch.float64)
        added = torch.zeros_like(kept)
        for index, factor in enumerate(factors.tolist()):
            # Nothing is gained by posing as a channel of little weight.
            share = (amount[:, index] / (amount.sum(1) + _SHARE_EPS)).detach()
            kept[:, 0] -= max(0.0, 1 - factor) * share
            added = added + max(0.0, factor - 1) * amount[:, index : index + 1]
        return network.density(encoding, image) * kept.clamp(min=LEAST_SHARE) + added

    with torch.no_grad():
        where = network.distance_map(encoding, network.encode(image), factors)
        torch.testing.assert_close(where, by_hand(image))
    one, other = (image.clone().requires_grad_() for _ in range(2))
    found = network.distance(encoding, one, factors)
    expected = by_hand(other)
    cells = (1, 2, 3)
    expected = network.pooled(expected.mean(cells), expected.square().mean(cells))
    torch.testing.assert_close(found, expected)
    for value in (found, expected):
        value.sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_streams_keep_their_parity(network: ParityNetwork) -> None:
    first, second = images(21, 2, 2, 3, 48, 64)
    with torch.no_grad():
        forth, there = network.streams_and_direction(first, second)
        back, home = network.streams_and_direction(second, first)
    for odd in ("odd", "maps", "sign"):
        assert torch.equal(getattr(forth, odd), -getattr(back, odd))
    for even in ("even", "presence"):
        assert torch.equal(getattr(forth, even), getattr(back, even))
    assert torch.equal(there, -home)
    assert (there.abs() <= 1).all()
    assert (forth.sign.abs() <= 1).all()


def test_the_score_is_surer_than_training(network: ParityNetwork) -> None:
    first, second = images(21, 2, 2, 3, 48, 64)
    with torch.no_grad():
        _, learned = network.streams_and_direction(first, second)
        forth, back = network(first, second), network(second, first)
    sure = forth.score / (0.5 * (forth.distance + back.distance))
    assert torch.equal(sure.sign(), learned.sign())
    assert (learned.abs() < sure.abs()).all()
    assert (sure.abs() <= 1 + 1e-6).all()


@given(share=st.floats(0, 1), scale=st.floats(1e-2, 1e3))
@example(share=1.0, scale=1.0)
def test_a_clear_direction_is_nearly_certain(share: float, scale: float) -> None:
    columns = torch.linspace(0, 1, 64) <= share
    evidence = scale * torch.where(columns, 1.0, -1.0).expand(1, 1, 8, 64)
    sign = float(prevailing_sign(evidence))
    balance = float(evidence.mean() / scale)
    assert abs(sign) <= 1 + 1e-6
    assert sign == -float(prevailing_sign(-evidence))
    # Whatever its magnitude.
    assert sign == pytest.approx(float(prevailing_sign(evidence / scale)), abs=1e-3)
    assert sign * balance >= 0
    assert abs(sign) >= abs(balance) - 1e-3
    if abs(balance) >= 0.2:
        assert abs(sign) > 0.7


def test_a_batch_gives_what_its_images_give(network: ParityNetwork) -> None:
    network = double(network)
    references, pictures = images(15, 2, 5, 3, 45, 61).double()
    with torch.no_grad():
        batch = network(references, pictures)
        for index in range(len(references)):
            single = network(references[index : index + 1], pictures[index : index + 1])
            for together, alone in zip(batch, single, strict=True):
                torch.testing.assert_close(together[index : index + 1], alone)


def test_memory_format_makes_no_difference(network: ParityNetwork) -> None:
    network = double(network)
    reference, image = images(16, 2, 2, 3, 45, 61).double()
    with torch.no_grad():
        plain = network(reference, image)
        last = network(
            reference.contiguous(memory_format=torch.channels_last),
            image.contiguous(memory_format=torch.channels_last),
        )
    for one, other in zip(plain, last, strict=True):
        torch.testing.assert_close(one, other)


def test_batches_and_formats_agree_in_float32() -> None:
    network = build("shipped")
    reference, image = images(20, 2, 3, 3, 45, 61)
    with torch.no_grad():
        batch = network(reference, image)
        last = network(
            *(x.contiguous(memory_format=torch.channels_last) for x in (reference, image))
        )
        alone = network(reference[1:2], image[1:2])
    for together, other, single in zip(batch, last, alone, strict=True):
        size = float(together.abs().max())
        torch.testing.assert_close(together, other, rtol=0, atol=1e-3 * size)
        torch.testing.assert_close(together[1:2], single, rtol=0, atol=1e-3 * size)


def test_an_encoding_can_be_reused_and_broadcast(network: ParityNetwork) -> None:
    network = double(network)
    reference, *others = images(17, 4, 1, 3, 48, 40).double()
    with torch.no_grad():
        encoding = network.encode(reference)
        together = network.relate(encoding, network.encode(torch.cat(others)))
        for index, other in enumerate(others):
            alone = network(reference, other)
            for one, many in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], many[index])


@pytest.mark.parametrize("name", ["shipped", "small", "patches", "patches, seed 3"])
def test_gradcheck_in_float64(name: str) -> None:
    network = freeze(_build(name).double())
    reference, other = images(18, 2, 1, 3, 33, 35).double()
    cells = images(19, 1, 1, 9, 9).double()
    image = other.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: tuple(network(reference, x, None, cells)), (image,), fast_mode=True
    )
    assert network(reference, image).distance.dtype == torch.float64
