"""Settings of a training run; stored in its checkpoints and in the weights' manifest."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

import numpy as np

from relqa_loss._numbers import whole_number
from relqa_loss.network.config import NetworkConfig
from relqa_loss.training.objectives import Learn, ObjectiveWeights, RankBy


@dataclass(frozen=True)
class TrainConfig:
    """What a training run is made of.

    Args:
        steps: Length of the learning-rate schedule (one-cycle cosine).
        sets: Ranked sets in the pool.
        batch: Sets per step and process.
        unjudged_sets: Further sets without panel values, ten times cheaper to make, for the maps,
            and for distances that a teacher teaches.
        unjudged_batch: How many of them a step draws its pairs from; without any, pairs come from
            the judged sets.
        fact_sets: Sets of pairs whose order is known from psychophysics, for the distance.
        fact_batch: How many of them take part in a step.
        crop: Side of the square crops in pixels, a multiple of 16.
        window: Side of the windows that pairs are cut to, a multiple of 16.
        luma_share: Share of the sets without a known order (single distortions) whose images keep
            the colours of their reference when the maps' pairs are drawn.
        grey_share: Share of those sets that are grey when the maps' pairs are drawn.
        two_outputs: Whether the direction learns, too, which of two distorted versions of a
            photograph is nearer to it by the distance, which it is not shown.
        half_maps: Whether the maps are learned in bfloat16, twice as fast where the processor
            knows that format. Distances are compared down to the threshold of visibility, and
            stay in float32.
        learn: ``"both"``, ``"maps"`` or ``"distance"``; the other one keeps its initial weights.
        rank_by: Whether distances learn the panel's order of a batch from its ``"pairs"`` or as
            one ``"list"``.
        teacher: Name or path of weights whose distances are learned as well; none by default.
        rate: Peak learning rate of AdamW.
        seed: Decides the pool, the initial weights and every draw; from −2³¹ to 2³² − 1.
        exclude: Operators never trained on.
        hold_out: Whether to leave out the operators of
            :data:`relqa_loss.training.split.HELD_OUT` (a run for measuring, not for shipping).
        average: Decay of the exponential moving average of the weights, which is what ships.
        validate_every: Steps between validations and checkpoints.
        validation_sets: Ranked sets to validate on.
        network: What is trained.
        objective: Weights of the terms.

    Raises:
        TypeError: For fractions where numbers are whole.
        ValueError: For numbers out of range, unknown choices, or options that exclude each other.
    """

    steps: int = 6000
    sets: int = 3072
    batch: int = 4
    unjudged_sets: int = 0
    unjudged_batch: int = 0
    fact_sets: int = 0
    fact_batch: int = 0
    crop: int = 160
    window: int = 96
    luma_share: float = 0.0
    grey_share: float = 0.0
    two_outputs: bool = False
    half_maps: bool = False
    learn: Learn = "both"
    rank_by: RankBy = "list"
    teacher: str | None = None
    rate: float = 2e-3
    seed: int = 0
    exclude: tuple[str, ...] = ()
    hold_out: bool = False
    average: float = 0.998
    validate_every: int = 250
    validation_sets: int = 64
    network: NetworkConfig = field(default_factory=NetworkConfig.base)
    objective: ObjectiveWeights = field(default_factory=ObjectiveWeights)

    def __post_init__(self) -> None:
        for each in fields(self):
            value: Any = _plain(getattr(self, each.name))
            object.__setattr__(self, each.name, value)
            if each.type == "int":  # a fraction would show after the pool is made
                whole_number(each.name, value)
        if self.crop % 16 or self.crop < 64:
            raise ValueError(f"crop must be a multiple of 16 and at least 64, got {self.crop}")
        if self.window % 16 or not 32 <= self.window <= self.crop:
            raise ValueError(
                f"window must be a multiple of 16 from 32 to crop ({self.crop}), got {self.window}"
            )
        for name in ("luma_share", "grey_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.luma_share + self.grey_share > 1:
            raise ValueError(
                "luma_share and grey_share must not be more than 1 together, got "
                f"{self.luma_share} and {self.grey_share}"
            )
        for name in ("steps", "sets", "batch", "validate_every", "validation_sets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be positive and finite, got {self.rate}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be from 0 to below 1, got {self.average}")
        if not -(1 << 31) <= self.seed < 1 << 32:
            # With the number of a set behind it, the set's own seed has 64 bits.
            raise ValueError(f"seed must be from {-(1 << 31)} to {(1 << 32) - 1}, got {self.seed}")
        if self.learn not in get_args(Learn):
            raise ValueError(f"learn must be one of {get_args(Learn)}, got {self.learn!r}")
        if self.rank_by not in get_args(RankBy):
            raise ValueError(f"rank_by must be one of {get_args(RankBy)}, got {self.rank_by!r}")
        if self.teacher is not None and self.learn == "maps":
            raise ValueError("a teacher teaches distances, and learn is 'maps'")
        if self.two_outputs and self.learn == "distance":
            raise ValueError("two_outputs teaches the direction, and learn is 'distance'")
        for kind in ("unjudged", "fact"):
            sets, batch = getattr(self, f"{kind}_sets"), getattr(self, f"{kind}_batch")
            if sets < 0 or batch < 0 or (sets > 0) != (batch > 0):
                raise ValueError(
                    f"{kind}_sets and {kind}_batch go together, both positive or both 0, got "
                    f"{sets} and {batch}"
                )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        record = asdict(self)
        record["network"] = self.network.to_dict()
        record["exclude"] = list(self.exclude)
        record["objective"] = {name: _plain(value) for name, value in record["objective"].items()}
        return record


def _plain(value: object) -> object:
    """Numbers of NumPy as Python's, and paths as text: checkpoints are read without pickle, and
    manifests are JSON, which know no others."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
