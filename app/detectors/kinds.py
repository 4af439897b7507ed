"""Kinds of anomalies: what an anomaly looks like, by the few points before it."""

from dataclasses import dataclass

import numpy as np

from app.detectors.base import Kind
from app.series import FloatArray

PAST_POINTS = 8
"""Points before an anomaly that its kind depends on."""

_LASTING = 4
"""So many anomalies in a row on one side are no spike."""
_STUCK = 5
"""So many equal values in a row are a flatline where the history had no such run."""
_CALM_SWING = 0.25
_USUAL = 3.0
"""In standard units, what is within the usual range of the values."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Consecutive points in standard units, each array of shape (n,), and what was expected of them.

    deviations: signed, NaN where nothing was expected. thresholds: below and above, of an anomaly.
    longest_run: of equal values, in the history.
    """

    values: FloatArray
    expected: FloatArray
    deviations: FloatArray
    thresholds: tuple[float, float]
    longest_run: int
    is_sided: bool
    expects_time: bool

    def kind_of(self, index: int) -> Kind:
        """What kind of anomaly the point at this index is, which is one."""
        first = max(index - PAST_POINTS, 0)
        values, deviations = self.values[first : index + 1], self.deviations[first : index + 1]
        is_high = bool(values[-1] > self.expected[index])
        if _run_at_end(values) >= min(max(_STUCK, 2 * self.longest_run), PAST_POINTS + 1) > self.longest_run:
            return "flatline"
        if self.expects_time and _is_calm(values, self.expected[first : index + 1]):
            return "missing_season"
        if lasting := self._lasting_kind(deviations):
            return lasting
        if not self.is_sided and abs(values[-1] - self.expected[index]) < 1.0:
            return "shape"
        if self.expects_time and abs(values[-1]) < _USUAL and self.is_sided:
            return "unusual_time"
        return "spike" if is_high else "dip"

    def _lasting_kind(self, deviations: FloatArray) -> Kind | None:
        """What the last points of a stretch are together, if most of them are anomalies."""
        sides = np.where(deviations > self.thresholds[1], 1, np.where(deviations < -self.thresholds[0], -1, 0))
        if len(sides) >= _LASTING and abs(int(sides[-_LASTING:].sum())) == _LASTING:
            steps = np.diff(np.abs(deviations[-_LASTING:]))
            return "trend_change" if np.all(steps > 0) or np.all(steps < 0) else "level_shift"
        if np.count_nonzero(sides > 0) > 1 and np.count_nonzero(sides < 0) > 1:
            return "variance_change"
        return None


def longest_run(values: FloatArray) -> int:
    """The largest number of equal values in a row."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    return int(np.diff(ends, prepend=-1).max())


def _run_at_end(values: FloatArray) -> int:
    """How many values at the end are equal."""
    others = np.flatnonzero(values != values[-1])
    return len(values) - 1 - int(others[-1]) if len(others) else len(values)


def _is_calm(values: FloatArray, expected: FloatArray) -> bool:
    """Whether the values stay where a season was expected to move them."""
    if len(values) <= PAST_POINTS or np.isnan(expected).any():
        return False
    swing = float(np.ptp(expected))
    return swing > 1.0 and float(np.ptp(values)) < _CALM_SWING * swing
