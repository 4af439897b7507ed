"""Request bodies: from bytes to what the services take. Every fault of a body is found, not the first."""

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import NamedTuple

import numpy as np
import orjson

from app.api.formats import ARROW, PARQUET
from app.config import Settings
from app.detectors import choose_detector
from app.detectors.base import Detector, DetectorParams
from app.errors import Fault, InvalidInput, MalformedBody
from app.series import (
    Point,
    Series,
    format_timestamp,
    parse_history,
    parse_points,
    parse_series_id,
    parse_timestamp,
    parse_value,
)
from app.versions import Selector, parse_selector

_NOT_TEXT = {
    b"\x1f\x8b": "is compressed by gzip: send it as it was",
    b"\xff\xfe": "is encoded as UTF-16: send it as UTF-8",
    b"\xfe\xff": "is encoded as UTF-16: send it as UTF-8",
    b"PAR1": f"is a Parquet file: send it with Content-Type: {PARQUET}, where a route takes that",
    b"\xff\xff\xff\xff": f"is an Arrow stream: send it with Content-Type: {ARROW}, where a route takes that",
}
_NOT_JSON = _NOT_TEXT | {b"\xef\xbb\xbf": "is headed by a byte order mark: send it without"}
_CHEAP_BYTES = 2**20
"""Whatever such a body is made of, parsing it takes little."""
_LARGE = Lock()
_PAUSE_S = 0.05
_LENIENT_BYTES = 8 * 2**20
_MOST_BRACKETS = 10_000
_PARSE_POINT = {"timestamp": parse_timestamp, "value": parse_value}


class FitBody(NamedTuple):
    """What to fit, and how."""

    history: Series
    detector: type[Detector]
    params: DetectorParams


class PredictBody(NamedTuple):
    """What to judge."""

    points: Point | Series
    context: Series | None = None
    """The points before the first; None for the end of the training data."""

    @property
    def points_count(self) -> int:
        """How many points there are to judge."""
        return len(self.points) if isinstance(self.points, Series) else 1


def refuse_binary(beginning: bytes) -> None:
    """Raises MalformedBody when lines begin like a file of another kind: else each of them would be a fault."""
    for start, advice in _NOT_TEXT.items():
        if beginning.startswith(start):
            raise MalformedBody([Fault("", advice)])


def parse_object(body: bytes, max_points: int, faults: list[Fault]) -> Mapping[str, object]:
    """The JSON object that a body is. Raises MalformedBody with `faults` and its own."""
    if len(body) > _CHEAP_BYTES:
        _refuse_costly(body, max_points, faults)
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        parsed = _parse_leniently(body, error, faults)
    if not isinstance(parsed, dict):
        raise MalformedBody([*faults, Fault("", "must be a JSON object: {...}")])
    return parsed


class _Turn:
    """Large bodies are parsed one after another: each holds the interpreter for long, and in between others have it."""

    def __enter__(self) -> None:
        if not _LARGE.acquire(blocking=False):
            _LARGE.acquire()
            time.sleep(_PAUSE_S)

    def __exit__(self, *_: object) -> None:
        _LARGE.release()


_NO_TURN = nullcontext()
_LARGE_TURN = _Turn()


def in_turn(body: bytes) -> AbstractContextManager[None]:
    """What to parse a body within."""
    return _LARGE_TURN if len(body) > _CHEAP_BYTES else _NO_TURN


def parse_fit(body: bytes, settings: Settings, faults: list[Fault]) -> FitBody:
    """The body of a fit. Raises InvalidInput with `faults` and its own, MalformedBody."""
    with in_turn(body):
        return parse_fit_fields(parse_object(body, settings.max_points, faults), settings, faults)


def parse_fit_fields(
    fields: Mapping[str, object], settings: Settings, faults: list[Fault], *, varies: bool = True
) -> FitBody:
    """The fields of a fit; a constant is refused if it `varies`. Raises InvalidInput with `faults` and its own."""
    history = parse_history(
        fields.get("timestamps"),
        fields.get("values"),
        min_points=settings.min_training_data_points,
        max_points=settings.max_points,
        faults=faults,
        varies=varies,
    )
    chosen = choose_detector(fields.get("detector"), fields.get("params"), faults)
    if faults or history is None or chosen is None:
        raise InvalidInput(faults)
    return FitBody(history, *chosen)


def parse_prediction(body: bytes, max_points: int, faults: list[Fault]) -> PredictBody:
    """The body of a prediction. Raises InvalidInput with `faults` and its own, MalformedBody."""
    with in_turn(body):
        return parse_points_fields(parse_object(body, max_points, faults), max_points, faults)


