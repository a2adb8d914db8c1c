"""How often one model's outputs are better than another's, as a torchmetrics class."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from relqa_loss._inputs import OnOutOfRange
from relqa_loss._preference import PreferBy, check_preference
from relqa_loss.functional import relational_preference
from relqa_loss.metrics._base import SummedMetric
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS


class WinRateInterval(NamedTuple):
    """Bounds of a win rate, scalars in [0, 1]."""

    low: Tensor
    high: Tensor


class RelationalPreference(SummedMetric):
    """Share of images whose ``preds`` are better than ``baseline``, given ``target``.

    An image is won where the figure says that ``preds`` are better, by however little, and tied
    where it is the same for both, as for equal images; a tie counts half. Above ½, ``preds`` win
    more often. A win rate does not say by how much: see :class:`RelationalDistance`, or the mean
    of :func:`relqa_loss.relational_preference`.

    Args:
        by: The figure to compare: ``"distance"`` to the target, where the lower one wins, or
            ``"score"`` against the target, where the higher one wins. The score cannot tell which
            image is the worse one where a difference has no direction, such as a tone curve, so it
            ranks less well against pristine targets.
        data_range: The value of white.
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        channel_weights: Factors on channels' shares of the distance.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: For unknown options or weights.

    Example:
        >>> import torch
        >>> from relqa_loss.metrics import RelationalPreference
        >>> metric = RelationalPreference()
        >>> target = torch.rand(4, 3, 64, 64)
        >>> metric.update(preds=0.9 * target, baseline=0.5 * target, target=target)
        >>> metric.compute()
        tensor(1.)
        >>> metric.interval()
        WinRateInterval(low=tensor(0.5101), high=tensor(1.))
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    wins: Tensor
    ties: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        by: PreferBy = "distance",
        data_range: float = 1.0,
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        channel_weights: Mapping[str, float] | None = None,
        on_out_of_range: OnOutOfRange = "raise",
        **kwargs: Any,
    ) -> None:
        check_preference(math.inf, by=by)
        super().__init__(
            data_range=data_range,
            weights=weights,
            channel_weights=channel_weights,
            on_out_of_range=on_out_of_range,
            **kwargs,
        )
        self.by = by
        self._add_states(scalars=("wins", "ties", "count"))

    def update(self, preds: Tensor, baseline: Tensor, target: Tensor) -> None:
        """Add a batch; sizes may differ from batch to batch.

        Within a ``MetricCollection`` pass images by name: each metric takes those it knows.

        Args:
            preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
            baseline: The other model's outputs, of the same shape.
            target: The references, of the same shape.

        Raises:
            TypeError: For integers without a ``data_range``.
            ValueError: For wrong shapes, devices or values out of range.
        """
        with torch.no_grad():
            outcome = relational_preference(
                preds,
                baseline,
                target,
                by=self.by,
                slope=math.inf,
                data_range=self.data_range,
                reduction="none",
                weights=self._pinned,
                channel_weights=self.channel_weights,
                on_out_of_range=self.on_out_of_range,
            ).to(self.count.dtype)
            # Images that could not be measured are neither lost nor left out: the result is NaN.
            won = torch.where(outcome.isnan(), outcome, (outcome == 1).to(outcome))
            self.wins = self.wins + won.sum()
            self.ties = self.ties + (outcome == 0.5).sum()
            self.count = self.count + outcome.shape[0]

    def compute(self) -> Tensor:
        """Wins and half the ties, divided by the number of images; float32."""
        return self._rate().float()

    def interval(self, confidence: float = 0.95) -> WinRateInterval:
        """Wilson's interval (1927) for the win rate on images like those seen.

        It holds for images that are independent of each other: crops of one photograph, or frames
        of one video, know less than their number says. With ties it is wider than it need be.
        Like ``compute`` it joins the states of all processes, so all of them must call it.

        Args:
            confidence: How often such intervals hold the true rate, between 0 and 1.

        Returns:
            ``low`` and ``high``, float32; NaN without images, with torchmetrics' warning.

        Raises:
            ValueError: For a confidence that is not between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
        # Sums that were loaded or merged have images without an update.
        if not self.update_called and not self.count:
            rank_zero_warn(
                "The ``interval`` method of metric RelationalPreference was called before the "
                "``update`` method: there are no images to tell a win rate from.",
                UserWarning,
            )
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync,
            should_unsync=self._should_unsync,
        ):
            rate, count = self._rate(), self.count
        square = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
        middle = (rate + square / (2 * count)) / (1 + square / count)
        spread = (rate * (1 - rate) * square / count + (square / (2 * count)) ** 2).sqrt()
        half = spread / (1 + square / count)
        low, high = (middle - half).clamp(0, 1), (middle + half).clamp(0, 1)
        return WinRateInterval(low.float(), high.float())

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or a list of values, as torchmetrics does."""
        return self._plot(val, ax)

    def _rate(self) -> Tensor:
        # Without images 0 / 0 gives NaN, and torchmetrics warns.
        return (self.wins + self.ties / 2) / self.count

    def _describe_options(self) -> str:
        return f"by={self.by!r}, {super()._describe_options()}"
