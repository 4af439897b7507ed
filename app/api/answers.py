"""The answers of the hot routes, as bytes."""

from typing import Any

import numpy as np
import orjson
from fastapi.responses import Response
from numpy.typing import NDArray

from app.api import formats
from app.api.bodies import PredictBody
from app.api.queries import PredictQuery
from app.detectors.base import KINDS, Verdict, Verdicts
from app.errors import Fault, InvalidInput
from app.series import Series
from app.versions import LoadedModel, Version

_KINDS = np.array(KINDS, dtype=object)


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


def judge(model: LoadedModel, body: PredictBody, query: PredictQuery) -> bytes:
    """A `PointAnswer` or `PointsAnswer`: what the model says of one point, or of many. Raises InvalidInput."""
    return orjson.dumps(judged_fields(model, body, query), option=orjson.OPT_SERIALIZE_NUMPY)


def judged_fields(model: LoadedModel, body: PredictBody, query: PredictQuery) -> dict[str, Any]:
    """The fields of the answer; to be written with OPT_SERIALIZE_NUMPY, where an infinite bound becomes null.

    Raises InvalidInput when context or budget do not suit the model.
    """
    if isinstance(body.points, Series):
        return {"model_version": str(model.version)} | verdict_lists(judge_many(model, body, query))
    rate = _rate_for(model, body, query)
    return _verdict_fields(model.version, model.detector.score_one(*body.points, body.context, rate))


def judge_many(model: LoadedModel, body: PredictBody, query: PredictQuery) -> Verdicts:
    """What the model says of the points; one point is many too. Raises InvalidInput as `judged_fields`."""
    points = body.points
    if not isinstance(points, Series):
        points = Series(np.array([points.timestamp_s]), np.array([points.value]))
    return model.detector.score(points, body.context, _rate_for(model, body, query), query.lookahead_points)


def _rate_for(model: LoadedModel, body: PredictBody, query: PredictQuery) -> float | None:
    if body.context is not None:
        _check_context(body.context, model)
    return None if query.budget is None else query.budget.rate_for(model.detector)


def _check_context(context: Series, model: LoadedModel) -> None:
    """Raises InvalidInput when these points are too few for the model to judge the next one."""
    needed = model.detector.context_points
    if len(context) < needed:
        advice = f"has {len(context)} points, version {model.version} ({model.detector.name}) needs {needed}"
        raise InvalidInput([Fault("/context", f"{advice}: send more, or no context for the end of its training data")])


def _verdict_fields(version: int, verdict: Verdict) -> dict[str, Any]:
    return {
        "anomaly": verdict.is_anomaly,
        "model_version": str(version),
        "score": verdict.score,
        "expected": verdict.expected,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "severity": verdict.severity,
        "p_value": verdict.p_value,
        "kind": verdict.kind,
    }


def detection_fields(detector: str, verdicts: Verdicts) -> dict[str, Any]:
    """The fields of a `Detection`; to be written with OPT_SERIALIZE_NUMPY."""
    anomalies = int(np.count_nonzero(verdicts.is_anomaly))
    return {"detector": detector, "points": len(verdicts.score), "anomalies": anomalies} | verdict_lists(verdicts)


def verdict_lists(verdicts: Verdicts) -> dict[str, Any]:
    """The fields of a `VerdictLists`."""
    return verdict_columns(verdicts) | {"kind": _KINDS[verdicts.kind].tolist()}


def verdict_columns(verdicts: Verdicts) -> dict[str, NDArray[Any]]:
    """The same as arrays, but for the kinds."""
    return {
        "anomaly": verdicts.is_anomaly,
        "score": verdicts.score,
        "expected": verdicts.expected,
        "lower": verdicts.lower,
        "upper": verdicts.upper,
        "severity": verdicts.severity,
        "p_value": verdicts.p_value,
    }
