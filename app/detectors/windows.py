"""What the detectors that judge windows have in common: how long, which to learn from, what of the newest point.

A window is the newest point and the points before it. A member of the family says how far a window is from normal
ones; here is decided which windows it sees, and what the distances of windows say of points.
"""

from abc import abstractmethod
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.gross import find_gross
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.periods import find_period_points
from app.series import FloatArray, Series

LONGEST = 256
_SHORTEST_SEASON = 8
_WITHOUT_SEASON = 16
_PART_OF_SEASON = 32
_LEVEL_SHARE = 0.3
_WANDERS = 1.0
_BLOCKS = 8
_TO_LEARN_EXPECTED = 2000
_RIDGE = 1.0
_NEGLIGIBLE = 1e-6
_RIDGE_SHARE = 1e-3
_WORST_SHARE = 0.02
_LIMIT_FACTOR = 3.0
_MOST_UNCLEAN = 0.1
_GROSS_ODDS = 1e4
_MOST_GROSS = 0.02
_FAR_FACTOR = 1.5


class WindowParams(CalibratedParams):
    """Parameters of every detector that judges windows."""

    window_points: int | None = Field(
        None,
        ge=1,
        le=LONGEST,
        description="Points that are judged together; by default a period of the series, 32 if that is longer "
        "than 256, 16 if it has none.",
    )


