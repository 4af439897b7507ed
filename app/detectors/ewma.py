"""Exponentially weighted moving average: what was lately is what is expected next."""

import math
from typing import ClassVar

import numpy as np
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment
from app.detectors.quantiles import quantiles
from app.detectors.recent import assess_all, assess_beginning_too
from app.series import FloatArray, Series

_ALPHAS = (0.015, 0.04, 0.1, 0.25, 0.5, 1.0)
_BETAS = (0.0, 0.03, 0.1)
_TIME_CONSTANTS = 3.0
_MOST_CONTEXT = 200
_FEWEST_START, _MOST_START = 5, 9
_CLIP = 3.0
_SMALLEST_SCALE = 1e-9
_CLEARLY = 0.995
_COST = 0.01
_ABSOLUTE_TO_STD = 1.2533141373155003


class Ewma(CalibratedDetector):
    """An anomaly lies far from the exponentially weighted mean of the points before it, by their weighted deviation.

    `level += alpha * clip(value - level)`, and the scale likewise with `beta` from absolute deviations; a deviation
    is clipped at about 3 scales, so that one outlier hardly moves either. Both rates are the ones of a few that would
    have served the history best, one step ahead. The last few time constants are looked at, at most 200 points.

    Source: S. W. Roberts, Control Chart Tests Based on Geometric Moving Averages, Technometrics 1, 1959; S. Gelper, R.
    Fried, C. Croux, Robust Forecasting with Exponential and Holt-Winters Smoothing, Journal of Forecasting 29, 2010
    (the clipping). Cost: O(n) to fit, 5 ms for 10,000 points, 20 microseconds a point, 4 kB of state. Finds: spikes,
    dips, and the beginnings of level shifts in series whose level and variance drift. Misses: slow changes, which it
    follows; how long a shift lasts, as its score fades; a wrong season.
    """

    __slots__ = ()

    name: ClassVar[str] = "ewma"
    is_quick_to_judge: ClassVar[bool] = True

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        values = history.values
        alpha, clip, typical = _learn_level(values)
        beta = _learn_beta(values, alpha, clip, typical)
        memory = max(_TIME_CONSTANTS / alpha, _TIME_CONSTANTS / beta if beta else 0.0)
        window = min(max(math.ceil(memory), _MOST_START), _MOST_CONTEXT, len(values) // 4)
        return {
            "alpha": np.array(alpha),
            "beta": np.array(beta),
            "clip": np.array(clip),
            "typical": np.array(typical),
            "window_points": np.array(float(window)),
            "level": np.array(float(np.median(values))),
        }

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return int(learnt["window_points"])

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        from app.detectors.kernels_values import exponential

        window, typical = int(learnt["window_points"]), float(learnt["typical"])
        if not window:
            n = len(stretch)
            return Assessment(np.full(n, float(learnt["level"])), np.full(n, typical))
        start = min(window, max(math.ceil(1.0 / float(learnt["alpha"])), _FEWEST_START), _MOST_START)
        rates = float(learnt["alpha"]), float(learnt["beta"]), float(learnt["clip"])
        return Assessment(*exponential(stretch.values, window, start, *rates, typical))

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        # Three numbers are learnt: what they owe to the point itself is nothing.
        learnt = cls.learn(history, params)
        return learnt, assess_all(cls, history, learnt)

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        return assess_beginning_too(cls.assess_left_out, series, params)


def _learn_level(values: FloatArray) -> tuple[float, float, float]:
    """The best alpha, where deviations are clipped, and their scale; of equally good ones the slowest."""
    from app.detectors.kernels_values import exponential_errors

    best, chosen = math.inf, (_ALPHAS[0], _CLIP, _SMALLEST_SCALE)
    for alpha in _ALPHAS:
        typical, clip = _SMALLEST_SCALE, math.inf
        for _ in range(2):
            errors, _scales = exponential_errors(values, alpha, 0.0, clip, typical)
            typical, clip = _typical(errors[len(errors) // 4 :])
        loss = _usual_error(errors[len(errors) // 4 :])
        if loss < _CLEARLY * best:
            best, chosen = loss, (alpha, clip, typical)
    return chosen


def _learn_beta(values: FloatArray, alpha: float, clip: float, typical: float) -> float:
    """How quickly the scale should follow, by the likelihood of a Laplace distribution; 0 if that gains little."""
    from app.detectors.kernels_values import exponential_errors

    losses = []
    for beta in _BETAS:
        errors, scales = exponential_errors(values, alpha, beta, clip, typical)
        recent, scales = np.abs(errors[len(errors) // 4 :]), scales[len(errors) // 4 :]
        recent = np.minimum(recent, quantiles(recent, 0.999)[0])
        losses.append(float(np.mean(np.log(scales) + _ABSOLUTE_TO_STD * recent / scales)) + (_COST if beta else 0.0))
    return _BETAS[int(np.argmin(losses))]


def _typical(errors: FloatArray) -> tuple[float, float]:
    """The scale of errors, and the multiple of it beyond which they are outliers: one in a hundred at most."""
    distances = np.abs(errors)
    (most,) = quantiles(distances, 0.99)
    scale = max(_ABSOLUTE_TO_STD * float(np.minimum(distances, most).mean()), _SMALLEST_SCALE)
    return scale, max(_CLIP, most / scale)


def _usual_error(errors: FloatArray) -> float:
    """The mean size of errors; what is far beyond nine of ten, as anomalies are, counts as little more."""
    distances = np.abs(errors)
    middle, most = quantiles(distances, 0.5, 0.9)
    return float(np.minimum(distances, max(5.0 * middle, most)).mean())
