"""What a detector of windows remembers of the points before: at the level of the history, and without what was odd.

A point that is judged takes part in the windows of the points after it. As it came it would make a whole window of them
odd: so where it is far off what an autoregression expected of it, the expectation is remembered in its place. And where
the level has left the range that it had in the history, what it is too high or too low is taken off: what stays is
normal after a while, and a trend is no anomaly.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import State
from app.detectors.windows import expect, farthest_usual, learn_expected
from app.series import FloatArray

_MOST_LEVEL_POINTS = 256
_MOST_ORDER = 32
_NEAR_POINTS = 5
"""Whose median tells the level of just now, whatever one or two of them are."""
_FAR_OFF = 4.0
"""Times what is usual in a window, from that median, that a point is held to."""
_LEVEL_SHARE, _ORDER_SHARE = 4, 8
_CLIP = 50.0
_USUAL_SHARE, _FAR_FACTOR = 0.999, 1.5
_SMALLEST = 1e-6


class Remembered(NamedTuple):
    """Consecutive points at the level of the history, in deviations of its values; each array of shape (n,).

    came, kept: as they came and as they are remembered, on the grid of `kernels_joins`. expected: by the points before.
    excess: what was taken off.
    """

    came: FloatArray
    kept: FloatArray
    expected: FloatArray
    excess: FloatArray

    @property
    def jumps(self) -> FloatArray:
        """How much higher they came than they are remembered."""
        return self.came - self.kept

    def last(self, n: int) -> "Remembered":
        """The last n points."""
        return Remembered(*(each[len(each) - n :] for each in self))


def learn_memory(values: FloatArray) -> State:
    """What has to be known of a history in standard units, shape (n,), n >= 1."""
    n = len(values)
    deviation = max(float(np.clip(values, -_CLIP, _CLIP).std()), _SMALLEST)
    own = values / deviation
    points = min(_MOST_LEVEL_POINTS, n // _LEVEL_SHARE)
    levels = _levels(own, points) if points else own
    order = min(_MOST_ORDER, n // _ORDER_SHARE)
    learnt = {"deviation": np.array(deviation), "level_points": np.array(float(points))}
    learnt = {**learnt, "levels": np.array([levels.min(), levels.max()]), **learn_expected(own, order + 1, 1.0)}
    off = np.abs(own[order:] - expect(_held(own, learnt), learnt))
    return {
        **learnt,
        "farthest": np.array(max(farthest_usual(off), _FAR_FACTOR * float(np.quantile(off, _USUAL_SHARE)))),
    }


def points_forgotten(learnt: State) -> int:
    """Points of a stretch that `remember` says nothing of, the first."""
    return int(learnt["level_points"]) + _NEAR_POINTS - 1 + _order(learnt)


def remember(learnt: State, values: FloatArray) -> Remembered:
    """All points of a stretch in standard units but the first `points_forgotten`, each by those before it alone."""
    points = int(learnt["level_points"])
    own = values / float(learnt["deviation"])
    excess = np.zeros(len(own) - points)
    if points:
        levels = _levels(own, points)[: len(excess)]
        excess = levels - np.clip(levels, *learnt["levels"])
    return _remember(learnt, own[points:] - excess, excess).last(len(values) - points_forgotten(learnt))


def remember_history(learnt: State, values: FloatArray) -> Remembered:
    """The same of the history itself, whose level is what it is; the first, of which nothing is expected, as they came.

    Shape (n,); `expected` is NaN for the first.
    """
    own = values / float(learnt["deviation"])
    later = _remember(learnt, own, np.zeros(len(own)))
    beginning = own[: _order(learnt)]
    unknown = np.full(len(beginning), np.nan)
    came = _on_grid(beginning)
    parts = zip((came, came, unknown, np.zeros(len(beginning))), later, strict=True)
    return Remembered(*(np.concatenate(pair) for pair in parts))


def _remember(learnt: State, own: FloatArray, excess: FloatArray) -> Remembered:
    order = _order(learnt)
    expected = expect(_held(own, learnt), learnt)
    came = own[order:]
    is_odd: NDArray[np.bool_] = np.abs(came - expected) > float(learnt["farthest"])
    on_grid = _on_grid(came)
    return Remembered(on_grid, np.where(is_odd, _on_grid(expected), on_grid), expected, excess[order:])


def _held(own: FloatArray, learnt: State) -> FloatArray:
    """The points held to the median of the last few where they are very far from it, but for the first: shape (n,).

    Else a spike that is large enough would move the mean that an expectation starts from, and so each for a while.
    """
    first = _NEAR_POINTS - 1
    if len(own) <= first:
        return own
    near, limit = _levels(own, _NEAR_POINTS), _FAR_OFF * float(learnt["limit"])
    return np.concatenate((own[:first], np.clip(own[first:], near - limit, near + limit)))


def _order(learnt: State) -> int:
    return len(learnt["coefficients"]) - 2


def _levels(values: FloatArray, points: int) -> FloatArray:
    """The median of so many points, for each such window: shape (n - points + 1,)."""
    from scipy.ndimage import median_filter

    whole = median_filter(values, points)
    first = points // 2
    levels: FloatArray = whole[first : first + len(values) - points + 1]
    return levels


def _on_grid(values: FloatArray) -> FloatArray:
    from app.detectors.kernels_joins import on_grid

    return on_grid(values)
