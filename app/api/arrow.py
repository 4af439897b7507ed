"""Arrow streams and Parquet files as bodies and answers."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.api import answers
from app.api.callers import Caller
from app.api.expansion import CheckedStream, check_arrow, check_parquet
from app.api.queries import PredictQuery
from app.api.streams import BodyFile, SpoolFile
from app.config import Settings
from app.detectors.base import KINDS, Verdicts
from app.errors import Fault, InvalidInput, MalformedBody, RateLimitExceeded
from app.series import FloatArray, Series, is_time
from app.series_batch import SeriesBatch
from app.services.prediction import BatchVerdicts, PredictionService
from app.tables import group_rows, names_of, timestamps_of, values_of

LONG_FORM = ("series_id", "timestamp", "value")
_POINTS = LONG_FORM[1:]
_OK = 200
_PLAIN = pa.ipc.IpcWriteOptions()
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


class Limits(NamedTuple):
    """Of a table."""

    points: int
    body_bytes: int
    """Also of what it expands to."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As they are configured."""
        return cls(settings.max_points, settings.max_body_mb * 2**20)


Grouped = tuple[SeriesBatch, NDArray[np.intp] | None]
"""A batch of rows by their series, as `group` gives it."""


def parse_points(body: bytes, limits: Limits, faults: list[Fault]) -> Series:
    """The points of an Arrow stream, columns timestamp and value. Raises InvalidInput with `faults` and its own."""
    table = _read_stream(body, _POINTS, limits, faults)
    timestamps_s, values = _points_of(table, faults)
    for name, is_good in (("timestamp", is_time(timestamps_s)), ("value", np.isfinite(values))):
        if not is_good.all():
            advice = "is missing or out of range: send Unix seconds up to the year 9999, and finite values"
            faults.append(Fault(f"/{name}/{np.argmin(is_good)}", advice))
    if faults:
        raise InvalidInput(faults)
    return Series(timestamps_s, values)


def parse_histories(body: bytes, limits: Limits, faults: list[Fault], *, is_parquet: bool) -> SeriesBatch:
    """The series of a table in long form. Raises InvalidInput with `faults` and its own."""
    read = _read_parquet if is_parquet else _read_stream
    return group(read(body, LONG_FORM, limits, faults), faults)[0]


def parse_rows(body: bytes, limits: Limits, faults: list[Fault]) -> Grouped:
    """The series of a table in long form, or the one of a table without series_id.

    Raises InvalidInput with `faults` and its own.
    """
    try:
        names = pa.ipc.open_stream(body).schema.names
    except _UNREADABLE as error:
        raise malformed("an Arrow stream", error, faults) from error
    if "series_id" in names:
        return group(_read_stream(body, LONG_FORM, limits, faults), faults)
    rows = _read_stream(body, _POINTS, limits, faults)
    return group(rows.append_column("series_id", pa.array(["series"] * rows.num_rows, pa.string())), faults)


def group(rows: pa.Table | pa.RecordBatch, faults: list[Fault]) -> Grouped:
    """Rows in long form by their series; see `group_rows`. Raises InvalidInput with `faults` and its own."""
    timestamps_s, values = _points_of(rows, faults)
    try:
        names = names_of(rows["series_id"])
        if names.null_count:  # points of no series are those of one without a name, which is refused by itself
            names = names.cast(pa.string()).fill_null("")
        return group_rows(names, timestamps_s, values)
    except ValueError as error:
        raise InvalidInput([*faults, Fault("/series_id", str(error))]) from error


def open_rows(body: BodyFile, limits: Limits) -> Iterator[Grouped]:
    """The rows in long form of an Arrow stream, batch by batch.

    Raises InvalidInput, BodyTooLarge: at once for the first batch, while a problem can still be answered.
    """
    batches = _read_batches(CheckedStream(body, *limits))
    return chain([first] if (first := next(batches, None)) else [], batches)


def _read_batches(body: CheckedStream) -> Iterator[Grouped]:
    try:
        reader = pa.ipc.open_stream(body)
        check_columns(reader.schema, LONG_FORM, [])
        group(reader.schema.empty_table(), [])  # its types, also when no batch follows
        for rows in reader:
            yield group(_sound(rows, LONG_FORM), [])
    except _UNREADABLE as error:
        raise malformed("an Arrow stream", error, []) from error


def judge_rows(
    batches: Iterator[Grouped], prediction: PredictionService, query: PredictQuery, caller: Caller, sink: SpoolFile
) -> None:
    """Write an Arrow stream of verdicts to `sink`: for each batch of rows one, row for row."""
    with pa.ipc.new_stream(sink, _JUDGED) as writer:
        for batch, order in batches:
            try:
                caller.charge_points(len(batch.values))
                judged = prediction.predict_batch(batch, *query, check_series=caller.check_series)
            except RateLimitExceeded as error:
                judged = BatchVerdicts.nothing(len(batch.values), error.status)
            writer.write_batch(_judged_batch(judged if order is None else judged.take(np.argsort(order))))


