"""What the detectors have in common that can wait: with points after a point in view, they know more of it."""

from abc import abstractmethod
from collections.abc import Mapping

from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment
from app.series import Series


class LookaheadDetector(CalibratedDetector):
    """A detector whose verdict on a point may wait for points after it.

    Subclasses give `study_later`, `assess_later` and `points_of_context`; all else that is asked of the calibrated is
    what these say with no point to wait for.
    """

    __slots__ = ()

    @override
    @classmethod
    @abstractmethod
    def study_later(cls, history: Series, params: DetectorParams) -> tuple[State, Mapping[int, Assessment]]:
        """What is learnt, and an assessment for each number of points to wait for that makes a difference, from 0."""

    @override
    @classmethod
    @abstractmethod
    def assess_later(cls, learnt: State, stretch: Series, lookahead_points: int) -> Assessment:
        """Of the points but the first `points_of_context` and the last `lookahead_points`, one of `study_later`."""

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        learnt, assessed = cls.study_later(history, params)
        return learnt, assessed[0]

    @override
    @classmethod
    def learn(cls, history: Series, params: DetectorParams) -> State:
        return cls.study_later(history, params)[0]

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def assess(cls, learnt: State, stretch: Series) -> Assessment:
        return cls.assess_later(learnt, stretch, 0)
