"""Losses as modules: frozen, without parameters or state, and safe inside a user's network."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from relqa_loss._inputs import (
    OnOutOfRange,
    Reduction,
    channel_factors,
    check_factor,
    check_options,
    described,
    in_unit_range,
    prepare_image,
    prepare_pair,
    prepare_triple,
    prepare_weight,
    readable,
    reduce_batch,
)
from relqa_loss._pairs import encode_reference, relations
from relqa_loss._parts import values_in_parts
from relqa_loss._preference import check_preference
from relqa_loss.functional import (
    RELATIONAL_WEIGHT,
    Base,
    check_factors,
    preference_values,
    weighted_mean,
    weighted_values,
)
from relqa_loss.network._lean import channel_error, mean_error
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import LEAST_SHARE, Encoding, Relation
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, find_weights, load_record

PIXEL_WEIGHT = 600.0
"""Of the mean absolute error beside the distance, by default: measured in ``docs/recipes.md``."""


class _Loss(nn.Module):
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
        self.channel_weights = dict(channel_weights or {})
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

    def train(self, mode: bool = True) -> _Loss:
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Loss:
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
        return float(sum(each.detach().cpu().double().abs().sum() for each in self.buffers()))

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


class RelationalLoss(_Loss):
    """The perceptual distance between an image and its reference, to be minimised.

    ``distance + pixel_weight · mean|preds − target| / data_range``. Of these the distance alone is
    at least ``c · mean|preds − target| / data_range`` for every pair (c is :attr:`floor`) and zero
    only at identity: the pixel term is not there to make it safe but to make networks learn
    faster, above all to remove noise (``docs/recipes.md``). ``pixel_weight=0`` leaves the
    distance alone. It is that of :func:`relqa_loss.relational_distance` but for errors that are a
    small displacement or a strong blur, which count as their size says: networks learn better so
    (``docs/decisions.md``), and :meth:`relation` reports as metrics do. The image is encoded only
    if channels are weighted, so that is what weighting costs. The module is frozen:
    ``parameters()`` and ``state_dict()`` are empty, ``train()`` changes nothing, ``half()`` keeps
    it in float32, autocast is off inside. The idea follows "Pixel Perfect" (arXiv 2605.02863); the
    architecture is this library's own.

    Args:
        data_range: The value of white; required for integer images (255 for uint8).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        channel_weights: Factors on channels' shares of the distance, such as
            ``{"noise": 2.0, "ringing": 0.5}``; 1 for those not named.
        pixel_weight: Weight of the mean absolute error beside the distance. It sees values that
            ``"clamp"`` would cut, so that these keep a gradient.
        on_out_of_range: ``"raise"`` (one synchronisation with the GPU per call), ``"clamp"`` (no
            gradient outside the range) or ``"ignore"`` (for networks with unbounded output).
            Values are not checked while compiling, exporting or capturing a CUDA graph, nor under
            ``vmap``.
        weights: Name of shipped weights, or path of a ``.safetensors`` file.

    Shape:
        - ``preds``, ``target``: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
        - ``weight``: N×1×H×W, non-negative or boolean.
        - Output: scalar, or N for ``reduction="none"``; float32 (float64 after ``.double()``).

    Raises:
        ValueError: For unknown options or weights, and in ``forward`` for wrong shapes, devices
            or values out of range.
        TypeError: In ``forward``, for integers without a ``data_range``.
        FileNotFoundError: If weights given as a path do not exist.

    Example:
        >>> import torch
        >>> from relqa_loss import RelationalLoss
        >>> loss = RelationalLoss(channel_weights={"noise": 2.0})
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> loss(preds, target).backward()
        >>> preds.grad.shape, len(list(loss.parameters())), len(loss.state_dict())
        (torch.Size([2, 3, 64, 64]), 0, 0)
    """

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        reduction: Reduction = "mean",
        channel_weights: Mapping[str, float] | None = None,
        pixel_weight: float = PIXEL_WEIGHT,
        on_out_of_range: OnOutOfRange = "raise",
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    ) -> None:
        check_factor("pixel_weight", pixel_weight)
        super().__init__(
            data_range=data_range,
            reduction=reduction,
            channel_weights=channel_weights,
            on_out_of_range=on_out_of_range,
            weights=weights,
        )
        self.pixel_weight = pixel_weight

    def forward(self, preds: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The reduced loss of ``preds`` against ``target``."""
        image, reference = self._prepare(preds, target)
        raw = self._unclamped(preds, image), self._unclamped(target, reference)
        cells = prepare_weight(weight, image)

        def values(image: Tensor, reference: Tensor, *others: Any) -> Tensor:
            encoding = encode_reference(self.network, reference, structure=False)
            return self._values(encoding, image, *others)

        return self._reduced(values, image, reference, *raw, weight, cells)

    def _values(
        self,
        encoding: Encoding,
        image: Tensor,
        raw: Tensor,
        raw_reference: Tensor,
        weight: Tensor | None,
        cells: Tensor | None,
    ) -> Tensor:
        """Distance and pixel term of each image; the latter is of what clamping has not cut."""
        if not self.pixel_weight:
            return self.network.distance(encoding, image, self.factors, cells)
        if self.factors is None and weight is None and self.on_out_of_range != "clamp":
            values, error = self.network.distance_and_error(encoding, image)
        else:
            # First, so that its gradient comes last and is not in memory all the while.
            error = (
                mean_error(raw, raw_reference)
                if weight is None
                else weighted_mean(channel_error(raw, raw_reference), weight)
            )
            values = self.network.distance(encoding, image, self.factors, cells)
        return values + self.pixel_weight * error

    def _reduced(
        self, values: Callable[..., Tensor], image: Tensor, *others: Tensor | None
    ) -> Tensor:
        """What ``values`` gives of each image, without autocast, joined as asked for."""
        with full_precision(image):
            found = values_in_parts(values, image, *others, maps=self.factors is not None)
        return reduce_batch(found, self.reduction)

    def _unclamped(self, given: Tensor, prepared: Tensor) -> Tensor:
        """``prepared`` with what ``"clamp"`` has cut, which the pixel term counts."""
        if self.on_out_of_range != "clamp":
            return prepared
        return in_unit_range(given, self.data_range, prepared.dtype).expand_as(prepared)

    def relation(self, preds: Tensor, target: Tensor, weight: Tensor | None = None) -> Relation:
        """Maps, score and distance per image, without reduction.

        Example:
            >>> import torch
            >>> from relqa_loss import RelationalLoss
            >>> a, b = torch.rand(2, 1, 3, 64, 64)
            >>> RelationalLoss().relation(a, b).maps.shape
            torch.Size([1, 13, 16, 16])
        """
        image, reference = self._prepare(preds, target)
        cells = prepare_weight(weight, reference)
        with full_precision(reference):
            return relations(self.network, image, reference, self.factors, cells)

    def encode(self, target: Tensor) -> Encoding:
        """Encode a reference once, for many calls of :meth:`distance_to`.

        The encoding is of a copy: ``target`` may be overwritten.
        """
        reference = prepare_image(
            target,
            "target",
            dtype=self.network.scale.dtype,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
        )
        self._check_network(reference)
        with full_precision(reference):
            return encode_reference(self.network, reference.clone(), structure=False)

    def distance_to(
        self, encoding: Encoding, preds: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """As ``forward``, for a reference encoded before.

        With ``on_out_of_range="clamp"`` the reference is what was clamped, for the pixel term too.

        Args:
            encoding: From :meth:`encode`, of as many images as ``preds``, or of one.
            preds: N×3×H×W or N×1×H×W, of the reference's size.
            weight: N×1×H×W weights of the pixels.

        Raises:
            ValueError: If sizes, batches or devices do not match, and as ``forward``.

        Example:
            >>> import torch
            >>> from relqa_loss import RelationalLoss
            >>> loss, target = RelationalLoss(), torch.rand(1, 3, 64, 64)
            >>> encoding = loss.encode(target)
            >>> loss.distance_to(encoding, target)
            tensor(0.)
        """
        image = prepare_image(
            preds,
            "preds",
            dtype=self.network.scale.dtype,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
        )
        self._check_network(image)
        count = encoding.image.shape[0]
        if tuple(image.shape[-2:]) != encoding.size or count not in {1, image.shape[0]}:
            raise ValueError(
                f"the encoding is of {count} image(s) of {encoding.size[0]}×{encoding.size[1]}, "
                f"preds have shape {tuple(preds.shape)}"
            )
        if encoding.image.device != image.device:
            raise ValueError(
                f"the encoding is on {encoding.image.device}, preds are on {image.device}: encode "
                "the reference where the images are"
            )
        raw = self._unclamped(preds, image)
        cells = prepare_weight(weight, image)

        def values(image: Tensor, raw: Tensor, weight: Any, cells: Any, *encoded: Tensor) -> Tensor:
            reference, *features = encoded
            encoding = Encoding(reference, tuple(features))
            return self._values(encoding, image, raw, reference.expand_as(raw), weight, cells)

        return self._reduced(values, image, raw, weight, cells, encoding.image, *encoding.features)

    def _options(self) -> str:
        return f"pixel_weight={self.pixel_weight:g}, {super()._options()}"


class SpatialMapWeightedLoss(_Loss):
    """A per-pixel error that counts more where distortions are seen, plus the distance.

    ``mean(base(preds, target) · (1 + map_gain · Σ_k w_k |M_k|)) + relational_weight · distance``,
    in one pass of the network. The base error and the distance both anchor the image to its
    reference. Frozen as :class:`RelationalLoss` is.

    Args:
        base: ``"charbonnier"``, ``"l1"``, ``"l2"``, or a callable ``(preds, target)`` that returns
            an error per pixel, N×C×H×W. It sees images divided by ``data_range``, not clamped.
        channel_weights: ``w_k``, and factors on the channels' shares of the distance; 1 for
            channels that are not named.
        detach_maps: Treat the maps as constants. Otherwise the gradient may also lower the loss
            by changing what the maps see, not only what is there.
        map_gain: How much the maps count.
        relational_weight: Factor of the distance, whose value is some hundred times that of the
            base.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.
        weights: Name or path.

    Shape:
        As :class:`RelationalLoss`.

    Raises:
        TypeError: For a ``base`` that is neither a name nor callable, and as
            :class:`RelationalLoss`.
        ValueError: For negative factors or a base that returns another shape, and as
            :class:`RelationalLoss`.

    Example:
        >>> import torch
        >>> from relqa_loss import SpatialMapWeightedLoss
        >>> loss = SpatialMapWeightedLoss(base="l1", channel_weights={"ringing": 2.0})
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> loss(preds, target).backward()
        >>> loss(target, target)
        tensor(0.)
    """

    def __init__(
        self,
        base: Base = "charbonnier",
        *,
        channel_weights: Mapping[str, float] | None = None,
        detach_maps: bool = True,
        map_gain: float = 1.0,
        relational_weight: float = RELATIONAL_WEIGHT,
        data_range: float = 1.0,
        reduction: Reduction = "mean",
        on_out_of_range: OnOutOfRange = "raise",
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    ) -> None:
        check_factors(base, map_gain, relational_weight)
        super().__init__(
            data_range=data_range,
            reduction=reduction,
            channel_weights=channel_weights,
            on_out_of_range=on_out_of_range,
            weights=weights,
        )
        self.base: Any = base  # Any, for mypy would take a callable in a union for a method
        self.detach_maps = detach_maps
        self.map_gain = map_gain
        self.relational_weight = relational_weight

    def forward(self, preds: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The reduced loss of ``preds`` against ``target``."""
        image, reference = self._prepare(preds, target)
        values = weighted_values(
            self.network,
            preds,
            target,
            image,
            reference,
            data_range=self.data_range,
            base=self.base,
            factors=self.factors,
            detach_maps=self.detach_maps,
            map_gain=self.map_gain,
            relational_weight=self.relational_weight,
            weight=weight,
        )
        return reduce_batch(values, self.reduction)

    def _options(self) -> str:
        name = self.base if isinstance(self.base, str) else _name(self.base)
        return (
            f"base={name!r}, map_gain={self.map_gain:g}, "
            f"relational_weight={self.relational_weight:g}, detach_maps={self.detach_maps}, "
            f"{super()._options()}"
        )


class PreferenceLoss(_Loss):
    """Minus the log-probability that an image is better than a baseline's output.

    ``softplus(slope · (log(D(preds) + ε) − log(D(baseline) + ε) + margin))`` with the distances D
    of :class:`RelationalLoss` and ε = 0.001; the model of preferences is that of Bradley and
    Terry (1952). It is meant for training a model to beat another one's outputs, such as those of
    the last release: every image counts by how it compares with what it has to beat, not by how
    difficult it is. It falls with the distance, so it is least where ``preds`` equal the target.
    Frozen as :class:`RelationalLoss` is.

    Args:
        slope: Above 1, images that have beaten their baseline are let go, the sooner the steeper;
            below 1, the gradient grows towards the target.
        margin: The lead to ask for, as a logarithm: ``math.log(2)`` for half the distance.
        detach_baseline: Treat the baseline as a constant. Otherwise the loss may also be lowered
            by making the baseline worse. The target never gets a gradient.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        channel_weights: Factors on channels' shares of both distances.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.
        weights: Name or path.

    Shape:
        - ``preds``, ``baseline``, ``target``: N×3×H×W or N×1×H×W in ``[0, data_range]``,
          sides ≥ 32.
        - ``weight``: N×1×H×W, non-negative or boolean.
        - Output: scalar, or N for ``reduction="none"``; positive, float32 (float64 after
          ``.double()``).

    Raises:
        TypeError: For a slope or margin that is not a number, and as :class:`RelationalLoss`.
        ValueError: For a slope that is not positive and finite, a margin that is not finite, and
            as :class:`RelationalLoss`.

    Example:
        >>> import torch
        >>> from relqa_loss import PreferenceLoss
        >>> loss = PreferenceLoss()
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> loss(preds, 0.5 * target, target).backward()
        >>> loss(target, target, target)
        tensor(0.6931)
    """

    def __init__(
        self,
        *,
        slope: float = 1.0,
        margin: float = 0.0,
        detach_baseline: bool = True,
        data_range: float = 1.0,
        reduction: Reduction = "mean",
        channel_weights: Mapping[str, float] | None = None,
        on_out_of_range: OnOutOfRange = "raise",
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    ) -> None:
        check_preference(slope, margin=margin, steepest=sys.float_info.max)
        super().__init__(
            data_range=data_range,
            reduction=reduction,
            channel_weights=channel_weights,
            on_out_of_range=on_out_of_range,
            weights=weights,
        )
        self.slope = slope
        self.margin = margin
        self.detach_baseline = detach_baseline

    def forward(
        self, preds: Tensor, baseline: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """The reduced loss of ``preds`` against ``baseline``, given ``target``."""
        image, other, reference = prepare_triple(
            preds,
            baseline,
            target,
            dtype=self.network.scale.dtype,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
        )
        self._check_network(image)
        values = preference_values(
            self.network,
            image,
            other,
            reference,
            slope=self.slope,
            margin=self.margin,
            detach_baseline=self.detach_baseline,
            factors=self.factors,
            weight=weight,
        )
        return reduce_batch(values, self.reduction)

    def _options(self) -> str:
        return (
            f"slope={self.slope:g}, margin={self.margin:g}, "
            f"detach_baseline={self.detach_baseline}, {super()._options()}"
        )


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
