"""Inner loops of the detectors that expect a value by the few before it, compiled.

Each point is computed from its own window alone, in one order, so that its bits do not depend on the other points.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray

Integers = NDArray[np.int64]

_FEW = 5
_ABSOLUTE_TO_STD = 1.2533141373155003
"""The standard deviation of a normal distribution as a multiple of its mean absolute deviation."""


@numba.njit(cache=True, nogil=True)
def exponential_errors(
    values: FloatArray, alpha: float, beta: float, clip: float, typical: float
) -> tuple[FloatArray, FloatArray]:
    """One-step-ahead errors and scales of an exponentially weighted mean that starts with the first value."""
    n = len(values)
    errors, scales = np.zeros(n), np.full(n, typical)
    level, scale = values[0], typical
    for i in range(1, n):
        errors[i] = values[i] - level
        scales[i] = scale
        limit = clip * max(scale, typical)
        step = min(max(errors[i], -limit), limit)
        level += alpha * step
        scale = max(scale + beta * (_ABSOLUTE_TO_STD * abs(step) - scale), 0.1 * typical)
    return errors, scales


@numba.njit(cache=True, nogil=True)
def exponential(
    values: FloatArray, window: int, start: int, alpha: float, beta: float, clip: float, typical: float
) -> tuple[FloatArray, FloatArray]:
    """Exponentially weighted means and scales of the `window` values before each, begun with a median of `start`."""
    n = len(values) - window
    expected, scales = np.empty(n), np.empty(n)
    for i in range(n):
        level, scale = np.median(values[i : i + start]), typical
        for j in range(i, i + window):
            limit = clip * max(scale, typical)
            step = min(max(values[j] - level, -limit), limit)
            level += alpha * step
            scale = max(scale + beta * (_ABSOLUTE_TO_STD * abs(step) - scale), 0.1 * typical)
        expected[i], scales[i] = level, scale
    return expected, scales


@numba.njit(cache=True, nogil=True)
def recent_medians(values: FloatArray, window: int) -> FloatArray:
    """The median of the `window` values before each but the first ones: shape (n - window,)."""
    n = len(values) - window
    medians = np.empty(n)
    for i in range(n):
        medians[i] = np.median(values[i : i + window])
    return medians


@numba.njit(cache=True, nogil=True)
def cleaned(
    window: FloatArray, lags: Integers, weights: FloatArray, intercept: float, limit: float, swing: float
) -> FloatArray:
    """The values of a window with outliers drawn to where the autoregression expects them, but for the last.

    The first ones, before which there are too few, are drawn to the median.
    """
    n, longest = len(window), lags[-1] if len(lags) else 0
    values = window.copy()
    median = np.median(values[: max(n - 1, 1)])
    for j in range(min(longest, n - 1)):
        values[j] = min(max(values[j], median - swing), median + swing)
    for j in range(longest, n - 1):
        expected = intercept
        for k in range(len(lags)):
            expected += weights[k] * values[j - lags[k]]
        values[j] = min(max(values[j], expected - limit), expected + limit)
    return values


@numba.njit(cache=True, nogil=True)
def autoregressive(
    values: FloatArray,
    context: int,
    lags: Integers,
    weights: FloatArray,
    intercept: float,
    limit: float,
    swing: float,
) -> FloatArray:
    """What an autoregression expects after the `context` values before each: shape (n - context,)."""
    n = len(values) - context
    result = np.empty(n)
    for i in range(n):
        window = cleaned(values[i : i + context + 1], lags, weights, intercept, limit, swing)
        expected = intercept
        for k in range(len(lags)):
            expected += weights[k] * window[context - lags[k]]
        result[i] = expected
    return result


@numba.njit(cache=True, nogil=True)
def innovations(values: FloatArray, lags: Integers, weights: FloatArray, intercept: float) -> FloatArray:
    """What an autoregression did not expect, of all values but the first: shape (n - longest lag,)."""
    longest = lags[-1] if len(lags) else 0
    n = len(values) - longest
    result = np.empty(n)
    for i in range(n):
        expected = intercept
        for k in range(len(lags)):
            expected += weights[k] * values[i + longest - lags[k]]
        result[i] = values[i + longest] - expected
    return result


@numba.njit(cache=True, nogil=True)
def moments(values: FloatArray, widths: Integers, limit: float, floor: float) -> FloatArray:
    """Means and logarithms of variances of the last values before and at each point: shape (n - most + 1, 2, widths).

    The largest and the smallest of 6 or more are left out, others clipped to `limit` from 0; `floor` is added to
    variances; `most` is the last width.
    """
    most = widths[-1]
    n = len(values) - most + 1
    result = np.empty((n, 2, len(widths)))
    for i in range(n):
        for k in range(len(widths)):
            width = widths[k]
            first, end = i + most - width, i + most
            total, lowest, highest = 0.0, limit, -limit
            for j in range(first, end):
                value = min(max(values[j], -limit), limit)
                total += value
                lowest, highest = min(lowest, value), max(highest, value)
            is_trimmed = width > _FEW
            count = width - 2 * is_trimmed
            mean = (total - is_trimmed * (lowest + highest)) / count
            squares = -is_trimmed * ((lowest - mean) ** 2 + (highest - mean) ** 2)
            for j in range(first, end):
                squares += (min(max(values[j], -limit), limit) - mean) ** 2
            result[i, 0, k] = mean
            result[i, 1, k] = np.log(max(squares, 0.0) / count + floor)
    return result
