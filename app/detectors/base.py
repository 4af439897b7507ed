"""The contract of every detector.

A detector is a pure function of its fitted state, the context and the points: the same state and the same input give
the same verdicts, bit for bit, one at a time or in bulk. It never normalises over the points of a call.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.series import FloatArray, Series

State = Mapping[str, FloatArray]
"""The fitted numbers by name: all that is stored of a model beside its parameters."""

Direction = Literal["both", "above", "below"]

Kind = Literal[
    "spike",
    "dip",
    "level_shift",
    "trend_change",
    "variance_change",
    "flatline",
    "missing_season",
    "shape",
    "unusual_time",
]

KINDS: tuple[Kind | None, ...] = (None, *get_args(Kind))
"""What a verdict says that a point is; None for a normal one. `Verdicts.kind` holds indices into it."""


class DetectorParams(BaseModel):
    """What a user may choose for any detector; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    direction: Direction = Field("both", description="On which side of the band a point is an anomaly.")
    min_dev_from_expected: float = Field(
        0.0,
        ge=0,
        le=1e300,
        description="A point nearer to what was expected than this is no anomaly, in units of the values.",
    )
    min_rel_dev_from_expected: float = Field(
        0.0, ge=0, le=1e6, description="The same as a share of the expected value's magnitude."
    )


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
    p_value: float
    """How often a normal point deviates as far."""
    kind: Kind | None
    """None for a normal point."""


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What a model says of n points: the fields of `Verdict`, each of shape (n,)."""

    expected: FloatArray
    lower: FloatArray
    upper: FloatArray
    score: FloatArray
    is_anomaly: NDArray[np.bool_]
    severity: FloatArray
    p_value: FloatArray
    kind: NDArray[np.int8]
    """Indices into KINDS."""

    def take(self, indices: NDArray[np.intp]) -> "Verdicts":
        """The verdicts at these indices."""
        return Verdicts(*(getattr(self, field.name)[indices] for field in fields(self)))

    @classmethod
    def joined(cls, parts: "Sequence[Verdicts]") -> "Verdicts":
        """The verdicts of these parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.unknown(0)
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @classmethod
    def unknown(cls, n: int) -> "Verdicts":
        """Those of n points of which nothing is known."""
        expected, score, severity = np.zeros((3, n))
        lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
        return cls(
            expected, lower, upper, score, np.zeros(n, np.bool_), severity, np.ones(n), np.zeros(n, dtype=np.int8)
        )

    def first(self) -> Verdict:
        """The verdict on the first point."""
        plain = {field.name: getattr(self, field.name).item(0) for field in fields(self)}
        return Verdict(**plain | {"kind": KINDS[plain["kind"]]})


class Candidate(NamedTuple):
    """A detector that was tried for a series, on the part of its history that it was not fitted to."""

    detector: str
    recall: float
    """Share of the anomalies injected there that it found."""
    false_alarm_rate: float
    """Share of the points there that it flagged without any."""
    seconds: float
    """That its fit and its trial took."""


class Choice(NamedTuple):
    """Why a detector was taken, and what was tried."""

    reason: str
    candidates: tuple[Candidate, ...]
    """The best first."""


class Fitted(NamedTuple):
    """A detector; where it was chosen by the series and not by the user, with the reasons."""

    detector: "Detector"
    choice: Choice | None


class Detector(ABC):
    """A fitted detector. Subclasses are immutable and cheap to keep by the million."""

    __slots__ = ()

    name: ClassVar[str]
    Params: ClassVar[type[DetectorParams]]
    is_quick_to_judge: ClassVar[bool] = False
    """Whether a point is judged in less time than it takes to hand it to a thread, which is some 50 microseconds."""

    @classmethod
    def is_quick_to_fit(cls, params: DetectorParams) -> bool:  # noqa: ARG003
        """Whether a few hundred points are fitted in less time than it takes to hand them to a thread."""
        return False

    @classmethod
    @abstractmethod
    def fit(cls, history: Series, params: DetectorParams) -> "Detector":
        """A detector fitted to `history`; raises nothing for any history that `parse_history` accepts."""

    @classmethod
    def fit_within(cls, history: Series, params: DetectorParams, budget_s: float) -> Fitted:  # noqa: ARG003
        """As `fit`, for those that choose in about `budget_s` seconds, and with what the choice went by."""
        return Fitted(cls.fit(history, params), None)

    @classmethod
    @abstractmethod
    def load(cls, state: State, params: DetectorParams) -> "Detector":
        """The detector whose `state` and `params` these are."""

    @classmethod
    @abstractmethod
    def detect(cls, series: Series, params: DetectorParams) -> Verdicts:
        """Verdicts on all points of a series that is increasing in time, each with all the others in view."""

    @property
    @abstractmethod
    def params(self) -> DetectorParams:
        """The parameters that it was fitted with."""

    @property
    @abstractmethod
    def state(self) -> State:
        """Everything that `load` needs beside the parameters."""

    @property
    def size_bytes(self) -> int:
        """Memory that its numbers take, about."""
        return sum(array.nbytes for array in self.state.values())

    @property
    @abstractmethod
    def context_points(self) -> int:
        """Past points that it needs to judge the next one."""

    @property
    @abstractmethod
    def interval_s(self) -> float:
        """Seconds between two points of the history, typically; NaN when it is not known."""

    @property
    @abstractmethod
    def false_alarm_rate(self) -> float:
        """The share of normal points that it flags unless it is asked for another."""

    @abstractmethod
    def thresholds(self, false_alarm_rate: float | None = None) -> tuple[float, float]:
        """How far below and above what is expected of it a point may lie at this rate, by default its own; above 0.

        In units of how far that point usually lies; infinite on a side that the direction leaves open.
        """

    @abstractmethod
    def score(
        self,
        points: Series,
        context: Series | None = None,
        false_alarm_rate: float | None = None,
        lookahead_points: int = 0,
    ) -> Verdicts:
        """Verdicts on points, index-aligned; each is part of the context of those that come later in time.

        context: the points before the first, `context_points` or more, increasing in time; by default the end of
        the history. Points that have fewer before them get the verdict that nothing is known: score 0, open bounds.
        false_alarm_rate: the share of normal points that may be flagged, by default that of `params`.
        lookahead_points: how many of the points after it a verdict may depend on, where there are as many.
        """

    @property
    def remembered_points(self) -> int:
        """How many points, the last of its history, it holds new ones against: of these each is most like itself."""
        return 0

    def score_history(self, history: Series, false_alarm_rate: float | None = None) -> Verdicts:
        """Verdicts on the end of its history, index-aligned; each point is judged as if it were not remembered.

        history: `remembered_points` and `context_points` before these, or more, or all of it.
        """
        return self.score(history, history.first(0), false_alarm_rate)

    @abstractmethod
    def score_one(
        self, timestamp_s: float, value: float, context: Series | None = None, false_alarm_rate: float | None = None
    ) -> Verdict:
        """The verdict that `score` gives on this point alone, by the shortest way."""