def choose_window_points(history: Series, asked: int | None) -> int:
    """How many points the windows of a history have: a quarter of it at most, an eighth if it is not asked for."""
    n = len(history)
    if asked is not None:
        return max(min(asked, n // 4), 1)
    most = max(n // 8, 1)
    period = find_period_points(history) if most > _SHORTEST_SEASON else None
    if period is None:
        return min(_WITHOUT_SEASON, most)
    if period > LONGEST:  # no window holds all of it: many short ones tell more of what is usual than a few long ones
        return min(_PART_OF_SEASON, most)
    return min(max(period, _SHORTEST_SEASON), most)


def choose_level(values: FloatArray, points: int) -> float:
    """How much the mean of a window counts: the factor that it is multiplied with.

    0.3 of its square, beside the shape; nothing where the level wanders so far that the levels of the past say nothing
    of those to come; all of it where a window is one point.
    """
    if points == 1:
        return 1.0
    means = sliding_window_view(values, points)[:: max(points // 4, 1)].mean(axis=1)
    blocks = np.array_split(means, _BLOCKS)
    if len(means) < 2 * _BLOCKS:
        return float(np.sqrt(_LEVEL_SHARE))
    within = float(np.median([block.std() for block in blocks]))
    between = float(np.std([np.median(block) for block in blocks]))
    return 0.0 if between > _WANDERS * within and between > 0 else float(np.sqrt(_LEVEL_SHARE))


def thin(starts: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Not more than so many of the starts, evenly."""
    if len(starts) <= most:
        return starts
    return starts[np.linspace(0, len(starts) - 1, most).astype(np.intp)]


def cut_windows(values: FloatArray, starts: NDArray[np.intp], points: int, level: float) -> FloatArray:
    """The windows that begin at `starts`, their level reduced: shape (m, points)."""
    windows = sliding_window_view(values, points)[starts]
    return np.ascontiguousarray(windows - (1.0 - level) * windows.mean(axis=1, keepdims=True))


class WindowDetector(CalibratedDetector):
    """A detector that judges the window that ends at a point.

    Subclasses give `learn_windows` and `distances`. The windows of a history are judged in a few stretches, each by
    what is learnt from the windows that share no point with it. A point far off what is expected of it is an anomaly
    itself; in the windows of the points after it what was expected stands in its place, or one anomaly would make a
    whole window of points odd. With the points after it in view, a point is as odd as the windows over it are on
    average: as they are if it is far off itself, and without those that are far off if it is not.
    """

    __slots__ = ()

    Params: ClassVar[type[DetectorParams]] = WindowParams
    is_sided: ClassVar[bool] = False
    folds: ClassVar[int] = 4

    @staticmethod
    @abstractmethod
    def learn_windows(values: FloatArray, starts: NDArray[np.intp], shared: State, params: WindowParams) -> State:
        """What is to be known of the windows of `values` that begin at `starts`, one or more.

        shared: `window_points`, `level`, `coefficients`, `limit`, `farthest`; they are part of what is learnt.
        """

    @staticmethod
    @abstractmethod
    def distances(learnt: State, past: FloatArray, values: FloatArray) -> FloatArray:
        """How far each window is from normal ones: shape (n - window_points + 1,), at least 0.

        past, values: shape (n,); a window is the newest of `values` after the points before it of `past`.
        """

    # ---- the hooks of the calibrated -----------------------------------------------------------------------

    @override
    @classmethod
    def learn(cls, history: Series, params: DetectorParams) -> State:
        assert isinstance(params, WindowParams)
        return cls._learn(history, _share(history, params), params)

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return 2 * (int(learnt["window_points"]) - 1)

    @override
    @classmethod
    def assess(cls, learnt: State, stretch: Series) -> Assessment:
        before = int(learnt["window_points"]) - 1
        past, values = _calmed(stretch.values, learnt)[before:], stretch.values[before:]
        return Assessment.of_distances(values[before:], expect(past, learnt), cls.distances(learnt, past, values))

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        assert isinstance(params, WindowParams)
        return cls._assess_left_out(history, _share(history, params), params)

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        assert isinstance(params, WindowParams)
        shared = _share(history, params)
        return cls._learn(history, shared, params), cls._assess_left_out(history, shared, params)

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        assert isinstance(params, WindowParams)
        values, shared = series.values, _share(series, params)
        past, before = _calmed_history(values, shared), int(shared["window_points"]) - 1
        folds = cls._learn_by_folds(values, shared, params)
        own, calm = (_of_points(cls._distances_by_folds(folds, each, each, before), before) for each in (values, past))
        return _assessment(values, expect_in_view(past, shared), np.where(past == values, calm, own))

    # ---- how -----------------------------------------------------------------------------------------------

    @classmethod
    def _learn(cls, history: Series, shared: State, params: WindowParams) -> State:
        values = history.values
        starts = np.flatnonzero(_are_clean(values, shared))
        return {**shared, **cls.learn_windows(_calmed_history(values, shared), starts, shared, params)}

    @classmethod
    def _assess_left_out(cls, history: Series, shared: State, params: WindowParams) -> Assessment:
        values = history.values
        past, before = _calmed_history(values, shared), int(shared["window_points"]) - 1
        distances = cls._distances_by_folds(cls._learn_by_folds(values, shared, params), past, values, before)
        assessed = _assessment(values[before:], expect(past, shared), distances)
        nothing = Assessment.unknown(before)
        return Assessment(*(np.concatenate(pair) for pair in zip(nothing, assessed, strict=True)))

    @classmethod
    def _learn_by_folds(cls, values: FloatArray, shared: State, params: WindowParams) -> list["_Fold"]:
        points = int(shared["window_points"])
        are_clean, values = _are_clean(values, shared), _calmed_history(values, shared)
        m, folds = len(are_clean), []
        for start, end in pairwise(np.linspace(0, m, min(cls.folds, m) + 1).astype(int).tolist()):
            rest = np.r_[0 : max(start - points + 1, 0), min(end + points - 1, m) : m]
            rest = rest[are_clean[rest]]
            if len(rest):
                folds.append(_Fold(start, end, {**shared, **cls.learn_windows(values, rest, shared, params)}))
        return folds

    @classmethod
    def _distances_by_folds(cls, folds: list["_Fold"], past: FloatArray, values: FloatArray, before: int) -> FloatArray:
        """The distance of each window, by what was learnt from others; NaN where there are none."""
        distances = np.full(len(values) - before, np.nan)
        for start, end, learnt in folds:
            part = slice(start, end + before)
            distances[start:end] = cls.distances(learnt, past[part], values[part])
        return distances


class _Fold(NamedTuple):
    """Windows that begin at start .. end - 1, and what is learnt from others."""

    start: int
    end: int
    learnt: State


def _share(history: Series, params: WindowParams) -> State:
    """What all detectors of windows know of a history."""
    points = choose_window_points(history, params.window_points)
    level = choose_level(history.values, points)
    shared = {"window_points": np.array(float(points)), "level": np.array(level)}
    shared |= learn_expected(history.values, points, level)
    off = np.abs(history.values[points - 1 :] - expect(history.values, shared))
    return {**shared, "farthest": np.array(farthest_usual(off))}


def farthest_usual(off: FloatArray) -> float:
    """How far off what is expected of it a point may be to count as it is in the windows of the points after it.

    As far as one in ten thousand would be, were the tail exponential; if more than a few are, half as far again as
    those.
    """
    beginning, middle = np.quantile(off, (0.75, 0.875)).tolist()
    farthest = beginning + (middle - beginning) / np.log(2.0) * np.log(_GROSS_ODDS / 4.0)
    if np.count_nonzero(off > farthest) > _MOST_GROSS * len(off):
        return _FAR_FACTOR * float(np.quantile(off, 1.0 - _MOST_GROSS / 4.0))
    return float(max(farthest, _NEGLIGIBLE))


def learn_expected(values: FloatArray, points: int, level: float) -> State:
    """How the newest point of a window follows from the others: a ridge regression, refitted without the worst.

    Where levels say nothing, what is expected rises with the level of the window.
    """
    windows = sliding_window_view(values, points)
    windows = windows[thin(np.arange(len(windows)), _TO_LEARN_EXPECTED)]
    before, newest = windows[:, :-1], windows[:, -1]
    mean = before.mean(axis=1) if points > 1 else np.zeros(len(windows))
    off = before - mean[:, None]
    limit = _LIMIT_FACTOR * float(np.quantile(np.abs(off), 0.99)) if points > 1 else 0.0
    known = np.column_stack((np.clip(off, -limit, limit), mean * (level > 0), np.ones(len(windows))))
    penalty = np.diag([_RIDGE + _RIDGE_SHARE * len(windows)] * points + [_NEGLIGIBLE])
    target, keep = newest - mean, np.ones(len(windows), np.bool_)
    for _ in range(2):
        chosen = known[keep]
        coefficients = np.linalg.solve(chosen.T @ chosen + penalty, chosen.T @ target[keep])
        residuals = np.abs(target - known @ coefficients)
        keep = residuals <= np.quantile(residuals, 1.0 - _WORST_SHARE)
    return {"coefficients": coefficients, "limit": np.array(limit)}


def _are_clean(values: FloatArray, shared: State) -> NDArray[np.bool_]:
    """Which windows have no point in them that is far off what is expected of it; all, if most have: shape (m,)."""
    is_gross = find_gross(values - expect_in_view(values, shared), values, _MOST_UNCLEAN)
    covered = sliding_window_view(is_gross, int(shared["window_points"]))
    are_clean = np.array(~covered.any(axis=1))
    return are_clean if 2 * np.count_nonzero(are_clean) > len(are_clean) else np.ones(len(are_clean), np.bool_)


def expect(values: FloatArray, learnt: State) -> FloatArray:
    """What is expected of each point of a stretch by those before it, but for the first: they have too few."""
    from app.detectors import kernels_windows

    return kernels_windows.expect(values, learnt["coefficients"], float(learnt["limit"]))


def expect_in_view(values: FloatArray, learnt: State) -> FloatArray:
    """What is expected of each point by those before it and those after it: shape (n,)."""
    before = len(learnt["coefficients"]) - 2
    forward, backward = np.full(len(values), np.nan), np.full(len(values), np.nan)
    forward[before:] = expect(values, learnt)
    backward[: len(values) - before] = expect(np.ascontiguousarray(values[::-1]), learnt)[::-1]
    both = 0.5 * (forward + backward)
    return np.where(np.isnan(both), np.where(np.isnan(forward), backward, forward), both)


def _calmed(values: FloatArray, learnt: State) -> FloatArray:
    """The values with what was expected in the place of those far off it; the first have too few before them: as is."""
    before = len(learnt["coefficients"]) - 2
    expected = expect(values, learnt)
    is_gross = np.abs(values[before:] - expected) > float(learnt["farthest"])
    return np.concatenate((values[:before], np.where(is_gross, expected, values[before:])))


def _calmed_history(values: FloatArray, learnt: State) -> FloatArray:
    """The same; the first are held to what those after them say."""
    before = len(learnt["coefficients"]) - 2
    calmed = _calmed(values, learnt)
    calmed[:before] = _calmed(np.ascontiguousarray(calmed[::-1]), learnt)[::-1][:before]
    return calmed


def _of_points(distances: FloatArray, before: int) -> FloatArray:
    """The mean distance of the windows that cover each point: shape (n,) of shape (n - before,)."""
    padded = np.concatenate((np.full(before, np.nan), distances, np.full(before, np.nan)))
    covering = sliding_window_view(padded, before + 1)
    known = np.isfinite(covering)
    counts = known.sum(axis=1)
    totals = np.sum(covering, axis=1, where=known)
    means: FloatArray = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return means


def _assessment(values: FloatArray, expected: FloatArray, distances: FloatArray) -> Assessment:
    """As `Assessment.of_distances`; nothing is expected where there is no distance."""
    known = Assessment.of_distances(values, expected, distances)
    is_unknown = np.isnan(distances)
    return Assessment(np.where(is_unknown, np.nan, known.expected), np.where(is_unknown, 1.0, known.scale))
