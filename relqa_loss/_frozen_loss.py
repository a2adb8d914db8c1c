"""What all losses share: a frozen network, options, and what must not happen to either."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from relqa_loss._inputs import (
    OnOutOfRange,
    Reduction,
    by_channel,
    channel_factors,
    check_options,
    described,
    prepare_pair,
    readable,
)
from relqa_loss.network.model import LEAST_SHARE
from relqa_loss.network.pretrained import find_weights, load_record


class FrozenLoss(nn.Module):
    """A frozen network and the options that all losses share."""

    factors: Tensor | None
    _seen: Tensor
    """The network's scale when the weights were last known to be right."""

    def __init__(
        self,
        *,
        data_range: float,
        reduction: Reduction,
        channel_weights: Mapping[str, float] | None,
        on_out_of_range: OnOutOfRange,
        weights: str | os.PathLike[str],
    ) -> None:
        super().__init__()
        check_options(data_range, on_out_of_range, reduction)
        self.data_range = data_range
        self.reduction = reduction
        self.on_out_of_range = on_out_of_range
        self.channel_weights = by_channel(channel_weights)
        record = find_weights(weights)
        self._weights_version = record.version
        self.network = load_record(record)
        factors = channel_factors(self.channel_weights, self.network.channels)
        with torch.inference_mode(False):
            tensor = torch.tensor(factors, device="cpu", dtype=torch.float32)
        self.register_buffer("factors", tensor if self.channel_weights else None, persistent=False)
        self._magnitude, self._seen = self._measure_weights(), self.network.scale
        super().train(False)

    @property
    def version(self) -> str:
        """Name and hash of the weights, and the options: report it beside results."""
        return f"{self._weights_version}({self._options()})"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the map channels, in order."""
        return self.network.channels

    @property
    def floor(self) -> float:
        """c of ``distance ≥ c · mean|preds − target| / data_range``, for these channel weights."""
        least = min([1.0, *self.channel_weights.values()])
        return self.network.floor * max(least, LEAST_SHARE)

    def train(self, mode: bool = True) -> FrozenLoss:
        """Does nothing: the network is frozen and always in eval mode."""
        return super().train(False)  # type: ignore[return-value, unused-ignore]

    def extra_repr(self) -> str:
        """Version of the weights and the options."""
        return f"weights={self._weights_version!r}, {self._options()}"

    def __repr__(self) -> str:
        # One line: the layers of a frozen network are noise in the print-out of a user's model.
        return f"{type(self).__name__}({self.extra_repr()})"

    def _options(self) -> str:
        options = f"data_range={self.data_range:g}, reduction={self.reduction!r}"
        if self.channel_weights:
            options += f", channel_weights={described(self.channel_weights)}"
        return f"{options}, on_out_of_range={self.on_out_of_range!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenLoss:
        """Follow a parent's ``.to()``, but never below float32.

        A parent's ``.half()`` or ``.bfloat16()`` would round the weights for good, and differences
        of half-precision features are mostly rounding.
        """

        def widen(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved is tensor:
                return moved
            narrow = moved.is_floating_point() and moved.dtype.itemsize < 4
            dtype = tensor.dtype if narrow else moved.dtype
            # Where to and as what, never what: ``to_empty`` has no values, and no checkpoint of
            # the parent would bring them back.
            kept = tensor.to(moved.device, dtype)
            if moved.dim() == 4 and moved.is_contiguous(memory_format=torch.channels_last):
                kept = kept.contiguous(memory_format=torch.channels_last)
            return kept

        return super()._apply(widen, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _prepare(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        image, reference = prepare_pair(
            preds,
            target,
            dtype=self.network.scale.dtype,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
        )
        self._check_network(image)
        return image, reference

    def _measure_weights(self) -> float:
        """One number of all weights: another one, and they are others."""
        # Of the network, not of all that is in here: a base of the user's may have buffers, too.
        weights = self.network.buffers()
        return float(sum(each.detach().cpu().double().abs().sum() for each in weights))

    def _check_network(self, image: Tensor) -> None:
        dtype = self.network.scale.dtype
        # FSDP writes to the data of buffers, which :meth:`_apply` knows nothing of. All would be
        # computed in half precision, small errors of the images lost.
        if dtype not in {torch.float32, torch.float64}:
            raise ValueError(
                f"the weights of the loss were rounded to {dtype}, as FSDP does with a "
                "buffer_dtype in its MixedPrecision: leave that out, pass ignored_modules=[loss] "
                "to FSDP, or keep the loss out of the module that is wrapped"
            )
        # Frameworks that load checkpoints put other tensors in the place of buffers. Nothing is
        # worked out while the tensor is the same one, and compiled code does not look at all.
        if readable(self.network.scale) and self.network.scale is not self._seen:
            if not math.isclose(self._measure_weights(), self._magnitude, rel_tol=1e-6):
                raise ValueError(
                    "the weights of the loss were replaced, as from_pretrained of transformers "
                    "does with all that is in no checkpoint: build the loss anew once the model "
                    "is loaded, or keep it out of the model"
                )
            self._seen = self.network.scale
        # Layers would complain of each other, each kind of device in its own words.
        here = self.network.scale.device
        if image.device != here:
            raise ValueError(
                f"the images are on {image.device}, the loss is on {here}: move the loss there, "
                f'loss.to("{image.device}")'
            )
