"""Robust autoregression: what follows from the values just before, and from those of a period ago."""

from itertools import pairwise
from typing import ClassVar

import numpy as np
from typing_extensions import override

from app.detectors.autoregression import Autoregression, choose_lags, fit, scale_of, without_spikes
from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment
from app.detectors.periods import find_period_points
from app.detectors.recent import assess_all, assess_beginning_too
from app.series import FloatArray, Series

_ORDERS = (0, 1, 2, 3, 5, 8, 13, 25)
_LONGEST_PERIOD = 168
_FEWEST_CYCLES = 5
_FOLDS = 5
_SHORTEST_CONTEXT = 8
_POINTS_A_WEIGHT = 100
_OUTLYING_SCALES = 3.5
_BEYOND_USUAL = 1.5


class Autoregressive(CalibratedDetector):
    """An anomaly lies far from what follows from the values before it.

    `expected = intercept + sum(weights * values before)`, up to 25 of them, and those of a period ago where there is a
    period of 168 points or fewer; of the values or, where the level wanders, of their differences. The lags are the
    ones that predict the last two fifths of the history best by the first three. Outliers among the values before are
    drawn to where they were expected themselves, so that one does not make the next look strange.

    Source: G. E. P. Box, G. M. Jenkins, Time Series Analysis: Forecasting and Control, 1970 (the model); P. J. Huber,
    Robust Regression: Asymptotics, Conjectures and Monte Carlo, Annals of Statistics 1, 1973 (the fit); R. D. Martin,
    D. J. Thomson, Robust-Resistant Spectrum Estimation, Proceedings of the IEEE 70, 1982 (the cleaning). Cost: O(n p^2)
    to fit, 100 ms for 10,000 points, 30 to 80 microseconds a point. Finds: spikes, dips, the beginnings of level
    shifts, changes of rhythm, even small ones in smooth series. Misses: slow changes, and how long a shift lasts, as it
    follows; gaps and irregular sampling, which it does not see.
    """

    __slots__ = ()

    name: ClassVar[str] = "autoregressive"
    is_quick_to_judge: ClassVar[bool] = True

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        return _learn(history.values, *_choose(history))

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return int(learnt["context_points"])

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        from app.detectors.kernels_values import autoregressive

        expected = autoregressive(
            stretch.values,
            int(learnt["context_points"]),
            learnt["lags"].astype(np.int64),
            learnt["weights"],
            *(float(learnt[name]) for name in ("intercept", "limit", "swing")),
        )
        return Assessment(expected, np.full(len(expected), float(learnt["scale"])))

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        lags, is_differenced = _choose(history)
        n = len(history)
        if n >= _POINTS_A_WEIGHT * (1 + len(lags)):
            # What a weight owes to one point is nothing; of parts, equal values would not have quite equal deviations.
            learnt = _learn(history.values, lags, is_differenced)
            return learnt, assess_all(cls, history, learnt)
        result = Assessment.unknown(n)
        for start, end in pairwise(np.linspace(0, n, min(_FOLDS, n) + 1).astype(int).tolist()):
            rest = np.concatenate((history.values[:start], history.values[end:]))
            if len(rest) == 0:
                continue
            learnt = _learn(rest, lags, is_differenced)
            context = cls.points_of_context(learnt)
            first = max(start - context, 0)
            if end - first > context:
                assessed = cls.assess(learnt, Series(history.timestamps_s[first:end], history.values[first:end]))
                result.expected[first + context : end] = assessed.expected
        whole = _learn(history.values, lags, is_differenced)
        result.scale[:] = whole["scale"]
        return whole, result

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        return assess_beginning_too(cls.assess_left_out, series, params)


def _choose(history: Series) -> tuple[tuple[int, ...], bool]:
    """The lags to use, and whether of differences."""
    n = len(history)
    choices = [tuple(range(1, order + 1)) for order in _ORDERS if 4 * order <= n]
    period = find_period_points(history)
    if period is not None and _ORDERS[1] < period <= min(_LONGEST_PERIOD, n // _FEWEST_CYCLES):
        seasonal = (period - 1, period, period + 1)
        choices += [tuple(sorted({*lags, *seasonal})) for lags in choices[1:]]
    return choose_lags(history.values, choices)


def _learn(values: FloatArray, lags: tuple[int, ...], is_differenced: bool) -> State:  # noqa: FBT001
    model = fit(values, lags, is_differenced=is_differenced)
    errors = model.errors(values) if len(values) > model.longest else np.zeros(1)
    scale = scale_of(errors)
    context = _context_points(model, len(values))
    return {
        "lags": model.lags,
        "weights": model.weights,
        "intercept": np.array(model.intercept),
        "is_differenced": np.array(float(model.is_differenced)),
        "scale": np.array(scale),
        "limit": np.array(max(_OUTLYING_SCALES * scale, float(np.quantile(np.abs(errors), 0.99)))),
        "swing": np.array(_swing(values, context)),
        "context_points": np.array(float(context)),
    }


def _context_points(model: Autoregression, n: int) -> int:
    """Twice the longest lag, so that all values that are used can be cleaned by those before them."""
    if not len(model.lags):
        return 0
    return min(max(2 * model.longest, _SHORTEST_CONTEXT), max(n // 2, model.longest))


def _swing(values: FloatArray, context: int) -> float:
    """How far values usually are from the median of a stretch as long as the context, and half as far again."""
    length = max(context, 1)
    count = len(values) // length
    if count == 0:
        return float(np.ptp(values))
    stretches = without_spikes(values)[: count * length].reshape(count, length)
    distances = np.abs(stretches - np.median(stretches, axis=1, keepdims=True))
    return _BEYOND_USUAL * float(np.quantile(distances, 0.99))
