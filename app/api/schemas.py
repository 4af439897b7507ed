"""What requests and answers look like: the models of the OpenAPI document, and of the answers."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.api.parameters import SELECTOR_DESCRIPTION, SELECTOR_PATTERN
from app.detectors import DEFAULT_DETECTOR, DETECTOR_IN_VIEW, DETECTORS, find_detector
from app.detectors.base import Kind
from app.series import LATEST_TIMESTAMP_S, format_timestamp
from app.versions import Alias, SeriesSummary, Version

_TIMESTAMP = {
    "description": "Unix seconds, as a number or a string of digits, or an RFC 3339 date and time.",
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": LATEST_TIMESTAMP_S},
        {"type": "string", "pattern": "^[0-9]{1,10}$"},
        {"type": "string", "format": "date-time"},
    ],
}
_CONTEXT = {
    "description": "The points before the first, strictly increasing in time; by default the end of the training data.",
    "type": "object",
    "required": ["timestamps", "values"],
    "properties": {
        "timestamps": {"type": "array", "items": _TIMESTAMP},
        "values": {"type": "array", "items": {"type": "number"}},
    },
}
Timestamp = Annotated[float | str, WithJsonSchema(_TIMESTAMP)]
Context = Annotated[dict[str, Any], WithJsonSchema(_CONTEXT)]
SeriesId = Annotated[str, Field(examples=["sensor_01"])]
Number = Annotated[str, Field(description="Number of the version, as text.", examples=["1"])]
Digest = Annotated[str, Field(description="SHA-256 of the stored file, in hex.", pattern="^[0-9a-f]{64}$")]
Bound = Annotated[float | None, Field(description="null where the direction leaves this side open.")]
Severity = Annotated[float, Field(ge=0, le=1, description="0 for a normal point, then rising towards 1.")]
Score = Annotated[float, Field(ge=0, description="Above 1 exactly when the point is an anomaly.")]
PValue = Annotated[float, Field(ge=0, le=1, description="How often a normal point deviates as far.")]
KindOrNone = Annotated[Kind | None, Field(description="What kind of anomaly it is; null for a normal point.")]


DetectorName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(DETECTORS)})]
Params = Annotated[
    dict[str, Any],
    WithJsonSchema({"anyOf": [find_detector(name).Params.model_json_schema() for name in DETECTORS]}),
]
SelectorText = Annotated[str, Field(pattern=SELECTOR_PATTERN)]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class FitRequest(BaseModel):
    """A history to fit a model to: one value for each timestamp, strictly increasing in time."""

    model_config = _example(timestamps=[1705000000, 1705000001, 1705000002, 1705000003], values=[10.0, 10.5, 9.5, 10.0])

    timestamps: Annotated[list[Timestamp], Field(min_length=2)]
    values: Annotated[list[float], Field(min_length=2, description="Finite numbers, not all equal.")]
    detector: DetectorName | None = DEFAULT_DETECTOR
    params: Params | None = {}


class DetectRequest(FitRequest):
    """A series to find the anomalies of: one value for each timestamp, strictly increasing in time."""

    values: Annotated[list[float], Field(min_length=2, description="Finite numbers.")]
    detector: DetectorName | None = DETECTOR_IN_VIEW


class FitAnswer(BaseModel):
    """The version that the fit has made."""

    series_id: SeriesId
    version: Number
    points_used: Annotated[int, Field(examples=[4])]
    detector: DetectorName
    model_digest: Digest
    data_digest: Digest
    created_at: datetime


class PointRequest(BaseModel):
    """One point to judge."""

    model_config = _example(timestamp="1705000010", value=13.0)

    timestamp: Timestamp
    value: float
    context: Context | None = None


class PointsRequest(BaseModel):
    """Many points to judge, in any order: one value for each timestamp."""

    model_config = _example(timestamps=[1705000010, 1705000011], values=[13.0, 10.1])

    timestamps: list[Timestamp]
    values: list[float]
    context: Context | None = None


class PointAnswer(BaseModel):
    """The verdict on one point."""

    anomaly: bool
    model_version: Number
    score: Score
    expected: float
    lower: Bound
    upper: Bound
    severity: Severity
    p_value: PValue
    kind: KindOrNone


class VerdictLists(BaseModel):
    """Verdicts on many points, index-aligned."""

    anomaly: list[bool]
    score: list[Score]
    expected: list[float]
    lower: list[Bound]
    upper: list[Bound]
    severity: list[Severity]
    p_value: list[PValue]
    kind: list[KindOrNone]


class PointsAnswer(VerdictLists):
    """The verdicts on many points, index-aligned with the request."""

    model_version: Number


class Detection(VerdictLists):
    """Verdicts on all points of a series, index-aligned with the request."""

    detector: DetectorName
    points: int
    anomalies: Annotated[int, Field(description="How many of them are anomalies.")]


class VersionItem(BaseModel):
    """One immutable version with its provenance."""

    series_id: SeriesId
    version: Number
    detector: DetectorName
    params: Params
    points: int
    first_timestamp: Annotated[str, Field(description="Of the training data, RFC 3339.")]
    last_timestamp: Annotated[str, Field(description="Of the training data, RFC 3339.")]
    model_digest: Digest
    data_digest: Digest
    libraries: Annotated[dict[str, str], Field(description="Versions of the libraries that fitted it.")]
    created_at: datetime
    created_by: Annotated[str | None, Field(description="The API key that made it; null when none was asked for.")]

    @classmethod
    def of(cls, version: Version) -> Self:
        """As the registry has it."""
        return cls(
            series_id=version.series_id,
            version=str(version.version),
            detector=version.detector,
            params=dict(version.params),
            points=version.points,
            first_timestamp=format_timestamp(version.first_timestamp_s),
            last_timestamp=format_timestamp(version.last_timestamp_s),
            model_digest=version.model_digest.hex(),
            data_digest=version.data_digest.hex(),
            libraries=dict(version.libraries),
            created_at=version.created_at,
            created_by=version.created_by,
        )


class VersionPage(BaseModel):
    """Versions of a series that are not deleted, newest first."""

    versions: list[VersionItem]
    next_cursor: Annotated[str | None, Field(description="Pass as `cursor` for the next page; null on the last.")]


class SeriesItem(BaseModel):
    """A series and its latest version."""

    series_id: SeriesId
    latest_version: Number
    detector: DetectorName
    points: Annotated[int, Field(description="Training points of the latest version.")]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, summary: SeriesSummary) -> Self:
        """As the registry has it."""
        return cls(
            series_id=summary.series_id,
            latest_version=str(summary.latest.version),
            detector=summary.latest.detector,
            points=summary.latest.points,
            created_at=summary.created_at,
            updated_at=summary.updated_at,
        )


class SeriesPage(BaseModel):
    """Series that have a version, by name."""

    series: list[SeriesItem]
    next_cursor: Annotated[str | None, Field(description="Pass as `cursor` for the next page; null on the last.")]


class AliasRequest(BaseModel):
    """Where an alias is to point."""

    model_config = _example(version="3")

    version: Annotated[
        SelectorText | Annotated[int, Field(ge=0, le=999_999_999)], Field(description=SELECTOR_DESCRIPTION)
    ]


class AliasItem(BaseModel):
    """A name that points at a version and may be moved."""

    series_id: SeriesId
    name: Annotated[str, Field(examples=["prod"])]
    version: Number
    updated_at: datetime

    @classmethod
    def of(cls, alias: Alias) -> Self:
        """As the registry has it."""
        return cls(series_id=alias.series_id, name=alias.name, version=str(alias.version), updated_at=alias.updated_at)


class AliasList(BaseModel):
    """All aliases of a series, by name."""

    aliases: list[AliasItem]


class SeriesDetail(SeriesItem):
    """A series with its aliases."""

    versions: Annotated[int, Field(description="Versions that are not deleted.")]
    aliases: dict[str, Number]


class Latency(BaseModel):
    """Over the last requests of one kind; zeros before the first."""

    avg: float
    p95: Annotated[float, Field(description="By nearest rank.")]


class Health(BaseModel):
    """How the service is doing."""

    series_trained: int
    inference_latency_ms: Latency
    training_latency_ms: Latency


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Whether each part that the service stands on can be used."""

    status: Literal["ready", "not ready", "shutting down"]
    checks: Annotated[dict[str, str], Field(description="ok, or what is wrong and what to do.")]


class ProblemFault(BaseModel):
    """One thing to correct."""

    pointer: Annotated[str, Field(description="JSON pointer into the part named by `in`.", examples=["/values/2"])]
    detail: str
    location: Annotated[Literal["body", "path", "query", "header"], Field(alias="in")]


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    type: Annotated[str, Field(examples=["/problems/invalid-input"])]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="Path of the request.")]
    request_id: Annotated[str, Field(description="X-Request-ID of the answer, and of the lines about it in the log.")]
    errors: Annotated[list[ProblemFault], Field(description="Every fault of the request, all at once.")]
