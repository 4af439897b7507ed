"""Fleets of simulated sensors, each its own series, in the formats that the service takes: the same seed, the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

POINTS = 100
"""Of each series."""
_INTERVAL_S = 60
_START_S = 1_705_000_000
_SPREAD_S = 3600
"""No two neighbours begin at the same second."""
_ROWS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """Sensors `prefix-0` .. with a level, a swing and noise of their own, a point a minute, 3 decimals each."""

    prefix: str
    series: int
    seed: int = 0

    @property
    def rows(self) -> int:
        """Points of all the series together."""
        return self.series * POINTS

    def name(self, number: int) -> str:
        """Of one series."""
        return f"{self.prefix}-{number}"

    def ndjson(self) -> bytes:
        """A body for POST /fit: a series a line."""
        timestamps_s, values = self._points(0, self.series)
        pairs = zip(timestamps_s.tolist(), values.tolist(), strict=True)
        return b"".join(
            orjson.dumps({"series_id": self.name(number), "timestamps": series_s, "values": series_values}) + b"\n"
            for number, (series_s, series_values) in enumerate(pairs)
        )

    def arrow(self) -> bytes:
        """A body for POST /fit: an Arrow stream in long form."""
        return arrow_bytes(self._table(0, self.series))

    def parquet(self) -> bytes:
        """A body for POST /fit: a Parquet file in long form."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._table(0, self.series), sink)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def write_parquet(self, path: Path) -> None:
        """A Parquet file in long form, however large: a row group at a time."""
        tables = self._tables()
        first = next(tables)
        with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
            writer.write_table(first, row_group_size=_ROWS_AT_ONCE)
            for table in tables:
                writer.write_table(table, row_group_size=_ROWS_AT_ONCE)

    def _tables(self) -> Iterator[pa.Table]:
        step = _ROWS_AT_ONCE // POINTS
        for start in range(0, self.series, step):
            yield self._table(start, min(start + step, self.series))

    def _table(self, start: int, end: int) -> pa.Table:
        """The series `start` .. `end` - 1, as a data frame of text, times and numbers becomes one."""
        timestamps_s, values = self._points(start, end)
        names = pa.array([self.name(number) for number in range(start, end)])
        columns = {
            "series_id": names.take(pa.array(np.repeat(np.arange(end - start), POINTS))),
            "timestamp": pa.array(timestamps_s.ravel() * 1000).cast(pa.timestamp("ms", tz="UTC")),
            "value": pa.array(values.ravel()),
        }
        return pa.table(columns)

    def _points(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Unix seconds and values, each of shape (series, POINTS)."""
        rng = np.random.default_rng([self.seed, start])
        series = end - start
        begins_s = _START_S + np.arange(start, end) % _SPREAD_S
        timestamps_s = begins_s[:, np.newaxis] + _INTERVAL_S * np.arange(POINTS)
        level, swing, noise_std = (rng.uniform(low, high, (series, 1)) for low, high in ((0, 100), (0, 5), (0.1, 1)))
        phase = 2 * np.pi * (np.arange(POINTS) / POINTS + rng.uniform(0, 1, (series, 1)))
        values = level + swing * np.sin(phase) + noise_std * rng.standard_normal((series, POINTS))
        return timestamps_s, values.round(3)


def arrow_bytes(table: pa.Table, compression: str | None = None) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
