"""Validation and preparation of what users pass to losses, metrics and functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relqa_loss.network._layout import corner
from relqa_loss.network.model import MAP_STRIDE

OnOutOfRange = Literal["raise", "clamp", "ignore"]
"""What to do about values outside ``[0, data_range]``."""

Reduction = Literal["none", "mean", "sum"]
"""How the values of a batch are joined."""

SMALLEST_SIDE = 32
"""Least height and width of an image."""

# Resampling and colour conversion overshoot by rounding alone; a fortieth of an 8-bit level is no
# sign of a wrong data_range.
_SLACK = 1e-4


def check_options(
    data_range: float, on_out_of_range: str = "raise", reduction: str = "mean"
) -> None:
    """Check options that do not depend on the images.

    Raises:
        ValueError: If one of them is not among the documented values.
    """
    numbers = (int, float, np.integer, np.floating)
    number = isinstance(data_range, numbers) and not isinstance(data_range, bool)
    if not number or not 0 < data_range < math.inf:
        raise ValueError(f"data_range must be a positive number, got {data_range!r}")
    if on_out_of_range not in get_args(OnOutOfRange):
        raise ValueError(
            f"on_out_of_range must be one of {get_args(OnOutOfRange)}, got {on_out_of_range!r}"
        )
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {get_args(Reduction)}, got {reduction!r}")


def prepare_pair(
    preds: Tensor,
    target: Tensor,
    *,
    dtype: torch.dtype,
    data_range: float = 1.0,
    on_out_of_range: str = "raise",
) -> tuple[Tensor, Tensor]:
    """Check a pair and bring it to what the network takes: N×3×H×W in [0, 1], in ``dtype``.

    Args:
        preds: N×3×H×W or N×1×H×W in ``[0, data_range]``; grey is repeated.
        target: Of the same shape.
        dtype: The network's.
        data_range: The value of white.
        on_out_of_range: ``"raise"``, ``"clamp"`` or ``"ignore"`` values outside the range.

    Raises:
        TypeError: For anything but floating tensors, or integers without a ``data_range``.
        ValueError: For a wrong shape or device, sides below 32, or, with ``"raise"``, values
            outside the range or NaN.
    """
    image, reference = _prepare_images(
        {"preds": preds, "target": target}, dtype, data_range, on_out_of_range
    )
    return image, reference


def check_pair(preds: Tensor, target: Tensor, data_range: float) -> None:
    """What :func:`prepare_pair` checks before it looks at values.

    Raises:
        TypeError: As :func:`prepare_pair`.
        ValueError: For a wrong shape or device, or sides below 32.
    """
    _check_images({"preds": preds, "target": target}, data_range)


def prepare_triple(
    preds: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    dtype: torch.dtype,
    data_range: float = 1.0,
    on_out_of_range: str = "raise",
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`prepare_pair`, for two images of the same reference."""
    image, other, reference = _prepare_images(
        {"preds": preds, "baseline": baseline, "target": target},
        dtype,
        data_range,
        on_out_of_range,
    )
    return image, other, reference


def prepare_image(
    image: Tensor,
    name: str,
    *,
    dtype: torch.dtype,
    data_range: float = 1.0,
    on_out_of_range: str = "raise",
) -> Tensor:
    """One image, as :func:`prepare_pair` prepares two; ``name`` is what errors call it."""
    _check_tensor(image, name, data_range)
    scaled = in_unit_range(image, data_range, dtype)
    if on_out_of_range == "raise" and readable(scaled):
        _check_range({name: scaled}, data_range)
    return _finish(scaled, on_out_of_range)


