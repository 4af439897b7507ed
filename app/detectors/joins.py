"""Windows against windows: what `subsequence_knn` knows of the distances between the windows of two series."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray

LEVEL_SHARES = np.array([0.3, 0.0])
"""The share of the squared difference of the means, for each of the two metrics: level and shape."""

_FLOOR = 0.5
"""The deviation, in those of the series, that the metric of shape adds to a window's own before it divides by it."""
_SHORTEST_BLOCK = 16
_LARGEST_LAG = 400
_HIGHER = 0.05
_CLEAR = 0.25
_NEGLIGIBLE = 1e-12

Places = NDArray[np.int64]


class Joined(NamedTuple):
    """The k nearest windows of each window: squares and places of shape (2, windows, k); NaN and -1 for none."""

    squares: FloatArray
    places: Places


def join_with(
    values: FloatArray,
    reference: FloatArray,
    length: int,
    k: int,
    *,
    jumps: FloatArray | None = None,
    within: int | None = None,
    shape_from: int = 0,
) -> Joined:
    """The nearest windows in the reference of each window in values, both on the grid and at least that long.

    jumps: how much higher the newest point of each window is than `values` has it, shape (windows,). within: where
    values begin in the reference that they are part of: windows that overlap are no neighbours. shape_from: the first
    window that is asked for by its shape.
    """
    from app.detectors.kernels_joins import join

    starts = np.arange(len(values) - length + 1)
    newest = np.zeros(len(starts)) if jumps is None else jumps
    skip_from = skip_to = np.zeros(len(starts), np.int64)
    if within is not None:
        skip_from = np.maximum(starts + within - length + 1, 0)
        skip_to = np.minimum(starts + within + length, len(reference) - length + 1)
    own = _windows_of(values, newest, length)
    others = _windows_of(reference, np.zeros(len(reference) - length + 1), length)
    block = max(length, _SHORTEST_BLOCK)
    begin = np.array([0, shape_from])
    joined = join(values, newest, reference, length, block, k, begin, skip_from, skip_to, *own, *others, LEVEL_SHARES)
    return Joined(*joined)


def followed(joined: Joined, values: FloatArray, reference: FloatArray, length: int) -> FloatArray:
    """What came next after the neighbours of each window, were it at the level of the window: NaN for none.

    In standard units, shape (windows,): the forecast of the value after each window.
    """
    from app.detectors.kernels_joins import GRID, moments

    own, others = moments(values, length)[0], moments(reference, length)[0]
    total = np.zeros(len(own))
    found = np.zeros(len(own))
    for place in range(joined.places.shape[2]):
        at = joined.places[0, :, place]
        is_there = (at >= 0) & (at + length < len(reference))
        at = np.where(is_there, at, 0)
        following = reference[np.minimum(at + length, len(reference) - 1)] / GRID
        total += np.where(is_there, following + (1.0 - LEVEL_SHARES[0]) * (own - others[at]), 0.0)
        found += is_there
    mean: FloatArray = total / np.where(found > 0, found, np.nan)
    return mean


def find_cycle_points(values: FloatArray) -> int:
    """After how many points, at most 400, a series clearly repeats itself; 0 when it does not.

    The lag at which the autocorrelation rises most above its lowest before it, when by more than a quarter.
    """
    centred = values - values.mean()
    lags = min(_LARGEST_LAG, len(values) // 3)
    spectrum = np.fft.rfft(centred, 2 * len(values))
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[: lags + 2]
    correlation = correlation / max(float(correlation[0]), _NEGLIGIBLE)
    best, prominence, lowest = 0, 0.0, 1.0
    for lag in range(2, lags):
        lowest = min(lowest, float(correlation[lag]))
        is_peak = correlation[lag - 1] < correlation[lag] >= correlation[lag + 1]
        if is_peak and correlation[lag] - lowest > prominence + _HIGHER:
            best, prominence = lag, float(correlation[lag]) - lowest
    return best if prominence > _CLEAR else 0


def _windows_of(values: FloatArray, jumps: FloatArray, length: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Their means, shape (windows,), and what each metric makes of their variance, and its weight: (2, windows)."""
    from app.detectors.kernels_joins import weighted

    of_windows = weighted(values, jumps, length, _FLOOR)
    return of_windows[0], of_windows[1:3], of_windows[3:]
