"""All points of a series in view: how far the windows that cover each point are from all others of the series."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.joins import Joined, followed, join_within
from app.series import FloatArray

_MOST_REFERENCES = 12_000
_STRETCHES = 8
_FULL_DETAIL = 128
_FEWEST_WINDOWS = 4


class Member(NamedTuple):
    """One way to look at the windows of a series: a metric, 0 for level or 1 for shape, and which neighbour counts."""

    length: int
    metric: int
    neighbor: int


def member_scores(values: FloatArray, members: tuple[Member, ...]) -> tuple[FloatArray, FloatArray]:
    """What each member says of each point, shape (members, n), and what is expected there, shape (n,).

    values: on the grid. Members whose windows do not fit in four times are left out; at least one must fit.
    """
    lengths = sorted({member.length for member in members if member.length * _FEWEST_WINDOWS <= len(values)})
    of_length = {}
    expected = np.zeros(len(values))
    for place, length in enumerate(lengths):
        most = max(member.neighbor for member in members if member.length == length)
        of_length[length], forecast = _scores_of_length(values, length, most)
        if place == 0:
            expected = forecast
    rows = [of_length[length][metric, neighbor - 1] for length, metric, neighbor in members if length in of_length]
    return np.stack(rows), expected


def standing_out(scores: FloatArray) -> FloatArray:
    """How many standard deviations above their mean the scores of each member are, 0 below: shape (members, n)."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    out: FloatArray = np.maximum(centred / np.where(deviation > 0, deviation, 1.0), 0.0)
    return out


def widened(scores: FloatArray, points: int) -> FloatArray:
    """The largest within so many points, an odd number, around each."""
    from scipy.ndimage import maximum_filter1d

    found: FloatArray = maximum_filter1d(scores, points, mode="nearest")
    return found


def _scores_of_length(values: FloatArray, length: int, most: int) -> tuple[FloatArray, FloatArray]:
    """Distances to the nearest, the second ... neighbour, shape (2, most, n), and what is expected, shape (n,).

    Windows of more than 128 points are compared by averages of some points each, which loses nothing that they see.
    """
    from app.detectors.kernels_joins import GRID, on_grid

    n = len(values)
    factor = max(length // _FULL_DETAIL, 1)
    coarse = values
    if factor > 1:
        coarse = on_grid(values[: n // factor * factor].reshape(-1, factor).mean(axis=1) / GRID)
    window = length // factor
    kept, is_seam = choose_references(len(coarse))
    joined = join_within(coarse, window, most, kept, is_seam)
    distances = np.sqrt(_filled(joined.squares))
    scores = np.stack([[_spread(row, window, factor, n) for row in of_metric.T] for of_metric in distances])
    first = Joined(joined.squares[:, :, :1], joined.places[:, :, :1])
    forecast = np.nan_to_num(followed(first, coarse, coarse[kept], window)[:-1])
    forecast = np.concatenate((np.full(window, coarse[:window].mean() / GRID), forecast))
    return scores, _finer(forecast, factor, n)


def choose_references(n: int) -> tuple[NDArray[np.intp], NDArray[np.bool_] | None]:
    """Which of n points are compared with, and which of these do not follow the one before: shapes (r,).

    All of them up to 12,000; else eight stretches of equal length, evenly spaced, the first and the last in them.
    """
    if n <= _MOST_REFERENCES:
        return np.arange(n), None
    length = _MOST_REFERENCES // _STRETCHES
    starts = np.linspace(0, n - length, _STRETCHES).astype(np.intp)
    is_seam = np.arange(length * _STRETCHES) % length == 0
    is_seam[0] = False
    return (starts[:, None] + np.arange(length)).ravel(), is_seam


def _filled(squares: FloatArray) -> FloatArray:
    """With the farthest neighbour that there is in place of those that there are not, and 0 where there is none."""
    filled = squares.copy()
    filled[..., 0] = np.nan_to_num(filled[..., 0])
    for place in range(1, filled.shape[-1]):
        is_missing = np.isnan(filled[..., place])
        filled[..., place][is_missing] = filled[..., place - 1][is_missing]
    return filled


def _spread(of_windows: FloatArray, window: int, factor: int, n: int) -> FloatArray:
    """The mean over the windows that cover each point: shape (n,)."""
    totals = np.concatenate(([0.0], np.cumsum(of_windows)))
    points = np.arange(len(of_windows) + window - 1)
    first, last = np.maximum(points - window + 1, 0), np.minimum(points, len(of_windows) - 1) + 1
    return _finer((totals[last] - totals[first]) / (last - first), factor, n)


def _finer(coarse: FloatArray, factor: int, n: int) -> FloatArray:
    """The scores of averages of `factor` points, at n points."""
    if factor == 1:
        return coarse
    fine: FloatArray = np.interp((np.arange(n) + 0.5) / factor - 0.5, np.arange(len(coarse)), coarse)
    return fine
