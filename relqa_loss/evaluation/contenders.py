"""Any full-reference metric, by name, as one function of two images."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, pinned

_SHORT = {
    "psnr": "peak_signal_noise_ratio",
    "ssim": "structural_similarity_index_measure",
    "ms_ssim": "multiscale_structural_similarity_index_measure",
    "lpips": "learned_perceptual_image_patch_similarity",
    "dists": "deep_image_structure_and_texture_similarity",
    "vif": "visual_information_fidelity",
    "uqi": "universal_image_quality_index",
}
# Functions that know no data_range, with constants for images from 0 to 255. The others without one
# are ratios or errors, whose order no scale changes, or want [0, 1], as DISTS does.
_UP_TO_255 = frozenset({"visual_information_fidelity"})


@dataclass(frozen=True)
class Contender:
    """A metric of one image and its reference."""

    spec: str
    """As the user named it."""
    higher_is_better: bool | None
    """None where it is not known, and must be told from the data."""
    function: Callable[[Tensor, Tensor], Any]
    """``(preds 1×3×H×W, target 1×3×H×W) -> one value``."""

    def __call__(self, preds: Tensor, target: Tensor) -> float:
        """The value for one image, in [0, 1], sRGB.

        Args:
            preds: 3×H×W.
            target: The reference, of the same shape.

        Raises:
            ValueError: If the metric raises any other exception, or returns anything but one finite
                number.
            MemoryError: As the metric.
        """
        try:
            with torch.no_grad():
                result = self.function(preds[None], target[None])
        except MemoryError:
            raise
        except Exception as error:  # a metric of the user's raises what it likes
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{self.spec} failed: {text}") from error
        if isinstance(result, Tensor) and result.numel() != 1:
            raise ValueError(
                f"{self.spec} gave shape {tuple(result.shape)} for one image, not (1,)"
            )
        try:
            value = float(result)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            kind = type(result).__name__
            raise ValueError(f"{self.spec} gave a {kind} for one image, not a number") from None
        if not math.isfinite(value):
            raise ValueError(f"{self.spec} gave {value}")
        return value


def find_contender(
    spec: str,
    *,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    device: str = "cpu",
) -> Contender:
    """A metric by name.

    * ``relqa:distance`` and ``relqa:score``;
    * ``piq:NAME``, a function of piq, such as ``piq:ssim``;
    * ``torchmetrics:NAME``, a function of ``torchmetrics.functional.image``, some of them by a
      short name as well, such as ``torchmetrics:psnr``;
    * ``module:function``, with ``function(preds, target) -> N values`` on N×3×H×W in [0, 1].

    Args:
        spec: The name.
        weights: For ``relqa``.
        device: Where images are put.

    Raises:
        ValueError: For a name that means nothing.
        ImportError: If the package or module cannot be imported.

    Example:
        >>> import torch
        >>> from relqa_loss.evaluation.contenders import find_contender
        >>> image = torch.rand(3, 64, 64)
        >>> find_contender("relqa:distance")(image, image)
        0.0
    """
    package, colon, name = spec.partition(":")
    if not (colon and package and name):
        raise ValueError(
            f"a metric is named package:function, such as relqa:distance, piq:ssim, "
            f"torchmetrics:psnr or mymodule:myfunction; got {spec!r}"
        )
    higher: bool | None = None
    if package == "relqa":
        function, higher = _own(name, weights)
    elif package == "piq":
        function = _with_options(_member("piq", name, "piq>=0.8"))
    elif package == "torchmetrics":
        full = _SHORT.get(name, name)
        function = _with_options(_member("torchmetrics.functional.image", full, "torchmetrics"))
    else:
        function = _member(package, name, "")

    def on_device(preds: Tensor, target: Tensor) -> Any:
        return function(preds.to(device), target.to(device))

    return Contender(spec, higher, on_device)


def _own(
    name: str, weights: str | os.PathLike[str]
) -> tuple[Callable[[Tensor, Tensor], Tensor], bool]:
    from relqa_loss.functional import relational_distance, relational_score

    # Values of one evaluation are of one file, though it be written anew meanwhile.
    weights = pinned(weights)
    if name == "distance":
        return (lambda x, y: relational_distance(x, y, reduction="none", weights=weights)), False
    if name == "score":
        return (lambda x, y: relational_score(x, y, reduction="none", weights=weights)), True
    raise ValueError(f"relqa has distance and score, not {name!r}")


def _member(module: str, name: str, requirement: str) -> Callable[..., Any]:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        how = f": pip install {requirement!r}" if requirement else " (searched as Python does)"
        raise ImportError(f"cannot import {module} ({error}){how}") from error
    function = getattr(found, name, None)
    if not callable(function) or inspect.isclass(function):
        functions = [n for n, f in vars(found).items() if inspect.isfunction(f) and n[0] != "_"]
        near = ", ".join(difflib.get_close_matches(name, functions, 3, 0.4) or sorted(functions))
        raise ValueError(f"{module} has no function {name!r}; perhaps one of {near}")
    return function  # type: ignore[no-any-return]


def _with_options(function: Callable[..., Any]) -> Callable[[Tensor, Tensor], Any]:
    """Images are in [0, 1] and go one by one: say so to whom asks."""
    known = inspect.signature(function).parameters
    options: dict[str, Any] = {}
    if "normalize" in known and known["normalize"].default is False:
        options["normalize"] = True  # of LPIPS: the input is in [0, 1], not in [−1, 1]
    if "data_range" in known:
        options["data_range"] = 1.0
    elif function.__name__ in _UP_TO_255:
        return lambda preds, target: function(255 * preds, 255 * target, **options)
    return lambda preds, target: function(preds, target, **options)