def prepare_weight(weight: Tensor | None, like: Tensor) -> Tensor | None:
    """Average per-pixel weights over the cells of the maps.

    Args:
        weight: N×1×H×W (or 1×1×H×W for all images alike), non-negative; a boolean mask will do.
        like: The prepared images, whose shape, device and dtype the weight must fit.

    Returns:
        N×1×⌈H/4⌉×⌈W/4⌉, or None for None.

    Raises:
        TypeError: If the weight is not a tensor.
        ValueError: If its shape or device do not fit, or values are negative or not finite.
    """
    if weight is None:
        return None
    if not isinstance(weight, Tensor) or weight.is_complex():
        raise TypeError(f"weight must be a real or boolean tensor, got {_describe(weight)}")
    count, _, height, width = like.shape
    if tuple(weight.shape) not in {(count, 1, height, width), (1, 1, height, width)}:
        raise ValueError(
            f"weight must have shape {(count, 1, height, width)}, got {tuple(weight.shape)}"
        )
    if weight.device != like.device:
        raise ValueError(f"weight is on {weight.device}, the images are on {like.device}")
    weight = weight.to(like.dtype)
    if readable(weight):
        low, high = (
            float(value) for value in torch.stack(weight.as_subclass(Tensor).aminmax()).tolist()
        )
        if not (low >= 0 and high < math.inf):
            raise ValueError(
                f"weight must be finite and non-negative, got values from {low:g} to {high:g}"
            )
    # ceil_mode averages a cell that is cut by the border over its pixels inside the image.
    cells = F.avg_pool2d(weight, MAP_STRIDE, ceil_mode=True)
    return cells.expand(count, -1, -1, -1)


def check_factor(name: str, value: float) -> None:
    """Check a factor that may be anything from 0 on.

    Raises:
        TypeError: If it is not a number, such as the text that YAML makes of ``1e-3``.
        ValueError: If it is negative or not finite.
    """
    try:
        allowed = 0 <= value < math.inf
    except TypeError:
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not allowed:
        raise ValueError(f"{name} must be finite and non-negative, got {value!r}")


def by_channel(channel_weights: Mapping[str, float] | None) -> dict[str, float]:
    """A copy of what was given, which may be nothing.

    Raises:
        TypeError: For anything but weights by name.
    """
    if channel_weights is None:
        return {}
    if not isinstance(channel_weights, Mapping):
        raise TypeError(
            'channel_weights must be factors by channel, such as {"noise": 2.0}, got '
            f"{channel_weights!r}"
        )
    return dict(channel_weights)


def channel_factors(
    channel_weights: Mapping[str, float] | None, channels: tuple[str, ...]
) -> list[float]:
    """Factors per channel in the order of the maps; 1 for channels that are not named.

    Raises:
        TypeError: For weights that are not numbers, or for anything but weights by name.
        ValueError: For unknown channels, and for weights that are negative or not finite.
    """
    given = by_channel(channel_weights)
    unknown = sorted(set(given) - set(channels))
    if unknown:
        raise ValueError(f"unknown channels {unknown} in channel_weights; known: {list(channels)}")
    try:
        wrong = {name: value for name, value in given.items() if not 0 <= value < math.inf}
    except TypeError:
        raise TypeError(f"channel_weights must be numbers, got {given}") from None
    if wrong:
        raise ValueError(f"channel_weights must be finite and non-negative, got {wrong}")
    return [float(given.get(name, 1.0)) for name in channels]


def described(channel_weights: Mapping[str, float]) -> dict[str, float]:
    """Factors in one order and of one type, so that equal ones are described alike."""
    return {name: float(channel_weights[name]) for name in sorted(channel_weights)}


