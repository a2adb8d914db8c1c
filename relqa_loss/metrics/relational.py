"""Distance, score and profile of a data set, as torchmetrics classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from relqa_loss._inputs import OnOutOfRange
from relqa_loss.functional import named_profile, relate
from relqa_loss.metrics._base import SummedMetric
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS


class _RelationalMetric(SummedMetric):
    """Sums over images of everything one pass of the network gives.

    All metrics keep the same states, so that a ``MetricCollection`` finds them equal, puts them
    into one compute group and runs the network once for all of them.
    """

    distance_sum: Tensor
    score_sum: Tensor
    signed_sum: Tensor
    absolute_sum: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        channel_weights: Mapping[str, float] | None = None,
        on_out_of_range: OnOutOfRange = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            data_range=data_range,
            weights=weights,
            channel_weights=channel_weights,
            on_out_of_range=on_out_of_range,
            **kwargs,
        )
        self._add_states(
            scalars=("distance_sum", "score_sum", "count"),
            per_channel=("signed_sum", "absolute_sum"),
        )

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch; sizes may differ from batch to batch.

        Args:
            preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
            target: The references, of the same shape.

        Raises:
            TypeError: For integers without a ``data_range``.
            ValueError: For wrong shapes, devices or values out of range.
        """
        with torch.no_grad():
            relation = relate(
                preds,
                target,
                data_range=self.data_range,
                weights=self._pinned,
                channel_weights=self.channel_weights,
                on_out_of_range=self.on_out_of_range,
            )
            # Per image first, so that images of different sizes count alike.
            kind = self.count.dtype
            signed = relation.maps.to(kind).mean((2, 3)).sum(0)
            absolute = relation.maps.abs().to(kind).mean((2, 3)).sum(0)
            self.distance_sum = self.distance_sum + relation.distance.to(kind).sum()
            self.score_sum = self.score_sum + relation.score.to(kind).sum()
            self.signed_sum = self.signed_sum + signed
            self.absolute_sum = self.absolute_sum + absolute
            self.count = self.count + relation.score.shape[0]

    def _result(self, values: Tensor) -> Tensor:
        # Without images 0 / 0 gives NaN, and torchmetrics warns.
        return (values / self.count).float()


class RelationalDistance(_RelationalMetric):
    """Mean relational distance over all images; lower is better, 0 only for perfect images.

    Args:
        data_range: The value of white.
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        channel_weights: Factors on channels' shares of the distance.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: For unknown options or weights.

    Example:
        >>> import torch
        >>> from relqa_loss.metrics import RelationalDistance
        >>> metric = RelationalDistance()
        >>> target = torch.rand(2, 3, 64, 64)
        >>> metric.update(target, target)
        >>> metric.compute()
        tensor(0.)
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0

    def compute(self) -> Tensor:
        """The mean over images, float32."""
        return self._result(self.distance_sum)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or a list of values, as torchmetrics does."""
        return self._plot(val, ax)


class RelationalScore(_RelationalMetric):
    """Mean relational quality score over all images; higher is better, 0 at identity.

    Negative where ``preds`` are worse than ``target``; against another model's outputs as
    ``target``, positive means that ``preds`` are the better ones.

    Args:
        data_range: The value of white.
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        channel_weights: Factors on channels' shares of the magnitude.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: For unknown options or weights.

    Example:
        >>> import torch
        >>> from relqa_loss.metrics import RelationalScore
        >>> a, b = torch.rand(2, 1, 3, 64, 64)
        >>> bool(RelationalScore()(a, b) == -RelationalScore()(b, a))
        True
    """

    higher_is_better: bool = True

    def compute(self) -> Tensor:
        """The mean over images, float32."""
        return self._result(self.score_sum)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or a list of values, as torchmetrics does."""
        return self._plot(val, ax)


class DistortionProfile(_RelationalMetric):
    """Mean signed and mean absolute map per channel: what kind of errors a model makes.

    ``compute`` returns scalars under ``"<channel>_signed"`` and ``"<channel>_absolute"``, ready
    for ``log_dict``. Signed means cancel between places and images; absolute means do not.

    Args:
        data_range: The value of white.
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        channel_weights: No effect on the maps; give it the value of the other metrics in a
            collection, so that all of them share one pass of the network.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: For unknown options or weights.

    Example:
        >>> import torch
        >>> from relqa_loss.metrics import DistortionProfile
        >>> target = torch.rand(2, 3, 64, 64)
        >>> profile = DistortionProfile()(target, target)
        >>> profile["noise_signed"], profile["noise_absolute"]
        (tensor(0.), tensor(0.))
    """

    higher_is_better: bool | None = None

    def compute(self) -> dict[str, Tensor]:
        """Two scalars per channel, float32."""
        signed, absolute = self._result(self.signed_sum), self._result(self.absolute_sum)
        return named_profile(self.channels, signed.unbind(), absolute.unbind())

    def plot(self, val: Mapping[str, Tensor] | None = None, ax: Any = None) -> Any:
        """Signed bars per channel, each on a paler bar from −absolute to +absolute.

        Args:
            val: A result of ``compute`` or ``forward``; by default that of ``compute``.
            ax: Matplotlib axes to draw on; by default a new figure's.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: Without matplotlib.
        """
        try:
            import matplotlib.pyplot as plt
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "plot() needs matplotlib: pip install 'relqa-loss[demo]'"
            ) from error
        val = self.compute() if val is None else val
        signed = [float(val[f"{channel}_signed"]) for channel in self.channels]
        absolute = [float(val[f"{channel}_absolute"]) for channel in self.channels]
        if ax is None:
            figure, ax = plt.subplots(figsize=(6, 0.3 * len(signed) + 1), layout="constrained")
        else:
            figure = ax.figure
        rows = range(len(signed))
        spread = [2 * value for value in absolute]
        ax.barh(rows, spread, left=[-v for v in absolute], color="0.9", label="± mean magnitude")
        colours = ["#b2182b" if value > 0 else "#2166ac" for value in signed]
        ax.barh(rows, signed, height=0.5, color=colours, label="signed mean")
        ax.axvline(0, color="0.3", linewidth=0.8)
        limit = 1.05 * max([*absolute, *map(abs, signed), 1e-6])
        ax.set(
            xlim=(-limit, limit),
            yticks=list(rows),
            yticklabels=[channel.replace("_", " ") for channel in self.channels],
            xlabel="less than the reference  ←  severity  →  more than the reference",
            title=type(self).__name__,
        )
        ax.invert_yaxis()
        return figure, ax
