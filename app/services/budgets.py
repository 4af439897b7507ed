"""Alarm budgets: what a model flags of the same points when it may raise more false alarms, or fewer.

What was expected of a point, and how far from that it usually lies, does not depend on the budget; the thresholds do.
So one pass over the points says what each of a hundred budgets would flag.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import Detector, Verdicts
from app.series import FloatArray, Series

_STEPS = (1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8, 3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0)
"""The preferred numbers R20 of ISO 3: each is about 12 % more than the one before."""
RATES: FloatArray = np.array([float(f"{step}e{decade}") for decade in range(-6, -1) for step in _STEPS] + [0.1])

Score = Callable[[Detector], Verdicts]
Counts = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Budgets:
    """What is flagged of a stretch of points at some false alarm rates, the model's own among them.

    A point is an anomaly when it is further below or above what is expected of it than its scale times the threshold
    of that side, and further than the parameters ask for in any case.
    """

    false_alarm_rate: FloatArray
    """Shape (k,), rising; of this shape are below, above and anomalies too."""
    below: FloatArray
    above: FloatArray
    """Thresholds, falling; infinite on a side that is left open."""
    anomalies: Counts
    """How many of the points are flagged."""
    own: int
    """The place of the model's own rate."""
    chosen: int
    """The place of the rate that was asked for."""
    scale: FloatArray
    """Shape (n,): how far the bounds of each point are for a threshold of 1; infinite where nothing is known."""
    min_dev_from_expected: float
    min_rel_dev_from_expected: float


def weigh(
    detector: Detector, points: Series, verdicts: Verdicts, score: Score, false_alarm_rate: float | None
) -> Budgets:
    """The budgets that one may choose from. `verdicts` are those at this rate, as `score` finds them.

    Cost: O(n log k), and one more `score` where the parameters ask for a least deviation, which hides the scale.
    """
    own = detector.false_alarm_rate
    asked = own if false_alarm_rate is None else false_alarm_rate
    rates = np.union1d(RATES, (own, asked))
    thresholds = np.array([detector.thresholds(None if rate == own else rate) for rate in rates.tolist()])
    chosen = int(np.searchsorted(rates, asked))
    below, above = np.ascontiguousarray(thresholds.T)
    scale = _scale(points.values, _without_least(detector, verdicts, score), thresholds[chosen])
    params = detector.params
    least = np.maximum(params.min_dev_from_expected, params.min_rel_dev_from_expected * np.abs(verdicts.expected))
    anomalies = _count(points.values - verdicts.expected, scale, least, below, above)
    anomalies[chosen] = np.count_nonzero(verdicts.is_anomaly)
    return Budgets(
        false_alarm_rate=rates,
        below=below,
        above=above,
        anomalies=anomalies,
        own=int(np.searchsorted(rates, own)),
        chosen=chosen,
        scale=scale,
        min_dev_from_expected=params.min_dev_from_expected,
        min_rel_dev_from_expected=params.min_rel_dev_from_expected,
    )


def _without_least(detector: Detector, verdicts: Verdicts, score: Score) -> Verdicts:
    """The verdicts, were there no least deviation from what is expected."""
    nothing = {"min_dev_from_expected": 0.0, "min_rel_dev_from_expected": 0.0}
    params = detector.params.model_copy(update=nothing)
    return verdicts if params == detector.params else score(type(detector).load(detector.state, params))


def _scale(values: FloatArray, verdicts: Verdicts, thresholds: FloatArray) -> FloatArray:
    """By the scores, which say it to the last bit, and by the bounds where a score is 0 or held to its verdict."""
    below, above = thresholds
    off = values - verdicts.expected
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        by_bounds = (
            (verdicts.expected - verdicts.lower) / below
            if np.isinf(above)
            else (verdicts.upper - verdicts.expected) / above
        )
        by_score = np.abs(off) / verdicts.score / np.where(off > 0, above, below)
    scale: FloatArray = np.where((verdicts.score > 0) & (by_score > 0), by_score, by_bounds)
    return scale


def _count(off: FloatArray, scale: FloatArray, least: FloatArray, below: FloatArray, above: FloatArray) -> Counts:
    """How many points are flagged with each pair of thresholds."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        deviations = np.where(np.abs(off) > least, off / scale, 0.0)
    deviations = deviations[np.abs(deviations) > 0]
    # The first budget that flags each: all that follow do, too.
    first = len(above) - np.where(deviations > 0, _lower(above, deviations), _lower(below, -deviations))
    return np.cumsum(np.bincount(first, minlength=len(above) + 1)[:-1])


def _lower(falling: FloatArray, deviations: FloatArray) -> Counts:
    """How many of the thresholds are lower than each deviation."""
    return np.searchsorted(falling[::-1], deviations, side="left")
