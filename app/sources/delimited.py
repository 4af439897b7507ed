"""CSV and TSV, compressed or not, by Arrow's parser.

Types are never guessed from the first rows alone: names of series and times are read as text, values as numbers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from app.sources.base import reading, size_of
from app.tables import is_numeric

_BLOCK_BYTES = 1 << 24
"""Read and parsed at a time; no row may be longer."""
_NAMES = pa.dictionary(pa.int32(), pa.string())


class DelimitedFile:
    """A file of text with a header, of delimited columns."""

    def __init__(self, path: Path) -> None:
        """Raises SourceUnreadable."""
        self.path = path
        self.size = size_of(path)
        name = path.name.lower()
        self._compression = "gzip" if name.endswith(".gz") else None
        self._parse = csv.ParseOptions(
            delimiter="\t" if name.endswith((".tsv", ".tsv.gz")) else ",", newlines_in_values=True
        )
        self._read = csv.ReadOptions(block_size=_BLOCK_BYTES)
        with reading(path), self._open() as file, csv.open_csv(file, self._read, self._parse) as rows:
            self.names: Sequence[str] = rows.schema.names

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The columns of series, time and value, a block of the file at a time."""
        series, time, value = columns
        convert = csv.ConvertOptions(
            include_columns=columns, column_types={series: _NAMES, time: pa.string(), value: pa.float64()}
        )
        with self._open() as file, csv.open_csv(file, self._read, self._parse, convert) as rows:
            for batch in rows:
                yield pa.table(batch.set_column(1, time, _blank_is_null(batch[time])))

    def wide(self, time: str, value: str | None) -> "WideText":
        """The whole file, which therefore has to fit into memory."""
        kinds = {time: pa.string()} | ({} if value is None else {value: pa.float64()})
        wanted = None if value is None else [time, value]
        convert = csv.ConvertOptions(include_columns=wanted, column_types=kinds)
        with self._open() as file:
            table = csv.read_csv(file, self._read, self._parse, convert)
        return WideText(table, time)

    def _open(self) -> pa.NativeFile:
        return pa.input_stream(str(self.path), compression=self._compression)


class WideText:
    """A file of text in memory: a column is one of numbers when all of its cells are."""

    def __init__(self, table: pa.Table, time: str) -> None:
        self.times: pa.ChunkedArray = _blank_is_null(table[time])
        self.names: Sequence[str] = [
            field.name for field in table.schema if field.name != time and is_numeric(field.type)
        ]
        self._table = table

    def read(self, names: Sequence[str]) -> pa.Table:
        """Some of the columns."""
        return self._table.select(names)


def _blank_is_null(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.if_else(pc.equal(texts, ""), None, texts)
