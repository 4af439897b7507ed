"""The quality of data that a model is fitted to: gaps, irregular sampling, stuck values, outliers, changes of unit.

All of it describes and decides nothing: a series with gaps is fitted as it is. Each finding is meant to be worth a
look, so what is usual in a series, however odd, is none. Cost: O(n), 15 ms for 100,000 points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray, Series
from app.unit_jumps import UnitJump, find_unit_jumps

SHOWN = 5
"""Of each finding at most so many are named; all are counted."""

Nature = Literal["constant", "binary", "integers", "numbers"]

_ON_TIME = 0.1
"""Share of the usual interval that a point may be early or late."""
_FEWEST_ON_TIME = 0.8
_GAP = 1.5
_GAP_IRREGULAR = 5.0
_FEWEST_STUCK = 5
_TIMES_USUAL_RUN = 3.0
_LEFT_OUT_RUNS = 3
_CHANCE = 1e-3
_MOST_STUCK = 200
_FEWEST_RUNS = 10
_FEWEST_TO_STAND_OUT = 20
_FEWEST_OUTLIERS = 5
_POINTS_AN_OUTLIER = 200
_HISTORIES = 100.0
_FARTHEST = 1e12
_MAD_TO_STD = 1.4826022185056018

Indices = NDArray[np.intp]


class Gap(NamedTuple):
    """Where points are missing: the times of the points before and after."""

    first_timestamp_s: float
    last_timestamp_s: float
    missing_points: int


@dataclass(frozen=True, slots=True)
class Gaps:
    """All gaps of a series."""

    count: int
    missing_points: int
    missing_share: float
    """Of the points that there would be without gaps."""
    longest_s: float
    first: tuple[Gap, ...]


class Run(NamedTuple):
    """A stretch of equal values."""

    first_timestamp_s: float
    last_timestamp_s: float
    points: int
    value: float


@dataclass(frozen=True, slots=True)
class Runs:
    """Stretches of equal values that are far longer than is usual in a series."""

    count: int
    points: int
    longest: tuple[Run, ...]


class Outlier(NamedTuple):
    """A value far from those just before and after it, in units of how far values usually are from those."""

    timestamp_s: float
    value: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Outliers:
    """All outliers of a series."""

    count: int
    worst: tuple[Outlier, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """What is to be known of training data."""

    points: int
    interval_s: float | None
    """The median of the seconds between two points; None for one point."""
    is_regular: bool
    """Whether most points come at whole multiples of the usual interval."""
    off_time_share: float
    """The share of intervals that are none, by a tenth of the usual one or more."""
    bunched_points: int
    """Points that come within a tenth of the usual interval after the one before: mostly the same, sent twice."""
    gaps: Gaps
    nature: Nature
    longest_run_points: int
    stuck: Runs
    outliers: Outliers
    unit_jumps: tuple[UnitJump, ...]


def assess_quality(history: Series, period_points: int | None = None) -> Quality:
    """The quality of a history that is increasing in time.

    period_points: of its season, if it has one, so that what comes back each time is not taken for a change.
    """
    times, values = history.timestamps_s, history.values
    intervals = np.diff(times)
    interval_s = float(np.median(intervals)) if len(intervals) else None
    ends = _ends_of_runs(values)
    off_time = _off_time_share(intervals, interval_s)
    is_regular = off_time <= 1.0 - _FEWEST_ON_TIME
    nature = _nature_of(values)
    jumps = find_unit_jumps(history, period_points) if nature in {"numbers", "integers"} else ()
    return Quality(
        points=len(history),
        interval_s=interval_s,
        is_regular=is_regular,
        off_time_share=off_time,
        bunched_points=int(np.count_nonzero(intervals < _ON_TIME * interval_s)) if interval_s else 0,
        gaps=_find_gaps(times, intervals, interval_s, is_regular=is_regular),
        nature=nature,
        longest_run_points=int(np.diff(ends, prepend=-1).max()),
        stuck=_find_stuck(history, ends),
        outliers=_find_outliers(history, _in_one_unit(history, jumps)),
        unit_jumps=jumps,
    )


def _nature_of(values: FloatArray) -> Nature:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return "constant"
    if np.all((values == low) | (values == high)):
        return "binary"
    return "integers" if np.all(values == np.rint(values)) else "numbers"


# ---- time ------------------------------------------------------------------------------------------------------


def _off_time_share(intervals: FloatArray, interval_s: float | None) -> float:
    if not interval_s:
        return 0.0
    steps = intervals / interval_s
    return float(np.mean(np.abs(steps - np.maximum(np.rint(steps), 1.0)) > _ON_TIME))


def _find_gaps(times: FloatArray, intervals: FloatArray, interval_s: float | None, *, is_regular: bool) -> Gaps:
    """Intervals of more than one and a half usual ones; without a usual one, far longer than nearly all others."""
    if not interval_s:
        return Gaps(0, 0, 0.0, 0.0, ())
    longest = _GAP * interval_s
    if not is_regular:
        longest = max(longest, _GAP_IRREGULAR * float(np.quantile(intervals, 0.95)))
    places = np.flatnonzero(intervals > longest)
    missing = np.maximum(np.rint(intervals[places] / interval_s) - 1.0, 1.0)
    first = [
        Gap(float(times[place]), float(times[place + 1]), int(points))
        for place, points in zip(places[:SHOWN].tolist(), missing, strict=False)
    ]
    total = float(missing.sum())
    longest_s = float(intervals[places].max()) if len(places) else 0.0
    return Gaps(len(places), int(total), total / (total + len(times)), longest_s, tuple(first))


# ---- equal values ----------------------------------------------------------------------------------------------


def _ends_of_runs(values: FloatArray) -> Indices:
    """Where runs of equal values end."""
    return np.flatnonzero(np.append(values[1:] != values[:-1], True))


def _find_stuck(history: Series, ends: Indices) -> Runs:
    """Runs that are too long for what is usual here, and that chance would hardly make."""
    lengths = np.diff(ends, prepend=-1)
    is_long = lengths > max(_FEWEST_STUCK - 1, _TIMES_USUAL_RUN * _usual_run(lengths))
    if np.count_nonzero(~is_long) < _FEWEST_RUNS:  # too few to know what is usual
        return Runs(0, 0, ())
    long = np.flatnonzero(is_long)
    long = long[np.argsort(-lengths[long], kind="stable")][:_MOST_STUCK]
    values, others = history.values[ends], lengths[~is_long]
    stuck = [
        run
        for run in long.tolist()
        if _is_no_chance(lengths[run], others) and _is_no_chance(lengths[run], lengths[values == values[run]])
    ]
    longest = tuple(_run(history, int(ends[run]), int(lengths[run])) for run in stuck[:SHOWN])
    return Runs(len(stuck), int(lengths[stuck].sum()) if stuck else 0, longest)


def _is_no_chance(length: int, lengths: Indices) -> bool:
    """Whether a run is longer than those of independent values would be that equal the one before as often as these.

    lengths: of other runs, this one among them or not; the longest is not counted.
    """
    points, longest = int(lengths.sum()), int(lengths.max(initial=0))
    equal = (points - len(lengths) - longest + 1) / max(points - longest, 1)
    equal = min(max(equal, 1.0 / (points + 1)), 1.0 - 1e-9)
    return math.log(points + length) + (length - 1) * math.log(equal) < math.log(_CHANCE)


def _usual_run(lengths: Indices) -> int:
    """Nine of ten points are in runs of at most this length, leaving out the three longest."""
    counts = np.bincount(lengths)
    points = counts * np.arange(len(counts))
    others = max(len(lengths) - _LEFT_OUT_RUNS, 0)
    left_out = np.partition(lengths, others)[others:]
    np.subtract.at(points, left_out, left_out)
    total = np.cumsum(points)
    return int(np.searchsorted(total, 0.9 * total[-1])) if total[-1] else 0


def _run(history: Series, end: int, length: int) -> Run:
    times = history.timestamps_s
    return Run(float(times[end - length + 1]), float(times[end]), int(length), float(history.values[end]))


# ---- outliers --------------------------------------------------------------------------------------------------


def _in_one_unit(history: Series, jumps: Sequence[UnitJump]) -> FloatArray:
    """The values, those of a stretch in another unit in that of the others."""
    values = history.values
    for jump in jumps:
        first, last = np.searchsorted(history.timestamps_s, (jump.first_timestamp_s, jump.last_timestamp_s))
        values = values.copy()
        values[first : last + 1] /= jump.factor
    return values


def _find_outliers(history: Series, values: FloatArray) -> Outliers:
    """Values too far from the median of the nine around them; where many are, that is how the series is.

    Too far is what one of a hundred such histories would hold, were the tail of the distances exponential.
    """
    n = len(values)
    if n < _FEWEST_TO_STAND_OUT:
        return Outliers(0, ())
    with np.errstate(over="ignore", invalid="ignore"):
        distances = np.nan_to_num(np.abs(values - _median_of_nine(values)))
    beginning, middle = _body(distances)
    is_outlier = distances > beginning + (middle - beginning) / np.log(2.0) * np.log(0.5 * n * _HISTORIES)
    places = np.flatnonzero(is_outlier)
    if middle <= beginning or len(places) > max(_FEWEST_OUTLIERS, n // _POINTS_AN_OUTLIER):
        return Outliers(0, ())
    with np.errstate(over="ignore"):
        deviations = np.minimum(distances / (_MAD_TO_STD * beginning), _FARTHEST)
    worst = places[np.argsort(-distances[places], kind="stable")][:SHOWN]
    named = [Outlier(float(history.timestamps_s[i]), float(history.values[i]), float(deviations[i])) for i in worst]
    return Outliers(len(places), tuple(named))


def _body(distances: FloatArray) -> tuple[float, float]:
    """The median, and the third quartile; of those that are not 0 where most are."""
    n = len(distances)
    partitioned = np.partition(distances, (n // 2, n * 3 // 4))
    if partitioned[n // 2] > 0:
        return float(partitioned[n // 2]), float(partitioned[n * 3 // 4])
    known = distances[distances > 0]
    if len(known) < _FEWEST_TO_STAND_OUT:
        return 0.0, 0.0
    beginning, middle = np.quantile(known, (0.5, 0.75))
    return float(beginning), float(middle)


_EXCHANGES = [
    *((1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3)),
    *((5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2)),
]
"""Of J. L. Smith, Implementing Median Filters in XC4000E FPGAs, 1996: then the fifth of nine is their median."""
_AT_ONCE = 8192
"""What stays in the cache of a core."""


def _median_of_nine(values: FloatArray) -> FloatArray:
    """The median of each value and the four on either side, mirrored at the ends: shape (n,), n >= 5."""
    padded = np.pad(values, 4, mode="reflect")
    medians = np.empty_like(values)
    for start in range(0, len(values), _AT_ONCE):
        n = min(_AT_ONCE, len(values) - start)
        rows = [padded[first : first + n] for first in range(start, start + 9)]
        for low, high in _EXCHANGES:
            rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
        medians[start : start + n] = rows[4]
    return medians
