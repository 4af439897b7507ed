"""Bands: the arithmetic that keeps bounds, score and verdict in agreement, to the last bit.

The bounds decide: a point is an anomaly when it lies outside them, and the score is held to that.
"""

import math

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import KINDS, Verdict, Verdicts
from app.series import FloatArray

LARGEST = float(np.finfo(np.float64).max)
SMALLEST = math.ulp(0.0)
JUST_ABOVE_1 = math.nextafter(1.0, 2.0)

Pair = tuple[float, float]
"""Something of the lower and of the upper side."""


def scaled(number: float, exponent: int) -> float:
    """`number * 2 ** exponent`, at most the largest float."""
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.copysign(LARGEST, number)


def bounds(expected: float, below: float, above: float) -> Pair:
    """The smallest float within `below` under what is expected, the largest within `above` over it, both exactly.

    A distance may be infinite, and so is its bound then; no other is.
    """
    lower, lower_error = _two_sum(expected, -below)
    upper, upper_error = _two_sum(expected, above)
    if lower_error > 0:
        lower = math.nextafter(lower, math.inf)
    if upper_error < 0:
        upper = math.nextafter(upper, -math.inf)
    return (
        -math.inf if math.isinf(below) else max(lower, -LARGEST),
        math.inf if math.isinf(above) else min(upper, LARGEST),
    )


def verdict(value: float, expected: float, widths: Pair, p_value: float) -> Verdict:
    """The verdict on a value that may lie widths[0] below and widths[1] above what is expected, without a kind."""
    return verdict_within(value, expected, bounds(expected, *widths), widths, p_value)


def verdict_within(
    value: float, expected: float, band: Pair, widths: Pair, p_value: float, *, kind: int = 0
) -> Verdict:
    """The same for a band that is known already, and with a kind if it is an anomaly."""
    lower, upper = band
    score = value - expected
    score = min(abs(score), LARGEST) / (widths[1] if score > 0 else widths[0])
    if lower <= value <= upper:
        return Verdict(expected, lower, upper, min(score, 1.0), False, 0.0, p_value, None)
    score = max(min(score, LARGEST), JUST_ABOVE_1)
    return Verdict(expected, lower, upper, score, True, 1.0 - 1.0 / score, p_value, KINDS[kind])


def verdicts(
    values: FloatArray, expected: FloatArray, widths: tuple[FloatArray, FloatArray], p_values: FloatArray
) -> Verdicts:
    """Verdicts on n values, all of shape (n,), to the bit those of `verdict`."""
    with np.errstate(over="ignore", invalid="ignore"):
        lower, upper = _inward(expected, -widths[0], np.inf), _inward(expected, widths[1], -np.inf)
    return verdicts_within(values, expected, (lower, upper), widths, p_values)


def verdicts_by_score(values: FloatArray, expected: FloatArray, scores: FloatArray, p_values: FloatArray) -> Verdicts:
    """Verdicts on n values whose scores decide, all of shape (n,): the bounds are where a score of 1 would be.

    They are drawn as if the score grew with the distance from what is expected, and held to the verdict by the last
    bit. A score of 0 leaves both sides open.
    """
    scores = np.minimum(scores, LARGEST)
    is_anomaly = scores > 1.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        width = np.where(scores > 0, np.maximum(np.abs(values - expected), SMALLEST) / scores, np.inf)
        lower, upper = expected - width, expected + width
    is_above = is_anomaly & (values >= expected)
    is_below = is_anomaly & ~is_above
    upper = np.where(is_above, np.minimum(upper, np.nextafter(values, -np.inf)), np.maximum(upper, values))
    lower = np.where(is_below, np.maximum(lower, np.nextafter(values, np.inf)), np.minimum(lower, values))
    lower = np.where(is_above, np.minimum(lower, upper), lower)
    upper = np.where(is_below, np.maximum(lower, upper), upper)
    expected = np.clip(expected, lower, upper)
    severity = np.zeros(len(values))
    severity[is_anomaly] = 1.0 - 1.0 / scores[is_anomaly]
    return Verdicts(
        expected, lower, upper, scores, is_anomaly, severity, p_values, np.zeros(len(values), dtype=np.int8)
    )


def verdicts_within(
    values: FloatArray,
    expected: FloatArray,
    band: tuple[FloatArray, FloatArray],
    widths: tuple[FloatArray, FloatArray],
    p_values: FloatArray,
) -> Verdicts:
    """The same for bands that are known already."""
    lower, upper = band
    is_anomaly = (values < lower) | (values > upper)
    with np.errstate(over="ignore"):  # beyond the largest float the score stays there
        score = values - expected
        width = np.where(score > 0, widths[1], widths[0])
        np.abs(score, out=score)
        np.minimum(score, LARGEST, out=score)
        score /= width
    # Rounding must not let the score and the bounds disagree.
    beyond = np.clip(score[is_anomaly], JUST_ABOVE_1, LARGEST)
    np.minimum(score, 1.0, out=score)
    score[is_anomaly] = beyond
    severity = np.zeros(len(values))
    severity[is_anomaly] = 1.0 - 1.0 / beyond
    kind = np.zeros(len(values), np.int8)
    return Verdicts(expected, lower, upper, score, is_anomaly, severity, p_values, kind)


def _inward(expected: FloatArray, distance: FloatArray, inside: float) -> FloatArray:
    """As `bounds`, on one side; `inside` is the infinity on the other."""
    total = expected + distance
    distance_part = total - expected
    error = (expected - (total - distance_part)) + (distance - distance_part)
    is_outside: NDArray[np.bool_] = error > 0 if inside > 0 else error < 0
    bound = np.where(is_outside, np.nextafter(total, inside), total)
    return np.where(np.isinf(distance), distance, np.clip(bound, -LARGEST, LARGEST))


def _two_sum(a: float, b: float) -> tuple[float, float]:
    """A + b rounded, and what the rounding lost (Knuth, The Art of Computer Programming 2, 4.2.2)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)
