"""Several detectors as one: what is unusual to each of them adds up."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from app.detectors import DETECTORS, find_detector
from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.surprise import surprise, surprise_curve
from app.series import FloatArray, Series

_MEMBERS = ("subsequence_knn", "autoregressive")
_MOST_MEMBERS = 10


class EnsembleParams(CalibratedParams):
    """Parameters of `ensemble`."""

    detectors: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        _MEMBERS, min_length=1, max_length=_MOST_MEMBERS, description="The detectors that it is made of, by name."
    )
    hold_points: int = Field(7, ge=0, le=1000, description="Points for which a surprise counts on when it has passed.")

    @field_validator("detectors")
    @classmethod
    def _are_members(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        possible = [name for name in DETECTORS if name not in _NO_MEMBERS]
        for name in names:
            if name not in possible:
                raise ValueError(f"{name!r} can be no member of an ensemble: {', '.join(possible)} can")
        return names


class Ensemble(CalibratedDetector):
    """An anomaly is unusual to one of several detectors, or a little unusual to many.

    Each member's deviation becomes the negative logarithm of how often the history's own, left out, are as large; the
    squares of these are added, and the largest of the last points counts.

    Source: R. A. Fisher, Statistical Methods for Research Workers, 1925 (adding the logarithms of p-values); C. C.
    Aggarwal, S. Sathe, Outlier Ensembles, 2017. Cost: that of its members. Context: the longest of its members', and
    the points that it holds. Finds: what any member finds. Misses: what all of them miss; and a surprise is flagged for
    as long as it is held.
    """

    __slots__ = ()

    name: ClassVar[str] = "ensemble"
    Params: ClassVar[type[DetectorParams]] = EnsembleParams
    is_sided: ClassVar[bool] = False

    @override
    @classmethod
    def study_later(cls, history: Series, params: DetectorParams) -> tuple[State, Mapping[int, Assessment]]:
        assert isinstance(params, EnsembleParams)
        hold = min(params.hold_points, len(history) // 4)
        learnt: dict[str, FloatArray] = {"names": _encode(params.detectors), "hold_points": np.array(float(hold))}
        assessed = []
        for place, name in enumerate(params.detectors):
            member = _member(name)
            state, of_member = member.study_later(history, member.Params.model_validate({"seed": params.seed}))
            learnt |= {f"{place}.{key}": array for key, array in state.items()}
            learnt[f"{place}.lookaheads"] = np.array(list(of_member), dtype=np.float64)
            assessed.append(of_member)
        lookaheads = sorted({0, hold} | {hold + points for of_member in assessed for points in of_member})
        learnt["lookaheads"] = np.array(lookaheads, dtype=np.float64)
        deviations = {
            points: [np.abs(_nearest(each, _look(points, hold)).deviations(history.values)) for each in assessed]
            for points in lookaheads
        }
        learnt["curves"] = np.stack(
            [np.stack([surprise_curve(row) for row in deviations[points]]) for points in lookaheads]
        )
        found = {}
        for place, points in enumerate(lookaheads):
            total = _total(deviations[points], learnt["curves"][place])
            held = _held(np.where(_known(deviations[points]), total, np.nan), hold, min(hold, points))
            expected = np.where(np.isnan(assessed[0][0].expected), np.nan, assessed[0][0].expected)
            of_points = Assessment.of_distances(history.values, np.nan_to_num(expected), np.nan_to_num(np.sqrt(held)))
            found[points] = Assessment(np.where(np.isnan(held), np.nan, of_points.expected), of_points.scale)
        return learnt, found

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
    @staticmethod
    def points_of_context(learnt: State) -> int:
        members = _members(learnt)
        return int(learnt["hold_points"]) + max(member.points_of_context(state) for member, state in members)

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        return Ensemble.assess_later(learnt, stretch, 0)

    @override
    @classmethod
    def assess_later(cls, learnt: State, stretch: Series, lookahead_points: int) -> Assessment:
        hold = int(learnt["hold_points"])
        look = _look(lookahead_points, hold)
        n = len(stretch) - cls.points_of_context(learnt) + hold - look
        deviations, expected = [], np.zeros(n)
        for place, (member, state) in enumerate(_members(learnt)):
            points = _largest(state["lookaheads"].astype(int).tolist(), look)
            end = len(stretch) - look
            seen = Series(stretch.timestamps_s[: end + points], stretch.values[: end + points])
            seen = seen.last(member.points_of_context(state) + n + points)
            found = member.assess_later(state, seen, points) if points else member.assess(state, seen)
            deviations.append(np.abs(found.deviations(stretch.values[end - n : end])))
            if place == 0:
                expected = found.expected
        total = _total(deviations, learnt["curves"][learnt["lookaheads"].tolist().index(lookahead_points)])
        after = min(hold, lookahead_points)
        held = _held(total, hold, after)[hold : n - after]
        start = len(stretch) - look - n + hold
        values = stretch.values[start : start + len(held)]
        return Assessment.of_distances(values, np.nan_to_num(expected[hold : n - after]), np.sqrt(held))


_NO_MEMBERS = ("ensemble", "auto", "mean_std")


def _member(name: str) -> type[CalibratedDetector]:
    detector = find_detector(name)
    assert issubclass(detector, CalibratedDetector)
    return detector


def _members(learnt: State) -> list[tuple[type[CalibratedDetector], State]]:
    """Each member with what it learnt."""
    names = bytes(learnt["names"].astype(np.uint8).tolist()).decode().split(",")
    return [
        (_member(name), {key[len(str(place)) + 1 :]: learnt[key] for key in learnt if key.startswith(f"{place}.")})
        for place, name in enumerate(names)
    ]


def _encode(names: Sequence[str]) -> FloatArray:
    return np.frombuffer(",".join(names).encode(), np.uint8).astype(np.float64)


def _look(lookahead: int, hold: int) -> int:
    """How many of the points after it serve the members: the first ones serve to hold."""
    return lookahead - min(hold, lookahead)


def _largest(lookaheads: Sequence[int], most: int) -> int:
    return max(points for points in lookaheads if points <= most)


def _nearest(assessed: Mapping[int, Assessment], look: int) -> Assessment:
    return assessed[_largest(list(assessed), look)]


def _known(deviations: Sequence[FloatArray]) -> NDArray[np.bool_]:
    known = np.zeros(len(deviations[0]), dtype=np.bool_)
    for row in deviations:
        known |= ~np.isnan(row)
    return known


def _total(deviations: Sequence[FloatArray], curves: FloatArray) -> FloatArray:
    """The sum of the squares of the surprises; one that knows nothing adds nothing."""
    total = np.zeros(len(deviations[0]))
    for row, curve in zip(deviations, curves, strict=True):
        unusual = surprise(row, curve)
        total += unusual * unusual
    return total


def _held(scores: FloatArray, before: int, after: int) -> FloatArray:
    """The largest of each score, those `before` and those `after` it; NaN only where all of them are."""
    held = scores.copy()
    for shift in range(1, before + 1):
        np.fmax(held[shift:], scores[:-shift], out=held[shift:])
    for shift in range(1, after + 1):
        np.fmax(held[:-shift], scores[shift:], out=held[:-shift])
    return held