def verdicts_stream(version: int, verdicts: Verdicts, *, compressed: bool) -> memoryview:
    """The answer to the points of one series: an Arrow stream with a column for each field of a verdict."""
    columns = _verdict_columns(verdicts)
    schema = pa.schema([pa.field(name, column.type) for name, column in columns.items()])
    batch = pa.record_batch(list(columns.values()), schema=schema.with_metadata({"model_version": str(version)}))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_COMPRESSED if compressed else _PLAIN) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def detection_stream(judged: BatchVerdicts) -> memoryview:
    """The answer to a detection: a row for each point, with its status and the columns of a verdict."""
    batch = _judged_batch(judged).drop_columns(["model_version"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


_KIND = pa.dictionary(pa.int8(), pa.string())
_KINDS = pa.array(KINDS[1:])

_JUDGED = pa.schema(
    [("status", pa.int16()), ("model_version", pa.string()), ("anomaly", pa.bool_())]
    + [(name, pa.float64()) for name in ("score", "expected", "lower", "upper", "severity", "p_value")]
    + [("kind", _KIND)]
)
"""The answer to points of many series; all but the status is null where that is not 200."""


def _judged_batch(judged: BatchVerdicts) -> pa.RecordBatch:
    is_bad = judged.status != _OK
    version = pa.array(judged.version, mask=is_bad).cast(pa.string())
    columns = _verdict_columns(judged.verdicts, is_bad).values()
    return pa.record_batch([pa.array(judged.status), version, *columns], schema=_JUDGED)


def _verdict_columns(verdicts: Verdicts, is_missing: NDArray[np.bool_] | None = None) -> dict[str, pa.Array]:
    columns = answers.verdict_columns(verdicts).items()
    arrays = {name: pa.array(column, mask=_mask(name, column, is_missing)) for name, column in columns}
    is_normal = verdicts.kind == 0
    kind = pa.array(verdicts.kind - 1, mask=is_normal if is_missing is None else is_normal | is_missing)
    return arrays | {"kind": pa.DictionaryArray.from_arrays(kind, _KINDS)}


def _mask(name: str, column: NDArray[np.generic], is_missing: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Where to write null: also for a bound that is infinite."""
    if name not in {"lower", "upper"}:
        return is_missing
    is_open: NDArray[np.bool_] = np.isinf(column)
    if not is_open.any():
        return is_missing
    return is_open if is_missing is None else is_open | is_missing


def _points_of(rows: pa.Table | pa.RecordBatch, faults: list[Fault]) -> tuple[FloatArray, FloatArray]:
    columns: list[FloatArray] = []
    for name, read in (("timestamp", timestamps_of), ("value", values_of)):
        try:
            columns.append(read(rows[name]))
        except ValueError as error:
            faults.append(Fault(f"/{name}", str(error)))
    if len(columns) < len(_POINTS):
        raise InvalidInput(faults)
    return columns[0], columns[1]


def _read_stream(body: bytes, columns: Sequence[str], limits: Limits, faults: list[Fault]) -> pa.Table:
    try:
        check_arrow(body, limits.body_bytes)
        reader = pa.ipc.open_stream(body)
        check_columns(reader.schema, columns, faults)
        batches, rows = [], 0
        for batch in reader:
            rows += batch.num_rows
            _check_rows(rows, limits.points, faults)
            batches.append(_sound(batch, columns))
        return pa.Table.from_batches(batches, reader.schema.empty_table().select(columns).schema)
    except _UNREADABLE as error:
        raise malformed("an Arrow stream", error, faults) from error


def _sound(rows: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
    """These columns. Raises ArrowInvalid when its bytes lead out of them: unchecked, reading them ends the process."""
    rows = rows.select(columns)
    rows.validate(full=True)
    return rows


def _read_parquet(body: bytes, columns: Sequence[str], limits: Limits, faults: list[Fault]) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        check_columns(file.schema_arrow, columns, faults)
        _check_rows(file.metadata.num_rows, limits.points, faults)
        check_parquet(file.metadata, limits.body_bytes)
        texts = ["series_id", "timestamp"]  # a long one may stand in every row, and be in the file but once
        file = pq.ParquetFile(pa.BufferReader(body), metadata=file.metadata, read_dictionary=texts)
        return _sound(file.read(columns=list(columns), use_threads=False), columns)
    except (*_UNREADABLE, KeyError) as error:  # KeyError for what is nested
        raise malformed("a Parquet file", error, faults) from error


def check_columns(schema: pa.Schema, columns: Sequence[str], faults: list[Fault]) -> None:
    """Raises InvalidInput with `faults` and those of a table without these columns."""
    before = len(faults)
    for name in columns:
        found = schema.names.count(name)
        if found != 1:
            advice = "is missing" if not found else f"is there {found} times"
            faults.append(Fault(f"/{name}", f"{advice}: the table has the columns {', '.join(schema.names)}"))
    if len(faults) > before:
        raise InvalidInput(faults)


def malformed(what: str, error: Exception, faults: list[Fault]) -> MalformedBody:
    """The error of bytes that Arrow cannot read."""
    return MalformedBody([*faults, Fault("", f"is not {what} that can be read: {error}")])


def _check_rows(rows: int, max_points: int, faults: list[Fault]) -> None:
    if rows > max_points:
        advice = f"has more than {max_points} rows: split the request or raise MAX_POINTS"
        raise InvalidInput([*faults, Fault("", advice)])
