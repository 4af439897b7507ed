"""Several detectors as one: what is unusual to each of them adds up."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, field_validator
from typing_extensions import override

from app.detectors import DETECTORS, find_detector
from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.lookahead import LookaheadDetector
from app.detectors.surprise import surprise, surprise_curve
from app.series import FloatArray, Series

_MEMBERS = ("subsequence_knn", "autoregressive")
_MOST_MEMBERS = 10


class EnsembleParams(CalibratedParams):
    """Parameters of `ensemble`."""

    detectors: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        _MEMBERS, min_length=1, max_length=_MOST_MEMBERS, description="The detectors that it is made of, by name."
    )

    @field_validator("detectors")
    @classmethod
    def _are_members(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        possible = [name for name in DETECTORS if name not in _NO_MEMBERS]
        for name in names:
            if name not in possible:
                raise ValueError(f"{name!r} can be no member of an ensemble: {', '.join(possible)} can")
        return names


class Ensemble(LookaheadDetector):
    """An anomaly is unusual to one of several detectors, or a little unusual to many.

    Each member's deviation becomes the negative logarithm of how often the history's own, left out, are as large; the
    squares of these are added.

    Source: R. A. Fisher, Statistical Methods for Research Workers, 1925 (adding the logarithms of p-values); C. C.
    Aggarwal, S. Sathe, Outlier Ensembles, 2017. Cost: that of its members. Context: the longest of its members'.
    Finds: what any member finds. Misses: what all of them miss.
    """

    __slots__ = ()

    name: ClassVar[str] = "ensemble"
    Params: ClassVar[type[DetectorParams]] = EnsembleParams
    is_sided: ClassVar[bool] = False

    @override
    @classmethod
    def study_later(cls, history: Series, params: DetectorParams) -> tuple[State, Mapping[int, Assessment]]:
        assert isinstance(params, EnsembleParams)
        learnt: dict[str, FloatArray] = {"names": _encode(params.detectors)}
        assessed = []
        for place, name in enumerate(params.detectors):
            member = _member(name)
            state, of_member = member.study_later(history, member.Params.model_validate({"seed": params.seed}))
            learnt |= {f"{place}.{key}": array for key, array in state.items()}
            learnt[f"{place}.lookaheads"] = np.array(list(of_member), dtype=np.float64)
            assessed.append(of_member)
        lookaheads = sorted({points for of_member in assessed for points in of_member})
        found, curves = {}, []
        for lookahead in lookaheads:
            of_members = [each[_largest(list(each), lookahead)] for each in assessed]
            deviations = np.abs([each.deviations(history.values) for each in of_members])
            curves.append([surprise_curve(row) for row in deviations])
            found[lookahead] = _combined(history.values, of_members[0], deviations, curves[-1])
        return {**learnt, "lookaheads": np.array(lookaheads, dtype=np.float64), "curves": np.array(curves)}, found

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return max(member.points_of_context(state) for member, state in _members(learnt))

    @override
    @staticmethod
    def points_remembered(learnt: State) -> int:
        return max(member.points_remembered(state) for member, state in _members(learnt))

    @override
    @classmethod
    def assess_history(cls, learnt: State, history: Series) -> Assessment:
        of_members = [member.assess_history(state, history) for member, state in _members(learnt)]
        deviations = np.abs([each.deviations(history.values) for each in of_members])
        return _combined(history.values, of_members[0], deviations, learnt["curves"][0])

    @override
    @classmethod
    def assess_later(cls, learnt: State, stretch: Series, lookahead_points: int) -> Assessment:
        n = len(stretch) - cls.points_of_context(learnt) - lookahead_points
        values = stretch.values[len(stretch) - lookahead_points - n : len(stretch) - lookahead_points]
        of_members = []
        for member, state in _members(learnt):
            points = _largest(state["lookaheads"].astype(int).tolist(), lookahead_points)
            seen = stretch.first(len(stretch) - lookahead_points + points)
            seen = seen.last(member.points_of_context(state) + n + points)
            of_members.append(member.assess_later(state, seen, points) if points else member.assess(state, seen))
        deviations = np.abs([each.deviations(values) for each in of_members])
        curves = learnt["curves"][learnt["lookaheads"].tolist().index(lookahead_points)]
        return _combined(values, of_members[0], deviations, curves)


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


def _largest(lookaheads: Sequence[int], most: int) -> int:
    return max(points for points in lookaheads if points <= most)


def _combined(
    values: FloatArray, first: Assessment, deviations: FloatArray, curves: Iterable[FloatArray]
) -> Assessment:
    """By the squares of the surprises, deviations of shape (members, n); one that knows nothing adds nothing."""
    total = np.zeros(len(values))
    for row, curve in zip(deviations, curves, strict=True):
        unusual = surprise(row, curve)
        total += unusual * unusual
    known = Assessment.of_distances(values, np.nan_to_num(first.expected), np.sqrt(total))
    return Assessment(np.where(np.isnan(deviations).all(axis=0), np.nan, known.expected), known.scale)
