"""Surprise: how unusual a score is among those of a history, as the negative logarithm of a tail probability.

Within nine tenths of the history's scores it is counted; beyond, the tail goes on as an exponential distribution. So
scores of any kind can be added. Sum of logarithms of p-values: R. A. Fisher, Statistical Methods for Research Workers,
1925; here of their squares, which lets one that is sure outweigh many that are not.
"""

import numpy as np

from app.series import FloatArray

_SHARES = np.array([1.0, 0.75, 0.5, 0.35, 0.2, 0.1])
_LEVELS = -np.log(_SHARES)
_LEAST_EXCESS = 0.05
_HEAVIEST = 4.0
_NEGLIGIBLE = 1e-9


def surprise_curve(scores: FloatArray) -> FloatArray:
    """What `surprise` has to know of a history's scores, shape (n,), NaN for none: shape (7,).

    The scores that 100, 75, 50, 35, 20 and 10 % of them exceed, and the mean excess over the last; at most four times
    what it would be if the tail went on as it began, lest anomalies among them be taken for the tail.
    """
    known = np.sort(scores[np.isfinite(scores)])
    if not len(known):
        known = np.zeros(1)
    quantiles = np.quantile(known, 1.0 - _SHARES)
    excess = float((known[known >= quantiles[-1]] - quantiles[-1]).mean())
    begun = float(quantiles[-1] - quantiles[1]) / (_LEVELS[-1] - _LEVELS[1])
    excess = min(excess, _HEAVIEST * begun) if begun > 0 else excess
    excess = max(excess, _LEAST_EXCESS * float(quantiles[-1] - quantiles[2]), _NEGLIGIBLE)
    return np.append(quantiles, excess)


def surprise(scores: FloatArray, curve: FloatArray) -> FloatArray:
    """How unusual the scores are, at least 0; 0 for NaN. Shape (n,) to (n,)."""
    quantiles, excess = curve[:-1], curve[-1]
    within = np.interp(scores, quantiles, _LEVELS)
    beyond = _LEVELS[-1] + (scores - quantiles[-1]) / excess
    unusual: FloatArray = np.nan_to_num(np.where(scores > quantiles[-1], beyond, within))
    return unusual
