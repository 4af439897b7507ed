"""The contract of every detector.

A detector is a pure function of its fitted state and the points: the same state and the same input give
the same verdicts, bit for bit, one at a time or in bulk. It never normalises over the points of a call.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.series import FloatArray, Series

State = Mapping[str, FloatArray]
"""The fitted numbers by name: all that is stored of a model beside its parameters."""

Direction = Literal["both", "above", "below"]


class DetectorParams(BaseModel):
    """What a user may choose for a detector; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Verdict(NamedTuple):
    """What a model says of one point.

    `score > 1` exactly when `is_anomaly`, exactly when the value lies outside [lower, upper].
    A bound that the direction leaves open is infinite.
    """

    expected: float
    lower: float
    upper: float
    score: float
    is_anomaly: bool
    severity: float
    """0 for a normal point, then rising towards 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What a model says of n points: the fields of `Verdict`, each of shape (n,)."""

    expected: FloatArray
    lower: FloatArray
    upper: FloatArray
    score: FloatArray
    is_anomaly: NDArray[np.bool_]
    severity: FloatArray

    def take(self, indices: NDArray[np.intp]) -> "Verdicts":
        """The verdicts at these indices."""
        return Verdicts(*(getattr(self, field.name)[indices] for field in fields(self)))


class Detector(ABC):
    """A fitted detector. Subclasses are immutable and cheap to keep by the million."""

    __slots__ = ()

    name: ClassVar[str]
    context_points: ClassVar[int]
    """Past points that it needs to judge the next one."""
    Params: ClassVar[type[DetectorParams]]

    @classmethod
    @abstractmethod
    def fit(cls, history: Series, params: DetectorParams) -> Self:
        """A detector fitted to `history`; raises nothing for any history that `parse_history` accepts."""

    @classmethod
    @abstractmethod
    def load(cls, state: State, params: DetectorParams) -> Self:
        """The detector whose `state` and `params` these are."""

    @property
    @abstractmethod
    def params(self) -> DetectorParams:
        """The parameters that it was fitted with."""

    @property
    @abstractmethod
    def state(self) -> State:
        """Everything that `load` needs beside the parameters."""

    @abstractmethod
    def score(self, points: Series) -> Verdicts:
        """Verdicts on points, index-aligned."""

    @abstractmethod
    def score_one(self, timestamp_s: float, value: float) -> Verdict:
        """The verdict that `score` gives on this point, by the shortest way."""
