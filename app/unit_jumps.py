"""Changes of unit: from some time on, values are multiplied by a factor, as when seconds became milliseconds.

Candidates are where the mean logarithm of the magnitudes changes between the points before and after. There, level and
noise have to change by the same factor, at once, and not as they did a period before. An additive shift leaves the
noise as it is, a season comes back, a spike does not last.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from app.series import FloatArray, Series

KNOWN_FACTORS = (1.8, 10.0, 60.0, 100.0, 1000.0, 3600.0, 1e4, 1e6, 1e9)
"""A factor near to one of these, or to the inverse of one, is that."""

_SCALES = ((96, 1.5), (32, 2.5), (20, 5.0))
"""Points on either side that are compared, and the least factor that so many can tell."""
_LEAST_WITHOUT_LEVEL = 8.0
"""Values about 0 have noise alone: what multiplies that by less is a change of variance."""
_FEWEST_WITH_LEVEL = 20
_NEAR = 0.08
_NEXT_POINTS = 5
_NEAR_POINTS = 20
_TOLERANCE = 0.4
_LOOSELY = 0.8
"""How far off the noise of few points may be: that of the whole stretch is compared at the end."""
_QUARTILES = (0.25, 0.5, 0.75)
_MOST_CANDIDATES = 24
_MOST_JUMPS = 4
"""More are how the series is."""
_SMALLEST = 1e-3


class UnitJump(NamedTuple):
    """A stretch whose values look as if they were multiplied by a factor."""

    first_timestamp_s: float
    last_timestamp_s: float
    factor: float
    is_at_end: bool
    """Whether it lasts to the end of the series."""


class _Change(NamedTuple):
    place: int
    """Of the first point that is multiplied."""
    log_factor: float
    points: int
    """On either side, that were compared."""


def find_unit_jumps(series: Series, period_points: int | None = None) -> tuple[UnitJump, ...]:
    """The stretches in time, two at most; none where it changes so more often. Cost: O(n), 5 ms for 100,000 points."""
    values = series.values / (float(np.abs(series.values).max()) or 1.0)  # so that nothing overflows
    logs = _log_magnitudes(values)
    if logs is None:
        return ()
    sums = np.concatenate(([0.0], np.cumsum(logs)))
    found: list[_Change] = []
    for points, least in _SCALES:
        for place in _candidates(sums, points, math.log(least)):
            change = _confirmed(values, place, points, math.log(least), period_points)
            if change and all(abs(change.place - other.place) >= points for other in found):
                found.append(change)
    return (
        _stretches(Series(series.timestamps_s, values), sorted(found), period_points)
        if len(found) <= _MOST_JUMPS
        else ()
    )


def _log_magnitudes(values: FloatArray) -> FloatArray | None:
    """Logarithms of the magnitudes; those far below the usual one are raised. None where most values are 0."""
    magnitudes = np.abs(values)
    usual = float(np.median(magnitudes))
    if usual == 0.0 or len(values) < 2 * _SCALES[-1][0]:
        return None
    with np.errstate(over="ignore"):
        return np.log(np.clip(magnitudes / usual, _SMALLEST, np.finfo(np.float64).max))


def _candidates(sums: FloatArray, points: int, least: float) -> Iterator[int]:
    """Where the means of so many points before and after differ most, near to each place where they do."""
    if len(sums) <= 2 * points:
        return
    middle = sums[points:-points]
    differences = np.abs(sums[2 * points :] - 2.0 * middle + sums[: -2 * points]) / points
    # Smaller than asked for, since the logarithm of noisy values is not that of their mean.
    is_large = differences > 0.6 * least
    starts = np.flatnonzero(np.diff(is_large.astype(np.int8), prepend=0) == 1)
    if not len(starts):
        return
    highest = np.maximum.reduceat(np.where(is_large, differences, 0.0), starts)
    for index in np.argsort(-highest, kind="stable")[:_MOST_CANDIDATES].tolist():
        start = int(starts[index])
        end = int(starts[index + 1]) if index + 1 < len(starts) else len(differences)
        yield _sharpest(sums, start + int(differences[start:end].argmax()) + points, points)


def _sharpest(sums: FloatArray, place: int, points: int) -> int:
    """The place near this one where the few points after it differ most from the few before."""
    n, few = len(sums) - 1, _NEXT_POINTS
    near = np.arange(max(place - points // 2, few), min(place + points // 2, n - few) + 1)
    return int(near[np.abs(sums[near + few] - 2.0 * sums[near] + sums[near - few]).argmax()])


def _confirmed(values: FloatArray, place: int, points: int, least: float, period_points: int | None) -> _Change | None:
    """The change, if level and noise change by the same factor there, and at once."""
    before, after = values[max(place - points, 0) : place], values[place : place + points]
    if min(len(before), len(after)) < points // 2:
        return None
    if not _has_level(before, after):
        least = max(least, math.log(_LEAST_WITHOUT_LEVEL)) if points > _FEWEST_WITH_LEVEL else math.inf
    level = _log_ratio(_median(np.abs(after)), _median(np.abs(before)))
    noise = _log_ratio(_noise(after), _noise(before))
    if abs(level) < least or abs(noise - level) > _LOOSELY * abs(level) or not _is_at_once(values, place, level):
        return None
    return None if _is_season(values, place, points, level, period_points) else _Change(place, level, points)


def _has_level(before: FloatArray, after: FloatArray) -> bool:
    """Whether values are not just noise about 0."""
    return all(abs(_median(part)) > 0.5 * float(part.std()) for part in (before, after))


def _is_at_once(values: FloatArray, place: int, log_factor: float) -> bool:
    few = _NEXT_POINTS
    before, after = (np.abs(part) for part in (values[max(place - few, 0) : place], values[place : place + few]))
    step = _log_ratio(_median(after), _median(before))
    return abs(step - log_factor) <= _TOLERANCE * abs(log_factor)


def _is_season(values: FloatArray, place: int, points: int, log_factor: float, period_points: int | None) -> bool:
    """Whether values change likewise a period before or after."""
    if not period_points:
        return False
    for other in (place - period_points, place + period_points):
        before, after = values[max(other - points, 0) : max(other, 0)], values[max(other, 0) : max(other + points, 0)]
        if min(len(before), len(after)) >= points // 2:
            change = _log_ratio(_median(np.abs(after)), _median(np.abs(before)))
            if abs(change - log_factor) < 0.5 * abs(log_factor):
                return True
    return False


def _median(values: FloatArray) -> float:
    return float(np.median(values))


def _noise(values: FloatArray) -> float:
    return _median(np.abs(np.diff(values)))


def _log_ratio(new: float, old: float) -> float:
    """0 where either is 0: nothing can be said then."""
    return math.log(new) - math.log(old) if new > 0 and old > 0 else 0.0


def _stretches(series: Series, changes: list[_Change], period_points: int | None) -> tuple[UnitJump, ...]:
    """Changes as stretches: one that undoes the one before it ends that one's stretch."""
    times = series.timestamps_s
    found: list[UnitJump] = []
    while changes:
        change, *changes = changes
        ends = [later for later in changes[:1] if _undoes(later, change)]
        end = ends[0].place if ends else len(series)
        changes = changes[len(ends) :]
        if factors := _scaled_by(series.values, change, end, period_points):
            factor = _named(factors)
            found.append(UnitJump(float(times[change.place]), float(times[end - 1]), factor, is_at_end=not ends))
    return tuple(found)


