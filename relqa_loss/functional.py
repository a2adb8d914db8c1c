"""Maps, score, distance and losses as functions.

They share one frozen network per weights, device and dtype, loaded at its first use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from relqa_loss._inputs import (
    OnOutOfRange,
    Reduction,
    by_channel,
    channel_factors,
    check_factor,
    check_options,
    prepare_pair,
    prepare_triple,
    prepare_weight,
    reduce_batch,
    upsample_maps,
)
from relqa_loss._pairs import distances, encode_reference, maps, maps_and_distances, relations
from relqa_loss._parts import values_in_parts
from relqa_loss._preference import (
    PreferBy,
    check_preference,
    log_lead,
    preference,
    preference_values,
)
from relqa_loss._relational import PIXEL_WEIGHT, relational_values
from relqa_loss._weighted import RELATIONAL_WEIGHT, Base, check_factors, weighted_values
from relqa_loss.network._precision import full_precision
from relqa_loss.network.model import ParityNetwork, Relation
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS
from relqa_loss.network.shared import network_dtype, network_for


def relate(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    channel_weights: Mapping[str, float] | None = None,
    weight: Tensor | None = None,
    on_out_of_range: OnOutOfRange = "raise",
) -> Relation:
    """Everything the network says about ``preds``, as compared with ``target``.

    The method follows the idea of "Pixel Perfect" (arXiv 2605.02863), relational assessment by
    signed maps of disentangled distortions; the architecture is this library's own.

    Args:
        preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
        target: The reference, of the same shape.
        data_range: The value of white; required for integer images (255 for uint8).
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        channel_weights: Factors on channels' shares of the distance, such as ``{"noise": 2.0}``;
            1 for those not named.
        weight: N×1×H×W, non-negative or boolean: weights of the pixels, averaged over cells of
            4×4, for distance and score. A cell outside a mask still sees some 100 pixels around.
        on_out_of_range: ``"raise"`` (one synchronisation with the GPU per call), ``"clamp"``
            (no gradient outside the range) or ``"ignore"``.

    Returns:
        ``maps`` N×K×⌈H/4⌉×⌈W/4⌉, signed; ``score`` N, signed, negative where preds is worse;
        ``distance`` N, ≥ 0 and zero exactly at identity.

    Raises:
        TypeError: For anything but floating tensors, or integers without a ``data_range``.
        ValueError: For wrong shapes, devices, options or values out of range.
        FileNotFoundError: If weights given as a path do not exist.

    Example:
        >>> import torch
        >>> from relqa_loss import relate
        >>> target = torch.rand(2, 3, 64, 64)
        >>> relation = relate(target * 0.5, target)
        >>> relation.maps.shape, relation.score.shape, relation.distance.shape
        (torch.Size([2, 13, 16, 16]), torch.Size([2]), torch.Size([2]))
    """
    check_options(data_range, on_out_of_range)
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    factors = channel_tensor(channel_weights, network)
    cells = prepare_weight(weight, reference)
    with full_precision(reference):
        return relations(network, image, reference, factors, cells)


def maps_and_distance(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float,
    weights: str | os.PathLike[str],
    channel_weights: Mapping[str, float] | None,
    on_out_of_range: OnOutOfRange,
) -> tuple[Tensor, Tensor]:
    """What :func:`relate` gives but for the score, which costs a second distance."""
    check_options(data_range, on_out_of_range)
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    factors = channel_tensor(channel_weights, network)
    with full_precision(reference):
        return maps_and_distances(network, image, reference, factors, None)


def relational_distance(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    channel_weights: Mapping[str, float] | None = None,
    weight: Tensor | None = None,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """The perceptual distance of ``preds`` from ``target``: ≥ 0, zero exactly at identity.

    ``distance ≥ c · mean|preds − target| / data_range`` holds for every pair, with c the network's
    ``floor``; with ``weight``, for the mean weighted alike. Channel weights below 1 leave at least
    a twentieth of c. It is what to report; :func:`relational_loss` is what to train with.

    Args:
        preds: As for :func:`relate`, and so are the other arguments.
        target: The reference, of the same shape.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        weights: Name or path.
        channel_weights: Factors on channels' shares of the distance.
        weight: N×1×H×W weights of the pixels.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        A scalar, or N values for ``reduction="none"``.

    Raises:
        TypeError: As :func:`relate`.
        ValueError: As :func:`relate`.

    Example:
        >>> import torch
        >>> from relqa_loss import relational_distance
        >>> target = torch.rand(2, 3, 64, 64)
        >>> relational_distance(target, target)
        tensor(0.)
        >>> bool(relational_distance(1 - target, target) > 0)
        True
    """
    check_options(data_range, on_out_of_range, reduction)
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    factors = channel_tensor(channel_weights, network)
    cells = prepare_weight(weight, reference)
    with full_precision(reference):
        values = distances(network, image, reference, factors, cells)
    return reduce_batch(values, reduction)


def relational_loss(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    pixel_weight: float = PIXEL_WEIGHT,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    channel_weights: Mapping[str, float] | None = None,
    weight: Tensor | None = None,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """What :class:`~relqa_loss.RelationalLoss` minimises, as a function.

    ``distance + pixel_weight · mean|preds − target| / data_range``, with the distance of
    :func:`relational_distance` but for errors that are a small displacement, a strong blur or a
    gain of contrast, which count as their size says. Weights are looked up at each call; the
    module, which holds them, is what to use in a training loop.

    Args:
        preds: As for :func:`relate`, and so are the other arguments.
        target: The reference, of the same shape.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        pixel_weight: Of the mean absolute error beside the distance, which sees values that
            ``"clamp"`` would cut; 0 leaves the distance alone.
        weights: Name or path.
        channel_weights: Factors on channels' shares of the distance.
        weight: N×1×H×W weights of the pixels, for both parts.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        A scalar ≥ 0, or N values for ``reduction="none"``.

    Raises:
        TypeError: As :func:`relate`, and for a ``pixel_weight`` that is not a number.
        ValueError: As :func:`relate`, and for a ``pixel_weight`` that is negative or not finite.

    Example:
        >>> import torch
        >>> from relqa_loss import relational_loss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> relational_loss(preds, target).backward()
        >>> preds.grad.shape, relational_loss(target, target)
        (torch.Size([2, 3, 64, 64]), tensor(0.))
    """
    check_options(data_range, on_out_of_range, reduction)
    check_factor("pixel_weight", pixel_weight)
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    values = relational_values(
        network,
        preds,
        target,
        image,
        reference,
        data_range=data_range,
        on_out_of_range=on_out_of_range,
        factors=channel_tensor(channel_weights, network),
        pixel_weight=pixel_weight,
        weight=weight,
    )
    return reduce_batch(values, reduction)


def relational_score(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    channel_weights: Mapping[str, float] | None = None,
    weight: Tensor | None = None,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """The relational quality score: higher is better, negative where ``preds`` is the worse one.

    ``relational_score(a, b) == -relational_score(b, a)``, and 0 at identity; the target need not
    be pristine.

    Args:
        preds: As for :func:`relate`, and so are the other arguments.
        target: The reference, of the same shape.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        weights: Name or path.
        channel_weights: Factors on channels' shares of the magnitude.
        weight: N×1×H×W weights of the pixels.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        A scalar, or N values for ``reduction="none"``.

    Raises:
        TypeError: As :func:`relate`.
        ValueError: As :func:`relate`.

    Example:
        >>> import torch
        >>> from relqa_loss import relational_score
        >>> a, b = torch.rand(2, 1, 3, 64, 64)
        >>> bool(relational_score(a, b) == -relational_score(b, a))
        True
    """
    check_options(data_range, on_out_of_range, reduction)
    relation = relate(
        preds,
        target,
        data_range=data_range,
        weights=weights,
        channel_weights=channel_weights,
        weight=weight,
        on_out_of_range=on_out_of_range,
    )
    return reduce_batch(relation.score, reduction)


def distortion_maps(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    reduction: Reduction = "none",
    size: Literal["grid", "input"] = "grid",
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """Signed severities per channel and place, in the order of :data:`relqa_loss.CHANNELS`.

    Positive where ``preds`` has more of a distortion than ``target``, negative where it has less.

    Args:
        preds: As for :func:`relate`, and so are the other arguments.
        target: The reference, of the same shape.
        data_range: The value of white.
        reduction: ``"none"`` keeps the batch; ``"mean"`` and ``"sum"`` join its maps.
        size: ``"grid"`` (a cell per 4×4 pixels) or ``"input"`` (cells repeated to H×W).
        weights: Name or path.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        N×K×⌈H/4⌉×⌈W/4⌉ or N×K×H×W, about [−1, 1]; without N if the batch is joined.

    Raises:
        TypeError: As :func:`relate`.
        ValueError: As :func:`relate`, and for an unknown ``size``.

    Example:
        >>> import torch
        >>> from relqa_loss import distortion_maps
        >>> a, b = torch.rand(2, 1, 3, 45, 61)
        >>> distortion_maps(a, b).shape, distortion_maps(a, b, size="input").shape
        (torch.Size([1, 13, 12, 16]), torch.Size([1, 13, 45, 61]))
    """
    check_options(data_range, on_out_of_range, reduction)
    if size not in {"grid", "input"}:
        raise ValueError(f'size must be "grid" or "input", got {size!r}')
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    with full_precision(reference):
        found = maps(network, image, reference)
    if size == "input":
        found = upsample_maps(found, (reference.shape[-2], reference.shape[-1]))
    if reduction == "none":
        return found
    return found.mean(0) if reduction == "mean" else found.sum(0)


def distortion_profile(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    on_out_of_range: OnOutOfRange = "raise",
) -> dict[str, Tensor]:
    """Mean signed and mean absolute map per channel: what kind of errors images have.

    Signed means cancel between places and images, absolute means do not. Of a data set,
    :class:`~relqa_loss.metrics.DistortionProfile` gives the same.

    Args:
        preds: As for :func:`relate`, and so are the other arguments.
        target: The reference, of the same shape.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        weights: Name or path.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        Under ``"<channel>_signed"`` and ``"<channel>_absolute"`` a scalar each, or N values for
        ``reduction="none"``.

    Raises:
        TypeError: As :func:`relate`.
        ValueError: As :func:`relate`.

    Example:
        >>> import torch
        >>> from relqa_loss import distortion_profile
        >>> target = torch.rand(2, 3, 64, 64)
        >>> profile = distortion_profile(0.5 * target, target)
        >>> bool(profile["luminance_signed"] < 0 < profile["luminance_absolute"])
        True
    """
    check_options(data_range, on_out_of_range, reduction)
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    with full_precision(reference):
        found = maps(network, image, reference)
    signed, absolute = (
        [reduce_batch(values, reduction) for values in each.mean((2, 3)).unbind(1)]
        for each in (found, found.abs())
    )
    return named_profile(network.channels, signed, absolute)


def named_profile(
    channels: Sequence[str], signed: Iterable[Tensor], absolute: Iterable[Tensor]
) -> dict[str, Tensor]:
    """The entries of a profile, under the names that loggers show."""
    return {
        f"{channel}_{kind}": value
        for kind, values in (("signed", signed), ("absolute", absolute))
        for channel, value in zip(channels, values, strict=True)
    }


def spatial_map_weighted_loss(
    preds: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    base: Base = "charbonnier",
    channel_weights: Mapping[str, float] | None = None,
    detach_maps: bool = True,
    map_gain: float = 1.0,
    relational_weight: float = RELATIONAL_WEIGHT,
    weight: Tensor | None = None,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """A per-pixel error that counts more where distortions are seen, plus the distance.

    ``mean(base(preds, target) · (1 + map_gain · Σ_k w_k |M_k|)) + relational_weight · distance``,
    with the distance that :class:`~relqa_loss.RelationalLoss` minimises.

    Args:
        preds: As for :func:`relate`.
        target: The reference, of the same shape.
        data_range: The value of white; ``base`` sees images divided by it.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        base: ``"charbonnier"``, ``"l1"``, ``"l2"``, or a callable ``(preds, target)`` that returns
            an error per pixel, N×C×H×W. It sees values that ``"clamp"`` would cut, so that these
            keep a gradient.
        channel_weights: ``w_k``, and factors on the channels' shares of the distance.
        detach_maps: Treat the maps as constants. Otherwise the gradient may also lower the loss
            by changing what the maps see, not only what is there.
        map_gain: How much the maps count; 0 leaves the base error alone.
        relational_weight: Factor of the distance, whose value is some hundred times that of the
            base; 0 leaves it out.
        weight: N×1×H×W weights of the pixels, for both parts.
        weights: Name or path.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        A scalar ≥ 0 (given a base ≥ 0), or N values for ``reduction="none"``.

    Raises:
        TypeError: As :func:`relate`, and for a ``base`` of another type.
        ValueError: As :func:`relate`, and for negative factors or a base of the wrong shape.

    Example:
        >>> import torch
        >>> from relqa_loss import spatial_map_weighted_loss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> spatial_map_weighted_loss(preds, target, channel_weights={"ringing": 2.0}).backward()
        >>> preds.grad.shape
        torch.Size([2, 3, 64, 64])
    """
    check_options(data_range, on_out_of_range, reduction)
    check_factors(base, map_gain, relational_weight)
    network, image, reference = _prepare(preds, target, weights, data_range, on_out_of_range)
    values = weighted_values(
        network,
        preds,
        target,
        image,
        reference,
        data_range=data_range,
        base=base,
        factors=channel_tensor(channel_weights, network),
        detach_maps=detach_maps,
        map_gain=map_gain,
        relational_weight=relational_weight,
        weight=weight,
    )
    return reduce_batch(values, reduction)


def relational_preference(
    preds: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    by: PreferBy = "distance",
    slope: float = 1.0,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    channel_weights: Mapping[str, float] | None = None,
    weight: Tensor | None = None,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """How likely ``preds`` are better than ``baseline``, given what both should be.

    The probability is the logistic function of ``slope · lead``, with the lead
    ``log((D(baseline) + ε) / (D(preds) + ε))`` (ε = 0.001) or ``S(preds) − S(baseline)``. For
    distances and a slope of 1 that is ``D(baseline) / (D(preds) + D(baseline))`` but for ε, the
    model of Bradley and Terry (1952). Swapping ``preds`` and ``baseline`` gives one minus the
    probability. It was not fitted to judgements of people: read it as an order, not as a
    forecast of votes.

    Args:
        preds: As for :func:`relate`.
        baseline: The images to be beaten, of the same shape.
        target: The reference of both, of the same shape.
        by: ``"distance"``, or ``"score"``: the score cannot tell which image is the worse one
            where the difference has no direction, such as a tone curve, and ranks less well
            against pristine targets.
        slope: How fast a lead becomes certainty; ``math.inf`` gives 1 for a win, ½ for a tie
            and 0 for a loss, so that the mean is the win rate.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        weights: Name or path.
        channel_weights: Factors on channels' shares of the distance.
        weight: N×1×H×W weights of the pixels.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        A scalar, or N values for ``reduction="none"``; in [0, 1], ½ for equal images.

    Raises:
        TypeError: As :func:`relate`, and for a slope that is not a number.
        ValueError: As :func:`relate`, and for an unknown ``by`` or a slope that is not positive.

    Example:
        >>> import torch
        >>> from relqa_loss import relational_preference
        >>> target = torch.rand(2, 3, 64, 64)
        >>> bool(relational_preference(0.9 * target, 0.5 * target, target) > 0.5)
        True
        >>> relational_preference(target, target, target)
        tensor(0.5000)
    """
    check_options(data_range, on_out_of_range, reduction)
    check_preference(slope, by=by)
    network, image, other, reference = _prepare_three(
        preds, baseline, target, weights, data_range, on_out_of_range
    )
    factors = channel_tensor(channel_weights, network)
    cells = prepare_weight(weight, reference)

    def leads(image: Tensor, other: Tensor, reference: Tensor, cells: Tensor | None) -> Tensor:
        encoded = encode_reference(network, reference)
        if by == "distance":
            return log_lead(
                network.distance(encoded, image, factors, cells),
                network.distance(encoded, other, factors, cells),
            )
        ours, theirs = (
            network.relate(encoded, network.encode(seen), factors, cells).score
            for seen in (image, other)
        )
        return ours - theirs

    with full_precision(reference):
        mapped = by == "score" or factors is not None
        lead = values_in_parts(leads, image, other, reference, cells, maps=mapped)
        return reduce_batch(preference(lead, slope), reduction)


def preference_loss(
    preds: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    slope: float = 1.0,
    margin: float = 0.0,
    detach_baseline: bool = True,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    channel_weights: Mapping[str, float] | None = None,
    weight: Tensor | None = None,
    on_out_of_range: OnOutOfRange = "raise",
) -> Tensor:
    """Minus the log-probability that ``preds`` are better than ``baseline``, to be minimised.

    ``softplus(slope · (log(D(preds) + ε) − log(D(baseline) + ε) + margin))`` with the distances D
    from ``target`` that :class:`~relqa_loss.RelationalLoss` minimises, and ε = 0.001: log 2 where
    both are equally far (without margin), and least where ``preds`` equal the target. For a slope
    of 1 it is ``log(1 + D(preds) / D(baseline))`` but for ε. An image whose baseline is bad is
    pressed less than one whose baseline is good; ``RelationalLoss`` presses all alike.

    Args:
        preds: As for :func:`relate`.
        baseline: The images to be beaten, of the same shape.
        target: The reference of both, of the same shape. It gets no gradient.
        slope: Above 1, images that have beaten their baseline are let go, the sooner the steeper;
            below 1, the gradient grows towards the target.
        margin: The lead to ask for, as a logarithm: ``math.log(2)`` for half the distance.
        detach_baseline: Treat the baseline as a constant. Otherwise the loss may also be lowered
            by making the baseline worse.
        data_range: The value of white.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        weights: Name or path.
        channel_weights: Factors on channels' shares of the distance.
        weight: N×1×H×W weights of the pixels.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"``.

    Returns:
        A scalar > 0, or N values for ``reduction="none"``.

    Raises:
        TypeError: As :func:`relate`, and for a slope or margin that is not a number.
        ValueError: As :func:`relate`, for a slope that is not positive and finite, or a margin
            that is not finite.

    Example:
        >>> import torch
        >>> from relqa_loss import preference_loss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> loss = preference_loss(preds, 0.5 * target, target)
        >>> loss.backward()
        >>> bool(loss < preference_loss(0.5 * target, 0.9 * target, target))
        True
    """
    check_options(data_range, on_out_of_range, reduction)
    check_preference(slope, margin=margin, steepest=sys.float_info.max)
    network, image, other, reference = _prepare_three(
        preds, baseline, target, weights, data_range, on_out_of_range
    )
    values = preference_values(
        network,
        image,
        other,
        reference,
        slope=slope,
        margin=margin,
        detach_baseline=detach_baseline,
        factors=channel_tensor(channel_weights, network),
        weight=weight,
    )
    return reduce_batch(values, reduction)


def channel_tensor(
    channel_weights: Mapping[str, float] | None, network: ParityNetwork
) -> Tensor | None:
    """K factors in the network's dtype and on its device, or None if nothing is weighted."""
    if not by_channel(channel_weights):
        return None
    factors = channel_factors(channel_weights, network.channels)
    return torch.tensor(factors, device=network.scale.device, dtype=network.scale.dtype)


def _prepare(
    preds: Tensor,
    target: Tensor,
    weights: str | os.PathLike[str],
    data_range: float,
    on_out_of_range: str,
) -> tuple[ParityNetwork, Tensor, Tensor]:
    dtype = network_dtype(preds) if isinstance(preds, Tensor) else torch.float32
    image, reference = prepare_pair(
        preds, target, dtype=dtype, data_range=data_range, on_out_of_range=on_out_of_range
    )
    return network_for(weights, image.device, dtype), image, reference


def _prepare_three(
    preds: Tensor,
    baseline: Tensor,
    target: Tensor,
    weights: str | os.PathLike[str],
    data_range: float,
    on_out_of_range: str,
) -> tuple[ParityNetwork, Tensor, Tensor, Tensor]:
    dtype = network_dtype(preds) if isinstance(preds, Tensor) else torch.float32
    image, other, reference = prepare_triple(
        preds, baseline, target, dtype=dtype, data_range=data_range, on_out_of_range=on_out_of_range
    )
    return network_for(weights, image.device, dtype), image, other, reference
