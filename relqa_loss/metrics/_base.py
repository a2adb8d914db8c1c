"""What all metrics share: their options, and sums that keep their precision."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from relqa_loss._inputs import OnOutOfRange, by_channel, channel_factors, check_options, described
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, find_weights, pinned


class SummedMetric(Metric):
    """A metric whose states are sums over images, of what the shared network says about them.

    Weights are no part of a metric: it uses the network that the functional interface shares.
    Subclasses call :meth:`_add_states` at the end of their ``__init__``.
    """

    # The network runs without gradients: a metric measures. To train, there are losses.
    is_differentiable: bool = False
    full_state_update: bool = False

    options: Tensor

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        channel_weights: Mapping[str, float] | None = None,
        on_out_of_range: OnOutOfRange = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_options(data_range, on_out_of_range)
        self._pinned = pinned(weights)
        record = find_weights(self._pinned)
        self.channels = record.config.channels
        channel_factors(channel_weights, self.channels)
        self.data_range = data_range
        self.weights = weights
        self.channel_weights = by_channel(channel_weights)
        self.on_out_of_range = on_out_of_range
        self._weights_version = record.version

    @property
    def version(self) -> str:
        """Name and hash of the weights, and the options: report it beside results."""
        return f"{self._weights_version}({self._describe_options()})"

    def _add_states(self, scalars: Iterable[str], per_channel: Iterable[str] = ()) -> None:
        zeros = torch.zeros(len(self.channels), dtype=torch.float64)
        for name in scalars:
            self.add_state(name, default=zeros[0].clone(), dist_reduce_fx="sum")
        for name in per_channel:
            self.add_state(name, default=zeros.clone(), dist_reduce_fx="sum")
        # torchmetrics merges metrics whose states are equal after the first batch. Metrics of
        # different options are equal there if that batch is perfect; this keeps them apart.
        digest = hashlib.sha256(self.version.encode()).digest()
        self.add_state("options", default=torch.tensor(list(digest)), dist_reduce_fx="max")

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add what another metric of the same class, weights and options has summed.

        Raises:
            ValueError: If it is of another class, or of other weights or options.
        """
        given: Any = incoming_state
        if self._is_of_others(given.metric_state if isinstance(given, Metric) else given, ""):
            raise ValueError(self._refusal())
        super().merge_state(incoming_state)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if self._is_of_others(state_dict, prefix):
            if bool(state_dict.get(prefix + "count", 1)):
                error_msgs.append(f"{prefix}options: {self._refusal()}")
            # Neither sums that are refused nor the options of a metric that has seen no images.
            for name in self._defaults:
                state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _is_of_others(self, state: Mapping[str, Any], prefix: str) -> bool:
        own: Any = self._defaults["options"]
        given = state.get(prefix + "options")
        return isinstance(given, Tensor) and not torch.equal(given.cpu(), own.cpu())

    def _refusal(self) -> str:
        return (
            f"the state is of other weights or options than {self.version}, and sums of both would "
            "be of neither: build the metric as it was, or begin with a new one"
        )

    def _describe_options(self) -> str:
        text = f"data_range={self.data_range:g}"
        if self.channel_weights:
            text += f", channel_weights={described(self.channel_weights)}"
        return f"{text}, on_out_of_range={self.on_out_of_range!r}"

    def extra_repr(self) -> str:
        """Version of the weights and the options."""
        return f"weights={self._weights_version!r}, {self._describe_options()}"

    def __repr__(self) -> str:
        # torchmetrics shows the bare class name, whatever the options.
        return f"{type(self).__name__}({self.extra_repr()})"

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> torch.nn.Module:
        """Move the states, but keep their precision.

        Sums in half precision stop growing, so neither ``.to(torch.bfloat16)`` of a parent nor
        ``set_dtype`` reaches them. Devices without float64 get float32.
        """

        def keep(tensor: Tensor) -> Tensor:
            try:
                moved = fn(tensor)
            except TypeError:
                if tensor.dtype != torch.float64:
                    raise
                return fn(tensor.float())
            if moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        return super()._apply(keep, exclude_state)