def _undoes(change: _Change, earlier: _Change) -> bool:
    return abs(change.log_factor + earlier.log_factor) < 0.5 * abs(earlier.log_factor)


def _scaled_by(values: FloatArray, change: _Change, end: int, period_points: int | None) -> list[float]:
    """By what the whole stretch is what came before it, multiplied, as far as its quartiles and its noise agree.

    Estimates: a season disturbs that of many points, noise that of few. None if it is not.
    """
    stretch = values[change.place : end]
    n = max(len(stretch), change.points)
    if period_points and len(stretch) <= period_points <= change.place:  # the same phases, a period before
        before = values[change.place - period_points :][: len(stretch)]
    elif period_points:  # whole periods, where there are any
        n = max(n // period_points, 1) * period_points
        stretch, before = stretch[:n], values[max(change.place - n, 0) : change.place]
    else:
        before = values[max(change.place - n, 0) : change.place]
    quartiles = [np.quantile(np.abs(part), _QUARTILES).tolist() for part in (stretch, before)]
    ratios = [*map(_log_ratio, *quartiles), _log_ratio(_noise(stretch), _noise(before))]
    if any(abs(ratio - change.log_factor) > _TOLERANCE * abs(change.log_factor) for ratio in ratios):
        return []
    near = min(_NEAR_POINTS, end - change.place)
    of_few = _log_ratio(_median(np.abs(stretch[:near])), _median(np.abs(values[change.place - near : change.place])))
    return [math.exp(each) for each in (change.log_factor, of_few, ratios[1] if period_points else ratios[-1])]


def _named(factors: list[float]) -> float:
    """The known factor that is near to one of these estimates; else their median, to two digits."""
    known = (*KNOWN_FACTORS, *(1.0 / factor for factor in KNOWN_FACTORS))
    near = [(abs(math.log(factor / each)), each) for factor in factors if factor > 0 for each in known]
    distance, nearest = min(near, default=(math.inf, 1.0))
    return nearest if distance < _NEAR else float(f"{np.median(factors):.2g}")
