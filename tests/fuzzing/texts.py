"""Targets: names, numbers and times as text; bodies and lines of JSON."""

import json
import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import numpy as np
import orjson
import pyarrow as pa

from app import training_data
from app.api import arrow, bodies, lines
from app.api.formats import parameters_of
from app.api.queries import MOST_LOOKAHEAD_POINTS, parse_predict_query
from app.api.streams import LineCutter
from app.config import Settings
from app.detectors.base import Detector, DetectorParams
from app.errors import Fault, InvalidInput, PreconditionFailed
from app.preconditions import Precondition
from app.series import (
    LATEST_TIMESTAMP_S,
    Point,
    Series,
    format_timestamp,
    parse_points,
    parse_series_id,
    parse_timestamp,
)
from app.tables import timestamps_of
from app.versions import (
    LATEST,
    parse_alias_name,
    parse_idempotency_key,
    parse_number,
    parse_selector,
)
from tests.fuzzing.contracts import (
    check_faults,
    check_message,
    check_points,
    check_same,
    check_selector,
    document_of,
    promise,
    refusing,
)
from tests.streaming import stream_of

SETTINGS = Settings(_env_file=None, max_points=1_000)
DEFAULTS = lines.parse_defaults([])
ANY = parse_predict_query([], [])
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_LINE_LIMIT = 64


def check_timestamp(data: bytes) -> object:
    """Text or number: the same alone, among others, by the standard library, and written down and read again."""
    text = _text(data)
    raw = document if isinstance(document := document_of(data), int | float) else text
    try:
        timestamp_s = parse_timestamp(raw)
    except ValueError as error:
        check_message(str(error))
        faults: list[Fault] = []
        promise(parse_points([raw], [1.0], 9, faults) is None, "refused alone, taken among others")
        check_faults(faults)
        promise(not _is_valid(text) or raw is not text, f"{text!r} is a valid time after 1970, and was refused")
        return str(error)[:20]
    promise(type(timestamp_s) is float and 0 <= timestamp_s <= LATEST_TIMESTAMP_S, f"{raw!r} is {timestamp_s!r}")
    both = parse_points([raw, 1], [1.0, 2.0], 9, [])
    promise(both is not None and both.timestamps_s[0] == timestamp_s, f"{raw!r} alone and among others")
    again = parse_timestamp(format_timestamp(timestamp_s))
    promise(abs(again - timestamp_s) <= 1e-6 + np.spacing(timestamp_s), f"{timestamp_s!r} was written as of {again!r}")
    if _is_valid(text) and raw is text:
        expected = datetime.fromisoformat(text.strip().upper()).timestamp()
        promise(timestamp_s == expected, f"{text!r} is {timestamp_s!r}, not {expected!r}")
    if raw is text and text.isprintable():
        _check_times_in_tables(text.strip(), timestamp_s)
    return "taken"


def _check_times_in_tables(text: str, timestamp_s: float) -> None:
    """A table need not take all forms, but what it takes is the same second."""
    try:
        (in_table,) = timestamps_of(pa.array([text]))
    except ValueError:
        return
    promise(
        abs(in_table - timestamp_s) <= np.spacing(timestamp_s),
        f"{text!r} is {timestamp_s!r}, and in a table {in_table!r}",
    )


def check_names(data: bytes) -> object:
    """Series, versions, aliases and keys, from paths, queries and headers."""
    text = _text(data)
    outcomes = []
    for parse in (parse_series_id, parse_selector, parse_number, parse_alias_name, parse_idempotency_key):
        faults: list[Fault] = []
        parsed = parse(text, faults)  # type: ignore[operator]
        check_faults(faults)
        outcomes.append(len(faults))
        if faults:
            continue
        promise(parsed is not None, f"{text!r} is neither taken nor refused")
        name = str(parsed)
        promise(name.isascii() and name.isprintable() and 0 < len(name) <= 255, f"{text!r} is the name {name!r}")
        promise(parse is not parse_series_id or ".." not in name, f"the series {name!r}")
        if parse is parse_selector:
            check_selector(parsed)  # type: ignore[arg-type]
            again = "latest" if parsed == LATEST else f"@{parsed}" if isinstance(parsed, str) else f"v{parsed}"
            promise(parse_selector(again, []) == parsed, f"{text!r}, read again from {again!r}")
        else:
            promise(parse(name, []) == parsed, f"{text!r} is {parsed!r}, and that something else")  # type: ignore[operator]
    return tuple(outcomes)


