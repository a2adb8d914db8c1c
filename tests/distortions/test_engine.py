"""The triplet engine: what it draws, what it does to a photograph and what it says it did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions import (
    MASK_KINDS,
    DistortionEngine,
    Recipe,
    Step,
    get_operator,
    list_operators,
)

LOCAL_MASKS = tuple(kind for kind in MASK_KINDS if kind != "whole")
QUICK = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**40)


def _photograph(height: int, width: int) -> Tensor:
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255
    return picture[:, 40 : 40 + height, 150 : 150 + width].contiguous()


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return _photograph(67, 101)


@pytest.fixture(scope="module")
def engine() -> DistortionEngine:
    return DistortionEngine()


def _expected_maps(recipe: Recipe, masks: Tensor, stride: int) -> Tensor:
    """The definition, cell by cell: mean over the cell of mask × severity × direction."""
    height, width = masks.shape[-2:]
    rows, columns = -(-height // stride), -(-width // stride)
    maps = torch.zeros(len(CHANNELS), rows, columns, dtype=torch.float64)
    for step, mask in zip(recipe.steps, masks.double(), strict=True):
        for channel, weight in get_operator(step.operator).direction().items():
            for row in range(rows):
                for column in range(columns):
                    cell = mask[
                        row * stride : (row + 1) * stride, column * stride : (column + 1) * stride
                    ]
                    index = CHANNELS.index(channel)
                    maps[index, row, column] += weight * step.severity * cell.mean()
    return maps.clamp(-1, 1).float()


class TestDraw:
    @QUICK
    @given(seed=SEEDS)
    def test_recipes_are_valid_and_repeatable(self, seed: int) -> None:
        engine = DistortionEngine()
        recipe = engine.draw(seed)
        assert recipe == engine.draw(seed)
        assert recipe.seed == seed
        assert 1 <= len(recipe.steps) <= 4
        channels = [get_operator(step.operator).channel for step in recipe.steps]
        assert len(set(channels)) == len(channels), "two operators of one dominant channel"
        for step in recipe.steps:
            assert 0.02 <= step.severity <= 1
            assert step.mask in MASK_KINDS

    def test_seeds_matter(self, engine: DistortionEngine) -> None:
        recipes = {engine.draw(seed).steps for seed in range(50)}
        assert len(recipes) == 50

    def test_every_operator_mask_and_length_is_drawn(self, engine: DistortionEngine) -> None:
        steps = [step for seed in range(4000) for step in engine.draw(seed).steps]
        assert {step.operator for step in steps} == {op.name for op in list_operators()}
        assert {step.mask for step in steps} == set(MASK_KINDS)
        assert {len(engine.draw(seed).steps) for seed in range(200)} == {1, 2, 3, 4}

    def test_near_threshold_severities_are_frequent(self, engine: DistortionEngine) -> None:
        severities = [engine.draw(seed).steps[0].severity for seed in range(1000)]
        assert 0.25 < sum(s < 0.2 for s in severities) / 1000 < 0.5
        assert sum(s > 0.8 for s in severities) > 50

    def test_excluded_operators_are_never_drawn(self) -> None:
        held_out = ("jpeg", "gaussian_blur", "white_noise")
        engine = DistortionEngine(exclude=held_out)
        assert len(engine.operators) == len(list_operators()) - 3
        drawn = {step.operator for seed in range(1500) for step in engine.draw(seed).steps}
        assert not drawn & set(held_out)

    def test_asked_for_length(self, engine: DistortionEngine) -> None:
        for count in (1, 3, 6):
            assert len(engine.draw(5, steps=count).steps) == count

    def test_composites_end_where_the_channels_do(self) -> None:
        engine = DistortionEngine(["gaussian_blur", "lens_blur", "white_noise"])
        assert {len(engine.draw(seed, steps=4).steps) for seed in range(30)} == {2}

    def test_short_composites_are_drawn_oftener(self, engine: DistortionEngine) -> None:
        lengths = [len(engine.draw(seed).steps) for seed in range(400)]
        shares = [lengths.count(length) / 400 for length in (1, 2, 3, 4)]
        assert shares == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15], abs=0.08)

    def test_channels_of_many_operators_crowd_out_none(self) -> None:
        noises = [op.name for op in list_operators("noise") if op.sign > 0][:9]
        engine = DistortionEngine([*noises, "warm"])
        drawn = [engine.draw(seed, steps=1).steps[0].operator for seed in range(400)]
        assert drawn.count("warm") / 400 == pytest.approx(1 / (1 + 3), abs=0.07)

    @pytest.mark.parametrize("probability", [0.0, 1.0])
    def test_whole_probability(self, probability: float) -> None:
        engine = DistortionEngine(mask_kinds=LOCAL_MASKS, whole_probability=probability)
        kinds = {step.mask for seed in range(100) for step in engine.draw(seed).steps}
        assert kinds == ({"whole"} if probability else set(LOCAL_MASKS))


class TestApply:
    @pytest.mark.parametrize("seed", range(12))
    def test_sample(self, engine: DistortionEngine, photograph: Tensor, seed: int) -> None:
        before = photograph.clone()
        state = torch.get_rng_state()
        sample = engine.sample(photograph, seed)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(photograph, before)
        assert sample.distorted.data_ptr() != photograph.data_ptr()
        assert sample.distorted.shape == photograph.shape
        assert torch.isfinite(sample.distorted).all()
        assert sample.distorted.min() >= 0
        assert sample.distorted.max() <= 1
        assert sample.masks.shape == (len(sample.recipe.steps), 67, 101)
        assert sample.maps.shape == (len(CHANNELS), 17, 26)
        again = engine.apply(photograph, sample.recipe)
        assert torch.equal(again.distorted, sample.distorted)
        assert torch.equal(again.maps, sample.maps)
        assert torch.equal(again.masks, sample.masks)

    @pytest.mark.parametrize("stride", [4, 8])
    @pytest.mark.parametrize("seed", range(4))
    def test_maps_are_mask_times_signed_severity(self, seed: int, stride: int) -> None:
        engine = DistortionEngine(stride=stride, whole_probability=0.2)
        sample = engine.apply(_photograph(45, 50), engine.draw(seed, steps=3))
        expected = _expected_maps(sample.recipe, sample.masks, stride)
        assert expected.abs().max() > 0
        torch.testing.assert_close(sample.maps, expected, atol=1e-6, rtol=1e-5)

    def test_maps_stay_within_one(self, engine: DistortionEngine, photograph: Tensor) -> None:
        steps = (Step("darken", 0.9), Step("underexposure", 0.8))
        maps = engine.apply(photograph, Recipe(steps, 0)).maps
        assert torch.all(maps[CHANNELS.index("luminance")] == -1)

    @pytest.mark.parametrize("kind", LOCAL_MASKS)
    @pytest.mark.parametrize("name", ["white_noise", "jpeg", "displacement"])
    def test_nothing_happens_outside_the_mask(
        self, engine: DistortionEngine, photograph: Tensor, kind: str, name: str
    ) -> None:
        sample = engine.apply(photograph, Recipe((Step(name, 0.9, kind),), seed=3))
        outside = (sample.masks[0] == 0).expand_as(photograph)
        assert torch.equal(sample.distorted[outside], photograph[outside])
        inside = (sample.masks[0] > 0.5).expand_as(photograph)
        assert (sample.distorted - photograph).abs()[inside].mean() > 1e-3

    @pytest.mark.parametrize("kind", LOCAL_MASKS)
    def test_hard_masks_are_binary(
        self, engine: DistortionEngine, photograph: Tensor, kind: str
    ) -> None:
        assert get_operator("displacement").hard_mask
        sample = engine.apply(photograph, Recipe((Step("displacement", 0.5, kind),), seed=1))
        assert set(sample.masks.unique().tolist()) <= {0.0, 1.0}

    def test_a_soft_mask_blends(self, engine: DistortionEngine, photograph: Tensor) -> None:
        recipe = Recipe((Step("brighten", 0.6, "gradient"),), seed=2)
        sample = engine.apply(photograph, recipe)
        full = engine.apply(photograph, Recipe((Step("brighten", 0.6),), seed=2)).distorted
        assert ((sample.masks > 0.2) & (sample.masks < 0.8)).any()
        blended = photograph + sample.masks[0] * (full - photograph)
        torch.testing.assert_close(sample.distorted, blended)

    def test_order_matters(self, engine: DistortionEngine, photograph: Tensor) -> None:
        steps = (Step("gaussian_blur", 0.8), Step("contrast_up", 0.9))
        first = engine.apply(photograph, Recipe(steps, 0))
        second = engine.apply(photograph, Recipe(steps[::-1], 0))
        assert not torch.equal(first.distorted, second.distorted)
        torch.testing.assert_close(first.maps, second.maps)

    def test_a_further_step_leaves_the_others_as_they_were(
        self, engine: DistortionEngine, photograph: Tensor
    ) -> None:
        steps = (Step("darken", 0.5, "blobs"), Step("white_noise", 0.6, "edges"))
        short = engine.apply(photograph, Recipe(steps[:1], 7))
        long = engine.apply(photograph, Recipe(steps, 7))
        assert torch.equal(long.masks[0], short.masks[0])
        # Masks follow the photograph, not what the steps before have made of it.
        assert torch.equal(engine.apply(photograph, Recipe(steps, 7).at(0.0)).masks, long.masks)
        assert torch.equal(long.reference, photograph)

    def test_what_nothing_was_done_to_is_a_copy(
        self, engine: DistortionEngine, photograph: Tensor
    ) -> None:
        distorted = engine.apply(photograph, Recipe((), 0)).distorted
        assert torch.equal(distorted, photograph)
        assert distorted.data_ptr() != photograph.data_ptr()

    @pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 32, 32), (32, 32)])
    def test_wrong_shapes(self, engine: DistortionEngine, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="3×H×W"):
            engine.sample(torch.rand(shape), seed=0)

    def test_other_ranges_are_refused_and_not_made_white(
        self, engine: DistortionEngine, photograph: Tensor
    ) -> None:
        levels = (255 * photograph / photograph.max()).round()
        with pytest.raises(ValueError, match=r"in \[0, 1\], got values from 0 to 255:"):
            engine.sample(levels, seed=0)
        with pytest.raises(TypeError, match=r"got torch\.uint8"):
            engine.sample(levels.to(torch.uint8), seed=0)
        with pytest.raises(ValueError, match="from nan to nan"):
            engine.sample(photograph * float("nan"), seed=0)
        overshoot = photograph * (1 + 1e-6)  # of rounding
        assert engine.sample(overshoot, seed=0).distorted.max() <= 1 + 1e-5

    @pytest.mark.parametrize("seed", range(8))
    def test_the_default_device_does_not_matter(
        self, engine: DistortionEngine, photograph: Tensor, seed: int
    ) -> None:
        plain = engine.sample(photograph, seed)
        with torch.device("meta"):  # stands for a GPU, whose tensors the generator cannot fill
            sample = engine.sample(photograph, seed)
        assert sample.recipe == plain.recipe
        for field in ("distorted", "maps", "masks"):
            assert torch.equal(getattr(sample, field), getattr(plain, field))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("seed", range(8))
    def test_the_default_dtype_does_not_matter(
        self, engine: DistortionEngine, photograph: Tensor, seed: int, dtype: torch.dtype
    ) -> None:
        plain = engine.sample(photograph, seed)
        torch.set_default_dtype(dtype)
        try:
            sample = engine.sample(photograph, seed)
        finally:
            torch.set_default_dtype(torch.float32)
        assert sample.recipe == plain.recipe
        for field in ("distorted", "maps", "masks"):
            assert torch.equal(getattr(sample, field), getattr(plain, field))


class TestSeeds:
    def test_no_two_draws_share_their_numbers(self) -> None:
        # Else masks would follow noise, or a recipe's second step the first of its neighbour.
        draws = [
            DistortionEngine._generator(Recipe((), seed), index, stream).initial_seed()
            for seed in range(6)
            for index in range(6)
            for stream in range(2)
        ]
        assert len(set(draws)) == len(draws)

    @pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint32, torch.tensor])
    def test_any_kind_of_integer(
        self, engine: DistortionEngine, photograph: Tensor, kind: Callable[[int], int]
    ) -> None:
        number = 2**31 - 1  # the half of what two seeds from it would take of 32 bits
        plain = engine.sample(photograph, number)
        sample = engine.sample(photograph, kind(number))
        assert type(sample.recipe.seed) is int
        assert sample.recipe == plain.recipe
        assert torch.equal(sample.distorted, plain.distorted)
        by_hand = Recipe(plain.recipe.steps, kind(number))
        assert torch.equal(engine.apply(photograph, by_hand).distorted, plain.distorted)
        pair, plain_pair = engine.pair(photograph, kind(number)), engine.pair(photograph, number)
        assert all(torch.equal(a, b) for a, b in zip(pair, plain_pair, strict=True))

    @pytest.mark.parametrize("seed", [1.0, "1", None])
    def test_others_are_refused(
        self, engine: DistortionEngine, photograph: Tensor, seed: object
    ) -> None:
        for call in (engine.draw, lambda seed: engine.pair(photograph, seed)):
            with pytest.raises(TypeError, match="seed must be an integer, got"):
                call(seed)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="seed must be an integer, got"):
            Recipe((), seed)  # type: ignore[arg-type]


class TestLadder:
    @pytest.mark.parametrize("kind", MASK_KINDS)
    @pytest.mark.parametrize("name", ["white_noise", "gaussian_blur", "jpeg", "impulse_noise"])
    def test_rungs_share_masks_and_rise(
        self, engine: DistortionEngine, photograph: Tensor, name: str, kind: str
    ) -> None:
        recipe = Recipe((Step(name, 0.5, kind),), seed=11)
        rungs = [engine.apply(photograph, recipe.at(s)) for s in (0.2, 0.5, 0.9)]
        assert all(torch.equal(rung.masks, rungs[0].masks) for rung in rungs)
        errors = [float((rung.distorted - photograph).square().mean()) for rung in rungs]
        assert errors[0] < errors[1] < errors[2]
        index = CHANNELS.index(get_operator(name).channel)
        sign = get_operator(name).sign
        targets = [float(rung.maps[index].mean()) * sign for rung in rungs]
        assert 0 < targets[0] < targets[1] < targets[2]

    def test_at_changes_every_severity_and_nothing_else(self, engine: DistortionEngine) -> None:
        recipe = engine.draw(4, steps=3)
        moved = recipe.at(0.3)
        assert [step.severity for step in moved.steps] == [0.3] * 3
        assert [(s.operator, s.mask) for s in moved.steps] == [
            (s.operator, s.mask) for s in recipe.steps
        ]
        assert moved.seed == recipe.seed

    def test_the_lowest_rung_is_the_photograph(
        self, engine: DistortionEngine, photograph: Tensor
    ) -> None:
        recipe = Recipe((Step("gaussian_blur", 0.5), Step("speckle", 0.5, "blobs")), seed=0)
        sample = engine.apply(photograph, recipe.at(0.0))
        assert torch.equal(sample.distorted, photograph)
        assert sample.maps.abs().max() == 0


class TestPair:
    @pytest.mark.parametrize("seed", range(5))
    def test_target_is_the_difference_of_the_two(
        self, engine: DistortionEngine, photograph: Tensor, seed: int
    ) -> None:
        first, second, maps = engine.pair(photograph, seed)
        a, b = engine.sample(photograph, 2 * seed), engine.sample(photograph, 2 * seed + 1)
        assert torch.equal(first, a.distorted)
        assert torch.equal(second, b.distorted)
        assert not torch.equal(first, second)
        torch.testing.assert_close(maps, b.maps - a.maps)
        assert maps.abs().max() > 0

    def test_neighbouring_pairs_share_nothing(
        self, engine: DistortionEngine, photograph: Tensor
    ) -> None:
        images = [image for seed in range(3) for image in engine.pair(photograph, seed)[:2]]
        for index, image in enumerate(images):
            assert not any(torch.equal(image, other) for other in images[:index])


class TestValidation:
    def test_unknown_operators(self) -> None:
        with pytest.raises(ValueError, match="no operator named 'nonsense'"):
            DistortionEngine(["nonsense"])
        with pytest.raises(ValueError, match="no operator named 'nonsense'"):
            DistortionEngine(exclude=["nonsense"])

    @pytest.mark.parametrize(
        ("option", "name"), [("operators", "jpeg"), ("exclude", "jpeg"), ("mask_kinds", "blobs")]
    )
    def test_one_name_is_no_list_of_letters(self, option: str, name: str) -> None:
        with pytest.raises(TypeError, match=rf"{option} must be a list of names, got '{name}'"):
            DistortionEngine(**{option: name})  # type: ignore[arg-type]

    def test_names_may_come_from_iterators(self) -> None:
        engine = DistortionEngine(
            ["jpeg", "webp"],
            exclude=iter(["jpeg"]),  # type: ignore[arg-type]
            mask_kinds=iter(["blobs"]),  # type: ignore[arg-type]
        )
        assert (engine.operators, engine.mask_kinds) == (("webp",), ("blobs",))

    def test_nothing_left(self) -> None:
        with pytest.raises(ValueError, match="no operator is left"):
            DistortionEngine(["jpeg"], exclude=["jpeg"])
        with pytest.raises(ValueError, match="no operator is left"):
            DistortionEngine([])

    @pytest.mark.parametrize("kinds", [("blobs", "stars"), ()])
    def test_mask_kinds(self, kinds: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="mask kinds must be among"):
            DistortionEngine(mask_kinds=kinds)

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
            ({"stride": 0}, "stride must be at least 1, got 0"),
            ({"whole_probability": 50}, r"whole_probability must be in \[0, 1\], got 50"),
            ({"whole_probability": float("nan")}, "whole_probability must be in"),
        ],
    )
    def test_numbers(self, option: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            DistortionEngine(**option)  # type: ignore[arg-type]

    @pytest.mark.parametrize("option", ["max_steps", "stride"])
    def test_fractions_are_refused_where_they_are_given(self, option: str) -> None:
        with pytest.raises(TypeError, match=f"{option} must be an integer, got 1.5"):
            DistortionEngine(**{option: 1.5})  # type: ignore[arg-type]

    @pytest.mark.parametrize("steps", [0, -1])
    def test_recipes_of_no_steps_are_not_drawn(self, engine: DistortionEngine, steps: int) -> None:
        with pytest.raises(ValueError, match=f"steps must be at least 1, got {steps}"):
            engine.draw(0, steps=steps)

    @pytest.mark.parametrize("seed", [1 << 64, -(1 << 63) - 1])
    def test_seeds_that_no_generator_takes(self, engine: DistortionEngine, seed: int) -> None:
        with pytest.raises(ValueError, match=r"seed must be from -2\*\*63 to 2\*\*64 - 1, got"):
            engine.draw(seed)
