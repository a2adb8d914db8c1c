"""Per-image scores of one validation, collected batch by batch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from relqa_loss._inputs import OnOutOfRange, by_channel, channel_factors, check_options, described
from relqa_loss._relational import PIXEL_WEIGHT
from relqa_loss.functional import maps_and_distance, relate, relational_distance
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, find_weights, pinned

Keys = Sequence[object] | Tensor
"""A name or number per image."""


class ImageScores:
    """What to choose by, and mean signed maps, of every image of a validation.

    Holds a few numbers per image, no images, and no part of the network, so nothing of it ends up
    in an optimiser or a checkpoint.

    Args:
        metric: ``"loss"``, the distance that metrics report with the pixel term that
            :class:`~relqa_loss.RelationalLoss` has by default, or ``"distance"`` alone: lower is
            better; ``"score"``: higher is better. The pixel term, which sees what the distance
            saturates at, chooses better (``docs/selection.md``).
        data_range: The value of white.
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        channel_weights: Factors on channels' shares of the distance.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``. The pixel term sees what
            ``"clamp"`` would cut, as in the loss: clamp outputs to score them as they are saved.
        maps: Whether to measure mean signed maps as well. Vetoes need them; they cost several
            times the distance, and validation without them is cheaper by as much.

    Raises:
        ValueError: For unknown options or weights.

    Example:
        >>> import torch
        >>> from relqa_loss.selection import CheckpointSelector, ImageScores
        >>> scores, target = ImageScores(), torch.rand(2, 3, 32, 32)
        >>> scores.add(target, target)
        >>> scores.values, scores.profile["noise"]
        ([0.0, 0.0], 0.0)
        >>> selector = CheckpointSelector(
        ...     mode=scores.mode, metric=scores.metric, version=scores.version
        ... )
        >>> selector.update(0, scores.values, profile=scores.profile).chosen
        True
    """

    def __init__(
        self,
        metric: Literal["loss", "distance", "score"] = "loss",
        *,
        data_range: float = 1.0,
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        channel_weights: Mapping[str, float] | None = None,
        on_out_of_range: OnOutOfRange = "raise",
        maps: bool = True,
    ) -> None:
        if metric not in ("loss", "distance", "score"):
            raise ValueError(f"metric must be 'loss', 'distance' or 'score', got {metric!r}")
        check_options(data_range, on_out_of_range)
        # A file that is written anew during a training is not what `version` names.
        self._pinned = pinned(weights)
        record = find_weights(self._pinned)
        self.channels = record.config.channels
        self._weights_version = record.version
        channel_factors(channel_weights, self.channels)
        self.metric = metric
        self.data_range = data_range
        self.weights = weights
        self.channel_weights = by_channel(channel_weights)
        self.on_out_of_range: OnOutOfRange = on_out_of_range
        self.maps = maps
        self._rows: list[list[float]] = []
        self._keys: list[str] | None = None

    @property
    def mode(self) -> Literal["min", "max"]:
        """Which end of the metric is the good one."""
        return "max" if self.metric == "score" else "min"

    @property
    def name(self) -> str:
        """For logs: ``relational_loss``, ``relational_distance`` or ``relational_score``."""
        return f"relational_{self.metric}"

    @property
    def version(self) -> str:
        """Name and hash of the weights, and the options that change scores of images in range."""
        options = f"data_range={self.data_range:g}"
        if self.metric != "loss":  # which goes without saying
            options = f"metric={self.metric!r}, {options}"
        if self.channel_weights:
            options += f", channel_weights={described(self.channel_weights)}"
        return f"{self._weights_version}({options})"

    @property
    def values(self) -> dict[str, float] | list[float]:
        """One number per image: by key if keys were given, else in order."""
        numbers = [row[0] for row in self._rows]
        return numbers if self._keys is None else dict(zip(self._keys, numbers, strict=True))

    @property
    def profile(self) -> dict[str, float]:
        """Mean signed map per channel over all images; NaN without any, empty without maps."""
        if not self.maps:
            return {}
        table = _doubles(self._rows).reshape(-1, len(self.channels) + 1)
        return dict(zip(self.channels, table[:, 1:].mean(0).tolist(), strict=True))

    @property
    def mean(self) -> float:
        """Mean over all images; NaN without any."""
        return float(_doubles([row[0] for row in self._rows]).mean())

    def __len__(self) -> int:
        return len(self._rows)

    def measure(self, preds: Tensor, target: Tensor) -> Tensor:
        """One row per image, without collecting it: metric, then mean maps, if any, by channel.

        Args:
            preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
            target: The references, of the same shape.

        Returns:
            N×(1+K), float32; N×1 without maps.
        """
        options: dict[str, Any] = {
            "data_range": self.data_range,
            "weights": self._pinned,
            "channel_weights": self.channel_weights,
            "on_out_of_range": self.on_out_of_range,
        }
        maps = None
        with torch.no_grad():
            if self.metric == "score":
                maps, first, _ = relate(preds, target, **options)
            elif self.maps:
                maps, first = maps_and_distance(preds, target, **options)
            else:
                first = relational_distance(preds, target, reduction="none", **options)
            if self.metric == "loss":
                error = preds.to(first.dtype) - target.to(first.dtype)
                first = first + PIXEL_WEIGHT / self.data_range * error.abs().mean((1, 2, 3))
        row = [first[:, None]]
        if self.maps and maps is not None:
            row.append(maps.mean((2, 3)))
        return torch.cat(row, 1).float()

    def add(self, preds: Tensor, target: Tensor, keys: Keys | None = None) -> None:
        """Measure and collect a batch; sizes may differ from batch to batch.

        Args:
            preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
            target: The references, of the same shape.
            keys: A name or number per image, needed where their order is not always the same.

        Raises:
            ValueError: For wrong images, or keys that are missing or not unique.
        """
        self.add_rows(self.measure(preds, target).tolist(), keys)

    def add_rows(self, rows: Sequence[Sequence[float]], keys: Keys | None = None) -> None:
        """Collect results of :meth:`measure`.

        Raises:
            ValueError: If keys are missing or not unique.
        """
        names = None if keys is None else names_of(keys)
        if self._rows and (names is None) != (self._keys is None):
            raise ValueError("give keys with every batch or with none")
        if names is not None:
            known = self._keys or []
            if len(names) != len(rows) or len({*known, *names}) < len(known) + len(names):
                raise ValueError(
                    f"keys must be one per image and unique, got {names[:4]} for {len(rows)} "
                    f"images after {len(known)} others; reset() forgets those of a validation that "
                    "was stopped half-way"
                )
            self._keys = [*known, *names]
        self._rows.extend(list(row) for row in rows)

    def reset(self) -> None:
        """Forget all images."""
        self._rows, self._keys = [], None

    def gathered(self, parts: Sequence[ImageScores]) -> ImageScores:
        """The images of several processes. Keys that come twice, as samplers pad, count once."""
        whole = ImageScores(
            self.metric,  # type: ignore[arg-type, unused-ignore]
            data_range=self.data_range,
            weights=self._pinned,
            channel_weights=self.channel_weights,
            on_out_of_range=self.on_out_of_range,
            maps=self.maps,
        )
        seen: set[str] = set()
        for part in parts:
            if not len(part):  # of a process without images, which knows of no keys
                continue
            if part._keys is None:
                whole.add_rows(part._rows)
                continue
            fresh = [at for at, key in enumerate(part._keys) if key not in seen]
            whole.add_rows([part._rows[at] for at in fresh], [part._keys[at] for at in fresh])
            seen.update(part._keys)
        return whole


def names_of(keys: Keys) -> list[str]:
    """Keys as text, that of tensors without the device that they are on."""
    return [str(key.item() if isinstance(key, Tensor) else key) for key in keys]


def _doubles(numbers: Sequence[Any]) -> Tensor:
    # Not on the default device, which may have no float64.
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")