def check_headers(data: bytes) -> object:
    """If-Match, If-None-Match, Content-Type and Accept, as the server decodes them."""
    header = data.decode("latin-1")
    for conditions in (Precondition(header), Precondition(None, header), Precondition(header, header)):
        for etag in ('"1-abc"', None):
            try:
                conditions.check(etag)
            except PreconditionFailed as error:
                promise(len(error.detail) > 10, "a refusal that says nothing")
    if Precondition(header).if_match == '"1-abc"':
        Precondition(header).check('"1-abc"')
    parameters = parameters_of("application/json", header)
    promise(
        parameters is None or "application/json" in header.replace(" ", "").lower(), f"{header!r} has {parameters!r}"
    )
    return parameters is None


def check_query(data: bytes) -> object:
    """The queries of predictions, of bulk fits and of plots."""
    items = parse_qsl(data.decode("latin-1"), keep_blank_values=True)
    faults: list[Fault] = []
    query = parse_predict_query(items, faults)
    check_faults(faults)
    check_selector(query.selector)
    promise(0 <= query.lookahead_points <= MOST_LOOKAHEAD_POINTS or faults, f"{query} without a fault")
    if query.budget is not None:
        (asked,) = [each for each in query.budget if each is not None]
        promise(0 < asked <= 1e9, f"the budget {query.budget}")
    with refusing() as outcome:
        defaults = lines.parse_defaults(items)
        _check_choice(defaults.detector, defaults.params)
    return (len(faults), query.budget is None, *outcome)


def check_fit(data: bytes) -> object:
    """A fit: the same as by Python's own JSON, through Arrow, from its training data, and in a line."""
    document = document_of(data)
    with refusing(document) as outcome:
        parsed = bodies.parse_fit(data, SETTINGS, [])
        check_points(parsed.history, increasing=True)
        promise(SETTINGS.min_training_data_points <= len(parsed.history), "too few points")
        promise(np.ptp(parsed.history.values / 4) > 0 or len(set(parsed.history.values.tolist())) > 1, "a constant")
        _check_choice(parsed.detector, parsed.params)
        promise(isinstance(document, dict), "taken, and no object of JSON")
        check_same(parsed.history, bodies.parse_fit_fields(document, SETTINGS, []).history, "orjson and json")  # type: ignore[arg-type]
        _check_in_arrow(parsed.history)
        check_same(parsed.history, training_data.decode(training_data.encode(parsed.history)), "training data")
        outcome.append(parsed.detector.name)
    _check_detection(data)
    return outcome[0]


def _check_detection(data: bytes) -> None:
    with refusing():
        fields = lines.with_defaults(bodies.parse_object(data, SETTINGS.max_points, []), DEFAULTS)
        check_points(bodies.parse_fit_fields(fields, SETTINGS, [], varies=False).history, increasing=True)


def check_prediction(data: bytes) -> object:
    """A prediction: the same as by Python's own JSON, through Arrow, and one point as one of many."""
    document = document_of(data)
    with refusing(document) as outcome:
        parsed = bodies.parse_prediction(data, SETTINGS.max_points, [])
        points = parsed.points
        if isinstance(points, Point):
            points = Series(np.array([points.timestamp_s]), np.array([points.value]))
            _check_as_many(document, points)
        check_points(points)
        if parsed.context is not None:
            check_points(parsed.context, increasing=True)
            before = (
                not len(parsed.context)
                or not len(points)
                or parsed.context.timestamps_s[-1] < points.timestamps_s.min()
            )
            promise(before, "a context that goes on into the points")
        promise(isinstance(document, dict), "taken, and no object of JSON")
        again = bodies.parse_points_fields(document, SETTINGS.max_points, []).points  # type: ignore[arg-type]
        promise(isinstance(again, Point) or np.array_equal(again.values, points.values), "orjson and json")
        _check_in_arrow(points)
        outcome.append(type(parsed.points).__name__)
    return outcome[0]


