"""Mean and standard deviation: the baseline."""

import math
from typing import ClassVar, Self

import numpy as np
from pydantic import Field
from typing_extensions import override

from app.detectors.base import Detector, DetectorParams, Direction, State, Verdict, Verdicts
from app.series import FloatArray, Series

_LARGEST = float(np.finfo(np.float64).max)
_SMALLEST = math.ulp(0.0)
_JUST_ABOVE_1 = math.nextafter(1.0, 2.0)


class MeanStdParams(DetectorParams):
    """Parameters of `mean_std`."""

    k: float = Field(3.0, gt=0, le=1e6, description="Half-width of the normal band in standard deviations.")
    direction: Direction = Field("both", description="On which side of the band a point is an anomaly.")


class MeanStd(Detector):
    """An anomaly lies further than k population standard deviations from the mean.

    `|value - mean| > k * std`; score = `|value - mean| / (k * std)`; severity = `1 - 1 / score`.

    Source: W. A. Shewhart, Economic Control of Quality of Manufactured Product, 1931 (the 3-sigma rule).
    Cost: O(n) to fit, O(1) a point, 16 bytes of state. Finds: spikes, dips and level shifts of a series that
    is stationary. Misses: everything that stays within the overall range, such as a wrong season or a flatline;
    and outliers in the training data widen its band.
    """

    __slots__ = ("_half_width", "_lower", "_mean", "_params", "_std", "_upper")

    name: ClassVar[str] = "mean_std"
    context_points: ClassVar[int] = 0
    Params: ClassVar[type[DetectorParams]] = MeanStdParams

    def __init__(self, mean: float, std: float, params: MeanStdParams) -> None:
        self._params, self._mean, self._std = params, mean, std
        self._half_width = max(params.k * std, _SMALLEST)
        lower, upper = _band(mean, self._half_width)
        self._lower = -math.inf if params.direction == "above" else lower
        self._upper = math.inf if params.direction == "below" else upper

    @override
    @classmethod
    def fit(cls, history: Series, params: DetectorParams) -> Self:
        assert isinstance(params, MeanStdParams)
        return cls(*_mean_and_std(history.values), params)

    @override
    @classmethod
    def load(cls, state: State, params: DetectorParams) -> Self:
        assert isinstance(params, MeanStdParams)
        return cls(float(state["mean"]), float(state["std"]), params)

    @property
    @override
    def params(self) -> MeanStdParams:
        return self._params

    @property
    @override
    def state(self) -> State:
        return {"mean": np.array(self._mean), "std": np.array(self._std)}

    @override
    def score(self, points: Series) -> Verdicts:
        values = points.values
        is_anomaly = (values < self._lower) | (values > self._upper)
        with np.errstate(over="ignore"):  # beyond the largest float the score stays there
            score = values - self._mean
            if self._params.direction == "both":
                np.abs(score, out=score)
            else:
                score *= -1.0 if self._params.direction == "below" else 1.0
                np.maximum(score, 0.0, out=score)
                score += 0.0  # which is what makes -0.0 a plain 0.0
            np.minimum(score, _LARGEST, out=score)
            score /= self._half_width
        # Rounding must not let the score and the bounds disagree.
        beyond = np.clip(score[is_anomaly], _JUST_ABOVE_1, _LARGEST)
        np.minimum(score, 1.0, out=score)
        score[is_anomaly] = beyond
        severity = np.zeros(len(values))
        severity[is_anomaly] = 1.0 - 1.0 / beyond
        return Verdicts(
            expected=np.full(len(values), self._mean),
            lower=np.full(len(values), self._lower),
            upper=np.full(len(values), self._upper),
            score=score,
            is_anomaly=is_anomaly,
            severity=severity,
        )

    @override
    def score_one(self, timestamp_s: float, value: float) -> Verdict:
        is_anomaly = value < self._lower or value > self._upper
        deviation = value - self._mean
        if self._params.direction == "both":
            deviation = abs(deviation)
        elif self._params.direction == "below":
            deviation = -deviation
        score = min(min(max(0.0, deviation), _LARGEST) / self._half_width, _LARGEST)
        score = max(score, _JUST_ABOVE_1) if is_anomaly else min(score, 1.0)
        severity = 1.0 - 1.0 / max(score, 1.0)
        return Verdict(self._mean, self._lower, self._upper, score, is_anomaly, severity)


def _mean_and_std(values: FloatArray) -> tuple[float, float]:
    """Mean and population standard deviation without overflow or cancellation.

    The values are scaled by a power of two, which is exact, into [-1, 1]; then the corrected two-pass formula
    (T. F. Chan, G. H. Golub, R. J. LeVeque, Algorithms for Computing the Sample Variance, 1983).
    """
    n = len(values)
    exponent = math.frexp(max(float(values.max()), -float(values.min())))[1]
    scaled = np.ldexp(values, -exponent)
    mean = float(np.add.reduce(scaled)) / n
    mean += float(np.add.reduce(scaled - mean)) / n
    deviations = scaled - mean
    variance = float(np.add.reduce(np.square(deviations))) / n - (float(np.add.reduce(deviations)) / n) ** 2
    return _scaled(mean, exponent), max(_scaled(math.sqrt(max(variance, 0.0)), exponent), _SMALLEST)


def _scaled(number: float, exponent: int) -> float:
    """`number * 2 ** exponent`, at most the largest float."""
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.copysign(_LARGEST, number)


def _band(mean: float, half_width: float) -> tuple[float, float]:
    """The smallest and the largest finite float within `half_width` of `mean`, both exactly."""
    lower, lower_error = _two_sum(mean, -half_width)
    upper, upper_error = _two_sum(mean, half_width)
    if lower_error > 0:
        lower = math.nextafter(lower, math.inf)
    if upper_error < 0:
        upper = math.nextafter(upper, -math.inf)
    return max(lower, -_LARGEST), min(upper, _LARGEST)


def _two_sum(a: float, b: float) -> tuple[float, float]:
    """A + b rounded, and what the rounding lost (Knuth, The Art of Computer Programming 2, 4.2.2)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)
