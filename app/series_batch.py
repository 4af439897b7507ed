"""Many series in one piece: what tables of points become, and what fleets are fitted from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.errors import Fault
from app.series import LATEST_TIMESTAMP_S, FloatArray, Series, find_history_faults


@dataclass(frozen=True, slots=True, eq=False)
class SeriesBatch:
    """m series with n points together, one after another; nothing of them is checked yet.

    series_ids: m names as they were given. offsets: shape (m + 1,), where each series begins, and the end.
    timestamps_s, values: shape (n,); Unix seconds, ascending within a series where the points came from a table.
    What is missing is NaN.
    """

    series_ids: Sequence[str]
    offsets: NDArray[np.int64]
    timestamps_s: FloatArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.series_ids)

    def __iter__(self) -> Iterator[tuple[str, Series]]:
        bounds = self.offsets.tolist()
        for series_id, start, end in zip(self.series_ids, bounds, bounds[1:], strict=False):
            yield series_id, Series(self.timestamps_s[start:end], self.values[start:end])

    def slice(self, first: int, last: int) -> "SeriesBatch":
        """The series `first` .. `last` - 1, sharing memory."""
        bounds = self.offsets[first : last + 1]
        points = slice(int(bounds[0]), int(bounds[-1]))
        return SeriesBatch(
            self.series_ids[first:last], bounds - bounds[0], self.timestamps_s[points], self.values[points]
        )

    def cut(self, most_series: int, most_points: int) -> Iterator["SeriesBatch"]:
        """Pieces with at most so many series and points, but at least one series each."""
        first = 0
        while first < len(self):
            fitting = int(np.searchsorted(self.offsets, self.offsets[first] + most_points, "right")) - 1
            last = max(first + 1, min(fitting, first + most_series))
            yield self.slice(first, last)
            first = last

    @classmethod
    def of(cls, series: Sequence[tuple[str, Series]]) -> Self:
        """These series, one or more, copied one after another."""
        lengths = [len(points) for _, points in series]
        return cls(
            [series_id for series_id, _ in series],
            np.concatenate(([0], np.cumsum(lengths))),
            np.concatenate([points.timestamps_s for _, points in series]),
            np.concatenate([points.values for _, points in series]),
        )

    def faults(self, min_points: int, max_points: int, *, varies: bool = True) -> list[list[Fault]]:
        """What makes each series unfit for a fit; the sound ones, nearly all, are found together and fast."""
        doubtful = ~self._is_sound(min_points, max_points)
        faults: list[list[Fault]] = [[] for _ in self.series_ids]
        for place in np.flatnonzero(doubtful).tolist():
            start, end = self.offsets[place : place + 2]
            history = Series(self.timestamps_s[start:end], self.values[start:end])
            find_history_faults(history, min_points, max_points, faults[place], varies=varies)
        return faults

    def _is_sound(self, min_points: int, max_points: int) -> NDArray[np.bool_]:
        lengths = np.diff(self.offsets)
        sound = (lengths >= min_points) & (lengths <= max_points)
        if not sound.all() or not len(sound):
            return np.zeros(len(sound), dtype=np.bool_)  # rare enough to look at each
        starts = self.offsets[:-1]
        is_later = np.append(True, self.timestamps_s[1:] > self.timestamps_s[:-1])  # no difference: inf has none
        is_later[starts] = self.timestamps_s[starts] >= 0
        good = is_later & np.isfinite(self.values) & (self.timestamps_s <= LATEST_TIMESTAMP_S)
        varies = np.maximum.reduceat(self.values, starts) > np.minimum.reduceat(self.values, starts)
        return sound & np.logical_and.reduceat(good, starts) & varies