def check_alias(data: bytes) -> object:
    """The version that an alias is to point at."""
    with refusing(document_of(data)) as outcome:
        selector = bodies.parse_alias(data, [])
        check_selector(selector)
        body = orjson.dumps({"version": f"@{selector}" if isinstance(selector, str) else selector})
        promise(bodies.parse_alias(body, []) == selector, f"{selector!r}, written and read again")
        outcome.append(type(selector).__name__)
    return outcome[0]


def check_lines(data: bytes) -> object:
    """NDJSON: lines are the same however the pieces come, and each is a request or a problem with valid JSON."""
    whole = LineCutter(10**6)
    cut = [*whole.cut(data), *whole.end()]
    promise([line.data for line in cut] == [line for line in data.split(b"\n") if line.strip()], "lines were lost")
    for limit in (10**6, _LINE_LIMIT):
        pieces, at_once = LineCutter(limit), LineCutter(limit)
        step = len(data) % 7 + 1
        in_pieces = [line for start in range(0, len(data), step) for line in pieces.cut(data[start : start + step])]
        promise([*in_pieces, *pieces.end()] == [*at_once.cut(data), *at_once.end()], f"pieces of {step} bytes")
    asked = lines.read_fits(cut, SETTINGS, DEFAULTS)
    promise(len(asked) == len(cut), "a line without an answer")
    refusals = [(ask, ask.wanted) for ask in asked if isinstance(ask.wanted, InvalidInput)]
    for (_, error), answer in zip(refusals, _answers(refusals), strict=True):
        check_faults(error.faults)
        promise(answer["status"] == 422 and answer["errors"], f"the answer {answer}")
    for ask in asked:
        if not isinstance(ask.wanted, InvalidInput):
            check_points(ask.wanted.history, increasing=True)  # type: ignore[union-attr]
    return min(len(asked), 3), len(refusals) < len(asked), refusals[0][1].faults[0].detail[:20] if refusals else None


def _answers(refusals: list[tuple[lines.Asked, InvalidInput]]) -> list[dict[str, object]]:
    written = lines.fit_answers([ask for ask, _ in refusals], [error for _, error in refusals])
    return [json.loads(line, parse_constant=_no_constant) for line in written.splitlines()]


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _check_as_many(document: object, point: Series) -> None:
    assert isinstance(document, dict)
    lists = {"timestamps": [document["timestamp"]], "values": [document["value"]]}
    many = bodies.parse_points_fields(lists, SETTINGS.max_points, []).points
    assert isinstance(many, Series)
    check_same(point, many, "one point and one of many")


def _check_in_arrow(points: Series) -> None:
    body = stream_of(pa.record_batch({"timestamp": points.timestamps_s, "value": points.values}))
    check_same(points, arrow.parse_points(body, arrow.Limits.of(SETTINGS), []), "JSON and Arrow")


def _check_choice(detector: type[Detector], params: DetectorParams) -> None:
    again = detector.Params.model_validate_json(params.model_dump_json())
    promise(again == params, f"{params!r} is written as {again!r}")
    numbers = [value for value in params.model_dump().values() if isinstance(value, float)]
    promise(np.isfinite(numbers).all(), f"{params!r}")


def _is_valid(text: str) -> bool:
    """Whether the standard library reads it as a time that we have to take."""
    if not _RFC3339.fullmatch(text.strip()):
        return False
    try:
        return 0 <= datetime.fromisoformat(text.strip().upper()).astimezone(UTC).timestamp() <= LATEST_TIMESTAMP_S
    except (ValueError, OverflowError):
        return False


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
