"""Rows of many series in any order, of any number: grouped in memory, or on the disk where they are too many.

On the disk a first pass deals the rows out to partitions by a hash of the name of their series, and a second groups one
partition at a time. Both ways give the same series with the same points in the same order.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.errors import SourceUnreadable
from app.series_batch import SeriesBatch
from app.sources.base import Chunk, Table, reading, with_progress
from app.tables import group_rows, names_of, timestamps_of, values_of

ROWS_IN_MEMORY = 5_000_000
"""A row takes some 20 bytes, and about 100 while it is grouped. Beyond this the disk is no slower, as each partition is
small enough to be sorted in the processor's caches, and its first chunk is there sooner."""

_SCHEMA = pa.schema(
    {"series": pa.dictionary(pa.int32(), pa.string()), "timestamp_s": pa.float64(), "value": pa.float64()}
)
_PARTITIONS = 64
_DEEPEST = 2
"""Partitions are partitioned again at most so often: what is still too large then is one huge series."""


class LongForm:
    """A row for each point. Rows without a value are left out; a series that has no other is left with no points."""

    left_out = ()

    def __init__(self, table: Table, columns: tuple[str, str, str], rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        """The names of the columns of series, time and value."""
        self.size = table.size
        self._table, self._columns, self._rows_in_memory = table, columns, rows_in_memory

    def chunks(self) -> Iterator[tuple[Chunk, int]]:
        """In the order of the first rows of the series, or in none when they went over the disk; see Source."""
        batches = _grouped(self._blocks(), self._rows_in_memory)
        try:
            yield from with_progress(batches, self.size)
        except OSError as error:
            where = f"has more rows than fit into memory, and {tempfile.gettempdir()} does not take them"
            message = f"{self._table.path} {where}: {error}. Set TMPDIR to a folder with more room"
            raise SourceUnreadable(message) from error

    def _blocks(self) -> Iterator[pa.Table]:
        """The rows of the file, in the types of _SCHEMA."""
        series, time, value = self._columns
        path, rows = self._table.path, 0
        with reading(path):
            for block in self._table.blocks(self._columns):
                with reading(path, series):
                    names = names_of(_without_nulls(block[series]))
                with reading(path, time):
                    timestamps_s = timestamps_of(block[time])
                with reading(path, value):
                    values = values_of(block[value])
                yield pa.table([names, timestamps_s, values], schema=_SCHEMA)
                rows += len(block)
        if not rows:
            raise SourceUnreadable(f"{path} has no rows: there is nothing to fit")


def _without_nulls(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Points of no series become those of the series "", which is then refused like any other bad name."""
    if not names.null_count:
        return names
    return names_of(names).cast(pa.string()).fill_null("")


def _grouped(blocks: Iterator[pa.Table], limit: int, depth: int = 0) -> Iterator[tuple[SeriesBatch, float]]:
    """Batches of whole series, each with its share of the rows."""
    held, rows = [], 0
    for block in blocks:
        held.append(block)
        rows += len(block)
        if rows > limit and depth < _DEEPEST:
            yield from _grouped_on_disk(chain(_emptied(held), blocks), limit, depth)
            return
    if rows:
        yield _grouped_in_memory(held), 1.0


def _emptied(blocks: list[pa.Table]) -> Iterator[pa.Table]:
    while blocks:
        yield blocks.pop(0)


def _grouped_in_memory(blocks: list[pa.Table]) -> SeriesBatch:
    table = pa.concat_tables(blocks)
    blocks.clear()
    batch, _ = group_rows(table["series"], table["timestamp_s"].to_numpy(), table["value"].to_numpy())
    there = ~np.isnan(batch.values)
    if there.all():
        return batch
    offsets = np.append(0, np.cumsum(there))[batch.offsets]
    return SeriesBatch(batch.series_ids, offsets, batch.timestamps_s[there], batch.values[there])


def _grouped_on_disk(blocks: Iterator[pa.Table], limit: int, depth: int) -> Iterator[tuple[SeriesBatch, float]]:
    with tempfile.TemporaryDirectory(prefix="tidemark-") as folder:
        rows = _deal_out(blocks, Path(folder), depth)
        for path, count in rows.items():
            for batch, share in _grouped(_blocks_of(path), limit, depth + 1):
                yield batch, share * count / sum(rows.values())
            path.unlink()


def _deal_out(blocks: Iterator[pa.Table], folder: Path, depth: int) -> dict[Path, int]:
    """Write each row to the partition of its series; gives the rows of each partition."""
    writers: dict[Path, pa.RecordBatchStreamWriter] = {}
    rows: Counter[Path] = Counter()
    with ExitStack() as files:
        for block in blocks:
            for number, part in _parts(block.combine_chunks(), depth):
                path = folder / f"{number}.arrows"
                if path not in writers:
                    writers[path] = _opened(path, files)
                writers[path].write_batch(part)
                rows[path] += len(part)
    return rows


def _opened(path: Path, files: ExitStack) -> pa.RecordBatchStreamWriter:
    sink = files.enter_context(pa.OSFile(str(path), "wb"))
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    return files.enter_context(pa.ipc.new_stream(sink, _SCHEMA, options=options))


def _parts(block: pa.Table, depth: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a block by the partition of their series, in their order."""
    column = names_of(block["series"])
    codes, names = column.indices.to_numpy(), column.dictionary
    partitions = _hashes(names) >> np.uint64(6 * depth) & np.uint64(_PARTITIONS - 1)
    # Names are ordered by partition too, so that each part's dictionary is a slice of them.
    name_order = np.argsort(partitions, kind="stable")
    places = np.empty(len(names), dtype=np.int32)
    places[name_order] = np.arange(len(names), dtype=np.int32)
    row_partitions = partitions.astype(np.uint8)[codes]
    row_order = np.argsort(row_partitions, kind="stable")
    codes, names = places[codes][row_order], names.take(pa.array(name_order))
    timestamps_s, values = (block[name].to_numpy()[row_order] for name in ("timestamp_s", "value"))
    name_bounds, row_bounds = _bounds(partitions), _bounds(row_partitions)
    for number in np.flatnonzero(np.diff(row_bounds)).tolist():
        rows = slice(row_bounds[number], row_bounds[number + 1])
        first_name, last_name = name_bounds[number : number + 2]
        own = pa.DictionaryArray.from_arrays(codes[rows] - np.int32(first_name), names[first_name:last_name])
        yield number, pa.RecordBatch.from_arrays([own, timestamps_s[rows], values[rows]], schema=_SCHEMA)


def _bounds(partitions: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where each partition begins once they are in order, and the end."""
    return np.append(0, np.cumsum(np.bincount(partitions.astype(np.int64), minlength=_PARTITIONS)))


def _hashes(names: pa.StringArray) -> NDArray[np.uint64]:
    """The same for the same name in every block: eight bytes at a time.

    All names at once, as a file in the order of time may name a million series before it names one again.
    """
    _, bounds, data = names.buffers()
    if not data:
        return np.zeros(len(names), dtype=np.uint64)
    bounds = np.frombuffer(bounds, dtype=np.int32)[names.offset : names.offset + len(names) + 1]
    text = np.append(np.frombuffer(data, dtype=np.uint8)[: bounds[-1]], np.zeros(8, dtype=np.uint8))
    words = np.ndarray(len(text) - 7, dtype="<u8", buffer=text, strides=(1,))
    lengths = np.diff(bounds)
    hashes = lengths.astype(np.uint64)
    for place in range(0, lengths.max(initial=0), 8):
        longer = np.flatnonzero(lengths > place)
        foreign_bits = 8 * np.maximum(place + 8 - lengths[longer], 0).astype(np.uint64)
        own = words[bounds[longer] + place] << foreign_bits
        hashes[longer] = _mixed(hashes[longer] ^ own)
    return _mixed(hashes)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a number spread over all of it (the finalizer of SplitMix64: Steele, Lea and Flood 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _blocks_of(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            yield pa.table(batch)
