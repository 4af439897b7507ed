"""Standard units: values about 0 with a spread of 1, so that no detector has to know what a series is measured in."""

import math
from typing import NamedTuple, Self

import numpy as np

from app.detectors.bands import scaled
from app.series import FloatArray, Series

_MAD_TO_STD = 1.4826022185056018
"""The standard deviation of a normal distribution as a multiple of its median absolute deviation."""

_DEGENERATE = 1e-3
_CONSTANT = 1e-9
_FARTHEST = 1e12
_SMALLEST = 1e-307


class Unit(NamedTuple):
    """The centre of a series' values, and their spread, which is never 0."""

    center: float
    spread: float

    @classmethod
    def of(cls, values: FloatArray) -> Self:
        """Median and scaled median absolute deviation; the standard deviation where most values are equal.

        A constant has a spread far below what a change of it would be. Values are scaled by a power of two, which is
        exact, so that nothing overflows.
        """
        exponent = math.frexp(float(np.abs(values).max()))[1]
        small = np.ldexp(values, -exponent)
        center = float(np.median(small))
        spread = _MAD_TO_STD * float(np.median(np.abs(small - center)))
        std = float(small.std())
        if spread < _DEGENERATE * std:
            spread = std
        spread = max(spread, _CONSTANT * abs(center))
        return cls(scaled(center, exponent), max(scaled(spread, exponent), _SMALLEST))

    def standard(self, values: FloatArray) -> FloatArray:
        """Values in standard units, at most 1e12 from 0."""
        with np.errstate(over="ignore"):
            return np.clip((values - self.center) / self.spread, -_FARTHEST, _FARTHEST)

    def standard_one(self, value: float) -> float:
        """The same of one value."""
        return min(max((value - self.center) / self.spread, -_FARTHEST), _FARTHEST)

    def series(self, points: Series) -> Series:
        """The same points in standard units."""
        return Series(points.timestamps_s, self.standard(points.values))
