"""Distances between the windows of two series: the joins behind `subsequence_knn`, compiled by numba.

Values come rounded to a grid (`on_grid`), so that all sums of products of a window are integers which float64 holds
exactly. Running sums then give the same bits as sums of their own, so a window judged alone has the distance that it
has in a join of thousands; and nothing is lost by cancellation.

Running dot products along diagonals: C.-C. M. Yeh and others, Matrix Profile I, ICDM 2016 (STOMP, Y. Zhu and others,
Matrix Profile II, ICDM 2016). Cost: O(na * nb) time for na and nb windows, whatever their length; O(na + nb) memory.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray

GRID = 1024.0
_FARTHEST = 1024.0
FAR = 1e300

Integers = NDArray[np.int64]


def on_grid(values: FloatArray) -> FloatArray:
    """Values in standard units, as integers of 1/1024 spread each, at most 1024 spreads from 0.

    Products of two have 40 bits, so that 4,096 of them add up within the 53 bits of a float64.
    """
    return np.rint(np.clip(values, -_FARTHEST, _FARTHEST) * GRID)


@numba.njit(cache=True, nogil=True)
def moments(x: FloatArray, m: int) -> FloatArray:
    """Mean and variance of each window of m points, in spreads: shape (2, n - m + 1)."""
    n = x.size - m + 1
    out = np.empty((2, n))
    total = 0.0
    squares = 0.0
    for t in range(m - 1):
        total += x[t]
        squares += x[t] * x[t]
    for i in range(n):
        total += x[i + m - 1]
        squares += x[i + m - 1] * x[i + m - 1]
        mean = total / m
        out[0, i] = mean / GRID
        out[1, i] = max((squares - total * mean) / m, 0.0) / (GRID * GRID)
        total -= x[i]
        squares -= x[i] * x[i]
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")  # which lets divisions be vectorised
def weighted(x: FloatArray, jumps: FloatArray, m: int, floor: float) -> FloatArray:
    """Of each window of m points, in spreads: mean, variance, variance * w * w, 1 and w = 1 / sqrt(variance + floor^2).

    jumps: how much higher the newest point of each window is than x has it, on the grid. Shape (5, n - m + 1).
    """
    n = x.size - m + 1
    out = np.empty((5, n))
    means, variances, weighed, ones, weights = out
    total = 0.0
    squares = 0.0
    for t in range(m - 1):
        total += x[t]
        squares += x[t] * x[t]
    for i in range(n):
        newest = x[i + m - 1]
        risen = newest + jumps[i]
        means[i] = total + risen
        variances[i] = squares + risen * risen
        total += newest - x[i]
        squares += newest * newest - x[i] * x[i]
    # Apart from the running sums and from one another, since each of these loops is vectorised.
    share = 1.0 / m
    for i in range(n):
        variance = (variances[i] - means[i] * means[i] * share) * share / (GRID * GRID)
        variances[i] = max(variance, 0.0)
    for i in range(n):
        means[i] *= share / GRID
    for i in range(n):
        weights[i] = 1.0 / np.sqrt(variances[i] + floor * floor)
    for i in range(n):
        weighed[i] = variances[i] * weights[i] * weights[i]
    ones[:] = 1.0
    return out


@numba.njit(cache=True, nogil=True)
def _update(dots: FloatArray, heads: FloatArray, tails: FloatArray, head: float, tail: float) -> None:
    for j in range(dots.size):
        dots[j] += head * heads[j] - tail * tails[j]


@numba.njit(cache=True, nogil=True)
def _first_dots(window: FloatArray, b: FloatArray, dots: FloatArray) -> None:
    """The product of one window with each window of b; four points at a time, which saves three stores in four."""
    n = dots.size
    dots[:] = 0.0
    whole = window.size // 4 * 4
    for t in range(0, whole, 4):
        w0, w1, w2, w3 = window[t], window[t + 1], window[t + 2], window[t + 3]
        b0, b1, b2, b3 = b[t : t + n], b[t + 1 : t + 1 + n], b[t + 2 : t + 2 + n], b[t + 3 : t + 3 + n]
        for j in range(n):
            dots[j] += (w0 * b0[j] + w1 * b1[j]) + (w2 * b2[j] + w3 * b3[j])
    for t in range(whole, window.size):
        w0, b0 = window[t], b[t : t + n]
        for j in range(n):
            dots[j] += w0 * b0[j]


@numba.njit(cache=True, nogil=True)
def _distances(
    dots: FloatArray,
    mean: float,
    own: float,
    weight: float,
    mean_b: FloatArray,
    own_b: FloatArray,
    weight_b: FloatArray,
    level: float,
    share: float,
    out: FloatArray,
) -> None:
    """Squared distances of one window to many, a point: of shapes, weighted, and a share of that of levels."""
    for j in range(out.size):
        product = dots[j] * share - mean * mean_b[j]
        off = mean - mean_b[j]
        out[j] = max(own + own_b[j] - 2.0 * weight * weight_b[j] * product + level * off * off, 0.0)


@numba.njit(cache=True, nogil=True)
def _nearest(bits: Integers, block: int, distances: Integers, places: Integers) -> None:
    """The smallest of each block of distances, and of these the k smallest: how far and where, nearest first.

    Takes floats by their bits, whose order is the same for those that are not negative, since that is vectorised.
    """
    k = places.size
    distances[:] = np.int64(2**63 - 1)
    places[:] = -1
    for start in range(0, bits.size, block):
        part = bits[start : start + block]
        least = np.int64(2**63 - 1)
        for j in range(part.size):
            least = min(least, part[j])
        if least < distances[k - 1]:
            p = k - 1
            while p > 0 and distances[p - 1] > least:
                distances[p] = distances[p - 1]
                places[p] = places[p - 1]
                p -= 1
            distances[p] = least
            places[p] = start
    for p in range(k):
        if places[p] >= 0:
            while bits[places[p]] != distances[p]:
                places[p] += 1


@numba.njit(cache=True, nogil=True)
def join(
    a: FloatArray,
    jumps: FloatArray,
    b: FloatArray,
    m: int,
    block: int,
    k: int,
    begin: Integers,
    skip_from: Integers,
    skip_to: Integers,
    mean_a: FloatArray,
    own_a: FloatArray,
    weight_a: FloatArray,
    mean_b: FloatArray,
    own_b: FloatArray,
    weight_b: FloatArray,
    levels: FloatArray,
) -> tuple[FloatArray, Integers]:
    """The k nearest windows in b of each window of m points in a, one from each block of windows.

    a, b, jumps: on the grid; the newest point of window i of a is jumps[i] higher than a has it. mean: shape
    (windows,); own, weight: shape (metrics, windows), see `weighted`; levels: shape (metrics,). Window i of a is not
    compared with windows skip_from[i] to skip_to[i] - 1 of b, which it overlaps.
    Gives squared distances, shape (metrics, windows, k), and places in b, -1 where there are fewer than k blocks.
    """
    na = a.size - m + 1
    nb = b.size - m + 1
    count = levels.size
    share = 1.0 / (m * GRID * GRID)
    diagonals = np.zeros(na + nb)
    _first_dots(a[:m], b, diagonals[na - 1 : na - 1 + nb])
    distances = np.full((count, na, k), np.nan)
    places = np.full((count, na, k), -1)
    row = np.empty(nb)
    risen = np.empty(nb)
    bits = row.view(np.int64)
    near = np.empty(k, np.int64)
    where = np.empty(k, np.int64)
    for i in range(na):
        first = na - 1 - i
        dots = diagonals[first : first + nb]
        if i > 0:
            total = 0.0
            for t in range(m):
                total += a[i + t] * b[t]
            dots[0] = total
            _update(dots[1:], b[m : m + nb - 1], b[: nb - 1], a[i + m - 1], a[i - 1])
        if jumps[i] != 0.0:
            risen[:] = dots + jumps[i] * b[m - 1 : m - 1 + nb]
            dots = risen
        for metric in range(count):
            if i < begin[metric]:
                continue
            _distances(
                dots,
                mean_a[i],
                own_a[metric, i],
                weight_a[metric, i],
                mean_b,
                own_b[metric],
                weight_b[metric],
                levels[metric],
                share,
                row,
            )
            row[skip_from[i] : skip_to[i]] = FAR
            _nearest(bits, block, near, where)
            for p in range(k):
                if where[p] >= 0 and row[where[p]] < FAR:
                    distances[metric, i, p] = row[where[p]]
                    places[metric, i, p] = where[p]
    return distances, places


@numba.njit(cache=True, nogil=True)
def pointwise(
    x: FloatArray, b: FloatArray, m: int, places: Integers, mean_x: FloatArray, mean_b: FloatArray, share: float
) -> FloatArray:
    """How far each point is from the same point of the neighbours of its windows: root mean square, in spreads.

    x: on the grid; places: shape (windows, k), in b. The neighbours are lifted by a share of the difference of means.
    """
    total = np.zeros(x.size)
    count = np.zeros(x.size)
    for i in range(places.shape[0]):
        for p in range(places.shape[1]):
            j = places[i, p]
            if j < 0:
                continue
            shift = share * (mean_x[i] - mean_b[j])
            for t in range(m):
                off = (x[i + t] - b[j + t]) / GRID - shift
                total[i + t] += off * off
                count[i + t] += 1.0
    return np.sqrt(total / np.maximum(count, 1.0))


@numba.njit(cache=True, nogil=True)
def mean_distance(squares: FloatArray, k: int) -> FloatArray:
    """The mean of the distances to the first k neighbours, where there are as many: shape (n,) of (n, neighbours)."""
    out = np.empty(squares.shape[0])
    for i in range(squares.shape[0]):
        total = 0.0
        found = 0
        for p in range(k):
            if not np.isnan(squares[i, p]):
                total += np.sqrt(squares[i, p])
                found += 1
        out[i] = total / found if found else np.nan
    return out


@numba.njit(cache=True, nogil=True)
def smoothed(newest: FloatArray, before: FloatArray, weights: FloatArray) -> FloatArray:
    """The weighted sum of each of the newest and of those before it, from the first that has as many; 0 for NaN."""
    n = newest.size - weights.size + 1
    out = np.zeros(n)
    for i in range(n):
        last = i + weights.size - 1
        if not np.isnan(newest[last]):
            out[i] = weights[0] * newest[last]
        for back in range(1, weights.size):
            if not np.isnan(before[last - back]):
                out[i] += weights[back] * before[last - back]
    return out
