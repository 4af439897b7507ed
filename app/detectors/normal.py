"""The normal distribution as a table: how often a value deviates as far, and how far one does so often.

Logarithms of probabilities stand at every 64th of a standard deviation, with lines between them: a probability is off
by less than a ten-thousandth of itself. Evenly spaced, so that nothing is searched for, neither of one nor of many.
"""

import math
from collections.abc import Mapping

import numpy as np

from app.detectors.base import Direction
from app.series import FloatArray

_STEPS = 64.0
_FIRST, _LAST = -10.0, 10.0
_LEAST_LEVEL = -28.0
"""The logarithm of 7e-13: what is rarer is not told apart."""


class NormalTail:
    """How often a normally distributed value deviates as far or farther, on the sides that `direction` looks at."""

    def __init__(self, direction: Direction) -> None:
        sides, first = (2, 0.0) if direction == "both" else (1, _FIRST)
        grid = np.arange(first, _LAST, 1.0 / _STEPS)
        exact = [max(math.log(0.5 * sides * math.erfc(place / math.sqrt(2.0))), _LEAST_LEVEL) for place in grid]
        self._direction, self._first, self._last = direction, first, float(grid[-1])
        self._grid, self._levels = grid, np.array(exact)
        self._slopes = np.append(np.diff(self._levels) * _STEPS, 0.0)
        self._constants = self._levels - self._slopes * grid
        self._lines = list(zip(self._constants.tolist(), self._slopes.tolist(), strict=True))

    def threshold(self, share: float) -> float:
        """The deviation that this share of the values exceeds, at least 0."""
        return max(float(np.interp(-math.log(share), -self._levels, self._grid)), 0.0)

    def p_value(self, deviation: float) -> float:
        """The share of values that deviate as far or farther, in standard deviations, signed."""
        if self._direction == "both":
            deviation = abs(deviation)
        elif self._direction == "below":
            deviation = -deviation
        deviation = min(max(deviation, self._first), self._last)
        constant, slope = self._lines[int((deviation - self._first) * _STEPS)]
        return float(np.exp(constant + slope * deviation))  # not that of `math`, whose last bit may differ

    def p_values(self, deviations: FloatArray) -> FloatArray:
        """The same of n deviations, to the bit: shape (n,)."""
        if self._direction == "both":
            deviations = np.abs(deviations)
        elif self._direction == "below":
            deviations = -deviations
        deviations = np.clip(deviations, self._first, self._last)
        index = ((deviations - self._first) * _STEPS).astype(np.intp)
        levels: FloatArray = self._constants.take(index) + self._slopes.take(index) * deviations
        return np.exp(levels, out=levels)


NORMAL_TAILS: Mapping[Direction, NormalTail] = {
    direction: NormalTail(direction) for direction in ("both", "above", "below")
}
