"""Seasonal profile: what is usual at this time of the day, of the week, or of whatever period the series has."""

import math
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment, CalibratedParams, usual_interval_s
from app.detectors.periods import DAY_S, WEEK_S, find_period
from app.detectors.profiles import (
    Indices,
    Rest,
    mean_profile,
    nearest_parts,
    outlying,
    parts_of,
    positions_in,
    smoothed_sums,
    sums_of,
    value_at,
    without_outliers,
)
from app.detectors.quantiles import quantiles
from app.detectors.recent import assess_beginning_too
from app.series import FloatArray, Series

_MOST_PARTS = 1440
_FOLDS = 5
_WIDTHS = (0, 1, 2, 4, 8, 16, 32)
_SHARES = (0.5, 0.8, 1.0)
_LEVEL_POINTS = (5, 16, 64)
_FEWEST_CYCLES = 2
_FEWEST_IN_CHUNK = 24
_FEWEST_CHUNKS = 6
_SAMPLES_OF_SPREAD = 30.0
_PRIOR_OF_SPREAD = 5.0
_LEAST_SPREAD = 0.2
_SMALLEST_SPREAD = 1e-6
_CLEARLY = 0.98
_CLEARLY_DRIFTS = 0.97
_SIGNIFICANT = 4.0


class SeasonalParams(CalibratedParams):
    """Parameters of `seasonal`."""

    period_s: float | None = Field(
        None, gt=0, le=1e10, description="Seconds after which the series repeats itself; found in the history if null."
    )