def reduce_batch(values: Tensor, reduction: str) -> Tensor:
    """Join the values of a batch."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


def upsample_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """N×K×⌈H/4⌉×⌈W/4⌉ → N×K×H×W, each cell repeated.

    Not bilinear: its backward pass is not deterministic on GPUs, and a cell says something about
    its own 4×4 pixels.
    """
    full = F.interpolate(maps, scale_factor=float(MAP_STRIDE), mode="nearest")
    return corner(full, *size)


def _prepare_images(
    images: Mapping[str, Tensor], dtype: torch.dtype, data_range: float, on_out_of_range: str
) -> list[Tensor]:
    _check_images(images, data_range)
    scaled = {name: in_unit_range(image, data_range, dtype) for name, image in images.items()}
    if on_out_of_range == "raise" and all(map(readable, scaled.values())):
        _check_range(scaled, data_range)
    return [_finish(image, on_out_of_range) for image in scaled.values()]


def _check_images(images: Mapping[str, Tensor], data_range: float) -> None:
    for name, image in images.items():
        _check_tensor(image, name, data_range)
    first, *others = images.values()
    # Compared, not gathered in a set: sizes that are symbols while exporting have no hash.
    if any(image.shape != first.shape for image in others):
        shapes = [tuple(image.shape) for image in images.values()]
        raise ValueError(f"{_join(images)} must have the same shape, got {_join(shapes)}")
    if any(image.device != first.device for image in others):
        devices = [image.device for image in images.values()]
        raise ValueError(f"{_join(images)} must be on the same device, got {_join(devices)}")


def _join(parts: Iterable[object]) -> str:
    *first, last = map(str, parts)
    return f"{', '.join(first)} and {last}"


def _describe(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _check_tensor(image: Tensor, name: str, data_range: float) -> None:
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} must be a tensor, got {_describe(image)}")
    if image.is_complex() or image.dtype == torch.bool:
        raise TypeError(f"{name} must be floating or integer, got {image.dtype}")
    if not image.is_floating_point() and data_range == 1:
        white = 255 if image.dtype == torch.uint8 else "the value of white"
        raise TypeError(
            f"{name} is {image.dtype}: pass data_range={white}, or convert it to floating point "
            "in [0, 1]"
        )
    if image.ndim != 4 or image.shape[1] not in {1, 3}:
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call, unused-ignore]
            # Shapes are tensors there, and none is in a set.
            raise NotImplementedError(
                "TorchScript, which torch.jit.trace and torch.onnx.export(dynamo=False) go "
                "through, is not supported: use relqa_loss.export, torch.export or torch.compile"
            )
        raise ValueError(f"{name} must be N×3×H×W or N×1×H×W, got shape {tuple(image.shape)}")
    if image.shape[0] == 0:
        raise ValueError(f"{name} is an empty batch, of shape {tuple(image.shape)}")
    if min(image.shape[2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"{name} must be at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels, got "
            f"{image.shape[2]}×{image.shape[3]}"
        )


def in_unit_range(image: Tensor, data_range: float, dtype: torch.dtype) -> Tensor:
    """``image`` in ``dtype``, with 1 as the value of white."""
    if data_range == 1:
        return keepable(image.to(dtype))
    # Integers above 2**24 do not fit into float32; they are rounded, which is below any visibility.
    return image.to(dtype) / data_range


def keepable(values: Tensor) -> Tensor:
    """``values``, or a copy of what was made in inference mode, such as a baseline's output.

    Autograd refuses to keep the latter for a gradient.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return values
    return values.clone() if values.is_inference() else values


def _finish(image: Tensor, on_out_of_range: str) -> Tensor:
    if on_out_of_range == "clamp":
        image = image.clamp(0, 1)
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image


def readable(values: Tensor) -> bool:
    """Whether values can be looked at: not while compiling, exporting, vmapping or faking, nor
    while a CUDA graph is being captured."""
    if torch.compiler.is_compiling():
        return False
    if values.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(values)
    # Fake, distributed and traced tensors dispatch for themselves; a subclass that merely carries
    # something with its values (torchvision's images) does not.
    dispatches = type(values).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return not (wrapped or values.is_meta or dispatches)


def _check_range(images: Mapping[str, Tensor], data_range: float) -> None:
    plain = [image.detach().as_subclass(Tensor) for image in images.values()]
    extremes = [extreme for image in plain for extreme in image.aminmax()]
    values = [float(value) for value in torch.stack(extremes).tolist()]  # one synchronisation
    for name, low, high in zip(images, values[::2], values[1::2], strict=True):
        if not (math.isfinite(low) and math.isfinite(high)):
            # Of NaN, both are.
            what = "NaN" if math.isnan(low) else "infinity"
            raise ValueError(f"{name} contains {what}: the model that made it has diverged")
        if low < -_SLACK or high > 1 + _SLACK:
            raise ValueError(
                f"{name} must lie in [0, {data_range:g}], got values from {low * data_range:g} to "
                f"{high * data_range:g}: {_advice(low * data_range, high * data_range)}"
            )


def _advice(low: float, high: float) -> str:
    if -1 - _SLACK <= low < -0.5 and high <= 1 + _SLACK:
        return "for images in [-1, 1], pass (image + 1) / 2 with data_range=1"
    if low >= 0 and 2 < high <= 255:
        return "for images in [0, 255], pass data_range=255"
    if low >= 0 and 255 < high <= 65535:
        # A dark image of more bits looks like a bright one of fewer: all that it may be are named.
        depths = [bits for bits in (10, 12, 16) if high < 2**bits]
        whites = " / ".join(f"data_range={2**bits - 1}" for bits in depths)
        return f"for {' / '.join(map(str, depths))}-bit images, pass {whites}"
    return (
        'pass the right data_range, or for an overshoot on_out_of_range="ignore" to train, "clamp" '
        "to measure"
    )
