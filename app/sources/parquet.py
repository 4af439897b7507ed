"""Parquet files: rows in blocks, or some columns at a time, without reading the rest."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import SourceUnreadable
from app.sources.base import reading, size_of
from app.tables import is_numeric

_ROWS_PER_BLOCK = 1_000_000


class ParquetTable:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        """Raises SourceUnreadable."""
        self.path = path
        self.size = size_of(path)
        with reading(path), pq.ParquetFile(path) as file:
            self.names: Sequence[str] = file.schema_arrow.names
            self._texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
        if not file.metadata.num_rows:
            raise SourceUnreadable(f"{path} has no rows: there is nothing to fit")

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The columns of series, time and value; names of series as a dictionary where the file allows it."""
        dictionaries = [name for name in columns[:1] if name in self._texts]
        with pq.ParquetFile(self.path, read_dictionary=dictionaries) as file:
            for batch in file.iter_batches(_ROWS_PER_BLOCK, columns=columns):
                # Parquet takes a name like "cpu" for everything under "cpu." as well.
                yield pa.table(batch).select(columns)

    def wide(self, time: str, value: str | None) -> "WideParquet":
        """The columns of numbers, read when they are asked for."""
        return WideParquet(self.path, time, value)


class WideParquet:
    """A Parquet file with a column for each series."""

    def __init__(self, path: Path, time: str, value: str | None) -> None:
        with pq.ParquetFile(path) as file:
            self._path, self._metadata = path, file.metadata
            fields = [field for field in file.schema_arrow if field.name != time]
        numeric = [field.name for field in fields if is_numeric(field.type)]
        self.names: Sequence[str] = numeric if value is None else [value]
        self.times: pa.ChunkedArray = self.read([time])[time]

    def read(self, names: Sequence[str]) -> pa.Table:
        """Some of the columns."""
        with pq.ParquetFile(self._path, metadata=self._metadata) as file:
            return file.read(columns=names).select(names)