class Seasonal(CalibratedDetector):
    """An anomaly lies far from what is usual at its phase of the period, by the spread that is usual there.

    The profile is a robust mean for each phase, smoothed over as many neighbours as predict other cycles best, and
    with days of the week told apart where that predicts other weeks better. Where the level drifts, the median of
    the last 5, 16 or 64 deviations is added, whichever predicts best. Phases are those of the timestamps, so gaps and
    irregular sampling do no harm. Without a period it is a level that may drift.

    Source: R. B. Cleveland and others, STL: A Seasonal-Trend Decomposition Procedure Based on Loess, Journal of
    Official Statistics 6, 1990 (the model); P. J. Huber, Robust Estimation of a Location Parameter, Annals of
    Mathematical Statistics 35, 1964. Cost: O(n log n) to fit, 15 ms for 10,000 points, 20 microseconds a point, 16
    bytes of state a phase. Finds: values that are usual, but not at this time; missing seasons; spikes, dips and level
    shifts. Misses: how long a shift lasts where the level drifts; a season that changes its shape or its phase.
    """

    __slots__ = ()

    name: ClassVar[str] = "seasonal"
    Params: ClassVar[type[DetectorParams]] = SeasonalParams
    is_quick_to_judge: ClassVar[bool] = True
    expects_time: ClassVar[bool] = True

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        plan = _plan(history, params)
        return _learn(history, plan, _Places.of(history.timestamps_s, plan))

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return int(learnt["level_points"])

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        position = _positions(stretch.timestamps_s, learnt)
        season = value_at(learnt["profile"], position)
        points = int(learnt["level_points"])
        if not points:
            return Assessment(season, value_at(learnt["spread"], position))
        from app.detectors.kernels_values import recent_medians

        level = recent_medians(stretch.values - season, points)
        passed = stretch.timestamps_s[points:] - stretch.timestamps_s[points // 2 : len(stretch) - points + points // 2]
        expected = season[points:] + (level + float(learnt["slope"]) * passed)
        return Assessment(expected, value_at(learnt["spread"], position[points:]))

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        plan = _plan(history, params)
        places = _Places.of(history.timestamps_s, plan)
        assessed = _assess_left_out(history, plan, places, is_in_view=False)
        return _learn(history, plan, places), assessed

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        return assess_beginning_too(_assess_in_view, series, params)


class _Plan(NamedTuple):
    """How to learn a profile.

    period_s: 0 if there is none. parts: of the period. anchor_s: a time in the middle of a part. width: parts on each
    side that a part is smoothed with. week_share: how much of what a day of the week differs by is believed; 0 if they
    are all the same. week_width: parts of the day that this is smoothed over, on each side. level_points: that tell the
    level; 0 if it does not drift.
    """

    period_s: float
    parts: int
    anchor_s: float
    width: int = 0
    week_share: float = 0.0
    week_width: int = 0
    level_points: int = 0

    @property
    def cycle_s(self) -> float:
        """After how long the profile begins anew."""
        return WEEK_S if self.week_share else self.period_s

    @property
    def cycle_parts(self) -> int:
        """How many parts that has."""
        return 7 * self.parts if self.week_share else self.parts


class _Places(NamedTuple):
    """Where n times are, each of shape (n,): in which part of the period, of the cycle; and where in the cycle."""

    of_period: Indices
    of_cycle: Indices
    in_cycle: FloatArray

    @classmethod
    def of(cls, times: FloatArray, plan: _Plan) -> "_Places":
        """All 0 without a period."""
        if not plan.period_s:
            nowhere = np.zeros(len(times), dtype=np.intp)
            return cls(nowhere, nowhere, np.zeros(len(times)))
        in_cycle = positions_in(times - plan.anchor_s, plan.cycle_s, plan.cycle_parts)
        of_cycle = nearest_parts(in_cycle, plan.cycle_parts)
        of_period = parts_of(times - plan.anchor_s, plan.period_s, plan.parts) if plan.week_share else of_cycle
        return cls(of_period, of_cycle, in_cycle)

    def take(self, indices: Indices) -> "_Places":
        """The places at these indices."""
        return _Places(self.of_period[indices], self.of_cycle[indices], self.in_cycle[indices])


def _plan(history: Series, params: DetectorParams) -> _Plan:
    """The plan that predicts every fifth of the history best by the rest."""
    assert isinstance(params, SeasonalParams)
    times = history.timestamps_s
    interval_s, span = usual_interval_s(times), float(times[-1] - times[0])
    period_s = (find_period(history) if params.period_s is None else params.period_s) or 0.0
    if not 2 * interval_s <= period_s <= span / _FEWEST_CYCLES * (1 + 1e-9) + interval_s:
        period_s = 0.0
    parts = min(max(round(period_s / interval_s), 1), _MOST_PARTS) if period_s else 1
    plan = _Plan(period_s, parts, float(times[0]))
    residuals = history.values - np.median(history.values)
    if period_s:
        levelled = _without_drift(history, plan)
        limit = outlying(levelled - np.median(levelled))
        plan, predicted = _with_best_width(plan, times, levelled, limit)
        if math.isclose(period_s, DAY_S, rel_tol=1e-3) and span >= _FEWEST_CYCLES * WEEK_S - interval_s:
            plan, predicted = _with_best_week(plan, times, levelled, predicted)
        residuals = history.values - predicted
    return plan._replace(level_points=_best_level_points(residuals))


def _with_best_width(plan: _Plan, times: FloatArray, values: FloatArray, limit: float) -> tuple[_Plan, FloatArray]:
    """The plan with the smoothing that predicts best, and what it predicts of each point by the other folds."""
    index, fold = parts_of(times - plan.anchor_s, plan.period_s, plan.parts), _folds(times, plan)
    rest = Rest.of(index, fold, without_outliers(index, values, plan.parts), plan.parts)
    best, chosen, kept = math.inf, 0, values
    for width in _WIDTHS:
        if width and 8 * width > plan.parts:
            break
        predicted = rest.profiles(width)[fold, index]
        loss = _loss(values - predicted, limit)
        if loss < best * (_CLEARLY if width == _WIDTHS[1] else 1.0):
            best, chosen, kept = loss, width, predicted
    return plan._replace(width=chosen), kept


def _with_best_week(plan: _Plan, times: FloatArray, values: FloatArray, daily: FloatArray) -> tuple[_Plan, FloatArray]:
    """The same with days of the week told apart, if that predicts other weeks clearly better."""
    weekly = plan._replace(week_share=1.0)
    parts = 7 * plan.parts
    index, fold = parts_of(times - plan.anchor_s, WEEK_S, parts), _folds(times, weekly)
    residuals = values - daily
    limit = outlying(residuals)
    rest = Rest.of(index, fold, without_outliers(index, residuals, parts), parts)
    best, chosen, kept = _CLEARLY * _loss(residuals, limit), plan, daily
    for width in (0, *(width for width in _WIDTHS if 0 < 8 * width <= plan.parts)):
        predicted = rest.profiles(width)[fold, index]
        for share in _SHARES:
            loss = _loss(residuals - share * predicted, limit)
            if loss < best:
                chosen, kept = plan._replace(week_share=share, week_width=width), daily + share * predicted
                best = loss
    return chosen, kept


def _best_level_points(residuals: FloatArray) -> int:
    """After how many points the level is known best by their median; 0 if a constant is as good."""
    from app.detectors.kernels_values import recent_medians

    n = len(residuals)
    if n < _FEWEST_IN_CHUNK:
        return 0
    begin = max(n // 2, min(n // 2 + _LEVEL_POINTS[-1], n - 8))
    limit = 2.0 * outlying(residuals - np.median(residuals))
    later = residuals[begin:]
    best, chosen = _CLEARLY_DRIFTS * _loss(later - np.median(residuals[:begin]), limit), 0
    for points in _LEVEL_POINTS:
        if 4 * points > n or points > begin:
            break
        loss = _loss(later - recent_medians(residuals[begin - points :], points), limit)
        if loss < best:
            best, chosen = loss, points
    return chosen


def _assess_in_view(series: Series, params: DetectorParams) -> Assessment:
    plan = _plan(series, params)
    return _assess_left_out(series, plan, _Places.of(series.timestamps_s, plan), is_in_view=True)


def _assess_left_out(history: Series, plan: _Plan, places: _Places, *, is_in_view: bool) -> Assessment:
    """What is expected of each point by what the other folds tell; of the first ones only with those after in view."""
    n, points = len(history), plan.level_points
    result = Assessment.unknown(n)
    for start, end in pairwise(_fold_edges(history.timestamps_s, plan)):
        rest = np.r_[0:start, end:n]
        first = max(start - points, 0)
        if not len(rest) or end - first <= points:
            continue
        others = Series(history.timestamps_s[rest], history.values[rest])
        learnt = _learn(others, plan, places.take(rest))
        assessed = Seasonal.assess(learnt, Series(history.timestamps_s[first:end], history.values[first:end]))
        result.expected[first + points : end] = assessed.expected
        result.scale[first + points : end] = assessed.scale
        if is_in_view and start == 0 and 0 < 2 * points <= end:
            assessed = _assess_backwards(learnt, history.first(2 * points))
            result.expected[:points], result.scale[:points] = assessed.expected, assessed.scale
    return result


def _assess_backwards(learnt: State, stretch: Series) -> Assessment:
    """What is expected of the first half of a stretch by the points after each, as many as tell the level."""
    from app.detectors.kernels_values import recent_medians

    points = len(stretch) // 2
    position = _positions(stretch.timestamps_s, learnt)
    season = value_at(learnt["profile"], position)
    level = recent_medians((stretch.values - season)[::-1].copy(), points)[::-1]
    times = stretch.timestamps_s
    passed = times[:points] - times[points - points // 2 : len(stretch) - points // 2]
    expected = season[:points] + (level + float(learnt["slope"]) * passed)
    return Assessment(expected, value_at(learnt["spread"], position[:points]))


def _learn(history: Series, plan: _Plan, places: _Places) -> State:
    levelled = _without_drift(history, plan) if plan.period_s else history.values
    profile = np.zeros(1)
    if plan.period_s:
        index = places.of_period
        profile = mean_profile(index, without_outliers(index, levelled, plan.parts), plan.parts, plan.width)
        if plan.week_share:
            profile = _weekly(levelled, profile, plan, places)
    profile = profile - float(np.mean(profile))
    season = value_at(profile, places.in_cycle)
    profile = profile + float(np.median(history.values - season))
    residuals = levelled - season
    residuals -= np.median(residuals)
    return {
        "period_s": np.array(plan.period_s),
        "cycle_s": np.array(plan.cycle_s),
        "anchor_s": np.array(plan.anchor_s),
        "level_points": np.array(float(plan.level_points)),
        "slope": np.array(_slope(history, plan) if plan.level_points else 0.0),
        "profile": profile,
        "spread": _spread(residuals, plan, places),
    }


def _weekly(values: FloatArray, daily: FloatArray, plan: _Plan, places: _Places) -> FloatArray:
    """The profile of the week: that of the day, and what the days of the week differ by."""
    parts, index = plan.cycle_parts, places.of_cycle
    residuals = without_outliers(index, values - daily[index % plan.parts], parts)
    weekly: FloatArray = np.tile(daily, 7) + plan.week_share * mean_profile(index, residuals, parts, plan.week_width)
    return weekly


def _spread(residuals: FloatArray, plan: _Plan, places: _Places) -> FloatArray:
    """The mean absolute deviation at each phase, drawn towards the overall one."""
    if not plan.period_s:
        return np.ones(1)
    distances = np.abs(residuals)
    distances = np.minimum(distances, max(*quantiles(distances, 0.99), 3.0 * float(distances.mean())))
    overall = float(distances.mean())
    parts = plan.cycle_parts
    width = min(math.ceil((_SAMPLES_OF_SPREAD * parts / len(residuals) - 1.0) / 2.0), parts // 8)
    sums, counts = (
        smoothed_sums(sums_of(places.of_cycle, weights, parts), max(width, 0)) for weights in (distances, None)
    )
    share = max(width, 0) + 1.0
    spread = (sums + share * _PRIOR_OF_SPREAD * overall) / (counts + share * _PRIOR_OF_SPREAD)
    return np.maximum(np.maximum(spread, _LEAST_SPREAD * overall), _SMALLEST_SPREAD)


def _loss(errors: FloatArray, limit: float) -> float:
    return float(np.minimum(np.abs(errors), limit).mean())


def _without_drift(history: Series, plan: _Plan) -> FloatArray:
    """Values without their level: the medians of whole cycles, and lines between them."""
    middles, medians = _levels(history, plan)
    if len(medians) <= _FEWEST_CYCLES:
        return history.values - np.median(history.values)
    first, last = (
        ((medians[1] - medians[0]) / (middles[1] - middles[0])),
        ((medians[-1] - medians[-2]) / (middles[-1] - middles[-2])),
    )
    times = history.timestamps_s
    level = np.interp(times, middles, medians)
    level += 0.5 * first * np.minimum(times - middles[0], 0.0) + 0.5 * last * np.maximum(times - middles[-1], 0.0)
    return history.values - level


def _levels(history: Series, plan: _Plan) -> tuple[FloatArray, FloatArray]:
    """Middle times and medians of stretches of whole cycles, counted from the end; of eighths without a season."""
    from app.detectors.kernels_values import stretch_medians

    times = history.timestamps_s
    span = float(times[-1] - times[0])
    interval_s = span / max(len(times) - 1, 1)
    stretch = plan.period_s or span / 8
    if math.isclose(plan.period_s, DAY_S, rel_tol=1e-3) and span >= _FEWEST_CYCLES * WEEK_S:
        stretch = WEEK_S
    stretch *= max(math.ceil(_FEWEST_IN_CHUNK * interval_s / max(stretch, 1e-9)), 1)
    count = int((span + interval_s) / max(stretch, 1e-9) * (1 + 1e-9))
    edges = np.searchsorted(times, times[-1] + 0.5 * interval_s - stretch * np.arange(count, -1, -1))
    starts, ends = edges[:-1], edges[1:]
    is_enough = ends - starts >= min(_FEWEST_IN_CHUNK, len(times)) // 2
    starts, ends = starts[is_enough], ends[is_enough]
    return 0.5 * (times[starts] + times[ends - 1]), stretch_medians(history.values, starts, ends)


def _slope(history: Series, plan: _Plan) -> float:
    """The trend a second, by the median of slopes between levels (Theil and Sen); 0 if it may be chance."""
    middles, medians = _levels(history, plan)
    if len(medians) < _FEWEST_CHUNKS:
        return 0.0
    middles, medians = middles[:: len(middles) // 64 + 1], medians[:: len(middles) // 64 + 1]
    a, b = np.triu_indices(len(medians), 1)
    slope = float(np.median((medians[b] - medians[a]) / (middles[b] - middles[a])))
    left = medians - slope * middles
    noise = float(np.median(np.abs(left - np.median(left))))
    return slope if abs(slope) * float(middles[-1] - middles[0]) > _SIGNIFICANT * noise else 0.0


def _fold_edges(times: FloatArray, plan: _Plan) -> list[int]:
    """Where the five stretches begin and end, each of them of whole cycles, as indices."""
    fold = _folds(times, plan)
    return [0, *(np.flatnonzero(np.diff(fold)) + 1).tolist(), len(times)]


def _folds(times: FloatArray, plan: _Plan) -> Indices:
    """To which of five stretches, of whole cycles if there are several, each point belongs: shape (n,), rising."""
    span = float(times[-1] - times[0])
    cycle = np.arange(len(times)) * _FOLDS // len(times)
    if plan.period_s:
        cycle = np.floor((times - times[0]) / plan.cycle_s * (1 + 1e-12) + 1e-9).astype(np.intp)
        cycles = max(math.ceil(span / plan.cycle_s), 2)
        cycle = np.minimum(cycle, cycles - 1) * min(_FOLDS, cycles) // cycles
    folds: Indices = np.unique(cycle, return_inverse=True)[1]
    return folds


def _positions(times: FloatArray, learnt: State) -> FloatArray:
    """Where in the profile each time is, in parts."""
    cycle_s = float(learnt["cycle_s"])
    if not cycle_s:
        return np.zeros(len(times))
    return positions_in(times - float(learnt["anchor_s"]), cycle_s, len(learnt["profile"]))
