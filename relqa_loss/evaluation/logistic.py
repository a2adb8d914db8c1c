"""The four-parameter logistic from a metric's values to opinions."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relqa_loss.evaluation._scipy import scipy_module

Array = NDArray[np.float64]

_SLOPES = (0.25, 1.0, 4.0)  # tried as starts, in standard deviations of the values


@dataclass(frozen=True)
class Logistic:
    """``end + (start − end) / (1 + exp((x − middle) / width))``: from start, at −∞, to end."""

    start: float
    end: float
    middle: float
    width: float
    """Positive."""

    def __call__(self, values: ArrayLike) -> Array:
        """Map values to the scale of opinions.

        Args:
            values: Numbers of any shape.

        Returns:
            As many, between ``start`` and ``end``.
        """
        x = (np.asarray(values, np.float64) - self.middle) / self.width
        # Written with tanh, which cannot overflow.
        share = 0.5 * (1 + np.tanh(x / 2))
        result: Array = self.start + (self.end - self.start) * share
        return result


def fit_logistic(
    values: ArrayLike, opinions: ArrayLike, *, near: Logistic | None = None
) -> Logistic:
    """Least squares fit, as the Video Quality Experts Group prescribes before PLCC and RMSE.

    Source: VQEG, "Final report from the Video Quality Experts Group on the validation of objective
    models of video quality assessment, phase II" (2003), https://www.vqeg.org.

    Args:
        values: N finite values of a metric.
        opinions: N finite opinion scores.
        near: Start from this fit alone, as for resamples of the values that it was fitted to.

    Returns:
        The best of fits from several starts. Where none does better than a straight line, or
        none converges, a logistic so wide that it is that line over the values.

    Raises:
        ValueError: For unequal lengths, fewer than 4 values, or values not finite.
        ImportError: If SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> from relqa_loss.evaluation.logistic import Logistic, fit_logistic
        >>> x = np.linspace(0, 1, 50)
        >>> fit = fit_logistic(x, Logistic(9.0, 1.0, 0.4, 0.1)(x))
        >>> round(fit.start, 3), round(fit.end, 3), round(fit.middle, 3), round(fit.width, 3)
        (9.0, 1.0, 0.4, 0.1)
    """
    optimize = scipy_module("optimize", "fitting needs")
    x, y = np.asarray(values, np.float64), np.asarray(opinions, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 4:
        raise ValueError(f"expected two vectors of 4 or more, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("values must be finite; leave pairs with NaN or infinity out")
    centre, spread = float(x.mean()), float(x.std())
    if spread <= 1e-12 * max(abs(centre), 1e-300):
        return Logistic(float(y.mean()), float(y.mean()), centre, 1.0)
    z = (x - centre) / spread
    rising = bool(np.mean(z * (y - y.mean())) >= 0)
    ends = (float(y.min()), float(y.max())) if rising else (float(y.max()), float(y.min()))
    starts = [
        (*ends, middle, math.log(width))
        for middle in (0.0, float(np.median(z)))
        for width in _SLOPES
    ]
    if near is not None:
        middle, width = (near.middle - centre) / spread, near.width / spread
        starts = [(near.start, near.end, middle, math.log(width))]
    best = _line(z, y)
    least = _error(best, z, y)
    for first in starts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optimize.OptimizeWarning)
                found, _ = optimize.curve_fit(_logistic, z, y, p0=first, maxfev=4000)
        except RuntimeError:  # did not converge from here
            continue
        start, end, centred, log_width = (float(v) for v in found)
        fit = Logistic(start, end, centred, math.exp(min(max(log_width, -30.0), 30.0)))
        if (left := _error(fit, z, y)) < least * (1 - 1e-9):
            best, least = fit, left
    return Logistic(best.start, best.end, centre + spread * best.middle, spread * best.width)


def _logistic(z: Array, start: float, end: float, middle: float, log_width: float) -> Array:
    # The logarithm keeps the width positive without bounds.
    return Logistic(start, end, middle, float(np.exp(np.clip(log_width, -30, 30))))(z)


def _error(fit: Logistic, z: Array, y: Array) -> float:
    return float(np.mean((fit(z) - y) ** 2))


def _line(z: Array, y: Array) -> Logistic:
    """The straight line of least squares, as a very wide logistic."""
    slope = float(np.mean(z * (y - y.mean())))
    width = 1e3 * float(np.abs(z).max())
    return Logistic(
        float(y.mean()) - 2 * width * slope, float(y.mean()) + 2 * width * slope, 0.0, width
    )
