"""Compiled loops over the windows of a series: each window is judged by itself, so that its result is always the same.

Windows are cut one at a time, and their level is reduced: x - mean(x) + level * mean(x). The newest point of a window
comes from `values`, those before it from `past`, shape (n,) both. Sums run in a fixed order.
Sums over many references run over all of them at once, one coordinate after the other: that is what is fast.
"""

import math

import numba
import numpy as np

from app.series import FloatArray

_ROUNDING = 1e-12


@numba.njit(cache=True, nogil=True)
def cut(past: FloatArray, values: FloatArray, start: int, level: float, window: FloatArray) -> None:
    """Put the window that begins at `start` into `window`, of shape (w,)."""
    points = len(window)
    total = 0.0
    for j in range(points - 1):
        window[j] = past[start + j]
        total += window[j]
    window[points - 1] = values[start + points - 1]
    shift = (1.0 - level) * (total + window[points - 1]) / points
    for j in range(points):
        window[j] -= shift


@numba.njit(cache=True, nogil=True)
def expect_one(values: FloatArray, newest: int, coefficients: FloatArray, limit: float) -> float:
    """What is expected of values[newest] by the points before it.

    coefficients: shape (w + 1,): of the w - 1 points before, less their mean, each at most `limit`; of their mean;
    the constant.
    """
    before = len(coefficients) - 2
    mean = 0.0
    for j in range(before):
        mean += values[newest - before + j]
    mean /= max(before, 1)
    expected = mean + coefficients[before] * mean + coefficients[before + 1]
    for j in range(before):
        off = values[newest - before + j] - mean
        expected += coefficients[j] * min(max(off, -limit), limit)
    return float(expected)


@numba.njit(cache=True, nogil=True)
def expect(values: FloatArray, coefficients: FloatArray, limit: float) -> FloatArray:
    """What is expected of each point but the first w - 1: shape (n - w + 1,)."""
    first = len(coefficients) - 2
    expected = np.empty(len(values) - first)
    for i in range(len(expected)):
        expected[i] = expect_one(values, first + i, coefficients, limit)
    return expected


@numba.njit(cache=True, nogil=True)
def squared_distances(window: FloatArray, references: FloatArray, squares: FloatArray) -> None:
    """Put the squared distances of a window to m references, shape (w, m), into `squares`, of shape (m,)."""
    squares[:] = 0.0
    for j in range(len(window)):
        value = window[j]
        row = references[j]
        for r in range(len(squares)):
            squares[r] += (value - row[r]) * (value - row[r])


