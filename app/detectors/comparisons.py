"""What the members of `subsequence_knn` say of points: distances of windows, and how far off forecasts are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.joins import Joined, followed, join_with
from app.detectors.memory import Remembered
from app.series import FloatArray

FORECASTS = 3
"""Neighbours whose following values make a forecast."""


class Comparison(NamedTuple):
    """What is compared: windows of these lengths, rising, with as many neighbours, and smoothed forecasts.

    span_points: forecasts that are off count by a weight that falls by 1 / span a point, for twice as many points.
    """

    windows: tuple[int, ...]
    forecast_window: int
    neighbors: int
    span_points: int

    @property
    def smoothed_points(self) -> int:
        """Forecasts that count for a point, its own included."""
        return 2 * self.span_points

    @property
    def weights(self) -> FloatArray:
        """Of these forecasts, the newest first."""
        weights = (1.0 - 1.0 / self.span_points) ** np.arange(self.smoothed_points)
        shares: FloatArray = weights / weights.sum()
        return shares

    @property
    def first_scored(self) -> int:
        """Index of the first remembered point for which every member has a score."""
        return max(self.windows[-1] - 1, self.forecast_window + self.smoothed_points - 1)

    @property
    def covered(self) -> tuple[int, ...]:
        """How many points a score of each member covers: level and shape by length, the two forecasts."""
        return (*(length for length in self.windows for _ in "ls"), self.smoothed_points, self.smoothed_points)


class Rows(NamedTuple):
    """What the members say of n consecutive points, the newest of their windows.

    own, as_came: shape (members, n), with the points before as they are remembered, and as they came. is_odd: shape
    (n,), which points are not remembered as they came. expected: shape (2, n), by windows and by regression.
    """

    own: FloatArray
    as_came: FloatArray
    is_odd: NDArray[np.bool_]
    expected: FloatArray

    def ahead(self, member: int, covered: int, look: int) -> FloatArray:
        """The mean of a member's scores over the windows that cover a point and end at most `look` points later."""
        points = min(look + 1, covered)
        n = max(self.own.shape[1] - look, 0)
        own = _mean_ahead(self.own[member], points, n)
        if points == 1:
            return own
        as_came = _mean_ahead(self.as_came[member], points, n)
        ahead: FloatArray = np.where(self.is_odd[:n], np.maximum(own, as_came), own)
        return ahead


def compare(
    comparison: Comparison, remembered: Remembered, reference: FloatArray, *, look: int, is_history: bool = False
) -> Rows:
    """The rows of the remembered points from `first_scored` on. is_history: they are the reference themselves."""
    from app.detectors.kernels_joins import GRID, smoothed

    n = len(remembered.kept) - comparison.first_scored
    if n <= 0:
        nothing = np.zeros((len(comparison.covered), 0))
        return Rows(nothing, nothing, np.zeros(0, np.bool_), nothing[:2])
    own: list[FloatArray] = []
    as_came: list[FloatArray] = []
    forecast = np.zeros(0)
    for length in comparison.windows:
        is_forecast = length == comparison.forecast_window
        seen = remembered.last(n + length - 1 + (comparison.smoothed_points if is_forecast else 0))
        windows = _Windows(seen, reference, length, max(comparison.neighbors, FORECASTS), n, is_history)
        joined = windows.joined()
        own += windows.distances(joined, comparison.neighbors)
        if look:
            as_came += windows.distances(windows.as_came(joined), comparison.neighbors)
        if is_forecast:
            forecast = windows.forecast(joined)
    last = remembered.last(len(forecast))
    for expected in (forecast, last.expected):
        off, off_kept = (np.abs(values / GRID - expected) for values in (last.came, last.kept))
        own.append(smoothed(off, off_kept, comparison.weights))
        if look:
            as_came.append(smoothed(off, off, comparison.weights))
    stacked = np.stack(own)
    expected = np.stack((forecast, last.expected))[:, len(forecast) - n :]
    return Rows(stacked, np.stack(as_came) if look else stacked, last.last(n).jumps != 0, np.nan_to_num(expected))


class _Windows(NamedTuple):
    """The windows of one length in remembered points, against those of a reference; n of them are asked for."""

    seen: Remembered
    reference: FloatArray
    length: int
    neighbors: int
    n: int
    is_history: bool

    def distances(self, joined: Joined, neighbors: int) -> list[FloatArray]:
        """Of the last n windows, by level and by shape: the mean over so many neighbours."""
        from app.detectors.kernels_joins import mean_distance

        return [mean_distance(squares[len(squares) - self.n :], neighbors) for squares in joined.squares]

    def forecast(self, joined: Joined) -> FloatArray:
        """What the nearest windows make expected of the points that follow each window but the last."""
        nearest = self.kept(joined)
        nearest = Joined(nearest.squares[:, :, :FORECASTS], nearest.places[:, :, :FORECASTS])
        return followed(nearest, self.seen.kept, self.reference, self.length)[:-1]

    def joined(self) -> Joined:
        """With the newest point of each as it came, and the others as they are remembered."""
        return self._join(self.seen.kept, self.seen.jumps[self.length - 1 :], 0)

    def as_came(self, joined: Joined) -> Joined:
        """With all points as they came, made from what `joined` gave."""
        odd = np.concatenate(([0], np.cumsum(self.seen.jumps != 0)))
        n = len(self.seen.kept)
        return self._mended(joined, odd[self.length - 1 : n] > odd[: n - self.length + 1], self.seen.came)

    def kept(self, joined: Joined) -> Joined:
        """With all points as they are remembered, made from what `joined` gave."""
        return self._mended(joined, self.seen.jumps[self.length - 1 :] != 0, self.seen.kept)

    def _mended(self, joined: Joined, chosen: NDArray[np.bool_], values: FloatArray) -> Joined:
        """With other values in the chosen windows."""
        if not chosen.any():
            return joined
        mended = Joined(joined.squares.copy(), joined.places.copy())
        edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            part = self._join(values[start : end + self.length - 1], None, start)
            mended.squares[:, start:end], mended.places[:, start:end] = part
        return mended

    def _join(self, values: FloatArray, jumps: FloatArray | None, start: int) -> Joined:
        """The windows of values that begin with point `start` of those that are seen."""
        within = len(self.reference) - len(self.seen.kept) + start if self.is_history else None
        shape_from = max(len(self.seen.kept) - self.length + 1 - self.n - start, 0)
        return join_with(
            values, self.reference, self.length, self.neighbors, jumps=jumps, within=within, shape_from=shape_from
        )


def _mean_ahead(scores: FloatArray, points: int, n: int) -> FloatArray:
    total = np.zeros(n)
    for after in range(points):
        total += scores[after : after + n]
    mean: FloatArray = total / points
    return mean
