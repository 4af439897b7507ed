"""Inner loops of the detectors that expect a value by the few before it, compiled.

Each point is computed from its own window alone, in one order, so that its bits do not depend on the other points.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray

Integers = NDArray[np.int64]

_FEW = 5
_FEW_TO_SORT = 24
_SIDE_BY_SIDE = 64
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
def recent_medians(values: FloatArray, window: int) -> FloatArray:
    """The median of the `window` values before each but the first ones: shape (n - window,)."""
    n, half = len(values) - window, window // 2
    medians = np.empty(n)
    ordered = np.sort(values[:window])
    for i in range(n):
        middle = ordered[half] if window % 2 else (ordered[half - 1] + ordered[half]) / 2.0
        medians[i] = middle + 0.0  # which zero it is does not depend on the values before
        place, value = np.searchsorted(ordered, values[i]), values[i + window]
        while place + 1 < window and ordered[place + 1] < value:
            ordered[place] = ordered[place + 1]
            place += 1
        while place > 0 and ordered[place - 1] > value:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = value
    return medians


@numba.njit(cache=True, nogil=True)
def exponential(
    values: FloatArray, window: int, start: int, alpha: float, beta: float, clip: float, typical: float
) -> tuple[FloatArray, FloatArray]:
    """Exponentially weighted means and scales of the `window` values before each, begun with a median of `start`.

    Some points are computed side by side, which is what is fast; none of them sees another.
    """
    n = len(values) - window
    expected, scales = recent_medians(values, start)[:n], np.full(n, typical)
    for first in range(0, n, _SIDE_BY_SIDE):
        level, scale = expected[first : first + _SIDE_BY_SIDE], scales[first : first + _SIDE_BY_SIDE]
        for j in range(first, first + window):
            for k in range(len(level)):
                limit = clip * max(scale[k], typical)
                step = min(max(values[j + k] - level[k], -limit), limit)
                level[k] += alpha * step
                scale[k] = max(scale[k] + beta * (_ABSOLUTE_TO_STD * abs(step) - scale[k]), 0.1 * typical)
    return expected, scales


@numba.njit(cache=True, nogil=True)
def sort(values: FloatArray) -> None:
    """Sort in place."""
    if len(values) > _FEW_TO_SORT:
        values.sort()
        return
    for i in range(1, len(values)):
        value, place = values[i], i
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@numba.njit(cache=True, nogil=True)
def part_medians(index: Integers, values: FloatArray, parts: int) -> FloatArray:
    """Of each value the median of all that are in the same of so many parts: shape (n,)."""
    ends = np.zeros(parts + 1, np.int64)
    for part in index:
        ends[part + 1] += 1
    for part in range(parts):
        ends[part + 1] += ends[part]
    grouped, filled = np.empty(len(values)), ends.copy()
    for i in range(len(values)):
        grouped[filled[index[i]]] = values[i]
        filled[index[i]] += 1
    medians = np.zeros(parts)
    for part in range(parts):
        start, size = ends[part], ends[part + 1] - ends[part]
        if size:
            members = grouped[start : start + size]
            sort(members)
            medians[part] = 0.5 * (members[(size - 1) // 2] + members[size // 2])
    result = np.empty(len(values))
    for i in range(len(values)):
        result[i] = medians[index[i]]
    return result


@numba.njit(cache=True, nogil=True)
def stretch_medians(values: FloatArray, starts: Integers, ends: Integers) -> FloatArray:
    """The median of each stretch of the values: shape (k,)."""
    medians = np.empty(len(starts))
    for i in range(len(starts)):
        medians[i] = np.median(values[starts[i] : ends[i]])
    return medians


@numba.njit(cache=True, nogil=True)
def smoothed(rows: FloatArray, width: int) -> FloatArray:
    """Sums over `width` neighbours on each side, on a circle, with weights that fall to the sides: shape of `rows`."""
    n = rows.shape[1]
    result = rows * (width + 1.0)
    for r in range(len(rows)):
        row, target = rows[r], result[r]
        round_trip = np.concatenate((row[n - width :], row, row[:width]))
        for shift in range(1, width + 1):
            weight = width + 1.0 - shift
            left, right = round_trip[width - shift :], round_trip[width + shift :]
            for i in range(n):
                target[i] += weight * (left[i] + right[i])
    return result


@numba.njit(cache=True, nogil=True)
def interpolated(profile: FloatArray, position: FloatArray, snap: float) -> FloatArray:
    """A circular profile at positions, on lines between its parts; nearer to a part than `snap`, that part: (n,)."""
    parts = len(profile)
    result = np.empty(len(position))
    for i in range(len(position)):
        whole = math.floor(position[i])
        share = position[i] - whole
        left, right = profile[whole % parts], profile[(whole + 1) % parts]
        if share < snap:
            result[i] = left
        elif share > 1.0 - snap:
            result[i] = right
        else:
            result[i] = left + share * (right - left)
    return result


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