@numba.njit(cache=True, nogil=True)
def nearest(windows: FloatArray, references: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of k references, shape (w, k), the index of the nearest to each of m windows, and its distance: shapes (m,)."""
    m = len(windows)
    labels, distances = np.empty(m), np.empty(m)
    squares = np.empty(references.shape[1])
    for i in range(m):
        squared_distances(windows[i], references, squares)
        best = int(np.argmin(squares))
        labels[i], distances[i] = best, math.sqrt(squares[best])
    return labels, distances


@numba.njit(cache=True, nogil=True)
def group_sums(windows: FloatArray, labels: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """The sum of the windows of each label 0 .. k - 1, and their number: shapes (k, w) and (k,); others are -1."""
    sums, sizes = np.zeros((k, windows.shape[1])), np.zeros(k)
    for i in range(len(windows)):
        label = int(labels[i])
        if label >= 0:
            sizes[label] += 1.0
            for j in range(windows.shape[1]):
                sums[label, j] += windows[i, j]
    return sums, sizes


@numba.njit(cache=True, nogil=True)
def center_distances(past: FloatArray, values: FloatArray, level: float, references: FloatArray) -> FloatArray:
    """The distance of each window to the nearest of the references, shape (w, k): shape (n - w + 1,)."""
    points, k = references.shape
    distances = np.empty(len(values) - points + 1)
    window, squares = np.empty(points), np.empty(k)
    for i in range(len(distances)):
        cut(past, values, i, level, window)
        squared_distances(window, references, squares)
        distances[i] = math.sqrt(squares.min())
    return distances


@numba.njit(cache=True, nogil=True)
def component_distances(
    past: FloatArray, values: FloatArray, level: float, center: FloatArray, components: FloatArray, weights: FloatArray
) -> FloatArray:
    """The squared distance of each window by what q components, shape (w, q), say of windows: shape (n - w + 1,).

    weights: shape (q + 1,), of each squared component and of the squared rest.
    """
    points, q = components.shape
    distances = np.empty(len(values) - points + 1)
    window, parts = np.empty(points), np.empty(q)
    for i in range(len(distances)):
        cut(past, values, i, level, window)
        parts[:] = 0.0
        for j in range(points):
            off = window[j] - center[j]
            for r in range(q):
                parts[r] += off * components[j, r]
        total = 0.0
        for r in range(q):
            total += weights[r] * parts[r] * parts[r]
        rest = 0.0
        for j in range(points):
            off = window[j] - center[j]
            for r in range(q):
                off -= parts[r] * components[j, r]
            rest += off * off
        distances[i] = total + weights[q] * rest
    return distances


@numba.njit(cache=True, nogil=True)
def kernel_distances(
    past: FloatArray, values: FloatArray, level: float, references: FloatArray, weights: FloatArray, gamma: float
) -> FloatArray:
    """The root of -log(sum of weights * exp(-gamma * squared distance)) of each window: shape (n - w + 1,).

    references: shape (w, m). weights: shape (m,), above 0, of sum 1. Far from all it is that of the nearest alone, and
    nothing underflows.
    """
    points, m = references.shape
    distances = np.empty(len(values) - points + 1)
    window, squares = np.empty(points), np.empty(m)
    for i in range(len(distances)):
        cut(past, values, i, level, window)
        squared_distances(window, references, squares)
        least = squares.min()
        total = 0.0
        for r in range(m):
            total += weights[r] * math.exp(-gamma * (squares[r] - least))
        square = gamma * least - math.log(total)
        distances[i] = math.sqrt(square) if square > _ROUNDING else 0.0
    return distances


@numba.njit(cache=True, nogil=True)
def smallest(squares: FloatArray, left_out: int, best: FloatArray, which: FloatArray) -> None:
    """Put the k smallest of m numbers into `best`, shape (k,), rising, and their indices into `which`."""
    k = len(best)
    best[:] = np.inf
    which[:] = 0.0
    for r in range(len(squares)):
        if squares[r] >= best[k - 1] or r == left_out:
            continue
        place = k - 1
        while place > 0 and best[place - 1] > squares[r]:
            best[place], which[place] = best[place - 1], which[place - 1]
            place -= 1
        best[place], which[place] = squares[r], r


@numba.njit(cache=True, nogil=True)
def neighbours(references: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Distances to the k nearest others of m references, shape (w, m), and their indices: shapes (m, k)."""
    points, m = references.shape
    distances, which = np.empty((m, k)), np.empty((m, k))
    window, squares = np.empty(points), np.empty(m)
    for i in range(m):
        for j in range(points):
            window[j] = references[j, i]
        squared_distances(window, references, squares)
        smallest(squares, i, distances[i], which[i])
        for r in range(k):
            distances[i, r] = math.sqrt(distances[i, r])
    return distances, which


@numba.njit(cache=True, nogil=True)
def outlier_factors(
    past: FloatArray,
    values: FloatArray,
    level: float,
    references: FloatArray,
    reach: FloatArray,
    density: FloatArray,
    k: int,
) -> FloatArray:
    """The local outlier factor of each window among m references, shape (w, m): shape (n - w + 1,).

    reach: shape (m,), distance of each reference to its k-th neighbour. density: shape (m,), local reachability.
    """
    points, m = references.shape
    factors = np.empty(len(values) - points + 1)
    window, squares = np.empty(points), np.empty(m)
    best, which = np.empty(k), np.empty(k)
    for i in range(len(factors)):
        cut(past, values, i, level, window)
        squared_distances(window, references, squares)
        smallest(squares, -1, best, which)
        away, around = 0.0, 0.0
        for r in range(k):
            near = int(which[r])
            away += max(math.sqrt(best[r]), reach[near])
            around += density[near]
        factors[i] = around / k * (away / k + 1e-10)
    return factors
