"""Losses as modules: frozen, without parameters or state, and safe inside a user's network."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from relqa_loss._frozen_loss import FrozenLoss
from relqa_loss._inputs import (
    OnOutOfRange,
    Reduction,
    check_factor,
    prepare_image,
    prepare_triple,
    prepare_weight,
    reduce_batch,
)
from relqa_loss._pairs import encode_reference, relations
from relqa_loss._preference import check_preference, preference_values
from relqa_loss._relational import PIXEL_WEIGHT, relational_values, relational_values_of_encoded
from relqa_loss._weighted import RELATIONAL_WEIGHT, Base, check_factors, weighted_values
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import Encoding, Relation
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS


class RelationalLoss(FrozenLoss):
    """The perceptual distance between an image and its reference, to be minimised.

    ``distance + pixel_weight · mean|preds − target| / data_range``. Of these the distance alone is
    at least ``c · mean|preds − target| / data_range`` for every pair (c is :attr:`floor`) and zero
    only at identity: the pixel term is not there to make it safe but to make networks learn
    faster, above all to remove noise (``docs/recipes.md``). ``pixel_weight=0`` leaves the
    distance alone. It is that of :func:`relqa_loss.relational_distance` but for errors that are a
    small displacement, a strong blur or a gain of contrast, which count as their size says:
    networks learn better so (``docs/decisions.md``), and :meth:`relation` reports as metrics do.
    Maps are worked out only if channels are weighted, and then take most of the time
    (``docs/performance.md``). The module is frozen: ``parameters()`` and ``state_dict()`` are
    empty, ``train()`` changes nothing, ``half()`` keeps it in float32, autocast is off inside. The
    idea follows "Pixel Perfect" (arXiv 2605.02863); the architecture is this library's own.

    Args:
        data_range: The value of white; required for integer images (255 for uint8).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        channel_weights: Factors on channels' shares of the distance, such as
            ``{"noise": 2.0, "ringing": 0.5}``; 1 for those not named.
        pixel_weight: Weight of the mean absolute error beside the distance. It sees values that
            ``"clamp"`` would cut, so that these keep a gradient.
        on_out_of_range: ``"raise"`` (one synchronisation with the GPU per call), ``"clamp"`` (the
            distance has no gradient outside the range) or ``"ignore"`` (for networks with
            unbounded output). Values are not checked while compiling, exporting or capturing a
            CUDA graph, nor under ``vmap``.
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
        values = relational_values(
            self.network,
            preds,
            target,
            image,
            reference,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
            factors=self.factors,
            pixel_weight=self.pixel_weight,
            weight=weight,
        )
        return reduce_batch(values, self.reduction)

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
            encoding: From :meth:`encode`, with the same weights and dtype, of as many images as
                ``preds``, or of one.
            preds: N×3×H×W or N×1×H×W, of the reference's size.
            weight: N×1×H×W weights of the pixels.

        Raises:
            TypeError: If a tensor is given for the encoding, and as ``forward``.
            ValueError: If sizes, batches, devices or dtypes do not match, and as ``forward``.

        Example:
            >>> import torch
            >>> from relqa_loss import RelationalLoss
            >>> loss, target = RelationalLoss(), torch.rand(1, 3, 64, 64)
            >>> encoding = loss.encode(target)
            >>> loss.distance_to(encoding, target)
            tensor(0.)
        """
        if isinstance(encoding, Tensor):  # the target itself, or forward's order
            raise TypeError("the encoding must be from encode(target), got a tensor")
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
        if encoding.image.dtype != image.dtype:  # encoded before the loss's .double(), or .float()
            raise ValueError(
                f"the encoding is in {encoding.image.dtype}, the loss in {image.dtype}: encode the "
                "reference again"
            )
        values = relational_values_of_encoded(
            self.network,
            encoding,
            preds,
            image,
            data_range=self.data_range,
            on_out_of_range=self.on_out_of_range,
            factors=self.factors,
            pixel_weight=self.pixel_weight,
            weight=weight,
        )
        return reduce_batch(values, self.reduction)

    def _options(self) -> str:
        return f"pixel_weight={self.pixel_weight:g}, {super()._options()}"


class SpatialMapWeightedLoss(FrozenLoss):
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
        TypeError: For a ``base`` that is neither a name nor callable or returns no tensor, and as
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


class PreferenceLoss(FrozenLoss):
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
