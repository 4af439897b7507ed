"""Calibration: from how far points deviate to how often a normal point deviates as far, and back.

Deviations of data that a model was not fitted to are its sample of what is normal. Within the sample the thresholds
are split-conformal quantiles: of n deviations and one more normal one, the k-th largest is exceeded with a probability
of at most k / (n + 1), whatever their distribution. Beyond it, where alarms live, a generalised Pareto distribution is
fitted to the largest deviations and continues the curve.

Sources: V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, 2005 (conformal prediction);
H. Papadopoulos and others, Inductive Confidence Machines for Regression, 2002 (the split); J. Pickands, Statistical
Inference Using Extreme Order Statistics, Annals of Statistics 3, 1975 (the tail); J. Zhang, M. A. Stephens, A New and
Efficient Estimation Method for the Generalized Pareto Distribution, Technometrics 51, 2009 (its fit); A. Siffer and
others, Anomaly Detection in Streams with Extreme Value Theory, KDD 2017 (its use for alarms).
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from app.detectors.base import Direction
from app.series import FloatArray

LEVELS: FloatArray = -0.5 * np.arange(57.0)
"""Natural logarithms of the probabilities at which a curve is kept: 1 down to 7e-13."""

_TAIL_SHARE = 0.1
_TAIL_ROOTS = 3.0
_SMALLEST_TAIL = 5
_SMALLEST_EXCEEDANCE = 1e-300
_PRIOR_EXCEEDANCES = 10.0
_PRIOR_SHAPE = 0.1
_TIED_SHARE = 1e-4
_TIED_SCALE = 0.05
_SHAPES = (-2.0, 0.9)
_NEGLIGIBLE = 1e-9
_STEP = 1e-13


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far normal points deviate, below and above what was expected.

    below, above: shape (57,), rising; exp(LEVELS[i]) of the normal points deviate on that side by more than the i-th.
    is_sided: whether the side means something; if not, both curves are those of the deviation's magnitude.
    """

    below: FloatArray
    above: FloatArray
    is_sided: bool

    @classmethod
    def of(cls, deviations: FloatArray, *, is_sided: bool) -> Self:
        """The calibration by deviations of normal points, shape (n,), signed; n may be as small as 1. O(n log n)."""
        if is_sided:
            return cls(tail_curve(-deviations), tail_curve(deviations), is_sided=True)
        curve = tail_curve(np.abs(deviations))
        return cls(curve, curve, is_sided=False)

    def thresholds(self, false_alarm_rate: float, direction: Direction) -> tuple[float, float]:
        """How far below and above what was expected a point may lie when this share of normal points is flagged."""
        share = false_alarm_rate / 2 if self.is_sided and direction == "both" else false_alarm_rate
        level = -math.log(share)
        below, above = (float(np.interp(level, -LEVELS, curve)) for curve in (self.below, self.above))
        return math.inf if direction == "above" else max(below, 0.0), math.inf if direction == "below" else max(
            above, 0.0
        )

    def p_values(self, deviations: FloatArray, direction: Direction) -> FloatArray:
        """The share of normal points that deviate as far or farther, on the sides that `direction` looks at."""
        if not self.is_sided:
            return np.exp(np.interp(np.abs(deviations), self.above, LEVELS))
        if direction == "above":
            return np.exp(np.interp(deviations, self.above, LEVELS))
        if direction == "below":
            return np.exp(np.interp(-deviations, self.below, LEVELS))
        one_sided = np.minimum(np.interp(deviations, self.above, LEVELS), np.interp(-deviations, self.below, LEVELS))
        return np.minimum(2.0 * np.exp(one_sided), 1.0)

    def p_value(self, deviation: float, direction: Direction) -> float:
        """The same for one deviation, to the bit."""
        return float(self.p_values(np.float64(deviation), direction))  # type: ignore[arg-type]  # numpy takes both


