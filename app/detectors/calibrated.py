"""What the detectors that are calibrated have in common: standard units, context, alarm budget, verdicts.

A member of the family says what it expects of a point, and how far from that a point usually is. All else is done
here, once: it works on values in standard units, and never sees an alarm budget.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from app.detectors import kinds
from app.detectors.base import KINDS, Detector, DetectorParams, State, Verdict, Verdicts
from app.detectors.calibration import Calibration
from app.detectors.gross import find_gross, stretches_of
from app.detectors.judging import Assessment, CalibratedParams, Judge, usual_interval_s
from app.detectors.stuck import are_stuck, stuck_points
from app.detectors.units import Unit
from app.series import FloatArray, Series

_FOLDS = 5
_LEARNT = "model."
_MOST_SET_ASIDE = 0.1
_MOST_WINDOWS_SET_ASIDE = 0.3
_SPIKE_POINTS = 9
_OWN_BYTES = 1200
_ARRAY_BYTES = 310
"""What a detector takes beside its arrays, and each of these beside its numbers."""


class CalibratedDetector(Detector):
    """A detector whose alarms keep to a budget.

    Subclasses give `learn`, `assess` and `points_of_context`, all of them on standard units and pure, and
    `assess_left_out` and `assess_in_view` where there is a better way than to learn without a part and to assess it.
    """

    __slots__ = ("_judge", "_learnt", "_past", "_state")

    Params: ClassVar[type[DetectorParams]] = CalibratedParams
    is_sided: ClassVar[bool] = True
    """Whether the deviation of a point is one of its value, and so has a side."""
    expects_time: ClassVar[bool] = False
    """Whether what is expected depends on the time."""
    widened_points: ClassVar[int] = 1
    """For how many points around it the deviation of a point counts where all are in view; for one without a side."""
    names_kinds: ClassVar[bool] = False
    """Whether it says itself of what kind an anomaly is, by `own_kinds`."""

    def __init__(self, state: State, params: DetectorParams) -> None:
        assert isinstance(params, CalibratedParams)
        self._state = state
        self._learnt = {name[len(_LEARNT) :]: array for name, array in state.items() if name.startswith(_LEARNT)}
        self._judge = self._judge_at(params, 0)
        self._past = self._judge.unit.series(Series(state["context_timestamps_s"], state["context_values"]))

    # ---- what a member of the family says ------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def learn(history: Series, params: DetectorParams) -> State:
        """What is to be known of a history of one point or more."""

    @staticmethod
    @abstractmethod
    def points_of_context(learnt: State) -> int:
        """How many points before it are needed to assess a point."""

    @staticmethod
    @abstractmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        """What is expected of the points of a stretch, but for the first `points_of_context`: they have too few before.

        Each is judged by itself and the points before it, to the same bit whatever else is in the stretch.
        """

    @staticmethod
    def own_kinds(learnt: State, stretch: Series) -> NDArray[np.int8]:
        """Of what kind each point that `assess` assesses would be, were it an anomaly: indices into KINDS, pure too.

        Asked of those that set `names_kinds` alone.
        """
        raise NotImplementedError

    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        """What is expected of each point of a history by what is learnt from the others, index-aligned.

        Here: five stretches in turn, each assessed by what is learnt from the other four.
        """
        n = len(history)
        result = Assessment.unknown(n)
        edges = np.linspace(0, n, min(_FOLDS, n) + 1).astype(int).tolist()
        for start, end in pairwise(edges):
            rest = np.r_[0:start, end:n]
            if not len(rest):
                continue
            learnt = cls.learn(Series(history.timestamps_s[rest], history.values[rest]), params)
            context = cls.points_of_context(learnt)
            first = max(start - context, 0)
            stretch = Series(history.timestamps_s[first:end], history.values[first:end])
            if len(stretch) > context:
                assessed = cls.assess(learnt, stretch)
                result.expected[first + context : end] = assessed.expected
                result.scale[first + context : end] = assessed.scale
        return result

    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        """What `learn` and `assess_left_out` give, for detectors that find both at once."""
        return cls.learn(history, params), cls.assess_left_out(history, params)

    @classmethod
    def study_later(cls, history: Series, params: DetectorParams) -> tuple[State, Mapping[int, Assessment]]:
        """As `study`, with an assessment for each number of points after a point that may help to judge it, from 0."""
        learnt, assessed = cls.study(history, params)
        return learnt, {0: assessed}

    @classmethod
    def assess_later(cls, learnt: State, stretch: Series, lookahead_points: int) -> Assessment:
        """As `assess`, without the last points: each with this many points after it in view, one of `study_later`."""
        raise NotImplementedError(f"{cls.__name__} judges points when they come, not {lookahead_points} points later")

    @staticmethod
    def points_remembered(learnt: State) -> int:  # noqa: ARG004
        """How many points, the last of the history, new ones are held against."""
        return 0

    @classmethod
    def assess_history(cls, learnt: State, history: Series) -> Assessment:
        """What is expected of the last points of the history, index-aligned, each as if it were not remembered."""
        result, context = Assessment.unknown(len(history)), cls.points_of_context(learnt)
        if len(history) > context:
            assessed = cls.assess(learnt, history)
            result.expected[context:], result.scale[context:] = assessed
        return result

    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        """As `assess_left_out`, where the points after a point may also tell what was to be expected of it."""
        return cls.assess_left_out(series, params)

    # ---- the contract --------------------------------------------------------------------------------------

    @override
    @classmethod
    def fit(cls, history: Series, params: DetectorParams) -> Self:
        unit = Unit.of(history.values)
        standard = unit.series(history)
        set_aside = cls._find_gross_values(standard)
        standard = _bridged(standard, set_aside)
        learnt, assessed = cls.study_later(standard, params)
        gross = cls._find_gross(standard, assessed[0])
        if gross.any():
            set_aside |= gross
            standard = cls._mended(standard, assessed[0], gross)
            learnt, assessed = cls.study_later(standard, params)
        calibrations = [cls._calibration(standard, each, set_aside) for each in assessed.values()]
        longest_run = kinds.longest_run(history.values)
        kept = cls._points_kept(learnt, longest_run)
        state = {f"{_LEARNT}{name}": array for name, array in learnt.items()} | {
            "center": np.array(unit.center),
            "spread": np.array(unit.spread),
            "interval_s": np.array(usual_interval_s(history.timestamps_s)),
            "longest_run": np.array(float(longest_run)),
            "lookaheads": np.array(list(assessed), dtype=np.float64),
            "below": np.stack([calibration.below for calibration in calibrations]),
            "above": np.stack([calibration.above for calibration in calibrations]),
            "context_timestamps_s": history.timestamps_s[-kept:],
            "context_values": history.values[-kept:],
            "set_aside": stretches_of(set_aside, history.timestamps_s),
        }
        return cls(state, params)

    @override
    @classmethod
    def load(cls, state: State, params: DetectorParams) -> Self:
        # Copies, because what a file is read into takes more room than the numbers.
        return cls({name: np.array(array) for name, array in state.items()}, params)

    @override
    @classmethod
    def detect(cls, series: Series, params: DetectorParams) -> Verdicts:
        assert isinstance(params, CalibratedParams)
        unit = Unit.of(series.values)
        standard = unit.series(series)
        assessed = of_normal = cls.assess_in_view(standard, params)
        set_aside = cls._find_gross_values(standard)
        normal = _bridged(standard, set_aside)
        if set_aside.any():  # the points around a spike are judged without it, or it would make all of them odd
            of_normal = cls.assess_in_view(normal, params)
            assessed = Assessment(*(np.where(set_aside, *pair) for pair in zip(assessed, of_normal, strict=True)))
        gross = cls._find_gross(normal, of_normal)
        if gross.any():
            set_aside |= gross
            normal = cls._mended(normal, of_normal, gross)
            of_normal = cls.assess_in_view(normal, params)
        if cls.widened_points > 1:
            assessed, of_normal = (
                each.widened(whole.values, cls.widened_points)
                for each, whole in ((assessed, standard), (of_normal, normal))
            )
        calibration = cls._calibration(normal, of_normal, set_aside)
        rate = params.rate(usual_interval_s(series.timestamps_s))
        judge = cls._make_judge(params, unit, calibration, rate, kinds.longest_run(series.values))
        verdicts = judge.verdicts(series.values, standard.values, assessed)
        judge.name_kinds(verdicts, standard.values, assessed)
        if cls.names_kinds and verdicts.is_anomaly.any():
            cls._name_own_kinds(verdicts, cls.learn(normal, params), standard)
        return verdicts

    @property
    @override
    def params(self) -> CalibratedParams:
        return self._judge.params

    @property
    @override
    def state(self) -> State:
        return self._state

    @property
    @override
    def size_bytes(self) -> int:
        return super().size_bytes + _OWN_BYTES + _ARRAY_BYTES * len(self._state)

    @property
    @override
    def context_points(self) -> int:
        return self._points_kept(self._learnt, int(self._state["longest_run"]))

    @property
    @override
    def interval_s(self) -> float:
        return float(self._state["interval_s"])

    @property
    @override
    def false_alarm_rate(self) -> float:
        return self.params.rate(self.interval_s)

    @override
    def thresholds(self, false_alarm_rate: float | None = None) -> tuple[float, float]:
        judge = self._judge if false_alarm_rate is None else self._judge.at(false_alarm_rate)
        return judge.limits

    @property
    def set_aside(self) -> FloatArray:
        """The stretches of the history that it was not fitted to: shape (k, 2), first and last Unix second of each."""
        return self._state["set_aside"]

    @override
    def score(
        self,
        points: Series,
        context: Series | None = None,
        false_alarm_rate: float | None = None,
        lookahead_points: int = 0,
    ) -> Verdicts:
        order = None
        if np.any(np.diff(points.timestamps_s) < 0):
            order = np.argsort(points.timestamps_s, kind="stable")
            points = Series(points.timestamps_s[order], points.values[order])
        past = self._past_of(context)
        standard = self._judge.unit.standard(points.values)
        stretch = Series(
            np.concatenate((past.timestamps_s, points.timestamps_s)), np.concatenate((past.values, standard))
        )
        parts, end = [], 0
        for lookahead in self._lookaheads_to(lookahead_points):
            start, end = end, max(len(points) - lookahead, end)
            if end > start:
                seen = stretch.first(len(past) + end + lookahead)
                parts.append(self._judge_last(seen, points.values[start:end], lookahead, false_alarm_rate))
        verdicts = Verdicts.joined(parts)
        return verdicts if order is None else verdicts.take(np.argsort(order))

    @property
    @override
    def remembered_points(self) -> int:
        return self.points_remembered(self._learnt)

    @override
    def score_history(self, history: Series, false_alarm_rate: float | None = None) -> Verdicts:
        judge = self._judge if false_alarm_rate is None else self._judge.at(false_alarm_rate)
        standard = judge.unit.series(history)
        assessed = self.assess_history(self._learnt, standard)
        verdicts = judge.verdicts(history.values, standard.values, assessed)
        judge.name_kinds(verdicts, standard.values, assessed)
        if self.names_kinds and verdicts.is_anomaly.any():
            self._name_own_kinds(verdicts, self._learnt, standard)
        return verdicts

    @override
    def score_one(
        self, timestamp_s: float, value: float, context: Series | None = None, false_alarm_rate: float | None = None
    ) -> Verdict:
        judge = self._judge if false_alarm_rate is None else self._judge.at(false_alarm_rate)
        past = self._past_of(context)
        first = len(past) - self.points_of_context(self._learnt)
        if first >= 0 and self.is_sided:
            standard = judge.unit.standard_one(value)
            stretch = Series(
                np.append(past.timestamps_s[first:], timestamp_s), np.append(past.values[first:], standard)
            )
            assessed = self.assess(self._learnt, stretch)
            expected = assessed.expected.item()
            if not math.isnan(expected):
                verdict = judge.verdict(value, standard, expected, assessed.scale.item())
                if not verdict.is_anomaly:
                    return verdict
        return self.score(Series(np.array([timestamp_s]), np.array([value])), context, false_alarm_rate).first()

    # ---- how -----------------------------------------------------------------------------------------------

    @classmethod
    def _mended(cls, standard: Series, assessed: Assessment, set_aside: NDArray[np.bool_]) -> Series:
        """The series with what was expected in place of what is set aside, or with a line where that is no help."""
        if not cls.is_sided:
            return _bridged(standard, set_aside)
        return Series(standard.timestamps_s, np.where(set_aside, assessed.expected, standard.values))

    @classmethod
    def _find_gross_values(cls, standard: Series) -> NDArray[np.bool_]:
        """Spikes that are beyond doubt, for a detector of windows: all windows over one would look like anomalies."""
        from scipy.ndimage import median_filter

        if cls.is_sided:
            return np.zeros(len(standard), dtype=np.bool_)
        off = standard.values - median_filter(standard.values, _SPIKE_POINTS)
        return find_gross(off, standard.values, _MOST_SET_ASIDE)

    @classmethod
    def _find_gross(cls, standard: Series, assessed: Assessment) -> NDArray[np.bool_]:
        most = _MOST_SET_ASIDE if cls.is_sided else _MOST_WINDOWS_SET_ASIDE
        return find_gross(assessed.deviations(standard.values), standard.values, most)

    @classmethod
    def _calibration(cls, standard: Series, assessed: Assessment, set_aside: NDArray[np.bool_]) -> Calibration:
        """By the deviations of the points that are not set aside."""
        deviations = assessed.deviations(standard.values)
        normal = deviations[np.isfinite(deviations) & ~set_aside]
        return Calibration.of(normal if len(normal) else np.zeros(1), is_sided=cls.is_sided)

    @classmethod
    def _make_judge(
        cls, params: CalibratedParams, unit: Unit, calibration: Calibration, rate: float, longest_run: int
    ) -> Judge:
        thresholds = calibration.thresholds(rate, params.direction)
        return Judge(params, unit, calibration, thresholds, longest_run, cls.is_sided, cls.expects_time)

    @classmethod
    def _name_own_kinds(cls, verdicts: Verdicts, learnt: State, stretch: Series) -> None:
        """Say of anomalies, the last points of a stretch, of what kind they are, where enough is before them."""
        needed, n = cls.points_of_context(learnt), len(verdicts.score)
        if len(stretch) <= needed:
            return
        own = cls.own_kinds(learnt, stretch.last(needed + n))
        named = verdicts.is_anomaly[n - len(own) :]
        verdicts.kind[n - len(own) :][named] = own[named]

    @classmethod
    def _points_kept(cls, learnt: State, longest_run: int) -> int:
        """How many points before it a verdict depends on."""
        needed = cls.points_of_context(learnt) + kinds.PAST_POINTS
        return needed if cls.is_sided else max(needed, stuck_points(longest_run) or 0)

    def _past_of(self, context: Series | None) -> Series:
        """The points before those to judge, in standard units."""
        return self._past if context is None else self._judge.unit.series(context.last(self.context_points))

    def _lookaheads_to(self, most: int) -> list[int]:
        """The numbers of points to look ahead that it is calibrated for, up to the asked one, falling to 0."""
        return [number for number in self._state["lookaheads"].astype(int).tolist() if number <= most][::-1]

    def _judge_at(self, params: CalibratedParams, place: int) -> Judge:
        """The judge for the number of points to look ahead at this place."""
        state = self._state
        unit = Unit(float(state["center"]), float(state["spread"]))
        calibration = Calibration(state["below"][place], state["above"][place], is_sided=self.is_sided)
        rate = params.rate(float(state["interval_s"]))
        return self._make_judge(params, unit, calibration, rate, int(state["longest_run"]))

    def _judge_last(
        self, stretch: Series, values: FloatArray, lookahead: int, false_alarm_rate: float | None
    ) -> Verdicts:
        """Verdicts on the last points of a stretch in standard units but `lookahead`, which came as `values`."""
        judge = self._judge
        if lookahead:
            judge = self._judge_at(judge.params, self._state["lookaheads"].tolist().index(lookahead))
        if false_alarm_rate is not None:
            judge = judge.at(false_alarm_rate)
        n, end = len(values), len(stretch) - lookahead
        assessed = self._assess_last(stretch, n, lookahead)
        is_stuck = self._are_stuck(stretch.values[:end], n)
        if is_stuck.any():
            assessed = assessed.as_far(stretch.values[end - n : end], is_stuck, judge.calibration.above[-1])
        verdicts = judge.verdicts(values, stretch.values[end - n : end], assessed)
        if verdicts.is_anomaly.any():
            n = min(n + kinds.PAST_POINTS, end)
            judge.name_kinds(verdicts, stretch.values[end - n : end], self._assess_last(stretch, n, lookahead))
            if self.names_kinds:
                self._name_own_kinds(verdicts, self._learnt, stretch.first(end))
            verdicts.kind[verdicts.is_anomaly & is_stuck] = KINDS.index("flatline")
        return verdicts

    def _are_stuck(self, values: FloatArray, n: int) -> NDArray[np.bool_]:
        """Which of the last n values do not change any more, for detectors that look at more than the value."""
        points = None if self.is_sided else stuck_points(int(self._state["longest_run"]))
        return np.zeros(n, dtype=np.bool_) if points is None else are_stuck(values, points, n)

    def _assess_last(self, stretch: Series, n: int, lookahead: int) -> Assessment:
        """What is expected of the last n points of a stretch but `lookahead`; unknown where too few are before them."""
        needed = self.points_of_context(self._learnt)
        unknown = max(needed + n + lookahead - len(stretch), 0)
        if unknown >= n:
            return Assessment.unknown(n)
        seen = stretch.last(needed + n + lookahead)
        assessed = self.assess_later(self._learnt, seen, lookahead) if lookahead else self.assess(self._learnt, seen)
        if not unknown:
            return assessed
        nothing = Assessment.unknown(unknown)
        return Assessment(*(np.concatenate(pair) for pair in zip(nothing, assessed, strict=True)))


def _bridged(standard: Series, set_aside: NDArray[np.bool_]) -> Series:
    """The series with a line in place of what is set aside."""
    if not set_aside.any():
        return standard
    good = np.flatnonzero(~set_aside)
    values = standard.values.copy()
    values[set_aside] = np.interp(np.flatnonzero(set_aside), good, values[good])
    return Series(standard.timestamps_s, values)
