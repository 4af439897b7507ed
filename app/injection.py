"""Anomalies of a known kind, size and place, planted in any series: what a detector finds can then be counted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from app.series import FloatArray, Series
from app.simulation import Simulation

AnomalyKind = Literal["spike", "dip", "level_shift", "drift", "variance_change", "flatline", "missing_season", "shape"]
"""The names that verdicts give them, but for `drift`: where that begins is a `trend_change`."""

ANOMALY_KINDS: tuple[AnomalyKind, ...] = get_args(AnomalyKind)

MAX_SHARE = 0.15
"""No more of a series' points than this are planted anomalies: they would be the rule."""

_MAD_TO_STD = 1.4826022185056018
_LEAST_SHARE_OF_SPREAD = 0.01
_ROUNDING = 1e-9
_SHAPE_WAVES = 2.5
_SHORTEST_WAVE_POINTS = 4.0
_MAX_SPIKE_POINTS = 3
_LENGTHS_IN_PERIODS: Mapping[AnomalyKind, tuple[float, float]] = {
    "level_shift": (0.25, 0.75),
    "drift": (0.5, 1.0),
    "variance_change": (0.25, 0.75),
    "flatline": (0.25, 0.75),
    "missing_season": (1.0, 1.0),
    "shape": (0.5, 1.0),
}
_POINTS_WITHOUT_PERIOD = (20, 500)


def noise_std(values: FloatArray, period_points: int | None = None) -> float:
    """One sigma: the standard deviation of what is left of a series without its season and trend; above 0.

    values: shape (n,), n >= 1. It is the scaled median absolute deviation of the differences of points a period apart,
    over the square root of 2; a period that is unknown, or of which there are not two, leaves those of neighbours.
    So neither a season, a trend nor a few anomalies widen it.

    - Neighbours that resemble one another (autocorrelation r) make it narrow: by the square root of 1 - r.
    - A series that repeats itself exactly takes the differences of neighbours.
    - Where most of those are equal (a lamp, mostly zeros), it is the standard deviation of the values.
    - It is at least 1 % of that deviation, so that 3 sigma are visible in a smooth series without noise.
    - In a constant series it is 1 % of the value, and 1 where that is 0.
    """
    exponent = math.frexp(float(np.abs(values).max()))[1]
    return math.ldexp(_noise_std(np.ldexp(values, -exponent), period_points), exponent)


def _noise_std(values: FloatArray, period_points: int | None) -> float:
    """The same for values that are at most 1."""
    spread = float(values.std())
    level = float(np.abs(values).max())
    if spread <= _ROUNDING * level:
        return _LEAST_SHARE_OF_SPREAD * level or 1.0
    lags = [period_points, 1] if period_points and len(values) >= 2 * period_points else [1]
    for lag in lags:
        difference = values[lag:] - values[:-lag]
        std = _MAD_TO_STD * float(np.median(np.abs(difference - np.median(difference)))) / math.sqrt(2)
        if std > _ROUNDING * spread:
            return max(std, _LEAST_SHARE_OF_SPREAD * spread)
    return spread


def inject(
    series: Series,
    kind: AnomalyKind,
    size: float,
    *,
    start: int,
    length: int,
    period_points: int | None,
    rng: np.random.Generator,
) -> Series:
    """A copy of the series with one anomaly in the points start .. start + length - 1; all others stay as they are.

    size: in sigmas, see `noise_std`. With d = size * sigma:

    - spike, dip: d above, d below.
    - level_shift: d above or below, as `rng` has it.
    - drift: runs away from the normal value in equal steps and is d off, above or below, at the last point.
    - variance_change: has noise of the standard deviation d on top of its own.
    - shape: has a swell of a wave on top, two and a half to a period (to `length` without one), d off at its farthest.
    - flatline: repeats the value before `start`; size says nothing, only length does.
    - missing_season: lacks the swing and keeps level, trend and noise; size says nothing. Needs `period_points`.

    Values need not stay what the series could hold: counts may become fractions, or negative.
    Raises ValueError for points outside the series, and for a missing season without two periods in the series.
    """
    if not 0 <= start < start + length <= len(series):
        raise ValueError(f"{length} points from {start} do not lie in a series of {len(series)}: choose others")
    offset = size * noise_std(series.values, period_points)
    return _replaced(series, [(kind, _Stretch(series.values, start, length, offset, period_points, rng))])


def plant(
    series: Series,
    kinds: Sequence[AnomalyKind],
    size: float,
    *,
    seed: int = 0,
    count: int | None = None,
    share: float = 0.05,
    period_points: int | None = None,
) -> Simulation:
    """The series with anomalies of these kinds in turn, spread over it, and which points they are.

    size: in sigmas, see `inject`. count: how many; None for as many as make up `share` of the points.
    Never are more than 15 % of the points anomalies: they become shorter, then fewer, so that a series of less than
    7 points gets none.

    Spikes and dips are 1 to 3 points long, a missing season is a period, others are some part of one (of 2 % of the
    series, 20 to 500 points, without one). Each is surrounded by normal points: about a quarter or more of its
    even share of them on either side.
    """
    rng = np.random.default_rng(seed)
    n = len(series)
    budget = int(n * (MAX_SHARE if count is not None else min(share, MAX_SHARE)))
    lengths = _lengths(kinds, n, budget=budget, count=count, period_points=period_points, rng=rng)
    is_anomaly = np.zeros(n, dtype=np.bool_)
    if not lengths:
        return Simulation(_replaced(series, []), is_anomaly)
    offset = size * noise_std(series.values, period_points)
    stretches: list[tuple[AnomalyKind, _Stretch]] = []
    for index, (start, length) in enumerate(zip(_starts(lengths, n, rng), lengths, strict=True)):
        stretch = _Stretch(series.values, start, length, offset, period_points, rng)
        stretches.append((kinds[index % len(kinds)], stretch))
        is_anomaly[start : start + length] = True
    return Simulation(_replaced(series, stretches), is_anomaly)


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """Where an anomaly goes, in the values of the whole series, and how far off it is in their units."""

    values: FloatArray
    start: int
    length: int
    offset: float
    period_points: int | None
    rng: np.random.Generator

    @property
    def normal(self) -> FloatArray:
        """The values there, as they were."""
        return self.values[self.start : self.start + self.length]

    def either_way(self) -> float:
        """The offset, up or down."""
        return float(self.rng.choice((-1.0, 1.0))) * self.offset


