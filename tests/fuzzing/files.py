"""Targets: Arrow streams, Parquet files, files of the command line, models and training data."""

import gzip
import io
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from app import packs, training_data
from app.api import arrow
from app.api.expansion import CheckedStream
from app.detectors import DETECTORS, codec, find_detector
from app.detectors.base import Fitted
from app.errors import SourceUnreadable
from app.series import Series
from app.series_batch import SeriesBatch
from app.sources import open_source
from app.sources.base import Columns, JsonLines
from tests.fuzzing.contracts import check_faults, check_points, check_same, check_unreadable, promise, refusing
from tests.streaming import stream_of

MOST_POINTS = 1_000
LIMITS = arrow.Limits(MOST_POINTS, 100_000)
_ROWS_IN_MEMORY = 3
_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".ndjson", ".ndjson.gz", ".parquet")
_SHM = Path("/dev/shm")


def check_arrow_points(data: bytes) -> object:
    """The points of one series, as a stream of Arrow; the same as by JSON."""
    with refusing() as outcome:
        points = arrow.parse_points(data, LIMITS, [])
        check_points(points)
        promise(len(points) <= MOST_POINTS, "too many points")
        outcome.append("taken")
    return outcome[0]


def check_arrow_rows(data: bytes) -> object:
    """The points of many series, as a stream of Arrow."""
    with refusing() as outcome:
        batch, order = arrow.parse_rows(data, LIMITS, [])
        _check_batch(batch)
        is_all = order is None or sorted(order.tolist()) == list(range(len(batch.values)))
        promise(is_all, "rows that were lost")
        outcome.append(f"{min(len(batch), 3)} series")
    with refusing():
        _check_batch(arrow.parse_histories(data, LIMITS, [], is_parquet=False))
    with refusing():
        _check_pieces(data)
    return outcome[0]


def _check_pieces(data: bytes) -> None:
    """What is read of a stream while it comes are its own bytes, as far as Arrow asks for them."""
    checked = CheckedStream(io.BytesIO(data), *LIMITS)
    place = 0
    while piece := checked.read(7):
        promise(data[place : place + len(piece)] == piece, f"other bytes at {place}")
        place += len(piece)


def check_parquet(data: bytes) -> object:
    """The histories of many series, as a file of Parquet."""
    with refusing() as outcome:
        batch = arrow.parse_histories(data, LIMITS, [], is_parquet=True)
        _check_batch(batch)
        outcome.append(f"{min(len(batch), 3)} series")
    return outcome[0]


def check_file(data: bytes) -> object:
    """A file of the command line, its format by the first byte; long ones grouped in memory and on the disk."""
    suffix = _SUFFIXES[data[0] % len(_SUFFIXES)] if data else ".csv"
    content = data[1:]
    if suffix.endswith(".gz") and content[:1] != b"\x1f":
        content = gzip.compress(content, 1, mtime=0)
    with tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None) as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        found = _series_of(path, 5_000_000)
        again = _series_of(path, _ROWS_IN_MEMORY)
    promise(type(found) is type(again), f"in memory {found!r}, on the disk {again!r}")
    if isinstance(found, str):
        return suffix, found
    assert not isinstance(again, str)
    promise(found.keys() == again.keys(), f"in memory {found.keys()}, on the disk {again.keys()}")
    for name, series in found.items():
        one, other = (series.timestamps_s, series.values), (again[name].timestamps_s, again[name].values)
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
        promise(same, f"{name!r} in memory {one}, on the disk {other}")
    return suffix, min(len(found), 3)


def _series_of(path: Path, rows_in_memory: int) -> Mapping[str, Series] | str:
    series: dict[str, Series] = {}
    done = 0
    try:
        source = open_source(path, Columns(), rows_in_memory)
        for chunk, reached in source.chunks():
            promise(done <= reached <= source.size, f"progress from {done} to {reached} of {source.size}")
            done = reached
            if isinstance(chunk, JsonLines):
                promise(chunk.first_line >= 1 and chunk.data, "a chunk without lines")
            else:
                _check_batch(chunk)
                series.update(chunk)
        promise(done == source.size, f"progress ended with {done} of {source.size}")
    except SourceUnreadable as error:
        return check_unreadable(error).replace(path.name, "")
    return series


def check_model(data: bytes) -> object:
    """A model file: decoded and encoded it is the same, and it judges; or it is refused."""
    try:
        detector = codec.decode(data)
    except ValueError as error:
        return _refused(error)
    again = codec.decode(codec.encode(detector))
    promise(type(again) is type(detector) and again.params == detector.params, "not the same, encoded and decoded")
    promise(again.state.keys() == detector.state.keys(), "not the same state, encoded and decoded")
    return detector.name


