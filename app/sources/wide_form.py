"""A column for each series, or one series alone."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from app.errors import SourceUnreadable
from app.series import FloatArray
from app.series_batch import SeriesBatch
from app.sources.base import POINTS_PER_CHUNK, SERIES_PER_CHUNK, Chunk, Table, listed, reading, with_progress
from app.tables import timestamps_of, values_of


class WideForm:
    """Series that share the column of times; cells without a number are left out of theirs."""

    def __init__(self, table: Table, time: str, value: str | None, series_id: str) -> None:
        """All columns of numbers, each named as it is, or only `value`, named `series_id`."""
        self.size = table.size
        self.left_out: Sequence[str] = ()
        self._table, self._time, self._value, self._series_id = table, time, value, series_id

    def chunks(self) -> Iterator[tuple[Chunk, int]]:
        """As many columns at a time as make a chunk; see Source."""
        with reading(self._table.path):
            yield from with_progress(self._batches(), self.size)

    def _batches(self) -> Iterator[tuple[SeriesBatch, float]]:
        wide = self._table.wide(self._time, self._value)
        with reading(self._table.path, self._time):
            timestamps_s = timestamps_of(wide.times)
        self._check(len(timestamps_s), wide.names)
        if self._value is None:
            self.left_out = [name for name in self._table.names if name not in {self._time, *wide.names}]
        step = min(max(POINTS_PER_CHUNK // len(timestamps_s), 1), SERIES_PER_CHUNK)
        for first in range(0, len(wide.names), step):
            names = wide.names[first : first + step]
            yield self._batch(names, timestamps_s, wide.read(names)), len(names) / len(wide.names)

    def _batch(self, names: Sequence[str], timestamps_s: FloatArray, table: pa.Table) -> SeriesBatch:
        values = np.empty((len(names), len(timestamps_s)))
        for row, name in zip(values, names, strict=True):
            with reading(self._table.path, name):
                row[:] = values_of(table[name])
        if not np.all(np.diff(timestamps_s) >= 0):
            order = np.argsort(timestamps_s, kind="stable")
            timestamps_s, values = timestamps_s[order], values[:, order]
        there = ~np.isnan(values)
        offsets = np.append(0, np.cumsum(there.sum(axis=1)))
        series_ids = list(names) if self._value is None else [self._series_id]
        return SeriesBatch(series_ids, offsets, np.broadcast_to(timestamps_s, values.shape)[there], values[there])

    def _check(self, rows: int, names: Sequence[str]) -> None:
        if not rows:
            raise SourceUnreadable(f"{self._table.path} has no rows: there is nothing to fit")
        if not names:
            message = (
                f"{self._table.path} has no column of numbers beside its times. It has {listed(self._table.names)}"
            )
            raise SourceUnreadable(f"{message}: a series needs one")