def _spike(stretch: _Stretch) -> FloatArray:
    return stretch.normal + stretch.offset


def _dip(stretch: _Stretch) -> FloatArray:
    return stretch.normal - stretch.offset


def _level_shift(stretch: _Stretch) -> FloatArray:
    return stretch.normal + stretch.either_way()


def _drift(stretch: _Stretch) -> FloatArray:
    return stretch.normal + stretch.either_way() * np.arange(1, stretch.length + 1) / stretch.length


def _variance_change(stretch: _Stretch) -> FloatArray:
    return stretch.normal + stretch.offset * stretch.rng.standard_normal(stretch.length)


def _flatline(stretch: _Stretch) -> FloatArray:
    return np.full(stretch.length, stretch.values[max(stretch.start - 1, 0)])


def _missing_season(stretch: _Stretch) -> FloatArray:
    season = _season(stretch.values, stretch.period_points)
    return stretch.normal - season[np.arange(stretch.start, stretch.start + stretch.length) % len(season)]


def _shape(stretch: _Stretch) -> FloatArray:
    index = np.arange(stretch.length)
    wave_points = max((stretch.period_points or stretch.length) / _SHAPE_WAVES, _SHORTEST_WAVE_POINTS)
    wave = np.sin(2 * np.pi * (index / wave_points + stretch.rng.random()))
    swell = wave * np.hanning(stretch.length + 2)[1:-1]
    return stretch.normal + stretch.offset * swell / float(np.abs(swell).max())


_INJECTIONS: Mapping[AnomalyKind, Callable[[_Stretch], FloatArray]] = {
    "spike": _spike,
    "dip": _dip,
    "level_shift": _level_shift,
    "drift": _drift,
    "variance_change": _variance_change,
    "flatline": _flatline,
    "missing_season": _missing_season,
    "shape": _shape,
}


def _replaced(series: Series, stretches: Sequence[tuple[AnomalyKind, _Stretch]]) -> Series:
    """A copy of the series with these anomalies in it."""
    values = series.values.copy()
    largest = float(np.finfo(np.float64).max)
    for kind, stretch in stretches:
        with np.errstate(over="ignore"):  # what is beyond the largest float stays there
            anomalous = np.clip(_INJECTIONS[kind](stretch), -largest, largest)
        values[stretch.start : stretch.start + stretch.length] = anomalous
    return Series(series.timestamps_s.copy(), values)


def _season(values: FloatArray, period_points: int | None) -> FloatArray:
    """How far each point of a period lies from its mean, in the median of all periods; without the trend."""
    if not period_points or len(values) < 2 * period_points:
        raise ValueError("a season is missing only where there was one: give period_points, and two periods or more")
    periods = values[: len(values) // period_points * period_points].reshape(-1, period_points)
    means = periods.mean(axis=1)
    slope = float(np.median(np.diff(means))) / period_points
    season = np.median(periods - means[:, np.newaxis], axis=0) - slope * np.arange(period_points)
    return np.asarray(season - season.mean())


def _lengths(
    kinds: Sequence[AnomalyKind],
    n: int,
    *,
    budget: int,
    count: int | None,
    period_points: int | None,
    rng: np.random.Generator,
) -> list[int]:
    """How many points each anomaly has: `budget` at most in all, and each kind, or each of `count`, gets its part."""
    longest = max(budget // max(len(kinds) if count is None else count, 1), 1)
    lengths: list[int] = []
    while kinds and len(lengths) < (n if count is None else count):
        length = min(_length(kinds[len(lengths) % len(kinds)], n, period_points, rng), longest)
        budget -= length
        if budget < 0:
            break
        lengths.append(length)
    return lengths


def _length(kind: AnomalyKind, n: int, period_points: int | None, rng: np.random.Generator) -> int:
    if kind not in _LENGTHS_IN_PERIODS:
        return int(rng.integers(1, _MAX_SPIKE_POINTS + 1))
    whole = period_points or int(np.clip(n // 50, *_POINTS_WITHOUT_PERIOD))
    return max(round(whole * rng.uniform(*_LENGTHS_IN_PERIODS[kind])), 1)


def _starts(lengths: Sequence[int], n: int, rng: np.random.Generator) -> list[int]:
    """Where each anomaly begins: in the middle half, at random, of its even share of the normal points."""
    gap = (n - sum(lengths)) / len(lengths)
    before = np.cumsum([0, *lengths[:-1]])
    jitter = rng.uniform(0.25, 0.75, len(lengths))
    return [int(start) for start in before + gap * (np.arange(len(lengths)) + jitter)]
