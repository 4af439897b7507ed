"""Distances of windows to the windows that are most like them: the detector for all that has a shape."""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment, CalibratedParams
from app.series import FloatArray, Series

_LEVELS = np.array([0.3, 0.0])
"""The share of the squared difference of the means, for each of the two metrics."""
_FLOORS = (None, 0.5)
"""What is added to a window's deviation before it is divided by it; None for a metric that does not normalise."""
_LADDER = (8, 16, 32, 64)
_LADDER_IN_VIEW = (8, 16, 32, 64, 128, 256, 512)
_MOST_REFERENCES = 10_000
_STRETCHES = 8
_SHORTEST_BLOCK = 32
_FEWEST_WINDOWS = 32
_FULL_DETAIL = 32
"""Windows of more points are compared by averages of two points, four, and so on."""
_QUIETEST = 1e-3
_MAD_TO_STD = 1.4826


class SubsequenceKnnParams(CalibratedParams):
    """Parameters of `subsequence_knn`."""

    neighbors: int = Field(5, ge=1, le=50, description="Which of the nearest windows the distance is taken to.")
    window_points: int | None = Field(
        None, ge=2, le=2048, description="Length of the windows; by default several, from 8 points on."
    )


class Windows(NamedTuple):
    """The windows of one length in a series: means, shape (windows,), and own and weight, shape (2, windows).

    own: squared deviation from the mean, weighted as the metric has it, a point; weight: what a metric divides by.
    """

    mean: FloatArray
    own: FloatArray
    weight: FloatArray


class SubsequenceKnn(CalibratedDetector):
    """An anomaly lies in a window that is unlike all others: far from its k-th nearest neighbour.

    Two metrics, on windows of several lengths. One subtracts the mean of each window and adds 0.3 of the squared
    difference of the means, so that amplitude counts, and level a little; it does not normalise windows, as the matrix
    profile does, which makes noise look like shape. The other divides by the deviation of the window, plus half of that
    of the series, and so sees shape where amplitude varies. Neighbours come from separate blocks of the history, and
    never overlap the window. Each distance is set against those of the history's own windows, and what is larger than
    usual adds up in squares.

    The reference is the history, or eight stretches of it that are evenly spaced and hold 10,000 points together.

    Source: the distance to the k-th neighbour, S. Ramaswamy, R. Rastogi, K. Shim, Efficient Algorithms for Mining
    Outliers from Large Data Sets, SIGMOD 2000; on subsequences, E. Keogh, J. Lin, A. Fu, HOT SAX, ICDM 2005; computed
    as C.-C. M. Yeh and others, Matrix Profile I, ICDM 2016.
    Cost: O(n^2) to fit up to 10,000 points, then constant; O(n) a point, below a millisecond. Context: the longest
    window less a point. Finds: whatever the history has not shown, spikes, shapes, missing beats, changes of variance.
    Misses: what the history has shown five times, slow drifts, and values that are wrong only for their hour.
    """

    __slots__ = ()

    name: ClassVar[str] = "subsequence_knn"
    Params: ClassVar[type[DetectorParams]] = SubsequenceKnnParams
    is_sided: ClassVar[bool] = False

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        assert isinstance(params, SubsequenceKnnParams)
        from app.detectors.kernels_joins import on_grid

        kept, is_seam = choose_references(len(history))
        reference = on_grid(history.values[kept])
        lengths = _lengths(len(reference), _LADDER, params.window_points)
        distances, expected = _join_itself(reference, is_seam, lengths, params.neighbors)
        usual, spread = _usual(distances)
        state = {
            "reference": reference,
            "is_seam": is_seam.astype(np.float64),
            "lengths": lengths.astype(np.float64),
            "neighbors": np.array(float(params.neighbors)),
            "usual": usual,
            "spread": spread,
        }
        assessed = Assessment.unknown(len(history))
        combined = _combined(distances, usual, spread)
        known = kept[np.isfinite(combined)]
        found = Assessment.of_distances(
            history.values[known], expected[np.isfinite(combined)], combined[np.isfinite(combined)]
        )
        assessed.expected[known] = found.expected
        assessed.scale[known] = found.scale
        return state, assessed

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        return SubsequenceKnn.study(history, params)[0]

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        assert isinstance(params, SubsequenceKnnParams)
        from app.detectors.kernels_joins import on_grid

        values = on_grid(series.values)
        n = len(values)
        lengths = _lengths(n, _LADDER_IN_VIEW, params.window_points)
        total = np.zeros(n)
        expected = np.zeros(n)
        for place, length in enumerate(lengths.tolist()):
            distances, near = _in_view(values, length, params.neighbors)
            usual, spread = _usual(distances[None])
            total += np.square(_combined(distances[None], usual, spread))
            if place == _middle(lengths):
                expected = near
        return Assessment.of_distances(series.values, expected, _widened(np.sqrt(total), int(lengths[0])))

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return int(learnt["lengths"][-1]) - 1

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        from app.detectors.kernels_joins import join, on_grid

        reference, lengths = learnt["reference"], learnt["lengths"].astype(np.int64)
        values = on_grid(stretch.values)
        longest = int(lengths[-1])
        n = len(values) - longest + 1
        distances = np.empty((len(lengths), 2, n))
        expected = np.zeros(n)
        is_seam = learnt["is_seam"] > 0
        for place, length in enumerate(lengths.tolist()):
            part = values[longest - length :]
            a, b = windows_of(part, length), windows_of(reference, length, is_seam)
            nothing = np.zeros(n, np.int64)
            k = int(learnt["neighbors"])
            far, where = join(part, reference, length, _block(length), k, nothing, nothing, *a, *b, _LEVELS)
            distances[place] = _kth(far)
            if place == _middle(lengths):
                expected = _expected(part, reference, length, where[0])
        combined = _combined(distances, learnt["usual"], learnt["spread"])
        return Assessment.of_distances(stretch.values[longest - 1 :], expected, combined)


