"""The terms of the training objective: what each of them rewards."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.network import NetworkConfig, ParityNetwork
from relqa_loss.network.mapper import Streams
from relqa_loss.training.batch import PAIRS_PER_SET, Batch, Facts, Lessons, Pairs
from relqa_loss.training.objectives import Learn, Objectives, ObjectiveWeights
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER
from relqa_loss.training.terms import (
    certain_loss,
    consensus,
    consensus_loss,
    direction_loss,
    facts_loss,
    far_loss,
    listwise_loss,
    log_distance,
    map_loss,
    more_than_taste,
    outputs_loss,
    presence_loss,
    region_loss,
    relative_loss,
    sign_loss,
    teacher_loss,
    type_loss,
)

SLOPE = torch.tensor(2.0)
# On a grid, so that gaps are either none or clear of rounding.
RANKS = arrays("float64", (5, 4), elements=st.integers(0, 64).map(lambda value: value / 64))


@settings(deadline=None)
@given(RANKS)
def test_consensus_is_an_order_with_a_confidence(values) -> None:  # type: ignore[no-untyped-def]
    sign, confidence = consensus(torch.from_numpy(values))
    assert torch.equal(sign, -sign.T)
    assert torch.equal(confidence, confidence.T)
    assert 0 <= float(confidence.min()) <= float(confidence.max()) <= 1
    assert not bool(confidence.diagonal().any())
    assert bool((confidence[sign == 0] == 0).all())


def test_listwise_is_the_likelihood_of_the_order() -> None:
    distance, ranks = torch.rand(4), torch.rand(4, 4)
    worth = (distance + 1e-3) ** SLOPE
    found = {}
    for order in itertools.permutations(range(4)):
        chance, rest = 1.0, list(order)
        while rest:
            chance *= float(worth[rest[0]] / worth[rest].sum())
            rest.pop(0)
        found[order] = chance
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    wanted = tuple(ranks.mean(-1).argsort(descending=True).tolist())
    loss = float(listwise_loss(distance, ranks, SLOPE))
    assert loss == pytest.approx(-math.log(found[wanted]) / 4, abs=1e-5)


def test_a_list_leaves_out_what_no_panel_judged() -> None:
    distance, ranks = torch.rand(6), torch.rand(6, 4)
    judged = [0, 2, 3, 5]
    some = ranks.clone()
    some[[1, 4]] = torch.nan
    expected = listwise_loss(distance[judged], ranks[judged], SLOPE)
    torch.testing.assert_close(listwise_loss(distance, some, SLOPE), expected)
    assert float(listwise_loss(distance, torch.full_like(ranks, torch.nan), SLOPE)) == 0


@settings(deadline=None)
@given(RANKS, st.permutations(range(4)))
def test_no_member_of_the_panel_is_special(values, order: list[int]) -> None:  # type: ignore[no-untyped-def]
    ranks = torch.from_numpy(values)
    torch.testing.assert_close(consensus(ranks), consensus(ranks[:, order]))


@settings(deadline=None)
@given(RANKS)
def test_split_panels_do_not_count_and_unanimous_ones_do(values) -> None:  # type: ignore[no-untyped-def]
    ranks = torch.from_numpy(values)
    gaps = ranks[:, None] - ranks[None]
    _, confidence = consensus(ranks)
    split = gaps.sign().sum(-1).abs() <= 1
    assert not bool(confidence[split].any())
    clear = (gaps > 0.05).all(-1)
    assert bool((confidence[clear] == 1).all())


def test_consensus_reads_row_against_column() -> None:
    sign, confidence = consensus(torch.tensor([[0.9, 0.8, 0.9, 0.95], [0.1, 0.2, 0.3, 0.1]]))
    assert float(sign[0, 1]) == 1  # the row is the worse one
    assert float(confidence[0, 1]) == 1
    near = torch.tensor([[0.51, 0.52, 0.51, 0.51], [0.5, 0.51, 0.5, 0.5]])
    assert 0 < float(consensus(near)[1][0, 1]) < 0.5


def test_ladder_is_cheaper_in_the_right_order() -> None:
    order = torch.tensor([[[1, 0], [2, 1], [NO_ORDER, NO_ORDER]]])
    right = certain_loss(torch.tensor([[0.1, 0.2, 0.4]]), order, SLOPE)
    equal = certain_loss(torch.tensor([[0.2, 0.2, 0.2]]), order, SLOPE)
    wrong = certain_loss(torch.tensor([[0.4, 0.2, 0.1]]), order, SLOPE)
    assert float(right) < float(equal) < float(wrong)


def test_gaps_in_the_order_do_not_count() -> None:
    distance = torch.rand(2, 3).requires_grad_()
    nothing = torch.full((2, 4, 2), NO_ORDER)
    loss = certain_loss(distance, nothing, SLOPE)
    assert float(loss.detach()) == 0
    loss.backward()
    assert distance.grad is not None
    assert not bool(distance.grad.any())
    order = torch.tensor([[[1, 0]], [[2, 1]]])
    padded = torch.cat([order, torch.full((2, 3, 2), NO_ORDER)], 1)
    torch.testing.assert_close(
        certain_loss(distance, padded, SLOPE), certain_loss(distance, order, SLOPE)
    )


def test_facts_are_apart_by_a_clear_step_and_no_more() -> None:
    order = torch.tensor([[[1, 0], [NO_ORDER, NO_ORDER]]])
    distance = torch.tensor([[0.2, 0.3]]).requires_grad_()
    loss = facts_loss(distance, order)
    loss.backward()
    assert float(loss.detach()) == 0
    assert distance.grad is not None
    assert not bool(distance.grad.any())
    near, wrong = (facts_loss(torch.tensor([[0.2, far]]), order) for far in (0.22, 0.1))
    assert 0 < float(near) < float(wrong)


def test_facts_that_are_wrong_by_a_factor_pull_harder() -> None:
    order = torch.tensor([[[1, 0]]])

    def pull(factor: float) -> float:
        """On the logarithm of a distance that should be the larger one."""
        larger = torch.tensor(math.log(2 * factor), requires_grad=True)
        facts_loss(torch.stack([torch.tensor(2.0), larger.exp()])[None], order).backward()
        assert larger.grad is not None
        return -float(larger.grad)

    # Up to a clear step the wrong way all alike; an eighth is wrong by log 8 - log 1.35 more.
    assert pull(0.8) == pytest.approx(pull(1.2), rel=0.02)
    assert pull(1 / 8) == pytest.approx(1 + 2 * math.log(8 / 1.35), rel=0.05)


def test_consensus_loss_is_cheaper_in_the_panels_order() -> None:
    ranks = torch.tensor([[0.1] * 4, [0.5] * 4, [0.9] * 4])
    right = consensus_loss(torch.tensor([0.1, 0.2, 0.4]), ranks, SLOPE)
    wrong = consensus_loss(torch.tensor([0.4, 0.2, 0.1]), ranks, SLOPE)
    assert float(right) < float(wrong)


def test_consensus_loss_ignores_a_split_panel() -> None:
    ranks = torch.tensor([[0.1, 0.9, 0.1, 0.9], [0.9, 0.1, 0.9, 0.1]])
    assert float(consensus_loss(torch.tensor([0.1, 0.9]), ranks, SLOPE)) == 0


def test_losses_push_distances_apart() -> None:
    distance = torch.tensor([[0.3, 0.3]]).requires_grad_()
    certain_loss(distance, torch.tensor([[[1, 0]]]), SLOPE).backward()
    assert distance.grad is not None
    assert float(distance.grad[0, 0]) > 0 > float(distance.grad[0, 1])


def test_map_loss_is_zero_at_the_target_and_counts_distorted_cells_more() -> None:
    target = torch.zeros(1, len(CHANNELS), 4, 4)
    target[:, 0] = 0.5
    assert float(map_loss(target, target)) == 0
    missed = target.clone()
    missed[:, 0] = 0.4
    invented = target.clone()
    invented[:, 1] = 0.1
    assert float(map_loss(missed, target)) > float(map_loss(invented, target)) > 0
    assert float(map_loss(-target, target)) > float(map_loss(0 * target, target))


def test_type_loss_wants_the_right_channel_to_lead() -> None:
    target = torch.zeros(1, len(CHANNELS), 4, 4)
    target[:, 2, :2] = -0.5
    wrong = target.roll(1, dims=1)
    right_loss, wrong_loss = type_loss(target, target), type_loss(wrong, target)
    assert float(right_loss) < float(type_loss(0 * target, target)) < float(wrong_loss)
    # The type is a matter of magnitude; the sign is left to the maps' own loss.
    torch.testing.assert_close(type_loss(-target, target), right_loss)
    # Undistorted cells have no type.
    elsewhere = target.clone()
    elsewhere[:, 5, 2:] = 0.9
    torch.testing.assert_close(type_loss(elsewhere, target), right_loss)
    assert float(type_loss(target, 0 * target)) == 0


def test_region_loss_judges_the_strongest_channel_as_a_whole() -> None:
    target = torch.zeros(2, len(CHANNELS), 4, 4)
    target[:, 2, :2] = -0.5
    target[:, 4, 2:] = 0.2
    right = region_loss(target, target)
    # Cells may err as long as their mean is right.
    uneven = target.clone()
    uneven[:, 2, 0] = -1.0
    uneven[:, 2, 1] = 0.0
    torch.testing.assert_close(region_loss(uneven, target), right)
    assert float(right) < float(region_loss(0 * target, target))
    assert float(region_loss(0 * target, target)) < float(region_loss(target.roll(1, 1), target))
    # What is found outside the region does not count.
    outside = target.clone()
    outside[:, 7, 2:] = 0.9
    torch.testing.assert_close(region_loss(outside, target), right)
    assert float(region_loss(target, 0 * target)) == 0


def test_presence_and_sign_are_separate_questions() -> None:
    target = torch.zeros(1, len(CHANNELS), 4, 4)
    target[:, 2, :2] = -0.5
    logits = torch.where(target != 0, 4.0, -4.0)
    assert float(presence_loss(logits, target)) < 0.1 < float(presence_loss(-logits, target))
    torch.testing.assert_close(presence_loss(logits, target), presence_loss(logits, -target))
    sign = torch.zeros_like(target)
    sign[:, 2] = -0.9
    right, wrong = sign_loss(sign, target), sign_loss(-sign, target)
    assert float(right) < float(sign_loss(0 * sign, target)) < float(wrong)
    sign[:, 5] = 0.9  # a sign without a distortion is neither right nor wrong
    torch.testing.assert_close(sign_loss(sign, target), right)
    assert float(sign_loss(sign, 0 * target)) == 0


def test_direction_loss_wants_worse_images_below_zero() -> None:
    worse = torch.tensor([1.0, 0.0])
    target = torch.zeros(2, len(CHANNELS), 4, 4)
    target[:, 3] = 0.5
    low = direction_loss(torch.tensor([-0.9, 0.9]), target, worse)
    high = direction_loss(torch.tensor([0.9, 0.9]), target, worse)
    assert float(low) < float(high)
    assert float(direction_loss(torch.tensor([0.9, 0.9]), target, 0 * worse)) == 0
    assert float(direction_loss(torch.tensor([0.9, 0.9]), 0 * target, worse)) == 0
    # A better image has the opposite sign.
    torch.testing.assert_close(direction_loss(torch.tensor([0.9, 0.9]), target, -worse), low)


def test_relative_loss_wants_a_positive_direction_towards_the_better_image() -> None:
    ranks = torch.tensor([[0.9] * 4, [0.1] * 4])  # image 0 is the worse one
    first, second = torch.tensor([0, 1]), torch.tensor([1, 0])
    right = relative_loss(torch.tensor([0.8, -0.8]), ranks, first, second)
    wrong = relative_loss(torch.tensor([-0.8, 0.8]), ranks, first, second)
    assert float(right) < float(wrong)


@settings(deadline=None)
@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_log_distance_rises_and_is_finite_at_identity(a: float, b: float) -> None:
    low, high = log_distance(torch.tensor(sorted((a, b)), dtype=torch.float64))
    assert float(low) <= float(high)
    assert bool(torch.isfinite(low))


def _batch(sets: int = 2, size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    images, cells = IMAGES_PER_SET, size // 4
    rows = sets * PAIRS_PER_SET
    return Batch(
        reference=rand(sets, 3, size, size),
        images=rand(sets, images, 3, size, size),
        maps=rand(sets, images, len(CHANNELS), cells, cells) - 0.5,
        ranks=rand(sets, images, 1).expand(-1, -1, 4),
        order=torch.tensor([[1, 0], [2, 1], [2, 0], [NO_ORDER, NO_ORDER]]).repeat(sets, 1, 1),
        worse=torch.ones(sets, images),
        partner=(torch.arange(images)[None] + 1).repeat(sets, 1) % images,
        pairs=Pairs(
            reference=rand(rows, 3, size, size),
            image=rand(rows, 3, size, size),
            maps=rand(rows, len(CHANNELS), cells, cells) - 0.5,
            worse=torch.ones(rows),
        ),
    )


@pytest.fixture
def objectives() -> Objectives:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Objectives(ParityNetwork(NetworkConfig()))


def test_total_is_the_weighted_sum_of_its_terms(objectives: Objectives) -> None:
    terms = objectives(_batch())
    weights = ObjectiveWeights()
    expected = sum(
        getattr(weights, name) * value for name, value in terms.items() if name != "total"
    )
    torch.testing.assert_close(terms["total"], expected)
    assert all(bool(torch.isfinite(value)) for value in terms.values())


def test_every_parameter_takes_part(objectives: Objectives) -> None:
    # Distributed training waits for the gradient of every parameter at every step.
    objectives(_batch())["total"].backward()
    missing = [name for name, value in objectives.named_parameters() if value.grad is None]
    assert missing == []
    assert all(bool(torch.isfinite(v.grad).all()) for v in objectives.parameters())  # type: ignore[arg-type]


def test_facts_count_where_they_are_given(objectives: Objectives) -> None:
    batch = _batch()
    assert "facts" not in objectives(batch)
    reference, images = batch.reference, batch.images
    order = torch.tensor([[[0, 1], [NO_ORDER, NO_ORDER]]]).expand(len(reference), -1, -1)
    # The first image is far away, the second one is the reference: no order could be clearer.
    images = images.clone()
    images[:, 0], images[:, 1] = 1 - reference, reference
    right = objectives(batch._replace(facts=Facts(reference, images, order)))
    wrong = objectives(batch._replace(facts=Facts(reference, images, order.flip(-1))))
    assert float(right["facts"].detach()) < 0.1 < 1 < float(wrong["facts"].detach())
    gap = ObjectiveWeights().facts * (wrong["facts"] - right["facts"])
    torch.testing.assert_close(wrong["total"] - right["total"], gap)
    maps = Objectives(objectives.network, learn="maps")
    assert "facts" not in maps(batch._replace(facts=Facts(reference, images, order)))


def test_facts_are_of_the_distance_and_of_the_magnitude_of_the_score(
    objectives: Objectives,
) -> None:
    batch, network = _batch(), objectives.network
    reference, images = batch.reference, batch.images
    order = torch.tensor([[[0, 1], [3, 2]]]).expand(len(reference), -1, -1)
    found = objectives(batch._replace(facts=Facts(reference, images, order)))["facts"]
    repeated = reference[:, None].expand_as(images).flatten(0, 1)
    forth = network(repeated, images.flatten(0, 1)).distance.view(images.shape[:2])
    back = network(images.flatten(0, 1), repeated).distance.view(images.shape[:2])
    expected = facts_loss(forth, order) + facts_loss((forth + back) / 2, order)
    torch.testing.assert_close(found, expected / 2)


def test_a_teacher_is_followed_whatever_its_unit() -> None:
    distance = torch.tensor([0.5, 1.0, 2.0, 4.0, 3.0])
    taught = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0])  # the last pair is identical
    assert float(teacher_loss(distance, taught)) < 2e-3  # not 0: a least distance is added to both
    other = torch.tensor([0.5, 1.0, 4.0, 4.0, 3.0])
    gap = math.log(2)
    assert float(teacher_loss(other, taught)) == pytest.approx((gap + gap**2) / 4, abs=3e-3)
    assert float(teacher_loss(distance, 0 * taught)) == 0


def test_plain_error_keeps_its_share_far_away() -> None:
    plain = torch.tensor([0.4, 0.2])
    assert float(far_loss(torch.tensor([1.0, 0.3]), plain)) == pytest.approx(0, abs=1e-6)
    assert float(far_loss(torch.tensor([1.0, 1.0]), plain)) == pytest.approx(math.log(2) / 2)
    patches = Objectives(ParityNetwork(NetworkConfig.nano()), learn="distance")
    assert "far" in patches(_batch())
    assert "far" not in Objectives(ParityNetwork(), learn="distance")(_batch())


@pytest.mark.parametrize("config", [NetworkConfig(), NetworkConfig.nano()])
def test_what_metrics_add_by_formula_is_not_made_up_for(config: NetworkConfig) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ParityNetwork(replace(config, derivatives=True))
    objectives, batch = Objectives(network, learn="distance"), _batch()
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(coarse, 32, mode="bicubic").clamp(0, 1)
    # Moved by a pixel or two, which a metric counts for less.
    moved = torch.stack([smooth.roll(1 + k % 2, -1) for k in range(IMAGES_PER_SET)], 1)
    batch = batch._replace(reference=smooth, images=moved, facts=Facts(smooth, moved, batch.order))
    with torch.no_grad():
        terms = objectives(batch)
        counted = network.distance(network.encode(smooth), moved[:, 0])
        network.derivatives = None
        assert bool((counted < 0.9 * network.distance(network.encode(smooth), moved[:, 0])).all())
        torch.testing.assert_close(objectives(batch), terms)


def test_a_teacher_counts_where_there_is_one(objectives: Objectives) -> None:
    batch = _batch()
    assert "teacher" not in objectives(batch)
    with torch.no_grad():
        own, _ = objectives._distances(batch.reference, batch.images)
    right = objectives(batch._replace(taught=3 * own + 2e-3))  # 1e-3 is added to both
    others = own * 2.0 ** torch.arange(IMAGES_PER_SET)
    wrong = objectives(batch._replace(taught=others))
    assert float(right["teacher"].detach()) < 1e-3 < 0.1 < float(wrong["teacher"].detach())
    gap = ObjectiveWeights().teacher * (wrong["teacher"] - right["teacher"])
    torch.testing.assert_close(wrong["total"] - right["total"], gap)
    facts = Facts(batch.reference, batch.images, batch.order, taught=others)
    both = objectives(batch._replace(taught=3 * own + 2e-3, facts=facts))
    assert float(both["teacher"].detach()) > float(right["teacher"].detach()) + 0.1
    lessons = Lessons(batch.reference, batch.images, others)
    more = objectives(batch._replace(taught=3 * own + 2e-3, lessons=lessons))
    torch.testing.assert_close(more["teacher"], both["teacher"])
    assert "teacher" not in Objectives(objectives.network, learn="maps")(batch._replace(taught=own))


@pytest.mark.parametrize(
    ("learn", "idle"),
    [("maps", ("encoder", "error", "peak")), ("distance", ("mapper", "direction"))],
)
def test_one_half_is_learned_without_the_other(learn: Learn, idle: tuple[str, ...]) -> None:
    objectives = Objectives(ParityNetwork(NetworkConfig()), learn=learn)
    terms = objectives(_batch())
    terms["total"].backward()
    for name, parameter in objectives.named_parameters():
        if any(part in name for part in idle):
            assert not parameter.requires_grad
        elif name != "log_slope":
            assert parameter.grad is not None, name
    both = Objectives(objectives.network)(_batch())
    for name, value in terms.items():
        if name != "total":
            torch.testing.assert_close(value, both[name])


def test_two_outputs_are_told_apart_by_what_neither_shows(
    objectives: Objectives, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _batch()
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(batch.pairs.image.shape, generator=generator)
    # How far the images of each set are from its photograph; the fifth row is of two of them.
    away = torch.tensor([0.1, 0.4, 0.3, 0.2, 0.0]).repeat(2)[:, None, None, None]
    maps = torch.zeros_like(batch.pairs.maps)
    maps[:, CHANNELS.index("noise")] = away[..., 0]
    pairs = batch.pairs._replace(image=torch.lerp(batch.pairs.reference, noise, away), maps=maps)
    asked = Objectives(objectives.network, learn="maps", two_outputs=True)
    assert "outputs" not in objectives(batch)
    assert "outputs" in asked(batch)
    relate, seen = asked._relate, []

    def value(better: float) -> float:
        def told(first: Tensor, second: Tensor) -> tuple[Streams, Tensor]:
            streams, _ = relate(first, second)
            seen.append((first, second))
            return streams, better * torch.tensor([-1.0, 1.0, -1.0, 1.0])

        monkeypatch.setattr(asked, "_relate", told)
        return float(asked._outputs_term(pairs).detach())

    assert value(1.0) < 0.05 < 2 < value(-1.0)
    for first, second in seen:
        assert torch.equal(first, pairs.image[[0, 1, 5, 6]])
        assert torch.equal(second, pairs.image[[2, 3, 7, 8]])
    # The first output of each pair is lighter, too: a third of how they differ.
    maps[[0, 1, 5, 6], CHANNELS.index("luminance")] = 0.1 + 0 * maps[0, 0]
    assert value(-1.0) == 0.0


def test_outputs_as_near_as_each_other_teach_nothing() -> None:
    direction, first = torch.tensor([0.9, -0.9]), torch.tensor([1.0, 1.0])
    second = torch.tensor([1.0, 2.0])  # the first of the second pair is the better one
    both = torch.tensor([True, True])
    right = outputs_loss(direction, first, second, both)
    torch.testing.assert_close(
        right, outputs_loss(direction * torch.tensor([-1, 1]), first, second, both)
    )
    assert right < 0.1 < 1 < outputs_loss(-direction, first, second, both)
    assert float(outputs_loss(direction, first, first, both)) == 0.0
    assert float(outputs_loss(-direction, first, second, ~both)) == 0.0


def test_what_is_a_matter_of_taste() -> None:
    apart = torch.zeros(3, len(CHANNELS), 4, 4)
    apart[:, CHANNELS.index("sharpness")] = -0.4
    apart[1, CHANNELS.index("tint"), :2] = 0.2  # of half of the cells: a fifth of all
    apart[2, CHANNELS.index("contrast")] = 0.3
    assert more_than_taste(apart).tolist() == [True, True, False]
    assert not more_than_taste(0 * apart).any()


def test_identical_images_train_without_nan(objectives: Objectives) -> None:
    batch = _batch()
    same = batch.reference[:, None].expand(-1, IMAGES_PER_SET, -1, -1, -1)
    pairs = batch.pairs._replace(image=batch.pairs.reference, maps=0 * batch.pairs.maps)
    terms = objectives(batch._replace(images=same, pairs=pairs))
    terms["total"].backward()
    # Not exactly zero: convolutions round differently in batches of different sizes.
    assert float(terms["path"].detach()) < 1e-6
    assert float(terms["maps"].detach()) < 1e-6
    assert all(bool(torch.isfinite(v.grad).all()) for v in objectives.parameters())  # type: ignore[arg-type]


def test_identical_outputs_train_without_nan(objectives: Objectives) -> None:
    batch = _batch()
    pairs = batch.pairs._replace(image=batch.pairs.reference)
    asked = Objectives(objectives.network, two_outputs=True)
    asked(batch._replace(pairs=pairs))["outputs"].backward()
    assert all(v.grad is None or bool(torch.isfinite(v.grad).all()) for v in asked.parameters())


def test_a_few_steps_lower_the_total(objectives: Objectives) -> None:
    batch = _batch()
    optimiser = torch.optim.AdamW(objectives.parameters(), lr=1e-3)
    values = []
    for _ in range(8):
        total = objectives(batch)["total"]
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        values.append(float(total.detach()))
    assert values[-1] < values[0]
