"""The answers of the hot routes, as bytes."""

from typing import Any

import orjson
from fastapi.responses import Response
from numpy.typing import NDArray

from app.api import formats
from app.detectors.base import Verdict, Verdicts
from app.series import Point, Series
from app.versions import LoadedModel, Version


def fit_answer(version: Version) -> Response:
    """A `FitAnswer`."""
    return Response(orjson.dumps(fit_fields(version), option=orjson.OPT_UTC_Z), media_type=formats.JSON)


def fit_fields(version: Version) -> dict[str, object]:
    """The fields of a `FitAnswer`; to be written with OPT_UTC_Z."""
    return {
        "series_id": version.series_id,
        "version": str(version.version),
        "points_used": version.points,
        "detector": version.detector,
        "model_digest": version.model_digest.hex(),
        "data_digest": version.data_digest.hex(),
        "created_at": version.created_at,
    }


def judge(model: LoadedModel, points: Point | Series) -> bytes:
    """A `PointAnswer` or `PointsAnswer`: what the model says of one point, or of many."""
    return orjson.dumps(judged_fields(model, points), option=orjson.OPT_SERIALIZE_NUMPY)


def judged_fields(model: LoadedModel, points: Point | Series) -> dict[str, Any]:
    """The fields of the answer; to be written with OPT_SERIALIZE_NUMPY, where an infinite bound becomes null."""
    if isinstance(points, Series):
        return {"model_version": str(model.version)} | verdict_lists(model.detector.score(points))
    return _verdict_fields(model.version, model.detector.score_one(*points))


def _verdict_fields(version: int, verdict: Verdict) -> dict[str, Any]:
    return {
        "anomaly": verdict.is_anomaly,
        "model_version": str(version),
        "score": verdict.score,
        "expected": verdict.expected,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "severity": verdict.severity,
    }


def verdict_lists(verdicts: Verdicts) -> dict[str, NDArray[Any]]:
    """The fields of a `VerdictLists`."""
    return {
        "anomaly": verdicts.is_anomaly,
        "score": verdicts.score,
        "expected": verdicts.expected,
        "lower": verdicts.lower,
        "upper": verdicts.upper,
        "severity": verdicts.severity,
    }