def choose_references(n: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Which of n points are compared with, and before which of these is a seam: shapes (r,), r at most 10,000.

    All of them, or stretches of equal length that are evenly spaced, the first and the last points among them.
    """
    if n <= _MOST_REFERENCES:
        return np.arange(n), np.zeros(n, dtype=np.bool_)
    length = _MOST_REFERENCES // _STRETCHES
    starts = np.linspace(0, n - length, _STRETCHES).astype(np.intp)
    is_seam = np.arange(length * _STRETCHES) % length == 0
    is_seam[0] = False
    return (starts[:, None] + np.arange(length)).ravel(), is_seam


def windows_of(values: FloatArray, length: int, is_seam: NDArray[np.bool_] | None = None) -> Windows:
    """The windows of this length in values on the grid; those across a seam are far from everything."""
    from app.detectors.kernels_joins import FAR, moments

    mean, variance = moments(values, length)
    weight = np.stack([np.ones_like(mean) if f is None else 1.0 / (np.sqrt(variance) + f) for f in _FLOORS])
    own = variance * weight * weight
    if is_seam is not None and is_seam.any():
        for seam in np.flatnonzero(is_seam).tolist():
            own[:, max(seam - length + 1, 0) : seam] = FAR
    return Windows(mean, own, weight)


def _join_itself(
    reference: FloatArray, is_seam: NDArray[np.bool_], lengths: NDArray[np.int64], neighbors: int
) -> tuple[FloatArray, FloatArray]:
    """The distances of the windows that end at each point, shape (lengths, 2, n), and what is expected there."""
    from app.detectors.kernels_joins import join

    n = len(reference)
    distances = np.full((len(lengths), 2, n), np.nan)
    expected = np.zeros(n)
    for place, length in enumerate(lengths.tolist()):
        windows = windows_of(reference, length, is_seam)
        skips = _overlaps(np.arange(n), np.arange(n), length)
        far, where = join(reference, reference, length, _block(length), neighbors, *skips, *windows, *windows, _LEVELS)
        distances[place, :, length - 1 :] = _kth(far)
        if place == _middle(lengths):
            expected[length - 1 :] = _expected(reference, reference, length, where[0])
    return distances, expected


def _overlaps(
    places: NDArray[np.intp], kept: NDArray[np.intp], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From and to which of the kept windows each window of this length has points in common: shapes (windows,)."""
    starts = places[: len(places) - length + 1]
    last = len(kept) - length + 1
    skip_from = np.minimum(np.searchsorted(kept, starts - length, "right"), last)
    skip_to = np.minimum(np.searchsorted(kept, starts + length), last)
    return skip_from.astype(np.int64), skip_to.astype(np.int64)


def _in_view(values: FloatArray, length: int, neighbors: int) -> tuple[FloatArray, FloatArray]:
    """Distances of the windows that cover each point, on average, shape (2, n), and what is expected of the points.

    Long windows are compared by averages of some points each.
    """
    from app.detectors.kernels_joins import GRID, join, on_grid

    n = len(values)
    factor = max(length // _FULL_DETAIL, 1)
    coarse = on_grid(values[: n // factor * factor].reshape(-1, factor).mean(axis=1) / GRID)
    m = max(length // factor, 1)
    kept, is_seam = choose_references(len(coarse))
    reference = coarse[kept]
    skips = _overlaps(np.arange(len(coarse)), kept, m)
    windows = *windows_of(coarse, m), *windows_of(reference, m, is_seam)
    far, where = join(coarse, reference, m, _block(m), neighbors, *skips, *windows, _LEVELS)
    spread = np.stack([np.repeat(_spread(of_metric, m), factor) for of_metric in _kth(far)])
    spread = np.pad(spread, ((0, 0), (0, n - spread.shape[1])), mode="edge")
    expected = np.pad(_expected(coarse, reference, m, where[0]), (m - 1, 0), mode="edge")
    expected = np.repeat(expected, factor)
    return spread, np.pad(expected, (0, n - len(expected)), mode="edge")


def _spread(of_windows: FloatArray, length: int) -> FloatArray:
    """The mean over the windows that cover each point, from shape (n - length + 1,) to (n,)."""
    totals = np.concatenate(([0.0], np.cumsum(np.nan_to_num(of_windows))))
    points = np.arange(len(of_windows) + length - 1)
    first, last = np.maximum(points - length + 1, 0), np.minimum(points, len(of_windows) - 1) + 1
    spread: FloatArray = (totals[last] - totals[first]) / (last - first)
    return spread


def _widened(distances: FloatArray, length: int) -> FloatArray:
    """The largest within the windows of the shortest length that cover each point: nothing is located finer."""
    from scipy.ndimage import maximum_filter1d

    widened: FloatArray = maximum_filter1d(distances, 2 * length - 1, mode="nearest")
    return widened


def _lengths(n: int, ladder: tuple[int, ...], chosen: int | None) -> NDArray[np.int64]:
    """The lengths of windows for n points: those that fit in 32 times, or one that fits in four times."""
    longest = max(n // 4, 1)
    lengths = [length for length in ladder if length * _FEWEST_WINDOWS <= n] or [min(longest, ladder[0])]
    return np.array(lengths if chosen is None else [min(chosen, longest)], np.int64)


def _middle(lengths: NDArray[np.int64]) -> int:
    return len(lengths) // 2


def _block(length: int) -> int:
    """Windows of which one neighbour is taken at most."""
    return max(length, _SHORTEST_BLOCK)


def _kth(squares: FloatArray) -> FloatArray:
    """The distance to the farthest neighbour that there is, NaN where there is none: shape (..., k) to (...)."""
    last = np.count_nonzero(np.isfinite(squares), axis=-1) - 1
    kth: FloatArray = np.sqrt(np.take_along_axis(squares, np.maximum(last, 0)[..., None], axis=-1)[..., 0])
    return kth


def _usual(distances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median and spread of the distances over all points, of each length and metric: shapes (lengths, 2, 1)."""
    usual = np.zeros((*distances.shape[:2], 1))
    spread = np.ones((*distances.shape[:2], 1))
    for place in np.ndindex(*distances.shape[:2]):
        known = distances[place][np.isfinite(distances[place])]
        if len(known):
            usual[place] = np.median(known)
            spread[place] = _MAD_TO_STD * np.median(np.abs(known - usual[place]))
            spread[place] = max(spread[place].item(), 0.1 * usual[place].item(), _QUIETEST)
    return usual, spread


def _combined(distances: FloatArray, usual: FloatArray, spread: FloatArray) -> FloatArray:
    """One distance a point, from shape (lengths, 2, n): the root of the sum of the squares of what is unusual."""
    excess = np.maximum((distances - usual) / spread, 0.0)
    total = np.zeros(distances.shape[2])
    for place in np.ndindex(*distances.shape[:2]):  # one after the other: the same bits for one point and for many
        total += excess[place] * excess[place]
    combined: FloatArray = np.sqrt(total)
    return combined


def _expected(values: FloatArray, reference: FloatArray, length: int, places: NDArray[np.int64]) -> FloatArray:
    """What the last value of each window should have been, in standard units, as its nearest neighbour went on."""
    from app.detectors.kernels_joins import GRID

    nearest = np.maximum(places[:, 0], 0)
    if length == 1:
        return reference[nearest] / GRID
    before = _sums(values, length - 1)[: len(nearest)] - _sums(reference, length - 1)[nearest]
    return (reference[nearest + length - 1] + before / (length - 1)) / GRID


def _sums(values: FloatArray, length: int) -> FloatArray:
    """Sums of the windows of this length; whole numbers, so they are exact."""
    totals = np.concatenate(([0.0], np.cumsum(values)))
    return totals[length:] - totals[:-length]
