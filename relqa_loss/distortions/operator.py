"""What a distortion operator is: a named, signed, seeded change with a severity in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions._device import drawn_alike
from relqa_loss.network._precision import full_precision

Apply = Callable[[Tensor, float, torch.Generator], Tensor]
"""``(images N×3×H×W in [0, 1], strength, generator) -> images`` of the same shape."""


Spacing = Literal["geometric", "linear"]


@dataclass(frozen=True)
class Curve:
    """Maps a severity in [0, 1] to an operator's own parameter.

    Args:
        mild: Parameter just below the threshold of visibility (severity → 0).
        severe: Parameter at severity 1, the worst anyone would ship to a viewer.
        spacing: ``geometric`` (both ends positive) suits most parameters, since equal ratios look
            like equal steps; ``linear`` otherwise.

    Raises:
        ValueError: For another spacing, or a geometric one between ends that are not positive.
    """

    mild: float
    severe: float
    spacing: Spacing = "geometric"

    def __post_init__(self) -> None:
        if self.spacing not in get_args(Spacing):
            raise ValueError(f"spacing must be 'geometric' or 'linear', got {self.spacing!r}")
        if self.spacing == "geometric" and not (self.mild > 0 and self.severe > 0):
            raise ValueError(
                f"a geometric curve needs two positive ends, got {self.mild} and {self.severe}; "
                "use spacing='linear'"
            )

    def __call__(self, severity: float) -> float:
        """Parameter at ``severity``."""
        if self.spacing == "geometric":
            return float(self.mild * (self.severe / self.mild) ** severity)
        return float(self.mild + (self.severe - self.mild) * severity)


@dataclass(frozen=True)
class Operator:
    """A registered distortion.

    Args:
        name: Unique, lower case with underscores.
        family: The group it is listed under, e.g. ``blur``.
        channel: Dominant channel, one of :data:`relqa_loss.CHANNELS`.
        sign: +1 if the result has more of ``channel`` than the input, −1 if less.
        curve: Severity → parameter.
        apply: The change itself. It must not alter its input, must return values in [0, 1], and
            takes all randomness from the generator that it is given. It gets images of half
            precision in single precision.
        side: Further channels touched, as signed fractions of the severity.
        differentiable: Whether gradients flow through ``apply``.
        runs_on: ``torch`` (any device) or ``host`` (NumPy or Pillow, on the CPU).
        mildest: True where severity 0 is the mildest setting of a codec instead of the identity.
        one_directional: True where more severity is certainly worse; False for changes that some
            viewers may like at low severity (sharpening, contrast and saturation boosts).
        hard_mask: True where blending would show ghosts, so masks are made binary.
        about: One line for the listing.
    """

    name: str
    family: str
    channel: str
    sign: int
    curve: Curve
    apply: Apply = field(repr=False)
    side: Mapping[str, float] = field(default_factory=dict)
    differentiable: bool = True
    runs_on: Literal["torch", "host"] = "torch"
    mildest: bool = False
    one_directional: bool = True
    hard_mask: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        for channel in (self.channel, *self.side):
            if channel not in CHANNELS:
                raise ValueError(
                    f"operator {self.name!r}: unknown channel {channel!r}; channels are {CHANNELS}"
                )
        if self.sign not in (-1, 1):
            raise ValueError(f"operator {self.name!r}: sign must be +1 or −1, got {self.sign}")
        if self.channel in self.side:
            raise ValueError(f"operator {self.name!r}: {self.channel!r} is dominant and in side")

    def __call__(self, images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        """Distort ``images`` (N×3×H×W in [0, 1]) everywhere at one severity.

        Severity 0 returns an unchanged copy unless the operator is ``mildest``.

        Raises:
            TypeError: If the images are not of a floating-point type, or ``apply`` returns no
                tensor.
            ValueError: If ``severity`` is outside [0, 1], the images are not N×3×H×W, or ``apply``
                returns another shape.
        """
        if not 0.0 <= severity <= 1.0:
            raise ValueError(f"severity must be in [0, 1], got {severity}")
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be N×3×H×W, got shape {tuple(images.shape)}")
        if not images.is_floating_point():
            # Most operators would take levels for fractions and give white or black.
            raise TypeError(
                f"images must be floating point in [0, 1], got {images.dtype}: pass images / 255 "
                "for 8 bits"
            )
        if severity == 0.0 and not self.mildest:
            return images.clone()
        # Convolutions in half precision would band what they blur, and differ by where they run.
        # Nor does half precision count the pixels of a row, by which others are looked up.
        half = torch.finfo(images.dtype).bits < 32
        with drawn_alike(), full_precision(images):
            changed: object = self.apply(
                images.float() if half else images, self.curve(severity), generator
            )
        if not isinstance(changed, Tensor):
            raise TypeError(
                f"operator {self.name!r} made {type(changed).__name__} of images; its function "
                "must return a tensor"
            )
        if changed.shape != images.shape:
            raise ValueError(
                f"operator {self.name!r} made {tuple(changed.shape)} of images "
                f"{tuple(images.shape)}; its function must keep the shape"
            )
        return changed.clamp(0.0, 1.0).to(images.dtype)

    def direction(self) -> dict[str, float]:
        """Signed weight of every touched channel; the dominant one has weight ±1."""
        return {self.channel: float(self.sign), **self.side}