def check_training_data(data: bytes) -> object:
    """A file of training data, of one series and as a part of many."""
    try:
        history = training_data.decode(data)
    except ValueError as error:
        return _refused(error)
    lengths = len(history.timestamps_s), len(history.values)
    promise(lengths[0] == lengths[1], f"{lengths} times and values")
    arrays = history.timestamps_s, history.values
    promise(all(array.dtype == np.float64 for array in arrays), f"{arrays[0].dtype} and {arrays[1].dtype}")
    check_same(training_data.decode_rows(data, 0, len(history)), history, "all rows, and the whole") if np.isfinite(
        arrays
    ).all() else None
    return "taken"


def _refused(error: ValueError) -> str:
    promise(len(str(error)) > 10, f"{error!r} says nothing")
    return str(error)[:40]


def _check_batch(batch: SeriesBatch) -> None:
    offsets = batch.offsets.tolist()
    promise(offsets[0] == 0 and offsets == sorted(offsets), f"the offsets {offsets}")
    promise(offsets[-1] == len(batch.values) == len(batch.timestamps_s), f"{offsets} of {len(batch.values)}")
    promise(len(offsets) == len(batch) + 1, f"{len(batch)} series, {offsets}")
    promise(all(isinstance(name, str) for name in batch.series_ids), f"the names {batch.series_ids}")
    all_faults = batch.faults(3, MOST_POINTS)
    for (name, series), faults in zip(batch, all_faults, strict=True):
        check_faults(faults)
        if not faults:
            check_points(series, increasing=True)
        promise(faults or len(series) >= 3, f"{name!r} has {len(series)} points and no fault")


# What is near to valid.


@cache
def models() -> tuple[bytes, ...]:
    """A model of each detector."""
    grid = np.arange(60.0)
    history = Series(1.7e9 + 300 * grid, 10 + np.sin(grid / 4) + np.random.default_rng(0).standard_normal(60) / 9)
    files = []
    for name in DETECTORS:
        detector = find_detector(name)
        files.append(codec.encode(detector.fit_within(history, detector.Params(), 0.05).detector))
    return tuple(files)


@cache
def training_files() -> tuple[bytes, ...]:
    """Of one series and of several."""
    history = Series(np.arange(20.0), np.arange(20.0) % 3)
    detector = find_detector("mean_std")
    fitted = Fitted(detector.fit(history, detector.Params()), None)
    pack = packs.encode([fitted, fitted], SeriesBatch.of([("a", history), ("b", history)]))
    return training_data.encode(history), pack.data


def _cells(kind: pa.DataType) -> st.SearchStrategy[object]:
    if pa.types.is_floating(kind):
        return st.floats(width=32 if kind == pa.float32() else 64) | st.floats(0, 3e11)
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        times = st.datetimes().map(lambda moment: moment.isoformat() + "Z")
        return st.sampled_from(["a", "b", "", "1", "2024-01-11T19:06:40Z", "\0"]) | st.text(max_size=5) | times
    if pa.types.is_unsigned_integer(kind):
        return st.integers(0, 2**kind.bit_width - 1) | st.integers(0, 100)
    return st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1) | st.integers(0, 100)


_KINDS = (
    pa.float64(), pa.float64(), pa.float32(), pa.int64(), pa.int8(), pa.uint64(), pa.bool_(), pa.string(),
    pa.large_string(), pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"),
    pa.timestamp("ns", "Europe/Berlin"), pa.duration("s"), pa.time64("us"),
)  # fmt: skip


