"""POST /predict and POST /fit: the hot routes. They read the bytes of the body themselves, for speed."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api import answers, bodies
from app.api.documentation import (
    FITTING,
    IDEMPOTENCY_KEY_PARAMETER,
    JUDGING,
    SERIES_ID_PARAMETER,
    VERSION_PARAMETER,
    answer,
    request_body,
)
from app.api.schemas import FitAnswer, FitRequest, PointAnswer, PointRequest, PointsAnswer, PointsRequest
from app.bootstrap import Services
from app.errors import Fault
from app.series import Series, parse_series_id
from app.versions import Selector, parse_idempotency_key, parse_version_query

INLINE_BODY_BYTES = 16_384
"""A smaller body takes less time than handing it to a thread; a larger one would hold up other requests."""


def router(services: Services) -> APIRouter:
    """The routes that judge and fit."""
    routes = APIRouter(tags=["models"])

    @routes.post(
        "/predict/{series_id}",
        summary="Judge points with a version of the series' model",
        response_model=None,
        responses=answer(PointAnswer | PointsAnswer, "The verdicts.") | JUDGING,
        openapi_extra={
            "parameters": [SERIES_ID_PARAMETER, VERSION_PARAMETER],
            "requestBody": request_body(PointRequest, PointsRequest),
        },
    )
    async def predict(request: Request) -> Response:
        body = await request.body()
        faults: list[Fault] = []
        series_id = parse_series_id(request.path_params["series_id"], faults)
        selector = parse_version_query(request.query_params.multi_items(), faults)
        if len(body) <= INLINE_BODY_BYTES and services.prediction.is_warm(series_id, selector):
            return judge(series_id, selector, body, faults)
        return await run_in_threadpool(judge, series_id, selector, body, faults)

    def judge(series_id: str, selector: Selector, body: bytes, faults: list[Fault]) -> Response:
        points = bodies.parse_prediction(body, services.settings.max_points, faults)
        if isinstance(points, Series):
            return answers.points_answer(*services.prediction.predict(series_id, selector, points))
        return answers.point_answer(*services.prediction.predict_one(series_id, selector, *points))

    @routes.post(
        "/fit/{series_id}",
        summary="Fit a model to a history: the next version of the series",
        response_model=None,
        responses=answer(FitAnswer, "The new version.") | FITTING,
        openapi_extra={
            "parameters": [SERIES_ID_PARAMETER, IDEMPOTENCY_KEY_PARAMETER],
            "requestBody": request_body(FitRequest),
        },
    )
    async def fit(request: Request) -> Response:
        body = await request.body()
        faults: list[Fault] = []
        series_id = parse_series_id(request.path_params["series_id"], faults)
        key = parse_idempotency_key(request.headers.get("idempotency-key"), faults)
        if len(body) <= INLINE_BODY_BYTES and key is None:
            parsed = bodies.parse_fit(body, services.settings, faults)
            return answers.fit_answer(await asyncio.wrap_future(services.training.begin_fit(series_id, *parsed)))
        return await run_in_threadpool(train, series_id, body, key, faults)

    def train(series_id: str, body: bytes, key: str | None, faults: list[Fault]) -> Response:
        parsed = bodies.parse_fit(body, services.settings, faults)
        return answers.fit_answer(services.training.fit(series_id, *parsed, idempotency_key=key))

    return routes
