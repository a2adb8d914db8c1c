"""From a metric's values to a data set's scale of opinion, with what is not known about it.

The metric stays as it is: a calibration is a monotone curve beside it, fitted to opinions that a
laboratory has, and saved as a small file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relqa_loss._files import encoded, write_atomically
from relqa_loss.evaluation.logistic import Logistic, fit_logistic
from relqa_loss.evaluation.statistics import numbered

Array = NDArray[np.float64]

FORMAT = 1
FEWEST = 20
"""Rated images without which there is no calibration."""
FEWEST_SCENES = 5
"""References without which left-out images stand in for left-out scenes."""
_FOLDS = 5


@dataclass(frozen=True)
class Estimate:
    """Opinions of N images, on the data set's scale."""

    value: Array
    curve_low: Array
    """Where the mean opinion of images at this value may lie."""
    curve_high: Array
    low: Array
    """Where the opinion of one such image may lie."""
    high: Array
    outside: NDArray[np.bool_]
    """Whether the metric's value lies outside those that were seen."""


@dataclass(frozen=True)
class Calibration:
    """A logistic with its resamples."""

    logistic: Logistic
    resamples: tuple[Logistic, ...] = field(repr=False)
    """Fits to resampled scenes."""
    residuals: tuple[float, float]
    """Quantiles of opinion less estimate, of images of scenes left out of the fit."""
    rmse: float
    """Over images of scenes left out of the fit."""
    level: float
    """Of the intervals."""
    span: tuple[float, float]
    """Least and largest value of the metric that was seen."""
    count: int
    """Rated images."""
    about: dict[str, Any] = field(default_factory=dict)
    """What the values and opinions are: ``metric``, ``weights``, ``scale``, ``data`` …"""

    def __call__(self, values: ArrayLike) -> Estimate:
        """Estimate opinions.

        Args:
            values: N finite values of the metric that was calibrated.

        Raises:
            ValueError: If they are not a vector, or not finite.
        """
        x = np.atleast_1d(np.asarray(values, np.float64))
        if x.ndim != 1 or not np.isfinite(x).all():
            raise ValueError(f"expected a vector of finite values, got {_brief(x)}")
        edge = (1 - self.level) / 2
        value = self.logistic(x)
        curves = np.stack([resample(x) for resample in self.resamples])
        low, high = np.quantile(curves, [edge, 1 - edge], axis=0)
        # The estimate itself always lies inside: a bootstrap's quantiles need not agree.
        low, high = np.minimum(low, value), np.maximum(high, value)
        return Estimate(
            value=value,
            curve_low=low,
            curve_high=high,
            low=np.minimum(low, value + self.residuals[0]),
            high=np.maximum(high, value + self.residuals[1]),
            outside=(x < self.span[0]) | (x > self.span[1]),
        )

    def check(self, metric: str, weights: str | None = None) -> None:
        """Refuse values of another metric, or of other weights.

        Args:
            metric: Such as ``relqa:distance``.
            weights: Version such as ``relqa-base@c723a4c3``, of which the hash counts.

        Raises:
            ValueError: If the calibration was made for others.
        """
        made = self.about.get("metric")
        if made != metric:
            raise ValueError(f"the calibration is for {made}, not for {metric}")
        known = self.about.get("weights")
        if weights is None or known is None:
            return
        if weights.rpartition("@")[2] != str(known).rpartition("@")[2]:
            raise ValueError(
                f"the calibration was made with the weights {known}, these are {weights}; "
                "calibrate again, as another network has another scale"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON of some kilobytes, atomically.

        Raises:
            TypeError: If ``about`` holds what JSON does not know. Numbers of NumPy become Python's.
        """
        record = {
            "format": FORMAT,
            **asdict(self),
            "resamples": [[c.start, c.end, c.middle, c.width] for c in self.resamples],
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, default=_plain) + "\n"
        write_atomically(Path(path), encoded(text))


def calibrate(
    values: ArrayLike,
    opinions: ArrayLike,
    *,
    scenes: Sequence[object] | None = None,
    falling: bool | None = None,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
    about: dict[str, Any] | None = None,
) -> Calibration:
    """Fit a monotone logistic from a metric to opinions.

    The curve is that of :func:`~relqa_loss.evaluation.logistic.fit_logistic` (VQEG, 2003). What is
    not known about it is told by fits to resampled scenes; how far one image may lie from it, by
    images of scenes that took no part in the fit, a fifth of them at a time.

    Args:
        values: N finite values.
        opinions: N finite opinions.
        scenes: N labels; images of equal label are left out, and resampled, together. With fewer
            than :data:`FEWEST_SCENES` of them, or None, each image stands for itself.
        falling: Whether opinions must fall as the value rises; None takes what fits.
        samples: Fits to resamples.
        seed: Decides resamples and parts.
        level: Of the intervals, in (0, 1).
        about: Kept with it.

    Raises:
        ValueError: For unequal lengths, fewer than :data:`FEWEST` images, values not finite or all
            equal, options out of range, or opinions that go the wrong way.
        ImportError: If SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> from relqa_loss.evaluation.calibration import calibrate
        >>> generator = np.random.default_rng(0)
        >>> distances = generator.uniform(0, 2, 200)
        >>> opinions = 5 - 2 * distances + generator.normal(0, 0.2, 200)
        >>> estimate = calibrate(distances, opinions, samples=20)([1.0])
        >>> bool(abs(estimate.value[0] - 3) < 0.1), bool(estimate.low[0] < 2.8)
        (True, True)
    """
    x, y = np.asarray(values, np.float64), np.asarray(opinions, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected two vectors of one length, got shapes {x.shape} and {y.shape}")
    if len(x) < FEWEST:
        raise ValueError(f"calibration needs at least {FEWEST} rated images, got {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("values and opinions must be finite; leave the others out")
    if x.min() == x.max():
        raise ValueError(f"the metric has the same value, {x[0]:g}, for all images")
    if y.min() == y.max():
        raise ValueError(f"the opinions of all images are the same, {y[0]:g}: there is no scale")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    logistic = fit_logistic(x, y)
    if falling is not None and (logistic.end < logistic.start) != falling:
        raise ValueError(
            f"opinions {'rise' if falling else 'fall'} as the metric rises, which is the wrong "
            "way; is a high opinion score good in this data set? (--lower-is-better for a DMOS)"
        )
    members = _members(scenes, len(x))
    units = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    resamples = []
    for _ in range(samples):
        often = np.bincount(generator.integers(0, units, units), minlength=units)[members]
        index = np.repeat(np.arange(len(x)), often)
        resamples.append(fit_logistic(x[index], y[index], near=logistic))
    part = (generator.permutation(units) % _FOLDS)[members]
    left = np.full(len(x), np.nan)
    for fold in range(_FOLDS):
        out = part == fold
        left[out] = y[out] - fit_logistic(x[~out], y[~out], near=logistic)(x[out])
    edge = (1 - level) / 2
    low, high = np.quantile(left, [edge, 1 - edge])
    return Calibration(
        logistic=logistic,
        resamples=tuple(resamples),
        residuals=(float(low), float(high)),
        rmse=float(np.sqrt(np.mean(left**2))),
        level=level,
        span=(float(x.min()), float(x.max())),
        count=len(x),
        about=dict(about or {}),
    )


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read what :meth:`Calibration.save` wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file; the message names it.
    """
    text = Path(path).read_text("utf-8", errors="replace")
    try:
        record = json.loads(text)
        if not isinstance(record, dict) or "logistic" not in record:
            raise ValueError("not a calibration")
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, known is {FORMAT}")
        calibration = Calibration(
            logistic=Logistic(**record["logistic"]),
            resamples=tuple(Logistic(*map(float, each)) for each in record["resamples"]),
            residuals=_pair(record["residuals"]),
            rmse=float(record["rmse"]),
            level=float(record["level"]),
            span=_pair(record["span"]),
            count=int(record["count"]),
            about=dict(record["about"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} cannot be used as a calibration: {what}") from None
    curves = (calibration.logistic, *calibration.resamples)
    numbers = [v for c in curves for v in (c.start, c.end, c.middle, c.width)]
    if not calibration.resamples or not all(math.isfinite(v) for v in numbers):
        raise ValueError(f"{path} cannot be used as a calibration: its curves are damaged")
    return calibration


def _members(scenes: Sequence[object] | None, count: int) -> NDArray[np.intp]:
    if scenes is None:
        return np.arange(count)
    if len(scenes) != count:
        raise ValueError(f"expected {count} scenes, got {len(scenes)}")
    members = numbered(scenes)
    return members if members.max() + 1 >= FEWEST_SCENES else np.arange(count)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"about must be of text, numbers, lists and dictionaries, as JSON is; got {value!r}"
    )


def _pair(value: Sequence[float]) -> tuple[float, float]:
    low, high = value
    return float(low), float(high)


def _brief(x: Array) -> str:
    return f"shape {x.shape}" if x.ndim != 1 else "NaN or infinity"