def tail_curve(deviations: FloatArray) -> FloatArray:
    """The deviation that a share exp(LEVELS) of normal points exceeds, by a sample of n: shape (57,), never falling."""
    ordered = np.sort(deviations)[::-1]
    n = len(ordered)
    exceedances = min(max(_SMALLEST_TAIL, math.ceil(min(_TAIL_SHARE * n, _TAIL_ROOTS * math.sqrt(n)))), n - 1)
    rank = np.floor(np.exp(LEVELS) * (n + 1)).astype(np.intp)
    curve = ordered[np.clip(rank, 1, n) - 1]
    in_tail = rank <= exceedances
    if exceedances < 1:
        return _strictly_rising(curve)
    beginning = ordered[exceedances]
    shape, scale = _fit_tail(ordered[:exceedances] - beginning)
    if scale < _TIED_SHARE * (beginning - ordered[n // 2]):  # the largest are equal, and say nothing of what is beyond
        shape, scale = 0.0, _TIED_SCALE * (beginning - ordered[n // 2])
    scale = max(scale, _NEGLIGIBLE)
    depth = math.log((exceedances + 1) / (n + 1)) - LEVELS[in_tail]
    beyond = depth if abs(shape) < _NEGLIGIBLE else np.expm1(shape * depth) / shape
    fitted = beginning + scale * beyond
    # Where the sample says something, the fit may not differ from it by more than a factor of 2 in probability.
    k = rank[in_tail]
    fitted = np.maximum(fitted, ordered[np.minimum(2 * k, n) - 1], where=k > 0, out=fitted)
    np.minimum(fitted, ordered[np.maximum(k // 2, 1) - 1], where=k > 1, out=fitted)
    # Of values that come more than once all or none are alarms: none, lest there are more than asked for.
    is_tied = (k > 0) & (ordered[np.maximum(k, 1) - 1] - ordered[np.minimum(k, n - 1)] < _NEGLIGIBLE)
    curve[in_tail] = np.maximum(fitted, ordered[np.maximum(k, 1) - 1], where=is_tied, out=fitted)
    return _strictly_rising(curve)


def _strictly_rising(curve: FloatArray) -> FloatArray:
    """The curve without falls, and equal neighbours told apart: the first of a jump stands for the value itself."""
    step = _STEP * max(float(np.abs(curve).max()), 1.0)
    rising: FloatArray = np.maximum.accumulate(curve) + step * np.arange(len(curve))
    return rising


def _fit_tail(exceedances: FloatArray) -> tuple[float, float]:
    """Shape and scale of the generalised Pareto distribution of these exceedances, falling (Zhang and Stephens).

    The shape is drawn towards a tail that is a little heavier than the exponential, as ten more exceedances would:
    few say little about it.
    """
    m = len(exceedances)
    largest, quartile = float(exceedances[0]), float(exceedances[-max(int(m / 4 + 0.5), 1)])
    if quartile <= max(_NEGLIGIBLE * largest, _SMALLEST_EXCEEDANCE) or m < _SMALLEST_TAIL:
        return 0.0, float(exceedances.mean())
    grid = 30 + int(math.sqrt(m))
    rates = 1.0 / largest + (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * quartile)
    shapes = np.log1p(-rates[:, None] * exceedances).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = m * (np.log(-rates / shapes) - shapes - 1.0)
    likelihood = np.where(np.isfinite(likelihood), likelihood, -np.inf)
    if not np.isfinite(likelihood.max()):
        return 0.0, float(exceedances.mean())
    weights = np.exp(likelihood - likelihood.max())
    rate = float((rates * weights).sum() / weights.sum())
    shape = float(np.log1p(-rate * exceedances).mean())
    scale = -shape / rate if abs(rate) > _NEGLIGIBLE / largest else float(exceedances.mean())
    shape = (m * shape + _PRIOR_EXCEEDANCES * _PRIOR_SHAPE) / (m + _PRIOR_EXCEEDANCES)
    return min(max(shape, _SHAPES[0]), _SHAPES[1]), scale
