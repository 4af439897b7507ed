"""Gross: which points of a history cannot be normal, so that nothing is learnt from them."""

import math

import numpy as np
from numpy.typing import NDArray

from app.detectors.quantiles import quantiles
from app.series import FloatArray

_FEWEST_TO_SET_ASIDE = 20
_BODY = (0.5, 0.1)
"""The share of the largest deviations whose median tells how the tail goes on; the second where most are equal."""
_BEYOND_TAIL = 1.5
_FEW, _POINTS_A_STRETCH = 5, 500
_JUST_BELOW = 2.0 / 3.0
_MOST_APART, _FEWEST_APART = 0.025, 6
_GAP, _RARE_GAP, _WIDER = 0.2, 5.0, 2.0
_SPIKE_POINTS, _MOST_OTHERS = 2, 0.1
_TO_COMPARE, _MOSTLY = 500, 0.6
_NEAR, _MOST_STEPS = 5, 0.5
_NEGLIGIBLE = 1e-9

Stretches = tuple[NDArray[np.intp], NDArray[np.intp]]


def find_gross(deviations: FloatArray, values: FloatArray, most: float) -> NDArray[np.bool_]:
    """Which points are so far off that they cannot be normal: shape (n,), at most the share `most` of them.

    Those far beyond where the tail should end, if they come seldom; and spikes of a size of their own, also if they
    come often. Else what comes often is normal: so are steps to another level, time and again.
    deviations, values: of the same points, shape (n,); NaN where nothing was expected.
    """
    nothing = np.zeros(len(deviations), dtype=np.bool_)
    is_known = np.isfinite(deviations)
    distances = np.where(is_known, np.abs(deviations), 0.0)
    known = distances[is_known]
    if len(known) < _FEWEST_TO_SET_ASIDE:
        return nothing
    limit = _end_of_tail(known)
    is_gross = distances > limit
    if is_gross.any() and not _come_seldom(distances, values, is_gross, limit):
        is_gross = nothing
    are_apart = distances > _gap_in_tail(known)
    if are_apart.any() and _are_spikes(values, are_apart):
        is_gross = is_gross | are_apart
    return is_gross if np.count_nonzero(is_gross) <= most * len(known) else nothing


def stretches_of(chosen: NDArray[np.bool_], timestamps_s: FloatArray) -> FloatArray:
    """The stretches of neighbouring chosen points: shape (k, 2), the first and the last Unix second of each."""
    starts, ends = _edges(chosen)
    return np.column_stack((timestamps_s[starts], timestamps_s[ends - 1]))


def _end_of_tail(distances: FloatArray) -> float:
    """Half as far again as the largest distance would be once in a hundred such histories, were the tail exponential.

    The third quarter of the distances tells how the tail begins; anomalies hardly move it.
    """
    for share in _BODY:
        beginning, middle = quantiles(distances, 1.0 - share, 1.0 - share / 2)
        if middle > beginning:
            depth = math.log(share * len(distances) * 100.0) / math.log(2.0)
            return beginning + _BEYOND_TAIL * (middle - beginning) * depth
    return math.inf


def _come_seldom(distances: FloatArray, values: FloatArray, is_gross: NDArray[np.bool_], limit: float) -> bool:
    """Whether points beyond the limit come in very few stretches, or in some that are neither steps nor a thick tail.

    Where a tail is thick, there are more points just below the limit than beyond it.
    """
    stretches = _edges(is_gross)
    count, points = len(stretches[0]), int(np.count_nonzero(is_gross))
    if count <= _FEW:
        return True
    if count > len(distances) // _POINTS_A_STRETCH:
        return False
    just_below = int(np.count_nonzero(distances > _JUST_BELOW * limit)) - points
    return just_below < points and float(np.mean(_are_steps(values, stretches))) <= _MOST_STEPS


def _gap_in_tail(distances: FloatArray) -> float:
    """Where distances end for all but a few in a hundred, which are far beyond; infinity if there is no such place.

    In a tail that thins out as a power does, the k-th largest is rarely more than exp(5 / k) times as far from the
    median as the next. And the gap has to be the widest by far: where values come in steps, as counts do, all are wide.
    """
    falling = np.sort(distances)[len(distances) // 2 :][::-1]
    off, gaps = falling - falling[-1], falling[:-1] - falling[1:]
    widest_below = np.append(np.maximum.accumulate(gaps[::-1])[::-1][1:], 0.0)
    k = np.arange(1, len(falling))
    is_apart = off[:-1] > np.exp(np.maximum(_GAP, _RARE_GAP / k)) * np.maximum(off[1:], _NEGLIGIBLE)
    is_apart &= (gaps > _WIDER * widest_below) & (k >= _FEWEST_APART) & (k <= _MOST_APART * len(distances))
    is_apart &= off[1:] > 0
    if not is_apart.any():
        return math.inf
    last = int(np.flatnonzero(is_apart)[-1])
    return float(0.5 * (falling[last] + falling[last + 1]))


def _are_spikes(values: FloatArray, chosen: NDArray[np.bool_]) -> bool:
    """Whether nearly all stretches of these points are two points at most, after which all is as before; at odd times.

    What comes at regular times is normal, and so is a second state of what else stands still.
    """
    quarter, three_quarters = quantiles(values, 0.25, 0.75)
    if quarter == three_quarters:
        return False
    starts, ends = stretches = _edges(chosen)
    others = (ends - starts > _SPIKE_POINTS) | _are_steps(values, stretches)
    return (
        len(starts) >= _FEWEST_APART and float(others.mean()) <= _MOST_OTHERS and not _come_again(starts, len(values))
    )


def _come_again(starts: NDArray[np.intp], n: int) -> bool:
    """Whether most that could are followed by another after the same time, give or take a point: by a period."""
    some = starts[:_TO_COMPARE]
    lags = (some[None, :] - some[:, None])[np.triu_indices(len(some), 1)]
    longest = (min(n, int(some[-1]) + 1) - int(some[0])) // 2
    followed = np.convolve(np.bincount(lags, minlength=longest + 2), np.ones(3), "same")[2 : longest + 1]
    could_be = np.searchsorted(some, some[-1] - np.arange(2, longest + 1), side="right")
    return bool(np.any(followed > _MOSTLY * could_be))


def _are_steps(values: FloatArray, stretches: Stretches) -> NDArray[np.bool_]:
    """Whether the level after each stretch is nearer to its farthest value than to the level before."""
    are_steps = np.zeros(len(stretches[0]), dtype=np.bool_)
    for i, (start, end) in enumerate(zip(*(edges.tolist() for edges in stretches), strict=True)):
        before, after = values[max(start - _NEAR, 0) : start], values[end : end + _NEAR]
        if len(before) and len(after):
            off = values[start:end] - np.median(before)
            farthest = off[np.argmax(np.abs(off))]
            are_steps[i] = 2.0 * np.sign(farthest) * (np.median(after) - np.median(before)) > abs(farthest)
    return are_steps


def _edges(chosen: NDArray[np.bool_]) -> Stretches:
    """Where stretches of chosen points begin, and where they have ended."""
    edges = np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
