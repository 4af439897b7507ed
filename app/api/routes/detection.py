"""POST /detect: verdicts on all points of a series, each with all the others in view. Nothing is stored."""

from functools import partial

import numpy as np
import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api import answers, arrow, bodies, formats, lines
from app.api.admission import compute
from app.api.callers import Caller, caller_of
from app.api.documentation import (
    BULK_FITTING,
    FIT_LINE,
    PARAMS_PARAMETER,
    answer,
    detector_parameter,
    request_body,
    with_lines,
)
from app.api.schemas import Detection, DetectRequest
from app.api.streams import Spool, StreamedAnswer, batches_of_lines, open_lines
from app.bootstrap import Services
from app.config import Settings
from app.detectors import DETECTOR_IN_VIEW
from app.errors import Fault, InvalidInput
from app.series import parse_series_id
from app.series_batch import SeriesBatch
from app.services.prediction import BatchVerdicts

_MB = 2**20


def router(services: Services) -> APIRouter:
    """The route that detects without a model."""
    routes = APIRouter(tags=["detection"])
    settings, capacity = services.settings, services.capacity

    @routes.post(
        "/detect",
        summary="Find the anomalies of one series or of many, without a stored model",
        response_model=None,
        responses=answer(Detection, "A verdict on each point.", formats.NDJSON, formats.ARROW) | BULK_FITTING,
        openapi_extra={
            "parameters": [detector_parameter(DETECTOR_IN_VIEW), PARAMS_PARAMETER],
            "requestBody": with_lines(request_body(DetectRequest), FIT_LINE, formats.ARROW),
        },
    )
    async def detect(request: Request) -> Response:
        defaults = lines.parse_defaults(request.query_params.multi_items(), DETECTOR_IN_VIEW)
        content_type, caller = request.headers.get("content-type"), caller_of(request)
        if formats.names(formats.NDJSON, content_type):
            pieces = await open_lines(request)
            return StreamedAnswer(partial(_write_lines, services, defaults, caller, pieces), formats.NDJSON, capacity)
        judge = _detect_rows if formats.names(formats.ARROW, content_type) else _detect_one
        return await compute(capacity, request, judge, settings, defaults, caller, await request.body())

    return routes


async def _write_lines(
    services: Services, defaults: lines.FitDefaults, caller: Caller, pieces: lines.Pieces, spool: Spool
) -> None:
    settings, capacity = services.settings, services.capacity
    limit_bytes = settings.max_body_mb * _MB
    async for batch in batches_of_lines(pieces, limit_bytes, capacity.bodies, enough_lines=1, enough_bytes=1):
        for line in batch:
            spool.write(await capacity.compute_in_turn(lines.detected, line, settings, defaults, caller))


def _detect_one(settings: Settings, defaults: lines.FitDefaults, caller: Caller, body: bytes) -> Response:
    faults: list[Fault] = []
    with bodies.in_turn(body):
        fields = lines.with_defaults(bodies.parse_object(body, settings.max_points, faults), defaults)
        asked = bodies.parse_fit_fields(fields, settings, faults, varies=False)
        del fields
    caller.charge_points(len(asked.history))
    content = answers.detection_fields(asked.detector.name, asked.detector.detect(asked.history, asked.params))
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type=formats.JSON)


def _detect_rows(settings: Settings, defaults: lines.FitDefaults, caller: Caller, body: bytes) -> Response:
    batch, order = arrow.parse_rows(body, arrow.Limits.of(settings), [])
    faults = batch.faults(settings.min_training_data_points, settings.max_points, varies=False)
    caller.charge_points(len(batch.values))
    judged = _detect_batch(batch, faults, defaults)
    if order is not None:
        judged = judged.take(np.argsort(order))
    return Response(arrow.detection_stream(judged), media_type=formats.ARROW)


def _detect_batch(batch: SeriesBatch, all_faults: list[list[Fault]], defaults: lines.FitDefaults) -> BatchVerdicts:
    """Verdicts on each series of a batch; of one with faults, its status. Raises InvalidInput when it is alone."""
    judged = BatchVerdicts.nothing(len(batch.values))
    bounds = batch.offsets.tolist()
    for place, ((name, series), faults) in enumerate(zip(batch, all_faults, strict=True)):
        parse_series_id(name, faults, "body")
        if faults and len(all_faults) == 1:
            raise InvalidInput(faults)
        if not faults:
            judged.put(slice(*bounds[place : place + 2]), 0, defaults.detector.detect(series, defaults.params))
    return judged
