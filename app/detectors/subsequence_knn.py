"""Distances of windows to the windows that are most like them: the detector for all that has a shape."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.comparisons import FORECASTS, Comparison, Rows, compare
from app.detectors.in_view import LEVEL, SHAPE, Member, member_scores, standing_out
from app.detectors.joins import find_cycle_points
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.lookahead import LookaheadDetector
from app.detectors.memory import learn_memory, points_forgotten, remember, remember_history
from app.detectors.surprise import surprise, surprise_curve
from app.series import FloatArray, Series

_MOST_REFERENCES = 10_000
_PLAIN_WINDOWS = (8, 16, 32)
_CYCLE_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
_SHORTEST, _LONGEST = 8, 256
_SHARE = 8
_FEWEST_WINDOWS = 6
_FEWEST_IN_VIEW = 16
_LADDER = (8, 16, 32, 64, 128, 256, 512)
_NEIGHBOR_IN_VIEW = 5
_PLAIN_SPAN, _CYCLE_SPAN = 4, 8
_POINTS_A_HOLD, _SHORTEST_HOLD = 250, 2
_LONGEST_HOLD, _LONGEST_HOLD_OF_A_CYCLE = 7, 20
_HOLD_AT_ONCE = 4
"""Points for which a surprise counts on where those after a point are not in view."""


class SubsequenceKnnParams(CalibratedParams):
    """Parameters of `subsequence_knn`."""

    neighbors: int | None = Field(
        None, ge=1, le=20, description="Neighbours whose mean distance counts; by default 1 with a cycle, 3 without."
    )
    window_points: int | None = Field(
        None, ge=2, le=1024, description="Length of the windows; by default several, by the cycle of the series."
    )
    hold_points: int | None = Field(
        None, ge=0, le=1000, description="Points for which a surprise counts on; by default 2 to 20, at once at most 4."
    )


class SubsequenceKnn(LookaheadDetector):
    """An anomaly ends a window that is unlike all others, or is far off what was expected of it.

    Two metrics, on windows of several lengths: an eighth, a quarter, a half and the whole of a cycle, or 8, 16 and 32
    points where there is none. `level` subtracts the mean of each window and adds 0.3 of the squared difference of the
    means, so that amplitude counts, and level a little; it does not normalise windows as the matrix profile does, which
    makes noise look like shape. `shape` divides by the deviation of the window too, plus half of that of the series.
    Neighbours come from separate blocks of the history, and never overlap the window. Another member is how far the
    value is from what followed the nearest windows; without a cycle, one more is how far it is from what an
    autoregression expects. Each is set against what it is on the history's own points, each left out, and the
    surprises add up in squares. The largest of the last few points counts.

    What later windows remember of a point that was far off is what was expected of it, see `memory`: so a spike is not
    an anomaly again in each window over it. With the points after it in view, a point is as odd as the windows over it
    are on average; one that is far off itself, as they are with all points as they came.

    The reference is the history, or its last 10,000 points: what a series does now represents it best. With all points
    in view, windows of 8, 16, 32 ... 512 points are compared with all others, by the distance to the fifth neighbour.

    Source: the distance to the k-th neighbour, S. Ramaswamy, R. Rastogi, K. Shim, Efficient Algorithms for Mining
    Outliers from Large Data Sets, SIGMOD 2000; on subsequences, E. Keogh, J. Lin, A. Fu, HOT SAX, ICDM 2005; computed
    as C.-C. M. Yeh and others, Matrix Profile I, ICDM 2016.
    Cost: O(n^2) to fit up to 10,000 points, then constant; O(n) a point, about a millisecond. Context: the longest
    window and some 300 points. Finds: whatever the history has not shown, spikes, shapes, missing beats, changes of
    variance. Misses: what the history has shown already, slow drifts, a level that stays, once it has stayed for some
    hundred points, and values that are wrong only for their hour.
    """

    __slots__ = ()

    name: ClassVar[str] = "subsequence_knn"
    Params: ClassVar[type[DetectorParams]] = SubsequenceKnnParams
    is_sided: ClassVar[bool] = False
    widened_points: ClassVar[int] = 13

    @override
    @classmethod
    def study_later(cls, history: Series, params: DetectorParams) -> tuple[State, Mapping[int, Assessment]]:
        assert isinstance(params, SubsequenceKnnParams)
        values = history.last(_MOST_REFERENCES).values
        plan = Plan.of(values, params)
        lookaheads = plan.lookaheads()
        memory = learn_memory(values)
        remembered = remember_history(memory, values)
        rows = compare(plan.comparison, remembered, remembered.kept, look=plan.look(lookaheads[-1]), is_history=True)
        curves = [[surprise_curve(row) for row in plan.ahead(rows, points)] for points in lookaheads]
        learnt = {
            **memory,
            **plan.state,
            "reference": remembered.kept,
            "lookaheads": np.array(lookaheads, dtype=np.float64),
            "curves": np.array(curves),
        }
        assessed = {points: Assessment.unknown(len(history)) for points in lookaheads}
        for place, (points, whole) in enumerate(assessed.items()):
            found = _assess(plan, rows, learnt, place, history.values)
            end = len(history) - points
            whole.expected[end - len(found.expected) : end] = found.expected
            whole.scale[end - len(found.expected) : end] = found.scale
        return learnt, assessed

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        assert isinstance(params, SubsequenceKnnParams)
        from app.detectors.kernels_joins import on_grid

        lengths: tuple[int, ...] = _LADDER if params.window_points is None else (params.window_points,)
        lengths = tuple(length for length in lengths if length * _FEWEST_IN_VIEW <= len(series)) or lengths[:1]
        lengths = tuple(min(length, max(len(series) // _SHARE, 1)) for length in lengths)
        neighbor = params.neighbors or _NEIGHBOR_IN_VIEW
        members = tuple(Member(length, metric, neighbor) for length in lengths for metric in (LEVEL, SHAPE))
        scores, expected = member_scores(on_grid(series.values), members)
        total = np.square(standing_out(scores)).sum(axis=0)
        return Assessment.of_distances(series.values, expected, np.sqrt(total))

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        plan = Plan.load(learnt)
        return points_forgotten(learnt) + plan.comparison.first_scored + plan.hold_points

    @override
    @classmethod
    def assess_later(cls, learnt: State, stretch: Series, lookahead_points: int) -> Assessment:
        plan = Plan.load(learnt)
        spare = plan.hold_points - plan.hold_before(lookahead_points)
        remembered = remember(learnt, stretch.values[spare:])
        rows = compare(plan.comparison, remembered, learnt["reference"], look=plan.look(lookahead_points))
        rows.expected[:] += remembered.excess[len(remembered.excess) - rows.expected.shape[1] :]
        place = learnt["lookaheads"].tolist().index(lookahead_points)
        return _assess(plan, rows, learnt, place, stretch.values)

    @override
    @staticmethod
    def points_remembered(learnt: State) -> int:
        return len(learnt["reference"])

    @override
    @classmethod
    def assess_history(cls, learnt: State, history: Series) -> Assessment:
        plan, result = Plan.load(learnt), Assessment.unknown(len(history))
        earlier = len(history) - len(learnt["reference"])
        if earlier > cls.points_of_context(learnt):
            earlier_ones = cls.assess(learnt, history.first(earlier))
            context = cls.points_of_context(learnt)
            result.expected[context:earlier], result.scale[context:earlier] = earlier_ones
        remembered = remember_history(learnt, history.values[earlier:])
        rows = compare(plan.comparison, remembered, learnt["reference"], look=0, is_history=True)
        found = _assess(plan, rows, learnt, 0, history.values)
        known = len(history) - len(found.expected)
        result.expected[known:], result.scale[known:] = found
        return result


class Plan(NamedTuple):
    """Which windows are compared, and how their distances come together."""

    comparison: Comparison
    shape_weight: float
    forecast_weight: float
    regression_weight: float
    hold_points: int

    @classmethod
    def of(cls, values: FloatArray, params: SubsequenceKnnParams) -> "Plan":
        """What suits a history, shape (n,), and the parameters."""
        n = len(values)
        most = max(n // _FEWEST_WINDOWS, 1)
        cycle = find_cycle_points(values)
        lengths = [min(max(round(cycle * share), _SHORTEST), _LONGEST) for share in _CYCLE_SHARES]
        if not cycle:
            lengths = list(_PLAIN_WINDOWS)
        asked = lengths if params.window_points is None else [params.window_points]
        windows = tuple(sorted({min(length, most) for length in asked}))
        comparison = Comparison(
            windows=windows,
            forecast_window=windows[-1] if cycle else windows[0],
            neighbors=params.neighbors or (1 if cycle else FORECASTS),
            span_points=min(_CYCLE_SPAN if cycle else _PLAIN_SPAN, max(most // 2, 1)),
        )
        hold = params.hold_points
        if hold is None:
            longest = _LONGEST_HOLD_OF_A_CYCLE if cycle else _LONGEST_HOLD
            hold = min(max(n // _POINTS_A_HOLD, _SHORTEST_HOLD), longest)
        weights = (2.0, 1.0, 0.0) if cycle else (1.0, 2.0, 2.0)
        return cls(comparison, *weights, min(hold, n // _SHARE))

    @classmethod
    def load(cls, learnt: State) -> "Plan":
        """As a state has it."""
        windows = tuple(learnt["windows"].astype(int).tolist())
        comparison = Comparison(windows, *learnt["compared"].astype(int).tolist())
        shape_weight, forecast_weight, regression_weight = learnt["weights"].tolist()
        return cls(comparison, shape_weight, forecast_weight, regression_weight, int(learnt["hold_points"]))

    @property
    def state(self) -> State:
        """What `load` takes."""
        windows, *compared = self.comparison
        numbers = {"windows": windows, "compared": compared, "weights": self[1:4], "hold_points": self.hold_points}
        return {name: np.array(each, dtype=np.float64) for name, each in numbers.items()}

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the members: level and shape by length, the forecast by windows, and that by regression."""
        of_windows = (1.0, self.shape_weight) * len(self.comparison.windows)
        return (*of_windows, self.forecast_weight, self.regression_weight)

    def lookaheads(self) -> tuple[int, ...]:
        """Points to wait for that make a difference: 0, 1, 2, 4 ... until all windows over a point are complete."""
        settled = self.hold_points + self.comparison.windows[-1] - 1
        return tuple(sorted({0, settled} | {2**power for power in range(settled.bit_length()) if 2**power < settled}))

    def look(self, lookahead: int) -> int:
        """How many of the points after it serve the windows: the first ones serve to hold."""
        return lookahead - self.hold_after(lookahead)

    def hold_after(self, lookahead: int) -> int:
        """For how many points before it a surprise counts."""
        return min(self.hold_points, lookahead)

    def hold_before(self, lookahead: int) -> int:
        """For how many points after it a surprise counts on."""
        return max(self.hold_after(lookahead), min(self.hold_points, _HOLD_AT_ONCE))

    def ahead(self, rows: Rows, lookahead: int) -> list[FloatArray]:
        """What each member says of the points when this many after them are in view."""
        look = self.look(lookahead)
        return [rows.ahead(member, points, look) for member, points in enumerate(self.comparison.covered)]


def _assess(plan: Plan, rows: Rows, learnt: State, place: int, values: FloatArray) -> Assessment:
    """Of the points that have as many before and after them as are held; values: shape (n,), to the last.

    place: that of the lookahead among those of the plan.
    """
    lookahead = plan.lookaheads()[place]
    total = np.zeros(max(rows.own.shape[1] - plan.look(lookahead), 0))
    for scores, curve, weight in zip(plan.ahead(rows, lookahead), learnt["curves"][place], plan.weights, strict=True):
        unusual = surprise(scores, curve)
        total += weight * unusual * unusual
    before, reach = plan.hold_before(lookahead), plan.hold_before(lookahead) + plan.hold_after(lookahead)
    n = max(len(total) - reach, 0)
    held = total[:n].copy()
    for shift in range(1, reach + 1):
        np.maximum(held, total[shift : shift + n], out=held)
    expected = rows.expected[0 if plan.regression_weight == 0 else 1, before : before + n] * float(learnt["deviation"])
    end = len(values) - lookahead
    return Assessment.of_distances(values[end - n : end], expected, np.sqrt(held))
