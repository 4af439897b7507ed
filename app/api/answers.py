"""The answers of the hot routes, as bytes."""

import orjson
from fastapi.responses import Response

from app.detectors.base import Verdict, Verdicts
from app.versions import Version

_JSON = "application/json"


def fit_answer(version: Version) -> Response:
    """A `FitAnswer`."""
    content = {
        "series_id": version.series_id,
        "version": str(version.version),
        "points_used": version.points,
        "detector": version.detector,
        "model_digest": version.model_digest.hex(),
        "data_digest": version.data_digest.hex(),
        "created_at": version.created_at,
    }
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), media_type=_JSON)


def point_answer(version: int, verdict: Verdict) -> Response:
    """A `PointAnswer`. An infinite bound becomes null."""
    content = {
        "anomaly": verdict.is_anomaly,
        "model_version": str(version),
        "score": verdict.score,
        "expected": verdict.expected,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "severity": verdict.severity,
    }
    return Response(orjson.dumps(content), media_type=_JSON)


def points_answer(version: int, verdicts: Verdicts) -> Response:
    """A `PointsAnswer`. An infinite bound becomes null."""
    content = {"model_version": str(version)} | verdict_lists(verdicts)
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type=_JSON)


def verdict_lists(verdicts: Verdicts) -> dict[str, object]:
    """The fields of a `VerdictLists`."""
    return {
        "anomaly": verdicts.is_anomaly,
        "score": verdicts.score,
        "expected": verdicts.expected,
        "lower": verdicts.lower,
        "upper": verdicts.upper,
        "severity": verdicts.severity,
    }