@st.composite
def _columns(draw: st.DrawFn, rows: int) -> pa.Array:
    kind = draw(st.sampled_from(_KINDS))
    stored = pa.int64() if pa.types.is_temporal(kind) and kind.bit_width == 64 else kind
    stored = pa.int32() if kind == pa.date32() else stored
    cells = _cells(stored)
    array = pa.array(
        draw(st.lists(cells | st.none() if draw(st.booleans()) else cells, min_size=rows, max_size=rows)), stored
    )
    if stored != kind:
        array = array.view(kind)
    form = draw(st.sampled_from(("plain",) * 6 + ("dictionary", "runs", "list", "struct", "null", "decimal")))
    if form == "dictionary":
        return array.dictionary_encode()
    if form == "runs":
        return pa.compute.run_end_encode(array) if not pa.types.is_nested(kind) else array
    if form == "list":
        return pa.array([[cell] for cell in range(rows)])
    if form == "struct":
        return pa.StructArray.from_arrays([array], ["value"])
    if form == "null":
        return pa.nulls(rows)
    return pa.array(range(rows), pa.decimal128(10, 2)) if form == "decimal" else array


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Tables that have the right columns, but for some, in types of all kinds."""
    rows = draw(st.sampled_from((0, 1, 4, 6)))
    names = draw(
        st.sampled_from(
            (("series_id", "timestamp", "value"),) * 6
            + (("timestamp", "value"),) * 3
            + (("value", "value", "timestamp"), ("a", "timestamp", "a.b"))
        )
    )
    return pa.Table.from_arrays([draw(_columns(rows)) for _ in names], names=list(names))


def as_stream(table: pa.Table) -> bytes:
    """A stream of Arrow, a batch for each three rows."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    """A file of Parquet; without the columns that Parquet cannot hold."""
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink)
    except (pa.ArrowException, ValueError):
        return as_stream(table)
    return sink.getvalue()


def as_file(table: pa.Table) -> bytes:
    """A file of the command line."""
    return bytes([_SUFFIXES.index(".parquet")]) + as_parquet(table)


_CELL = st.sampled_from(
    ("a", "b", "", "1", "2", "3.5", "nan", "inf", "1e999", "-0", '"a,b"', '"', "x\ny", "NULL", "0x1", "9" * 400, " 1")
) | st.sampled_from(("2024-01-11T19:06:40Z", "2024-01-11", "\ufeff1", "1705000000", "1705000000000"))


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Files of text: long and wide forms, with cells of all kinds."""
    head = draw(
        st.sampled_from(
            (
                ["series_id", "timestamp", "value"],
                ["timestamp", "value"],
                ["time", "a", "b"],
                ["id", "ts", "y"],
                ["a", "a"],
                [],
            )
        )
        | st.lists(_CELL, max_size=3)
    )
    width = st.just(len(head)) if draw(st.booleans()) else st.integers(0, 4)
    rows = draw(st.lists(width.flatmap(lambda n: st.lists(_CELL, min_size=n, max_size=n)), max_size=8))
    place = draw(st.sampled_from((0, 0, 1, 2, 3)))
    end = draw(st.sampled_from(("\n", "\r\n", "\r")))
    separator = "\t" if place % 2 else ","
    return bytes([place]) + end.join(separator.join(row) for row in [head, *rows]).encode()


def file_seeds() -> tuple[bytes, ...]:
    """One of each format."""
    long_form = b"series_id,timestamp,value\na,1,1\nb,1,2\na,2,2.5\na,3,\nb,2,4\n"
    wide = b"timestamp,a,b\n2024-01-11T19:06:40Z,1,2\n2024-01-11T19:07:40Z,,4\n"
    line = orjson.dumps({"series_id": "a", "timestamps": [1, 2, 3], "values": [1, 2, 4]}) + b"\n"
    table = pa.table({"series_id": ["a", "a", "b"], "timestamp": [1, 2, 1], "value": [1.0, 2.0, 3.0]})
    texts_ = (
        b"\0" + long_form,
        b"\1" + long_form.replace(b",", b"\t"),
        b"\0" + wide,
        b"\2" + gzip.compress(wide, mtime=0),
    )
    return (*texts_, b"\4" + line * 3, b"\5" + line, as_file(table))


def stream_seeds() -> tuple[bytes, ...]:
    """Of points and of rows, plain, as a dictionary and compressed."""
    points = pa.record_batch({"timestamp": [1.0, 2.0, 3.0], "value": [1.0, 2.0, 4.0]})
    times = pa.array([1, 2, 3], pa.timestamp("ms"))
    rows = pa.record_batch(
        {"series_id": pa.array(["a", "a", "b"]).dictionary_encode(), "timestamp": times, "value": [1, 2, 3]}
    )
    texts_ = pa.record_batch(
        {"series_id": ["a", "a", "b"], "timestamp": ["2024-01-11T19:06:40Z"] * 3, "value": [1, None, 3]}
    )
    return stream_of(points), stream_of(rows), stream_of(texts_), stream_of(points, points, compression="lz4")


def parquet_seeds() -> tuple[bytes, ...]:
    """Two tables in long form."""
    table = pa.table({"series_id": ["a", "a", "a", "b"], "timestamp": [1, 2, 3, 1], "value": [1.0, 2.0, 4.0, 3.0]})
    return as_parquet(table), as_parquet(table.set_column(1, "timestamp", pa.array([1, 2, 3, 4], pa.timestamp("us"))))
