"""Training data as bytes and back: a Parquet file that any other tool can open.

Two columns of float64, `timestamp` in Unix seconds and `value`. The same data always gives the same bytes.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from app.series import Series

_SCHEMA = pa.schema(
    [pa.field("timestamp", pa.float64(), nullable=False), pa.field("value", pa.float64(), nullable=False)]
)


def encode(history: Series) -> bytes:
    """The bytes of a Parquet file."""
    table = pa.Table.from_arrays([pa.array(history.timestamps_s), pa.array(history.values)], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes) -> Series:
    """The series that `encode` gave these bytes for. Raises ValueError when they are anything else."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        return Series(table["timestamp"].to_numpy(), table["value"].to_numpy())
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"not a file of training data: {error}") from error
