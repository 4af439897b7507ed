"""Pieces of the OpenAPI document that several routes share."""

import json
from typing import Any

from pydantic import BaseModel

from app.api.formats import NDJSON, PROBLEM
from app.api.parameters import SELECTOR_DESCRIPTION, SELECTOR_PATTERN, SERIES_ID_DESCRIPTION, SERIES_ID_PATTERN
from app.api.queries import MOST_LOOKAHEAD_POINTS
from app.detectors import DETECTORS
from app.detectors.judging import HIGHEST_RATE
from app.errors import (
    ArtifactDamaged,
    BodyTooLarge,
    CrossSiteRequest,
    InvalidInput,
    Overloaded,
    PreconditionFailed,
    RateLimitExceeded,
    RequestTimeout,
    SeriesNotFound,
    TidemarkError,
    Unavailable,
    VersionDeleted,
)

Responses = dict[int | str, dict[str, Any]]

SERIES_ID_PARAMETER = {
    "name": "series_id",
    "in": "path",
    "required": True,
    "description": SERIES_ID_DESCRIPTION,
    "schema": {"type": "string", "pattern": SERIES_ID_PATTERN},
    "example": "sensor_01",
}
VERSION_PARAMETER = {
    "name": "version",
    "in": "query",
    "description": SELECTOR_DESCRIPTION,
    "schema": {"type": "string", "pattern": SELECTOR_PATTERN, "default": "latest"},
}
BUDGET_PARAMETERS = (
    {
        "name": "false_alarm_rate",
        "in": "query",
        "description": "Share of normal points that may be flagged, in place of what the version was fitted with.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": HIGHEST_RATE},
    },
    {
        "name": "max_false_alarms_per_week",
        "in": "query",
        "description": "The same as a number a week; give one of the two.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9},
    },
)
LOOKAHEAD_PARAMETER = {
    "name": "lookahead_points",
    "in": "query",
    "description": "How many of the points after it, in the same request, each point is judged with.",
    "schema": {"type": "integer", "minimum": 0, "maximum": MOST_LOOKAHEAD_POINTS, "default": 0},
}
PARAMS_PARAMETER = {
    "name": "params",
    "in": "query",
    "description": "Parameters of the detector, a JSON object.",
    "schema": {"type": "string", "default": "{}"},
}
IDEMPOTENCY_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Any text of your choice, new for each fit: a repeated request answers the same version again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DESCRIPTIONS = {
    401: "No valid API key came with it.",
    403: "A page of another site sent it, or the API key is not for this or not for this series.",
    404: "There is no such series, version or alias.",
    408: "The request did not come in within its time.",
    409: "An alias points at the version.",
    410: "It was deleted.",
    412: "If-Match or If-None-Match does not hold.",
    413: "The body, or what it expands to, exceeds MAX_BODY_MB.",
    429: "The API key has asked for too much in this minute; see Retry-After.",
    422: "Every fault of the request, all at once.",
    500: "A stored artifact is damaged.",
    503: "The database, the artifact store or Redis is away, or there is too much to do; see Retry-After.",
}


def detector_parameter(default: str) -> dict[str, Any]:
    """The detector of every series."""
    return {
        "name": "detector",
        "in": "query",
        "description": "The detector of every series; a line may name its own.",
        "schema": {"type": "string", "enum": list(DETECTORS), "default": default},
    }


def problems(*errors: type[TidemarkError]) -> Responses:
    """The answers to these errors."""
    return {error.status: _problem(error.status) for error in errors}


def answer(model: Any, description: str, *media_types: str) -> Responses:
    """The answer 200 of a route that writes it itself: JSON, or a stream of one of these types."""
    return {200: {"model": model, "description": description, "content": dict.fromkeys(media_types, _BINARY)}}


def request_body(*models: type[BaseModel]) -> dict[str, Any]:
    """A JSON body that is one of `models`."""
    schemas = [model.model_json_schema() for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def with_stream(body: dict[str, Any], *media_types: str) -> dict[str, Any]:
    """The same body, or a stream of one of these types."""
    return body | {"content": body["content"] | dict.fromkeys(media_types, _BINARY)}


def with_lines(body: dict[str, Any], line: dict[str, Any], *media_types: str) -> dict[str, Any]:
    """The same body, or lines like this one, or a stream of one of the other types."""
    return body | {"content": body["content"] | stream_body(line, *media_types)["content"]}


def stream_body(line: dict[str, Any], *media_types: str) -> dict[str, Any]:
    """A body of lines like this one, or a stream or a file of one of the other types; it may be empty."""
    lines = _BINARY | {"example": json.dumps(line) + "\n"}
    return {"content": {NDJSON: lines} | dict.fromkeys(media_types, _BINARY)}


def stream_answer(description: str, *media_types: str) -> Responses:
    """The answer 200 that is a stream of one of these types."""
    return {200: {"description": description, "content": dict.fromkeys(media_types, _BINARY)}}


def _problem(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _DESCRIPTIONS[status],
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in {Unavailable.status, RateLimitExceeded.status}:
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer


DELETED: Responses = {204: {"description": "Deleted."}}
NOT_MODIFIED: Responses = {304: {"description": "If-None-Match names the current entity tag."}}
LISTING = problems(InvalidInput, Unavailable)
READING = problems(SeriesNotFound, VersionDeleted, InvalidInput, Unavailable)
JUDGING = problems(
    CrossSiteRequest,
    SeriesNotFound,
    VersionDeleted,
    RequestTimeout,
    BodyTooLarge,
    InvalidInput,
    ArtifactDamaged,
    Unavailable,
)
FITTING = problems(CrossSiteRequest, VersionDeleted, RequestTimeout, BodyTooLarge, InvalidInput, Unavailable)
CHANGING = READING | problems(CrossSiteRequest, PreconditionFailed)
BULK_JUDGING = problems(CrossSiteRequest, RequestTimeout, BodyTooLarge, InvalidInput, Overloaded)
BULK_FITTING = problems(CrossSiteRequest, RequestTimeout, BodyTooLarge, InvalidInput, Overloaded)

FIT_LINE = {"series_id": "sensor_01", "timestamps": [1705000000, 1705000001, 1705000002], "values": [10.0, 10.5, 9.5]}
PREDICT_LINE = {"series_id": "sensor_01", "timestamp": 1705000010, "value": 13.0}
