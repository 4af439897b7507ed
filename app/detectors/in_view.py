"""All points of a series in view: how far the windows that cover each point are from all others of the series."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from app.detectors.joins import LEVEL_SHARES, Joined, followed, join_with
from app.series import FloatArray

_MOST_POINTS = 40_000
_FULL_DETAIL = 128
_TENTH = 1.2816
"""The standard normal quantile of 90 %."""
_LEAST_SPREAD = 0.05
_NEGLIGIBLE = 1e-6


LEVEL, SHAPE, POINTS = 0, 1, 2
"""Metrics: of windows without and with normalising them, and of single points within their windows."""


class Member(NamedTuple):
    """One way to look at the windows of a series: a metric, and which neighbour counts, from 1."""

    length: int
    metric: int
    neighbor: int


def member_scores(values: FloatArray, members: Sequence[Member]) -> tuple[FloatArray, FloatArray]:
    """What each member says of each point, shape (members, n), and what is expected there, shape (n,).

    values: on the grid. The windows of each must fit in. Series of more than 40,000 points are looked at by averages of
    some points each.
    """
    n = len(values)
    factor = -(-n // _MOST_POINTS)
    reduced = _averages(values, factor)
    of_length = {}
    expected = None
    for length in sorted({member.length for member in members}):
        asked = [member for member in members if member.length == length]
        of_length[length], forecast = _scores_of_length(reduced, max(length // factor, 2), asked)
        expected = forecast if expected is None else expected
    assert expected is not None
    rows = [_finer(of_length[member.length][member], factor, n) for member in members]
    return np.stack(rows), _finer(expected, factor, n)


def standing_out(scores: FloatArray) -> FloatArray:
    """How far above their median the scores of each member are, 0 below: shape (members, n).

    In units of what would be a standard deviation, by the largest tenth, which a few anomalies hardly move.
    """
    median, tenth = np.median(scores, axis=1, keepdims=True), np.quantile(scores, 0.9, axis=1, keepdims=True)
    spread = np.maximum((tenth - median) / _TENTH, np.maximum(_LEAST_SPREAD * median, _NEGLIGIBLE))
    out: FloatArray = np.maximum((scores - median) / spread, 0.0)
    return out


def _scores_of_length(
    values: FloatArray, length: int, members: Sequence[Member]
) -> tuple[dict[Member, FloatArray], FloatArray]:
    """What members of one length say, each of shape (n,), and what is expected, shape (n,).

    Windows of more than 128 points are compared by averages of some points each, which loses nothing that they see.
    """
    from app.detectors.kernels_joins import GRID, moments, pointwise

    n = len(values)
    factor = max(length // _FULL_DETAIL, 1)
    coarse = _averages(values, factor)
    window = length // factor
    joined = join_with(coarse, coarse, window, max(member.neighbor for member in members), within=0)
    distances = np.sqrt(_filled(joined.squares))
    scores = {}
    for member in members:
        if member.metric == POINTS:
            means = moments(coarse, window)[0]
            places = joined.places[LEVEL, :, : member.neighbor].copy()
            found = pointwise(coarse, coarse, window, places, means, means, 1.0 - np.sqrt(LEVEL_SHARES[LEVEL]))
        else:
            found = _spread(distances[member.metric, :, member.neighbor - 1], window)
        scores[member] = _finer(found, factor, n)
    first = Joined(joined.squares[:, :, :1], joined.places[:, :, :1])
    forecast = np.nan_to_num(followed(first, coarse, coarse, window)[:-1])
    return scores, _finer(np.concatenate((np.full(window, coarse[:window].mean() / GRID), forecast)), factor, n)


def _averages(values: FloatArray, factor: int) -> FloatArray:
    """The means of so many points each, back on the grid."""
    if factor == 1:
        return values
    whole: FloatArray = np.rint(values[: len(values) // factor * factor].reshape(-1, factor).mean(axis=1))
    return whole


def _filled(squares: FloatArray) -> FloatArray:
    """With the farthest neighbour that there is in place of those that there are not, and 0 where there is none."""
    filled = squares.copy()
    filled[..., 0] = np.nan_to_num(filled[..., 0])
    for place in range(1, filled.shape[-1]):
        is_missing = np.isnan(filled[..., place])
        filled[..., place][is_missing] = filled[..., place - 1][is_missing]
    return filled


def _spread(of_windows: FloatArray, window: int) -> FloatArray:
    """The mean over the windows that cover each point."""
    totals = np.concatenate(([0.0], np.cumsum(of_windows)))
    points = np.arange(len(of_windows) + window - 1)
    first, last = np.maximum(points - window + 1, 0), np.minimum(points, len(of_windows) - 1) + 1
    spread: FloatArray = (totals[last] - totals[first]) / (last - first)
    return spread


def _finer(coarse: FloatArray, factor: int, n: int) -> FloatArray:
    """The scores of averages of `factor` points, at n points."""
    if factor == 1:
        return coarse
    fine: FloatArray = np.interp((np.arange(n) + 0.5) / factor - 0.5, np.arange(len(coarse)), coarse)
    return fine
