"""Profiles: what is usual in each part of a cycle, as means over the parts of a circle."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.quantiles import quantiles
from app.series import FloatArray

_FEWEST_IN_PART = 5
_ON_GRID = 1e-3

Indices = NDArray[np.intp]


class Rest(NamedTuple):
    """The sums and the numbers of values in each part that are not in each fold: shapes (folds, parts)."""

    sums: FloatArray
    counts: FloatArray

    @classmethod
    def of(cls, index: Indices, fold: Indices, values: FloatArray, parts: int) -> "Rest":
        """Of n values, in these parts and these folds."""
        folds = int(fold.max()) + 1
        flat = fold * parts + index
        sums, counts = (sums_of(flat, weights, folds * parts).reshape(folds, parts) for weights in (values, None))
        return cls(sums.sum(axis=0) - sums, counts.sum(axis=0) - counts)

    def profiles(self, width: int) -> FloatArray:
        """What the other folds tell of each fold: shape (folds, parts)."""
        return _means(smoothed_sums(self.sums, width), smoothed_sums(self.counts, width))


def mean_profile(index: Indices, values: FloatArray, parts: int, width: int) -> FloatArray:
    """The mean value of each part, smoothed over neighbours."""
    sums, counts = (smoothed_sums(sums_of(index, weights, parts), width) for weights in (values, None))
    profile: FloatArray = _means(sums[None, :], counts[None, :])[0]
    return profile


def without_outliers(index: Indices, values: FloatArray, parts: int) -> FloatArray:
    """Values drawn towards the median of their part, or of its neighbourhood, where they are far off."""
    from app.detectors.kernels_values import part_medians

    medians = part_medians(index // max(math.ceil(_FEWEST_IN_PART * parts / len(values)), 1), values, parts)
    limit = outlying(values - medians)
    clipped: FloatArray = medians + np.clip(values - medians, -limit, limit)
    return clipped


def outlying(residuals: FloatArray) -> float:
    """How far off hardly any normal value is."""
    middle, most = quantiles(np.abs(residuals), 0.5, 0.98)
    return max(4.0 * middle, most)


def parts_of(times: FloatArray, cycle_s: float, parts: int) -> Indices:
    """In which part of the cycle each time is."""
    return nearest_parts(positions_in(times, cycle_s, parts), parts)


def nearest_parts(position: FloatArray, parts: int) -> Indices:
    """The part that each position is nearest to."""
    indices: Indices = np.rint(position).astype(np.intp)
    indices[indices == parts] = 0
    return indices


def positions_in(times: FloatArray, cycle_s: float, parts: int) -> FloatArray:
    """Where in the cycle each time is, in parts."""
    return np.mod(times, cycle_s) * (parts / cycle_s)


def value_at(profile: FloatArray, position: FloatArray) -> FloatArray:
    """The profile at positions, in parts; between two parts it is a line."""
    from app.detectors.kernels_values import interpolated

    return interpolated(profile, position, _ON_GRID)


def sums_of(index: Indices, values: FloatArray | None, parts: int) -> FloatArray:
    """The sum of the values in each part, or how many there are."""
    sums: FloatArray = np.bincount(index, values, parts).astype(np.float64)
    return sums


def smoothed_sums(parts: FloatArray, width: int) -> FloatArray:
    """Sums over the neighbours on a circle, with weights that fall to the sides: a triangle."""
    from app.detectors.kernels_values import smoothed

    return smoothed(np.atleast_2d(parts), width).reshape(parts.shape)


def _means(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Means of rows of parts; what has no values is interpolated."""
    means = sums / np.maximum(counts, 1e-9)
    parts = np.arange(means.shape[1])
    for row, known in zip(means, counts > 0, strict=True):
        if not known.all() and known.any():
            row[~known] = np.interp(parts[~known], parts[known], row[known], period=len(parts))
    return means
