"""Mean and standard deviation: the baseline."""

import math
from typing import ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from app.detectors import bands
from app.detectors.base import KINDS, Detector, DetectorParams, State, Verdict, Verdicts
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.normal import NORMAL_TAILS
from app.series import FloatArray, Series

_SPIKE, _DIP = KINDS.index("spike"), KINDS.index("dip")


class MeanStdParams(CalibratedParams):
    """Parameters of `mean_std`."""

    k: float = Field(
        3.0,
        gt=0,
        le=1e6,
        description="Half-width of the normal band in standard deviations, where no number of false alarms is given.",
    )


class MeanStd(Detector):
    """An anomaly lies further than k population standard deviations from the mean.

    `|value - mean| > k * std`; score = `|value - mean| / (k * std)`; severity = `1 - 1 / score`; the p-value is that of
    a normal distribution. With a `false_alarm_rate` the band is calibrated instead, see `CalibratedMeanStd`.

    Source: W. A. Shewhart, Economic Control of Quality of Manufactured Product, 1931 (the 3-sigma rule).
    Cost: O(n) to fit, O(1) a point, 16 bytes of state. Finds: spikes, dips and level shifts of a series that
    is stationary. Misses: everything that stays within the overall range, such as a wrong season or a flatline;
    and outliers in the training data widen its band.
    """

    __slots__ = ("_band", "_mean", "_params", "_std", "_widths")

    name: ClassVar[str] = "mean_std"
    Params: ClassVar[type[DetectorParams]] = MeanStdParams
    is_quick_to_judge: ClassVar[bool] = True

    def __init__(self, mean: float, std: float, params: MeanStdParams) -> None:
        self._params, self._mean, self._std = params, mean, std
        self._widths = self._widths_of(params.k)
        self._band = bands.bounds(mean, *self._widths)

    @override
    @classmethod
    def is_quick_to_fit(cls, params: DetectorParams) -> bool:
        assert isinstance(params, MeanStdParams)
        return not params.has_budget

    @override
    @classmethod
    def fit(cls, history: Series, params: DetectorParams) -> Detector:
        assert isinstance(params, MeanStdParams)
        if params.has_budget:
            return CalibratedMeanStd.fit(history, params)
        return cls(*_mean_and_std(history.values), params)

    @override
    @classmethod
    def load(cls, state: State, params: DetectorParams) -> Detector:
        assert isinstance(params, MeanStdParams)
        if params.has_budget:
            return CalibratedMeanStd.load(state, params)
        return cls(float(state["mean"]), float(state["std"]), params)

    @override
    @classmethod
    def detect(cls, series: Series, params: DetectorParams) -> Verdicts:
        assert isinstance(params, MeanStdParams)
        if params.has_budget:
            return CalibratedMeanStd.detect(series, params)
        return cls.fit(series, params).score(series)

    @property
    @override
    def params(self) -> MeanStdParams:
        return self._params

    @property
    @override
    def state(self) -> State:
        return {"mean": np.array(self._mean), "std": np.array(self._std)}

    @property
    @override
    def context_points(self) -> int:
        return 0

    @property
    @override
    def interval_s(self) -> float:
        return math.nan

    @property
    @override
    def false_alarm_rate(self) -> float:
        k, direction = self._params.k, self._params.direction
        return NORMAL_TAILS[direction].p_value(-k if direction == "below" else k)

    @override
    def thresholds(self, false_alarm_rate: float | None = None) -> tuple[float, float]:
        k, direction = self._params.k, self._params.direction
        if false_alarm_rate is not None:
            k = max(NORMAL_TAILS[direction].threshold(false_alarm_rate), bands.SMALLEST)
        return math.inf if direction == "above" else k, math.inf if direction == "below" else k

    @override
    def score(
        self,
        points: Series,
        context: Series | None = None,
        false_alarm_rate: float | None = None,
        lookahead_points: int = 0,
    ) -> Verdicts:
        values, n = points.values, len(points)
        widths, band = self._widths, self._band
        if false_alarm_rate is not None:
            widths, band = self._at(false_alarm_rate)
        verdicts = bands.verdicts_within(
            values,
            np.full(n, self._mean),
            (np.full(n, band[0]), np.full(n, band[1])),
            (np.full(n, widths[0]), np.full(n, widths[1])),
            NORMAL_TAILS[self._params.direction].p_values(self._deviations(values)),
        )
        verdicts.kind[verdicts.is_anomaly] = np.where(values[verdicts.is_anomaly] > self._mean, _SPIKE, _DIP)
        return verdicts

    @override
    def score_one(
        self, timestamp_s: float, value: float, context: Series | None = None, false_alarm_rate: float | None = None
    ) -> Verdict:
        widths, band = self._widths, self._band
        if false_alarm_rate is not None:
            widths, band = self._at(false_alarm_rate)
        p_value = NORMAL_TAILS[self._params.direction].p_value((value - self._mean) / self._std)
        kind = _SPIKE if value > self._mean else _DIP
        return bands.verdict_within(value, self._mean, band, widths, p_value, kind=kind)

    def _deviations(self, values: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):
            deviations: FloatArray = (values - self._mean) / self._std
        return deviations

    def _at(self, false_alarm_rate: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Widths and band for another share of false alarms, were the values normally distributed."""
        widths = self._widths_of(NORMAL_TAILS[self._params.direction].threshold(false_alarm_rate))
        return widths, bands.bounds(self._mean, *widths)

    def _widths_of(self, k: float) -> tuple[float, float]:
        """How far below and above the mean a normal value may lie."""
        params = self._params
        half = max(k * self._std, params.min_dev_from_expected, params.min_rel_dev_from_expected * abs(self._mean))
        half = max(half, bands.SMALLEST)
        return (
            math.inf if params.direction == "above" else half,
            math.inf if params.direction == "below" else half,
        )


class CalibratedMeanStd(CalibratedDetector):
    """Mean and standard deviation, with a band as wide as the budget of false alarms asks for.

    Source, cost, what it finds and what it misses: those of `MeanStd`, and 1 kB of state.
    """

    __slots__ = ()

    name: ClassVar[str] = "mean_std"
    Params: ClassVar[type[DetectorParams]] = MeanStdParams
    is_quick_to_judge: ClassVar[bool] = True

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        mean, std = _mean_and_std(history.values)
        return {"mean": np.array(mean), "std": np.array(std)}

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return 0

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        n = len(stretch)
        return Assessment(np.full(n, float(learnt["mean"])), np.full(n, float(learnt["std"])))


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
    return bands.scaled(mean, exponent), max(bands.scaled(math.sqrt(max(variance, 0.0)), exponent), bands.SMALLEST)
