"""Distances of windows to the windows that are most like them: the detector for all that has a shape."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.in_view import LEVEL, SHAPE, Member, member_scores, standing_out, widened
from app.detectors.joins import Joined, find_cycle_points, followed, join_with, join_within, mean_distance
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.surprise import surprise, surprise_curve
from app.series import FloatArray, Series

_MOST_REFERENCES = 10_000
_PLAIN_WINDOWS = (8, 16, 32)
_CYCLE_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
_SHORTEST, _LONGEST = 8, 256
_FEWEST_WINDOWS = 6
_FEWEST_IN_VIEW = 16
_FORECASTS = 3
_LADDER = (8, 16, 32, 64, 128, 256, 512)
_NEIGHBOR_IN_VIEW = 5
_PLAIN_SPAN, _CYCLE_SPAN = 4, 8


class SubsequenceKnnParams(CalibratedParams):
    """Parameters of `subsequence_knn`."""

    neighbors: int | None = Field(
        None, ge=1, le=20, description="Neighbours whose mean distance counts; by default 1 with a cycle, 3 without."
    )
    window_points: int | None = Field(
        None, ge=2, le=1024, description="Length of the windows; by default several, by the cycle of the series."
    )
    hold_points: int = Field(0, ge=0, le=1000, description="Points for which a distance counts on when it has passed.")


class SubsequenceKnn(CalibratedDetector):
    """An anomaly ends a window that is unlike all others: far from its nearest neighbours.

    Two metrics, on windows of several lengths: an eighth, a quarter, a half and the whole of a cycle, or 8, 16 and 32
    points where there is none. `level` subtracts the mean of each window and adds 0.3 of the squared difference of the
    means, so that amplitude counts, and level a little; it does not normalise windows as the matrix profile does, which
    makes noise look like shape. `shape` divides by the deviation of the window too, plus half of that of the series.
    Neighbours come from separate blocks of the history, and never overlap the window. A third member is how far the
    value is from what followed the nearest windows, which is also the expected value. Each distance is set against
    those of the history's own windows, and the surprises add up in squares.

    The reference is the history, or its last 10,000 points: what a series does now represents it best. With all points
    in view, windows of 8, 16, 32 ... 512 points are compared with all others, by the distance to the fifth neighbour.

    Source: the distance to the k-th neighbour, S. Ramaswamy, R. Rastogi, K. Shim, Efficient Algorithms for Mining
    Outliers from Large Data Sets, SIGMOD 2000; on subsequences, E. Keogh, J. Lin, A. Fu, HOT SAX, ICDM 2005; computed
    as C.-C. M. Yeh and others, Matrix Profile I, ICDM 2016.
    Cost: O(n^2) to fit up to 10,000 points, then constant; O(n) a point, one to two milliseconds. Context: the longest
    window. Finds: whatever the history has not shown, spikes, shapes, missing beats, changes of variance.
    Misses: what the history has shown already, slow drifts, and values that are wrong only for their hour. After a
    spike it flags the points whose windows still cover it.
    """

    __slots__ = ()

    name: ClassVar[str] = "subsequence_knn"
    Params: ClassVar[type[DetectorParams]] = SubsequenceKnnParams
    is_sided: ClassVar[bool] = False

    @override
    @classmethod
    def study_later(cls, history: Series, params: DetectorParams) -> tuple[State, Mapping[int, Assessment]]:
        assert isinstance(params, SubsequenceKnnParams)
        from app.detectors.kernels_joins import on_grid

        recent = history.last(_MOST_REFERENCES)
        plan = Plan.of(recent, params)
        reference = on_grid(recent.values)
        scores = _scores_within(plan, reference)
        lookaheads = plan.lookaheads()
        curves = {
            points: np.stack([surprise_curve(_ahead(plan, scores, points, i)) for i in range(len(plan.members()))])
            for points in lookaheads
        }
        learnt = {
            "reference": reference,
            "plan": np.array(plan[1:], dtype=np.float64),
            "windows": np.array(plan.windows, dtype=np.float64),
            "lookaheads": np.array(lookaheads, dtype=np.float64),
            "curves": np.stack(list(curves.values())),
        }
        assessed = {}
        for points in lookaheads:
            found = _assess(plan, scores, curves[points], recent.values, points)
            unknown = Assessment.unknown(len(history))
            stop = len(history) - points
            for whole, part in zip(unknown, found, strict=True):
                whole[stop - len(part) : stop] = part
            assessed[points] = unknown
        return learnt, assessed

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        learnt, assessed = cls.study_later(history, params)
        return learnt, assessed[0]

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        return SubsequenceKnn.study_later(history, params)[0]

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        assert isinstance(params, SubsequenceKnnParams)
        from app.detectors.kernels_joins import on_grid

        lengths: tuple[int, ...] = _LADDER if params.window_points is None else (params.window_points,)
        lengths = tuple(length for length in lengths if length * _FEWEST_IN_VIEW <= len(series)) or lengths[:1]
        lengths = tuple(min(length, max(len(series) // _FEWEST_WINDOWS, 1)) for length in lengths)
        neighbor = params.neighbors or _NEIGHBOR_IN_VIEW
        members = tuple(Member(length, metric, neighbor) for length in lengths for metric in (LEVEL, SHAPE))
        scores, expected = member_scores(on_grid(series.values), members)
        total = np.square(standing_out(scores)).sum(axis=0)
        distances = widened(np.sqrt(total), 2 * lengths[0] - 1)
        return Assessment.of_distances(series.values, expected, distances)

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return Plan.load(learnt).context_points

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        return SubsequenceKnn.assess_later(learnt, stretch, 0)

    @override
    @classmethod
    def assess_later(cls, learnt: State, stretch: Series, lookahead_points: int) -> Assessment:
        from app.detectors.kernels_joins import on_grid

        plan = Plan.load(learnt)
        scores = _scores_against(plan, on_grid(stretch.values), learnt["reference"])
        curves = learnt["curves"][learnt["lookaheads"].tolist().index(lookahead_points)]
        return _assess(plan, scores, curves, stretch.values, lookahead_points)


class Plan(NamedTuple):
    """Which windows are compared, and how their distances come together."""

    windows: tuple[int, ...]
    """Lengths, rising."""
    forecast_window: int
    shape_weight: float
    forecast_weight: float
    neighbors: int
    hold_points: int
    span_points: int
    """Forecasts that are off count by a weight that falls by 1 / span a point, for twice as many points."""

    @classmethod
    def of(cls, history: Series, params: SubsequenceKnnParams) -> "Plan":
        """What suits a history and the parameters."""
        n = len(history)
        most = max(n // _FEWEST_WINDOWS, 1)
        cycle = find_cycle_points(history.values)
        lengths = [min(max(round(cycle * share), _SHORTEST), _LONGEST) for share in _CYCLE_SHARES]
        if not cycle:
            lengths = list(_PLAIN_WINDOWS)
        asked = lengths if params.window_points is None else [params.window_points]
        windows = tuple(sorted({min(length, most) for length in asked}))
        return cls(
            windows=windows,
            forecast_window=windows[-1] if cycle else windows[0],
            shape_weight=2.0 if cycle else 1.0,
            forecast_weight=1.0 if cycle else 2.0,
            neighbors=params.neighbors or (1 if cycle else _FORECASTS),
            hold_points=min(params.hold_points, n // _FEWEST_WINDOWS),
            span_points=min(_CYCLE_SPAN if cycle else _PLAIN_SPAN, most),
        )

    @classmethod
    def load(cls, learnt: State) -> "Plan":
        """As a state has it."""
        forecast_window, shape_weight, forecast_weight, neighbors, hold, span = learnt["plan"].tolist()
        windows = tuple(int(length) for length in learnt["windows"].tolist())
        return cls(windows, int(forecast_window), shape_weight, forecast_weight, int(neighbors), int(hold), int(span))

    @property
    def smoothed_points(self) -> int:
        """Forecasts that count for a point, its own included."""
        return 2 * self.span_points

    @property
    def first_scored(self) -> int:
        """Index of the first point for which every member has a score."""
        return max(self.windows[-1] - 1, self.forecast_window + self.smoothed_points - 1)

    @property
    def context_points(self) -> int:
        """Points before it that the assessment of a point depends on."""
        return self.first_scored + self.hold_points

    @property
    def most_neighbors(self) -> int:
        """Neighbours that are looked for."""
        return max(self.neighbors, _FORECASTS)

    def look(self, lookahead: int) -> int:
        """How many of the points after it serve the windows: the first ones serve to hold."""
        return lookahead - min(self.hold_points, lookahead)

    def lookaheads(self) -> tuple[int, ...]:
        """Points to wait for that make a difference: 0, 1, 2, 4 ... until all windows over a point are complete."""
        settled = self.hold_points + self.windows[-1] - 1
        return tuple(sorted({0, settled} | {2**power for power in range(settled.bit_length()) if 2**power < settled}))

    def members(self) -> tuple[tuple[int, float], ...]:
        """For each member, how many points it covers and its weight: level and shape by length, then the forecast."""
        of_windows = [(length, weight) for length in self.windows for weight in (1.0, self.shape_weight)]
        return (*of_windows, (self.smoothed_points, self.forecast_weight))


def _scores_within(plan: Plan, reference: FloatArray) -> FloatArray:
    """As `_scores_against`, of the reference itself, each window against those that do not overlap it."""
    joined = {length: join_within(reference, length, plan.most_neighbors) for length in plan.windows}
    return _scores(plan, joined, reference, reference)


def _scores_against(plan: Plan, values: FloatArray, reference: FloatArray) -> FloatArray:
    """What each member says of each point from `first_scored` on, and what is expected there: shape (members + 1, n).

    Values and reference are on the grid; NaN stands for nothing.
    """
    joined = {}
    for length in plan.windows:
        before = length - 1 + (plan.smoothed_points if length == plan.forecast_window else 0)
        joined[length] = join_with(values[plan.first_scored - before :], reference, length, plan.most_neighbors)
    return _scores(plan, joined, values, reference)


def _scores(plan: Plan, joined: Mapping[int, Joined], values: FloatArray, reference: FloatArray) -> FloatArray:
    from app.detectors.kernels_joins import GRID

    n = max(len(values) - plan.first_scored, 0)
    rows = [
        mean_distance(squares[len(squares) - n :, : plan.neighbors])
        for length in plan.windows
        for squares in joined[length].squares
    ]
    length = plan.forecast_window
    windows = joined[length].places.shape[1]
    nearest = Joined(joined[length].squares[:, :, :_FORECASTS], joined[length].places[:, :, :_FORECASTS])
    # The last window forecasts a value that has not come.
    forecasts = followed(nearest, values[len(values) - windows - length + 1 :], reference, length)[:-1]
    forecasts = forecasts[len(forecasts) - (n + plan.smoothed_points - 1) :]
    off = np.nan_to_num(np.abs(values[len(values) - len(forecasts) :] / GRID - forecasts))
    return np.stack([*rows, _smoothed(off, plan), np.nan_to_num(forecasts[len(forecasts) - n :])])


def _smoothed(off: FloatArray, plan: Plan) -> FloatArray:
    """The weighted mean of each and of those before it, of which there are fewer by `smoothed_points` - 1."""
    n = len(off) - plan.smoothed_points + 1
    weights = (1.0 - 1.0 / plan.span_points) ** np.arange(plan.smoothed_points)
    total = np.zeros(n)
    for back, weight in enumerate((weights / weights.sum()).tolist()):
        start = plan.smoothed_points - 1 - back
        total += weight * off[start : start + n]
    return total


def _ahead(plan: Plan, scores: FloatArray, lookahead: int, member: int) -> FloatArray:
    """The mean of a member's scores over the windows that cover a point and are complete after `lookahead` points."""
    look = plan.look(lookahead)
    covered = min(look + 1, plan.members()[member][0])
    n = max(scores.shape[1] - look, 0)
    total = np.zeros(n)
    for after in range(covered):
        total += scores[member, after : after + n]
    mean: FloatArray = total / covered
    return mean


def _assess(plan: Plan, scores: FloatArray, curves: FloatArray, values: FloatArray, lookahead: int) -> Assessment:
    """Of the points that have `context_points` before them and `lookahead` after; values: shape (n,), to the last."""
    n = scores.shape[1] - plan.hold_points - lookahead
    if n <= 0:
        return Assessment.unknown(0)
    total = np.zeros(scores.shape[1] - plan.look(lookahead))
    for member, (_, weight) in enumerate(plan.members()):
        unusual = surprise(_ahead(plan, scores, lookahead, member), curves[member])
        total += weight * unusual * unusual
    held = total[:n].copy()
    for shift in range(1, len(total) - n + 1):
        np.maximum(held, total[shift : shift + n], out=held)
    first = plan.context_points
    expected = scores[-1, plan.hold_points : plan.hold_points + n]
    return Assessment.of_distances(values[first : first + n], expected, np.sqrt(held))
