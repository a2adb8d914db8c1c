"""The triplet engine: reference → (distorted image, dense signed distortion map)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss._numbers import whole_number
from relqa_loss.channels import CHANNELS
from relqa_loss.distortions._device import drawn_alike
from relqa_loss.distortions.masks import MASK_KINDS, sample_mask
from relqa_loss.distortions.registry import get_operator, list_operators

_SEED_STRIDE = 1_000_003  # a prime, so that the seeds of neighbouring recipes do not collide
_SLACK = 1e-4  # resampling overshoots by rounding alone
_CHANNEL_INDEX = {name: index for index, name in enumerate(CHANNELS)}


@dataclass(frozen=True)
class Step:
    """One distortion of a recipe: which operator, how severe, and through which kind of mask."""

    operator: str
    severity: float
    mask: str = "whole"


@dataclass(frozen=True)
class Recipe:
    """An ordered composite of distortions. The same recipe gives the same image, bit for bit.

    Two recipes that differ in a severity alone share masks and noise patterns, which is what makes
    a *ladder*: one photograph under one operator at rising severities.
    """

    steps: tuple[Step, ...]
    seed: int

    def __post_init__(self) -> None:
        # NumPy's integers overflow, and PyTorch's generators take none of them.
        object.__setattr__(self, "seed", whole_number("seed", self.seed))

    def at(self, severity: float) -> Recipe:
        """The same recipe with every step at ``severity``."""
        return replace(self, steps=tuple(replace(step, severity=severity) for step in self.steps))


class Sample(NamedTuple):
    """A training triplet."""

    reference: Tensor
    """3×H×W in [0, 1]."""
    distorted: Tensor
    """3×H×W in [0, 1]."""
    maps: Tensor
    """K×⌈H/stride⌉×⌈W/stride⌉ signed severities in [−1, 1]; K = ``len(CHANNELS)``."""
    recipe: Recipe
    masks: Tensor
    """S×H×W in [0, 1]: where each step of the recipe acted."""


def dense_maps(recipe: Recipe, masks: Tensor, stride: int = 4) -> Tensor:
    """The dense signed map of a recipe: mask × signed severity, summed per channel.

    Args:
        recipe: The distortions.
        masks: S×H×W in [0, 1], where each of its steps acted.
        stride: Image pixels per cell.

    Returns:
        K×⌈H/stride⌉×⌈W/stride⌉ in [−1, 1].
    """
    maps = masks.new_zeros(len(CHANNELS), *masks.shape[-2:])
    for step, mask in zip(recipe.steps, masks, strict=True):
        for channel, weight in get_operator(step.operator).direction().items():
            maps[_CHANNEL_INDEX[channel]] += weight * step.severity * mask
    return F.avg_pool2d(maps[None], stride, ceil_mode=True)[0].clamp(-1, 1)


class DistortionEngine:
    """Draws and applies composites of distortions.

    Args:
        operators: Names to draw from; all registered ones by default.
        exclude: Names never drawn (operators held out of training, for example).
        mask_kinds: Kinds of masks to draw from, see :data:`MASK_KINDS`.
        whole_probability: Probability that a distortion covers the whole image.
        max_steps: Longest composite; at most one distortion per dominant channel.
        stride: Image pixels per cell of the dense map.

    Raises:
        TypeError: For a single name where a list of them is wanted, or a fraction where numbers
            are whole.
        ValueError: For unknown operators or mask kinds, an empty choice, or numbers out of range.

    Example:
        >>> import torch
        >>> from relqa_loss.distortions import DistortionEngine
        >>> engine = DistortionEngine(operators=["gaussian_blur", "white_noise"])
        >>> sample = engine.sample(torch.rand(3, 64, 64), seed=0)
        >>> sample.distorted.shape, sample.maps.shape
        (torch.Size([3, 64, 64]), torch.Size([13, 16, 16]))
    """

    def __init__(
        self,
        operators: Sequence[str] | None = None,
        *,
        exclude: Sequence[str] = (),
        mask_kinds: Sequence[str] = MASK_KINDS,
        whole_probability: float = 0.5,
        max_steps: int = 4,
        stride: int = 4,
    ) -> None:
        choices = {"operators": operators, "exclude": exclude, "mask_kinds": mask_kinds}
        for option, choice in choices.items():
            if isinstance(choice, str):  # which is a sequence, too: of letters
                raise TypeError(f"{option} must be a list of names, got {choice!r}: [{choice!r}]?")
        # Each is read several times, which an iterator would not survive.
        exclude, mask_kinds = tuple(exclude), tuple(mask_kinds)
        names = [op.name for op in list_operators()] if operators is None else list(operators)
        for name in (*names, *exclude):
            get_operator(name)
        self.operators = tuple(name for name in names if name not in set(exclude))
        if not self.operators:
            raise ValueError("no operator is left to draw from: give `operators` or exclude fewer")
        unknown = set(mask_kinds) - set(MASK_KINDS)
        if unknown or not mask_kinds:
            raise ValueError(f"mask kinds must be among {MASK_KINDS}, got {mask_kinds}")
        for option, value in (("max_steps", max_steps), ("stride", stride)):
            if whole_number(option, value) < 1:
                raise ValueError(f"{option} must be at least 1, got {value}")
        if not 0 <= whole_probability <= 1:
            raise ValueError(f"whole_probability must be in [0, 1], got {whole_probability}")
        self.mask_kinds = mask_kinds
        self.whole_probability = whole_probability
        self.max_steps = max_steps
        self.stride = stride

    def draw(self, seed: int, *, steps: int | None = None) -> Recipe:
        """Draw a recipe of ``steps`` distortions (1 to ``max_steps``, short ones oftener).

        Raises:
            TypeError: If ``seed`` or ``steps`` is no whole number.
            ValueError: If ``steps`` is below 1, or ``seed`` has more than 64 bits.
        """
        seed = whole_number("seed", seed)
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError(f"seed must be from -2**63 to 2**64 - 1, got {seed}")
        if steps is not None and whole_number("steps", steps) < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        with drawn_alike():
            return self._draw(seed, steps)

    def _draw(self, seed: int, steps: int | None) -> Recipe:
        generator = torch.Generator().manual_seed(seed)
        if steps is None:
            weights = torch.tensor([0.5**i for i in range(self.max_steps)], dtype=torch.float32)
            steps = 1 + int(torch.multinomial(weights, 1, generator=generator))
        drawn: list[Step] = []
        used: set[str] = set()
        # Channels first, then an operator: channels with many operators would crowd out the rest.
        by_channel: dict[str, list[str]] = {}
        for name in self.operators:
            by_channel.setdefault(get_operator(name).channel, []).append(name)
        for _ in range(steps):
            channels = [channel for channel in by_channel if channel not in used]
            if not channels:
                break
            # The square root keeps rich channels (blur, noise) more frequent than poor ones.
            weights = torch.tensor(
                [math.sqrt(len(by_channel[channel])) for channel in channels], dtype=torch.float32
            )
            channel = channels[int(torch.multinomial(weights, 1, generator=generator))]
            used.add(channel)
            names = by_channel[channel]
            name = names[int(torch.randint(len(names), (1,), generator=generator))]
            severity = float(torch.rand(1, generator=generator))
            # Half of the draws near the threshold, where public banks have nothing.
            severity = max(0.02, severity**1.5)
            whole = float(torch.rand(1, generator=generator)) < self.whole_probability
            kind = int(torch.randint(len(self.mask_kinds), (1,), generator=generator))
            drawn.append(Step(name, severity, "whole" if whole else self.mask_kinds[kind]))
        return Recipe(tuple(drawn), seed)

    def apply(self, reference: Tensor, recipe: Recipe) -> Sample:
        """Apply a recipe to one photograph.

        Args:
            reference: 3×H×W in [0, 1].
            recipe: From :meth:`draw` or written by hand.

        Returns:
            The :class:`Sample`; ``sample.distorted`` is a new tensor.

        Raises:
            TypeError: If ``reference`` is not of a floating-point type.
            ValueError: If ``reference`` is not 3×H×W, or not in [0, 1].
        """
        if reference.dim() != 3 or reference.shape[0] != 3:
            raise ValueError(f"the reference must be 3×H×W, got shape {tuple(reference.shape)}")
        if not reference.is_floating_point():
            raise TypeError(
                f"the reference must be floating point in [0, 1], got {reference.dtype}: pass "
                "image / 255 for 8 bits"
            )
        low, high = (float(value) for value in reference.detach().aminmax())
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise ValueError(
                f"the reference must lie in [0, 1], got values from {low:g} to {high:g}: divide by "
                "the value of white, or clamp what overshoots"
            )
        height, width = reference.shape[-2:]
        image = reference[None].clone()
        masks = reference.new_ones(len(recipe.steps), height, width)
        for index, step in enumerate(recipe.steps):
            operator = get_operator(step.operator)
            # Masks follow the reference, not the image so far, so that adding a step to a recipe
            # leaves the other steps as they were.
            mask = sample_mask(step.mask, reference, self._generator(recipe, index, 0))
            if operator.hard_mask:
                mask = (mask > 0.5).to(mask)
            changed = operator(image, step.severity, self._generator(recipe, index, 1))
            whole = step.mask == "whole"
            image = changed if whole else image + mask * (changed - image)
            masks[index] = mask[0]
        return Sample(reference, image[0], dense_maps(recipe, masks, self.stride), recipe, masks)

    def sample(self, reference: Tensor, seed: int) -> Sample:
        """Draw a recipe with ``seed`` and apply it to ``reference`` (3×H×W in [0, 1])."""
        return self.apply(reference, self.draw(seed))

    def pair(self, reference: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Two distorted images of one photograph and the map from the first to the second.

        Returns:
            ``(a, b, maps)`` with ``maps = map_b − map_a``, in [−2, 2].
        """
        seed = whole_number("seed", seed)
        first = self.sample(reference, 2 * seed)
        second = self.sample(reference, 2 * seed + 1)
        return first.distorted, second.distorted, second.maps - first.maps

    @staticmethod
    def _generator(recipe: Recipe, index: int, stream: int) -> torch.Generator:
        seed = (recipe.seed * _SEED_STRIDE + 2 * index + stream) % (2**63 - 1)
        return torch.Generator().manual_seed(seed)