def parse_points_fields(fields: Mapping[str, object], max_points: int, faults: list[Fault]) -> PredictBody:
    """The fields of a prediction. Raises InvalidInput with `faults` and its own."""
    points: Point | Series | None
    if "timestamps" in fields or "values" in fields:
        points = parse_points(fields.get("timestamps"), fields.get("values"), max_points, faults)
    else:
        points = _parse_point(fields, faults)
    context = _parse_context(fields["context"], max_points, faults) if fields.get("context") is not None else None
    if context is not None and points is not None:
        _check_before(points, context, faults)
    if faults or points is None:
        raise InvalidInput(faults)
    return PredictBody(points, context)


def parse_alias(body: bytes, faults: list[Fault]) -> Selector:
    """The version that an alias is to point at. Raises InvalidInput with `faults` and its own, MalformedBody."""
    selector = _parse_version(parse_object(body, 1, faults).get("version"), faults)
    if faults:
        raise InvalidInput(faults)
    return selector


def parse_series_field(fields: Mapping[str, object], faults: list[Fault]) -> str:
    """The series that a line names; appends to `faults`."""
    raw = fields.get("series_id")
    return parse_series_id(raw if isinstance(raw, str) else "", faults, "body")


def parse_version_field(fields: Mapping[str, object], default: Selector, faults: list[Fault]) -> Selector:
    """The version that a line names, if it does; appends to `faults`."""
    raw = fields.get("version")
    return default if raw is None else _parse_version(raw, faults)


def _parse_version(raw: object, faults: list[Fault]) -> Selector:
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)  # JSON has one kind of number: 3.0 is 3
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    return parse_selector(raw if isinstance(raw, str) else "", faults, "body")


def _parse_context(raw: object, max_points: int, faults: list[Fault]) -> Series | None:
    if not isinstance(raw, dict):
        faults.append(Fault("/context", "must be an object with the lists timestamps and values"))
        return None
    of_context: list[Fault] = []
    timestamps, values = raw.get("timestamps"), raw.get("values")
    context = parse_history(timestamps, values, min_points=0, max_points=max_points, faults=of_context, varies=False)
    faults += [fault._replace(pointer=f"/context{fault.pointer}") for fault in of_context]
    return context


def _check_before(points: Point | Series, context: Series, faults: list[Fault]) -> None:
    """Appends to `faults` where a context goes on beyond the first of the points."""
    first_s = points.timestamp_s if isinstance(points, Point) else points.timestamps_s.min(initial=np.inf)
    place = int(np.searchsorted(context.timestamps_s, first_s))
    if place < len(context):
        advice = (
            f"is not before {format_timestamp(float(first_s))}, the first point to judge: end the context before it"
        )
        faults.append(Fault(f"/context/timestamps/{place}", advice))


def _parse_point(fields: Mapping[str, object], faults: list[Fault]) -> Point | None:
    parsed: list[float] = []
    for name, parse in _PARSE_POINT.items():
        if name not in fields:
            faults.append(Fault(f"/{name}", "is missing: send timestamp and value, or lists timestamps and values"))
            continue
        try:
            parsed.append(parse(fields[name]))
        except ValueError as error:
            faults.append(Fault(f"/{name}", str(error)))
    return Point(*parsed) if len(parsed) == len(_PARSE_POINT) else None


def _refuse_costly(body: bytes, max_points: int, faults: list[Fault]) -> None:
    """Raises MalformedBody for JSON of so many parts that parsing them would take seconds and gigabytes.

    A history and its context are four lists. Parsing holds the interpreter, and makes an object of each part.
    """
    if _count(body, "{") + _count(body, "[") > _MOST_BRACKETS:
        advice = f"has more than {_MOST_BRACKETS} lists and objects: send timestamps and values, a list each"
        raise MalformedBody([*faults, Fault("", advice)])
    if _count(body, ",") > 4 * max_points + _MOST_BRACKETS:
        advice = f"has more items than {max_points} points and their context: split the request or raise MAX_POINTS"
        raise MalformedBody([*faults, Fault("", advice)])


def _count(body: bytes, character: str) -> int:
    """In pieces, between which others may go on; `bytes.count` takes ten times as long where there are many."""
    text = np.frombuffer(body, dtype=np.uint8)
    pieces = (text[start : start + _CHEAP_BYTES] for start in range(0, len(text), _CHEAP_BYTES))
    return sum(int(np.count_nonzero(piece == ord(character))) for piece in pieces)


def _parse_leniently(body: bytes, error: orjson.JSONDecodeError, faults: list[Fault]) -> object:
    """JSON with NaN and Infinity, as some clients write it, so that the faults can name their places."""
    try:
        if len(body) <= _LENIENT_BYTES and (b"NaN" in body or b"Infinity" in body or "infinity" in error.msg):
            return json.loads(body)
    except (ValueError, RecursionError):
        pass
    advice = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    advice = next((known for start, known in _NOT_JSON.items() if body.startswith(start)), advice)
    raise MalformedBody([*faults, Fault("", advice)]) from None
