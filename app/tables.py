"""Points in Arrow tables: columns to float arrays, and rows in long form to one series after another."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.series import FloatArray
from app.series_batch import SeriesBatch

_TEXT_TIMES = (
    pa.timestamp("us", tz="UTC"),
    pa.timestamp("us"),
    pa.timestamp("ns", tz="UTC"),
    pa.timestamp("ns"),
    pa.float64(),
)
"""Microseconds reach further than nanoseconds, and nanoseconds are tried only where there are digits of them."""
_LONGEST_TIME_BYTES = 100
_LONGEST_NAME_BYTES = 1000
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def timestamps_of(column: pa.ChunkedArray | pa.Array) -> FloatArray:
    """Unix seconds, shape (n,), NaN where there is none.

    From numbers (Unix seconds), dates and times (UTC where they name no zone), or RFC 3339 text.
    Raises ValueError with advice for any other type, and for text that is no time.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _times_of_entries(column)
    if _is_text(kind):
        _refuse_long(column, _LONGEST_TIME_BYTES)
        column = _parse_times(column)
        kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
        kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.unit == "ns" and (whole := _cast(column, pa.timestamp("us", kind.tz))) is not None:
            column, kind = whole, whole.type  # which a float holds exactly, so that it is the second of the same text
        return _floats(column.cast(pa.int64())) / _PER_SECOND[kind.unit]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _floats(column)
    raise ValueError(f"holds {kind}: send Unix seconds, a timestamp or RFC 3339 text")


def values_of(column: pa.ChunkedArray | pa.Array) -> FloatArray:
    """The numbers of a column, shape (n,), NaN where there is none. Raises ValueError for any other type."""
    if is_numeric(column.type):
        return _floats(column)
    raise ValueError(f"holds {column.type}: send numbers")


def is_numeric(kind: pa.DataType) -> bool:
    """Whether `values_of` takes a column of this type: numbers, or nothing at all."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


def names_of(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """The names of series, of type dictionary<int32, string>; integers become text.

    Raises ValueError for any other type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise ValueError(f"holds {kind}: send the names of the series as text")
    column = _in_one(column)
    if _is_text(kind):
        _refuse_long(column if kind == column.type else column.dictionary, _LONGEST_NAME_BYTES)
    if kind == column.type:
        column = column.dictionary_encode()
    elif column.dictionary.null_count or len(column.dictionary.unique()) < len(column.dictionary):  # made elsewhere
        entries = column.dictionary.dictionary_encode()
        column = pa.DictionaryArray.from_arrays(entries.indices.take(column.indices), entries.dictionary)
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary.cast(pa.string()))


def group_rows(
    series_ids: pa.ChunkedArray | pa.Array, timestamps_s: FloatArray, values: FloatArray
) -> tuple[SeriesBatch, NDArray[np.intp] | None]:
    """Rows of many series, in any order, as one series after another: by first appearance, each by time.

    Also the index of each row of the batch in the input; None when they stood so already. O(n) then, else O(n log n).
    Raises ValueError when `series_ids` is not a column of text, or has gaps.
    """
    codes, names = _codes(series_ids)
    order = None
    if not _is_grouped(codes, timestamps_s):
        order = np.lexsort((timestamps_s, codes))
        codes, timestamps_s, values = codes[order], timestamps_s[order], values[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    offsets = np.append(starts, len(codes)).astype(np.int64)
    return SeriesBatch(names, offsets, timestamps_s, values), order


def _is_grouped(codes: NDArray[np.int64], timestamps_s: FloatArray) -> bool:
    steps = np.diff(codes)
    return bool(np.all((steps > 0) | ((steps == 0) & (timestamps_s[1:] >= timestamps_s[:-1]))))


def _codes(series_ids: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int64], Sequence[str]]:
    """For each row the place of its series among the names, which are in the order of their first appearance."""
    column = names_of(series_ids)
    if column.null_count:
        raise ValueError(f"is empty in {column.null_count} rows: each point needs the name of its series")
    codes = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return _by_appearance(codes, column.dictionary.to_pylist())


def _by_appearance(codes: NDArray[np.int64], names: Sequence[str]) -> tuple[NDArray[np.int64], Sequence[str]]:
    """A dictionary made elsewhere may be in any order, and have entries that no row uses."""
    rows = len(codes)
    first = np.full(len(names), rows)
    first[codes[::-1]] = np.arange(rows - 1, -1, -1)
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < rows)]
    places = np.empty(len(names), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places[codes], [names[index] for index in order.tolist()]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _floats(column: pa.ChunkedArray | pa.Array) -> FloatArray:
    column = _in_one(column)
    try:
        numbers = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise ValueError(f"cannot be read as numbers: {error}") from error
    array: FloatArray = numbers.to_numpy(zero_copy_only=False)
    return array


def _in_one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Its chunks as one; pyarrow cannot make all dictionaries out of none."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    kind = column.type
    if column.num_chunks == 0 and pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array([], kind.index_type), pa.array([], kind.value_type))
    return column.combine_chunks()


def _times_of_entries(column: pa.ChunkedArray | pa.Array) -> FloatArray:
    """Of each entry of a dictionary that is used, once: a long text in all rows would take all memory there is."""
    column = _in_one(column)
    used, entries = column.indices.dictionary_encode(), column.dictionary
    if pa.types.is_string_view(entries.type):
        _refuse_long(entries, _LONGEST_TIME_BYTES)
        entries = entries.cast(pa.string())
    times = np.append(timestamps_of(entries.take(used.dictionary)), np.nan)
    places = used.indices.cast(pa.int64()).fill_null(len(times) - 1)
    array: FloatArray = times[places.to_numpy(zero_copy_only=False)]
    return array


def _refuse_long(texts: pa.ChunkedArray | pa.Array, most_bytes: int) -> None:
    """Before they are copied: views and dictionaries let one text stand in millions of rows."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    longest = max(map(_longest, chunks), default=0)
    if longest > most_bytes:
        raise ValueError(f"holds a text of {longest} bytes: it may have {most_bytes}")


def _longest(texts: pa.Array) -> int:
    if pa.types.is_string_view(texts.type):  # 16 bytes each, the first four of which are the length
        views = np.frombuffer(texts.buffers()[1] or b"", dtype=np.int32)[::4]
        lengths = views[texts.offset : texts.offset + len(texts)]
        return int(lengths[texts.is_valid().to_numpy(zero_copy_only=False)].max(initial=0))
    return int(pc.max(pc.binary_length(texts)).as_py() or 0)


def _parse_times(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    for kind in _TEXT_TIMES:
        if (parsed := _cast(column, kind)) is not None:
            return parsed
    texts = pc.drop_null(column)
    form = next((kind for kind in _TEXT_TIMES if _cast(texts[:1], kind) is not None), None)
    culprit = texts[0].as_py() if form is None else _first_refused(texts, form)
    raise ValueError(f"holds text that is no time like the rest, such as {culprit!r}: send Unix seconds or RFC 3339")


def _cast(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.ChunkedArray | pa.Array | None:
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return None


def _first_refused(texts: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> str:
    """By halving, as a cast only says that it failed."""
    while len(texts) > 1:
        half = texts[: len(texts) // 2]
        texts = half if _cast(half, kind) is None else texts[len(half) :]
    return str(texts[0])
