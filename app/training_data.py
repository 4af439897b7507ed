"""Training data as bytes and back: a Parquet file that any other tool can open.

Two columns of float64, `timestamp` in Unix seconds and `value`; a file of many series has a third, `series_id`, and
the points of one series after those of another. The same data always gives the same bytes.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.series import Series
from app.series_batch import SeriesBatch

_POINTS = [pa.field("timestamp", pa.float64(), nullable=False), pa.field("value", pa.float64(), nullable=False)]
_SCHEMA = pa.schema(_POINTS)
_MANY_SCHEMA = pa.schema([pa.field("series_id", pa.dictionary(pa.int32(), pa.string()), nullable=False), *_POINTS])


def encode(history: Series) -> bytes:
    """The bytes of a Parquet file."""
    table = pa.Table.from_arrays([pa.array(history.timestamps_s), pa.array(history.values)], schema=_SCHEMA)
    return _write(table)


def encode_many(batch: SeriesBatch) -> bytes:
    """The bytes of one Parquet file with the points of all series of the batch, in its order."""
    places = np.repeat(np.arange(len(batch), dtype=np.int32), np.diff(batch.offsets))
    names = pa.DictionaryArray.from_arrays(places, pa.array(batch.series_ids, pa.string()))
    columns = [names, pa.array(batch.timestamps_s), pa.array(batch.values)]
    return _write(pa.Table.from_arrays(columns, schema=_MANY_SCHEMA), ["series_id"])


def digest_of(history: Series) -> bytes:
    """SHA-256 of a series within a file of many: of its timestamps and then its values, as little-endian float64."""
    digest = hashlib.sha256(np.ascontiguousarray(history.timestamps_s, "<f8").data)
    digest.update(np.ascontiguousarray(history.values, "<f8").data)
    return digest.digest()


def _write(table: pa.Table, as_dictionary: Sequence[str] = ()) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=as_dictionary or False, store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes) -> Series:
    """The series that `encode` gave these bytes for. Raises ValueError when they are anything else."""
    return _read(data, slice(None))


def decode_rows(data: bytes, first: int, rows: int) -> Series:
    """`rows` points from point `first` of what `encode_many` gave these bytes for. Raises ValueError as `decode`."""
    return _read(data, slice(first, first + rows))


def _read(data: bytes, rows: slice) -> Series:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            # A thread of Arrow that lets go of Python's bytes while the process ends would abort it; for most histories
            # this is faster as well.
            table = file.read(columns=_SCHEMA.names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a file of training data: {error}") from error
    if not table.schema.equals(_SCHEMA):
        raise ValueError(f"not a file of training data: its columns are {table.schema.to_string()}")
    return Series(table["timestamp"].to_numpy()[rows], table["value"].to_numpy()[rows])
