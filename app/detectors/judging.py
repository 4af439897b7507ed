"""Judging: from what was expected of points, and how far off they are, to verdicts that keep to an alarm budget."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from app.detectors import bands, kinds
from app.detectors.base import KINDS, DetectorParams, Verdict, Verdicts
from app.detectors.calibration import Calibration
from app.detectors.units import Unit
from app.series import FloatArray

DEFAULT_FALSE_ALARM_RATE = 0.001
HIGHEST_RATE = 0.5
WEEK_S = 604_800.0

_SMALLEST_RATE = 1e-12
_HAIR = 1e-6
_SMALLEST_THRESHOLD = 1e-9
_HIGHEST_SCORE = 1e30


class CalibratedParams(DetectorParams):
    """Parameters of every calibrated detector."""

    false_alarm_rate: float | None = Field(
        None, ge=1e-9, le=HIGHEST_RATE, description="Share of normal points that may be flagged; 0.001 by default."
    )
    max_false_alarms_per_week: float | None = Field(
        None, gt=0, le=1e9, description="The same as a number a week, by the usual interval between points."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of whatever is drawn at random.")

    @property
    def has_budget(self) -> bool:
        """Whether a number of false alarms is given."""
        return self.false_alarm_rate is not None or self.max_false_alarms_per_week is not None

    def rate(self, interval_s: float) -> float:
        """The false alarm rate that is asked for, of points that are this many seconds apart; the default for NaN."""
        if self.max_false_alarms_per_week is not None and not math.isnan(interval_s):
            return rate_of_weekly(self.max_false_alarms_per_week, interval_s)
        return DEFAULT_FALSE_ALARM_RATE if self.false_alarm_rate is None else self.false_alarm_rate

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.false_alarm_rate is not None and self.max_false_alarms_per_week is not None:
            raise ValueError("give false_alarm_rate or max_false_alarms_per_week, not both")
        return self


class Assessment(NamedTuple):
    """What is expected of n points, in standard units.

    expected: shape (n,); NaN where too little is known to expect anything.
    scale: shape (n,), above 0: how far from `expected` a point may be for a deviation of 1.
    """

    expected: FloatArray
    scale: FloatArray

    def deviations(self, values: FloatArray) -> FloatArray:
        """How far the values are from what was expected, signed; NaN where nothing was."""
        return (values - self.expected) / self.scale

    def as_far(self, values: FloatArray, chosen: NDArray[np.bool_], distance: float) -> "Assessment":
        """With this distance at the chosen points, whatever was expected there; values: shape (n,)."""
        expected, scale = self.expected.copy(), self.scale.copy()
        distances = np.full(np.count_nonzero(chosen), distance)
        expected[chosen], scale[chosen] = Assessment.of_distances(
            values[chosen], np.nan_to_num(expected[chosen]), distances
        )
        return Assessment(expected, scale)

    def widened(self, values: FloatArray, points: int) -> "Assessment":
        """With the largest distance within so many points, an odd number, around each."""
        from scipy.ndimage import maximum_filter1d

        distances = maximum_filter1d(np.abs(self.deviations(values)), points, mode="nearest")
        return Assessment.of_distances(values, self.expected, distances)

    @classmethod
    def of_distances(cls, values: FloatArray, expected: FloatArray, distances: FloatArray) -> Self:
        """For detectors that judge a stretch, and not the value alone: deviations are the `distances`, at least 0.

        The band around `expected` is as wide as makes the deviation of the value that distance. A value that is just
        as expected has no width to tell, so it is taken to be a hair's breadth off.
        """
        off = values - expected
        hair = np.maximum(np.abs(values), 1.0) * _HAIR
        expected = np.where(np.abs(off) < hair, values - np.copysign(hair, off), expected)
        return cls(expected, np.abs(values - expected) / np.maximum(distances, 1e-12))

    @classmethod
    def unknown(cls, n: int) -> Self:
        """Nothing is expected of any of n points."""
        return cls(np.full(n, np.nan), np.ones(n))


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """What turns assessments into verdicts.

    thresholds: deviations below and above that are anomalies. longest_run: of equal values in the history.
    is_sided: whether a deviation is one of the value, and so has a side. expects_time: whether expectations depend on
    the time.
    """

    params: CalibratedParams
    unit: Unit
    calibration: Calibration
    thresholds: bands.Pair
    longest_run: int
    is_sided: bool
    expects_time: bool

    def at(self, false_alarm_rate: float) -> "Judge":
        """The same with another budget."""
        thresholds = self.calibration.thresholds(false_alarm_rate, self.params.direction)
        return Judge(
            self.params,
            self.unit,
            self.calibration,
            thresholds,
            self.longest_run,
            self.is_sided,
            self.expects_time,
        )

    @property
    def limits(self) -> bands.Pair:
        """The deviations that it goes by: the thresholds, held above 0."""
        return max(self.thresholds[0], _SMALLEST_THRESHOLD), max(self.thresholds[1], _SMALLEST_THRESHOLD)

    def verdicts(self, values: FloatArray, standard: FloatArray, assessed: Assessment) -> Verdicts:
        """Verdicts on n values, which are `standard` in standard units; their kinds are left open. All shapes (n,)."""
        deviations = assessed.deviations(standard)
        is_unknown = np.isnan(deviations)
        p_values = self.calibration.p_values(np.where(is_unknown, 0.0, deviations), self.params.direction)
        p_values[is_unknown] = 1.0
        with np.errstate(over="ignore"):
            expected = self.unit.center + self.unit.spread * np.where(is_unknown, 0.0, assessed.expected)
            expected = np.clip(expected, -bands.LARGEST, bands.LARGEST)
            if not self.is_sided:
                scores = self._scores(values, expected, deviations)
                verdicts = bands.verdicts_by_score(values, expected, scores, p_values)
                if self.params.direction != "both":
                    (verdicts.lower if self.params.direction == "above" else verdicts.upper)[:] = (
                        -np.inf if self.params.direction == "above" else np.inf
                    )
                return verdicts
            scale = np.where(is_unknown, np.inf, assessed.scale * self.unit.spread)
            widths = (
                self._width(expected, scale, self.thresholds[0]),
                self._width(expected, scale, self.thresholds[1]),
            )
        return bands.verdicts(values, expected, widths, p_values)

    def verdict(self, value: float, standard: float, expected: float, scale: float) -> Verdict:
        """To the bit as `verdicts`, for one value of which something is expected, where deviations have a side."""
        p_value = self.calibration.p_value((standard - expected) / scale, self.params.direction)
        expected = min(max(self.unit.center + self.unit.spread * expected, -bands.LARGEST), bands.LARGEST)
        scale *= self.unit.spread
        params = self.params
        least = max(params.min_dev_from_expected, params.min_rel_dev_from_expected * abs(expected), bands.SMALLEST)
        below, above = (
            math.inf if threshold == math.inf else max(max(threshold, _SMALLEST_THRESHOLD) * scale, least)
            for threshold in self.thresholds
        )
        return bands.verdict(value, expected, (below, above), p_value)

    def name_kinds(self, verdicts: Verdicts, standard: FloatArray, assessed: Assessment) -> None:
        """Say of each anomaly of n verdicts what kind it is.

        standard, assessed: of these n points and of those before them that their kinds may depend on.
        """
        moments = kinds.Moments(
            values=standard,
            expected=assessed.expected,
            deviations=assessed.deviations(standard),
            thresholds=self.thresholds,
            longest_run=self.longest_run,
            is_sided=self.is_sided,
            expects_time=self.expects_time,
        )
        before = len(standard) - len(verdicts.score)
        for index in np.flatnonzero(verdicts.is_anomaly).tolist():
            verdicts.kind[index] = KINDS.index(moments.kind_of(before + index))

    def _scores(self, values: FloatArray, expected: FloatArray, deviations: FloatArray) -> FloatArray:
        """Deviations without a side over their threshold; 0 where unknown or on the side that is not looked at."""
        params = self.params
        off = values - expected
        score = np.nan_to_num(np.abs(deviations)) / max(min(self.thresholds), _SMALLEST_THRESHOLD)
        if params.direction != "both":
            score = np.where(off > 0 if params.direction == "above" else off < 0, score, 0.0)
        least = np.maximum(params.min_dev_from_expected, params.min_rel_dev_from_expected * np.abs(expected))
        score = np.where(np.abs(off) < least, np.minimum(score, 1.0), score)
        # Points that count with the same distance get the same score, whatever the last bits of it.
        rounded = np.minimum(score, _HIGHEST_SCORE).astype(np.float32).astype(np.float64)
        scores: FloatArray = np.where(score > 1.0, np.maximum(rounded, bands.JUST_ABOVE_1), np.minimum(rounded, 1.0))
        return scores

    def _width(self, expected: FloatArray, scale: FloatArray, threshold: float) -> FloatArray:
        """How far the values of one side may be from what is expected of them."""
        if threshold == np.inf:
            return np.full(len(expected), np.inf)
        params = self.params
        least = np.maximum(params.min_dev_from_expected, params.min_rel_dev_from_expected * np.abs(expected))
        width: FloatArray = np.maximum(max(threshold, _SMALLEST_THRESHOLD) * scale, np.maximum(least, bands.SMALLEST))
        return width


def rate_of_weekly(alarms: float, interval_s: float) -> float:
    """The false alarm rate that a number of them a week is, for points this many seconds apart."""
    return min(max(alarms * interval_s / WEEK_S, _SMALLEST_RATE), HIGHEST_RATE)


def usual_interval_s(timestamps_s: FloatArray) -> float:
    """The median of the seconds between two points; NaN for one point."""
    return float(np.median(np.diff(timestamps_s))) if len(timestamps_s) > 1 else np.nan
