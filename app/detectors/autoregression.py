"""Robust autoregressions: a value as a sum of multiples of the values before it, fitted in spite of outliers."""

import math
from typing import NamedTuple

import numpy as np

from app.series import FloatArray

_RIDGE = 1e-9
_TUNING = 1.345
_OUTLYING_SCALES = 3.5
_ITERATIONS = 6
_CONVERGED = 1e-4
_MAD_TO_STD = 1.4826022185056018
_MOST_POINTS = 20_000
_LEARNING_SHARE = 0.6
_POINTS_A_WEIGHT = 5
_CLEARLY = 0.99
_HARDLY_WORSE = 1.1
_LAGS_OF_TEST, _FAR = 25, 2.5
_UNIT_ROOT = 30.0
"""Dickey and Fuller's n * (1 - rho) is below 22 in 95 of 100 random walks with a trend; some more to be sure."""
_SMALLEST, _SMALLEST_OF_FEW = 1e-9, 1e-3
_NEIGHBOURS = 5
_BEYOND_USUAL = 1.5


class Autoregression(NamedTuple):
    """`value = intercept + sum(weights * values[-lags])`.

    lags, weights: shape (k,), lags rising, whole numbers of points. is_differenced: whether the weights add up to 1, so
    that the level may be any.
    """

    lags: FloatArray
    weights: FloatArray
    intercept: float
    is_differenced: bool

    @property
    def longest(self) -> int:
        """The longest lag."""
        return int(self.lags[-1]) if len(self.lags) else 0

    def errors(self, values: FloatArray) -> FloatArray:
        """What it did not expect, of all values but the first: shape (n - longest,)."""
        from app.detectors.kernels_values import innovations

        return innovations(values, self.lags.astype(np.int64), self.weights, self.intercept)


def choose_lags(values: FloatArray, choices: list[tuple[int, ...]]) -> tuple[tuple[int, ...], bool]:
    """The lags that predict the last two fifths best by the first three, and whether of differences; ties: the fewest.

    With differences the lags are those of the differences, and so is what is to be fitted.
    """
    recent = without_spikes(values[-_MOST_POINTS:])
    loss, lags = _best_lags(recent, choices)
    loss_of_steps, lags_of_steps = _best_lags(np.diff(recent), choices)
    if loss_of_steps < loss or (loss_of_steps < _HARDLY_WORSE * loss and _wanders(recent)):
        return lags_of_steps, True
    return lags, False


def _best_lags(values: FloatArray, choices: list[tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
    best: float = math.inf
    chosen: tuple[int, ...] = ()
    for lags in choices:
        loss = _forward_loss(values, lags)
        if loss < best * (_CLEARLY if len(lags) > len(chosen) else 1.0):
            best, chosen = loss, lags
    return best, chosen


def _wanders(values: FloatArray) -> bool:
    """Whether the level may have no home, for all that is known (D. A. Dickey, W. A. Fuller, JASA 74, 1979)."""
    lags = tuple(range(1, min(_LAGS_OF_TEST, len(values) // 10) + 1))
    if not lags:
        return False
    median = float(np.median(values))
    usual = _FAR * _MAD_TO_STD * float(np.median(np.abs(values - median)))
    design, target = _design(np.clip(values, median - usual, median + usual), lags)
    weights = _least_squares(design, target, np.ones(len(target)))[1:]
    return_to_mean = 1.0 - float(weights.sum())
    short_run = 1.0 + float(((np.array(lags) - 1.0) * weights).sum())
    return len(values) * return_to_mean < _UNIT_ROOT * max(short_run, 0.0)


def fit(values: FloatArray, lags: tuple[int, ...], *, is_differenced: bool) -> Autoregression:
    """The autoregression with these lags (of differences), by Huber's M-estimator, as if there were no spikes."""
    values = without_spikes(values)
    subject = np.diff(values) if is_differenced else values
    if len(subject) <= _POINTS_A_WEIGHT * max(len(lags), 1) + max(lags, default=0):
        lags = ()
    design, target = _design(subject, lags)
    weights = _huber(design, target) if len(target) else np.zeros(1)
    if not is_differenced:
        return Autoregression(np.array(lags, np.float64), weights[1:], float(weights[0]), is_differenced=False)
    dense = np.zeros(max(lags, default=0) + 2)
    dense[1] = 1.0
    for lag, weight in zip(lags, weights[1:].tolist(), strict=True):
        dense[lag] += weight
        dense[lag + 1] -= weight
    used = np.flatnonzero(dense)
    return Autoregression(used.astype(np.float64), dense[used], float(weights[0]), is_differenced=True)


def without_spikes(values: FloatArray) -> FloatArray:
    """Values with those that stand out from their four neighbours, as two in a hundred at most do, drawn to them."""
    n, half = len(values), _NEIGHBOURS // 2
    if n < _NEIGHBOURS:
        return values
    rows = np.lib.stride_tricks.sliding_window_view(values, _NEIGHBOURS)
    medians = np.median(rows, axis=1)[np.clip(np.arange(n) - half, 0, n - _NEIGHBOURS)]
    off = values - medians
    limit = max(_OUTLYING_SCALES * scale_of(off), _BEYOND_USUAL * float(np.quantile(np.abs(off), 0.98)))
    spared: FloatArray = np.where(np.abs(off) > limit, medians, values)
    return spared


def scale_of(errors: FloatArray) -> float:
    """The scaled median absolute error, in standard units; the clipped mean where most errors are nothing."""
    distances = np.abs(errors)
    most = np.minimum(distances, np.quantile(distances, 0.99))
    median = float(np.median(distances))
    return max(_MAD_TO_STD * median, float(most.mean()), _SMALLEST if median > _SMALLEST else _SMALLEST_OF_FEW)


def _forward_loss(values: FloatArray, lags: tuple[int, ...]) -> float:
    """How far off the last two fifths are, when the first three tell the weights; outliers count as little more."""
    begin = int(_LEARNING_SHARE * len(values))
    longest = max(lags, default=0)
    if begin < _POINTS_A_WEIGHT * max(len(lags), 1) + longest or begin >= len(values):
        return math.inf
    design, target = _design(values, lags)
    split = begin - longest
    weights = _least_squares(design[:split], target[:split], np.ones(split))
    distances = np.abs(target[split:] - design[split:] @ weights)
    middle, most = np.quantile(distances, (0.5, 0.95))
    return float(np.minimum(distances, max(5.0 * middle, most)).mean())


def _design(values: FloatArray, lags: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """A column of ones, and one of the values before for each lag; and the values themselves."""
    longest, n = max(lags, default=0), len(values)
    columns = [np.ones(max(n - longest, 0)), *(values[longest - lag : n - lag] for lag in lags)]
    return np.column_stack(columns), values[longest:]


def _huber(design: FloatArray, target: FloatArray) -> FloatArray:
    """Coefficients by iterated weights: errors beyond 1.345 scales count less, the farther the less."""
    importance = np.ones(len(target))
    coefficients = _least_squares(design, target, importance)
    for _ in range(_ITERATIONS):
        errors = np.abs(target - design @ coefficients)
        importance = np.minimum(_TUNING * scale_of(errors) / np.maximum(errors, _SMALLEST), 1.0)
        before, coefficients = coefficients, _least_squares(design, target, importance)
        if float(np.abs(coefficients - before).max()) < _CONVERGED:
            break
    return coefficients


def _least_squares(design: FloatArray, target: FloatArray, importance: FloatArray) -> FloatArray:
    weighted = design * importance[:, None]
    gram = weighted.T @ design + (_RIDGE * len(target) + _RIDGE) * np.eye(design.shape[1])
    return np.asarray(np.linalg.solve(gram, weighted.T @ target), dtype=np.float64)
