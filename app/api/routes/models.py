"""POST /predict and POST /fit: the hot routes. They read the bytes of the body themselves, for speed."""

import asyncio
from functools import partial
from typing import NamedTuple, Self

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from app.api import answers, arrow, bodies, formats
from app.api.admission import compute
from app.api.bodies import FitBody, PredictBody
from app.api.callers import Caller, caller_of
from app.api.documentation import (
    BUDGET_PARAMETERS,
    FITTING,
    IDEMPOTENCY_KEY_PARAMETER,
    JUDGING,
    LOOKAHEAD_PARAMETER,
    SERIES_ID_PARAMETER,
    VERSION_PARAMETER,
    answer,
    request_body,
    with_stream,
)
from app.api.fast_lane import INLINE_BODY_BYTES
from app.api.queries import PredictQuery, parse_predict_query
from app.api.schemas import FitAnswer, FitRequest, PointAnswer, PointRequest, PointsAnswer, PointsRequest
from app.bootstrap import Services
from app.config import Settings
from app.errors import Fault
from app.series import parse_series_id
from app.services.training import Computed
from app.versions import LoadedModel, Version, parse_idempotency_key


class PointFormat(NamedTuple):
    """In which formats points come and verdicts go: JSON or Arrow."""

    is_arrow: bool
    answers_arrow: bool
    compresses: bool

    @classmethod
    def of(cls, headers: Headers) -> Self:
        """As the headers of a request have it; whoever accepts anything gets what he sends."""
        is_arrow = formats.names(formats.ARROW, headers.get("content-type"))
        accepted = headers.get("accept")
        is_anything = accepted is None or formats.names("*/*", accepted)
        parameters = formats.parameters_of(formats.ARROW, accepted)
        answers_arrow = parameters is not None or (is_arrow and is_anything)
        return cls(is_arrow, answers_arrow, compresses="compression=lz4" in (parameters or ""))

    def parse(self, body: bytes, settings: Settings, faults: list[Fault]) -> PredictBody:
        """The points of a body. Raises InvalidInput with `faults` and its own."""
        if self.is_arrow:
            return PredictBody(arrow.parse_points(body, arrow.Limits.of(settings), faults))
        return bodies.parse_prediction(body, settings.max_points, faults)

    def answer(self, model: LoadedModel, body: PredictBody, query: PredictQuery) -> Response:
        """What the model says of the points. Raises InvalidInput."""
        if not self.answers_arrow:
            return Response(answers.judge(model, body, query), media_type=formats.JSON)
        verdicts = answers.judge_many(model, body, query)
        stream = arrow.verdicts_stream(model.version, verdicts, compressed=self.compresses)
        return Response(stream, media_type=formats.ARROW)


def router(services: Services) -> APIRouter:
    """The routes that judge and fit."""
    routes = APIRouter(tags=["models"])
    _add_predict(routes, services)
    _add_fit(routes, services)
    return routes


def _add_predict(routes: APIRouter, services: Services) -> None:
    @routes.post(
        "/predict/{series_id}",
        summary="Judge points with a version of the series' model",
        response_model=None,
        responses=answer(PointAnswer | PointsAnswer, "The verdicts.") | JUDGING,
        openapi_extra={
            "parameters": [SERIES_ID_PARAMETER, VERSION_PARAMETER, *BUDGET_PARAMETERS, LOOKAHEAD_PARAMETER],
            "requestBody": with_stream(request_body(PointRequest, PointsRequest), formats.ARROW),
        },
    )
    async def predict(request: Request) -> Response:
        body = await request.body()
        faults: list[Fault] = []
        series_id = parse_series_id(request.path_params["series_id"], faults)
        query = parse_predict_query(request.query_params.multi_items(), faults)
        content, caller = PointFormat.of(request.headers), caller_of(request)
        if len(body) > INLINE_BODY_BYTES:
            return await run_in_threadpool(judge, series_id, query, body, content, caller=caller, faults=faults)
        points = content.parse(body, services.settings, faults)
        caller.charge_points(points.points_count)
        model = services.registry.find_loaded(series_id, query.selector)
        if model is None:  # shielded, since others may wait for the same load
            model = await asyncio.shield(asyncio.wrap_future(services.registry.begin_load(series_id, query.selector)))
        if model.detector.is_quick_to_judge:
            return content.answer(model, points, query)
        return await run_in_threadpool(content.answer, model, points, query)

    def judge(
        series_id: str, query: PredictQuery, body: bytes, content: PointFormat, *, caller: Caller, faults: list[Fault]
    ) -> Response:
        points = content.parse(body, services.settings, faults)
        caller.charge_points(points.points_count)
        return content.answer(services.registry.load(series_id, query.selector), points, query)


def _add_fit(routes: APIRouter, services: Services) -> None:
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
        caller = caller_of(request)
        if len(body) > INLINE_BODY_BYTES:
            computed = await compute(services.capacity, request, train, series_id, body, key, caller, faults)
            return await run_in_threadpool(store, computed)
        return await fit_small(request, series_id, bodies.parse_fit(body, services.settings, faults), key)

    async def fit_small(request: Request, series_id: str, asked: FitBody, key: str | None) -> Response:
        caller = caller_of(request)
        caller.charge_points(len(asked.history))
        if asked.detector.is_quick_to_fit(asked.params) and key is None:
            fitting = services.training.begin_fit(series_id, *asked, created_by=caller.name)
            return answers.fit_answer(await asyncio.wrap_future(fitting))
        work = partial(services.training.compute, idempotency_key=key, created_by=caller.name)
        if asked.detector.is_quick_to_fit(asked.params):
            return await run_in_threadpool(lambda: store(work(series_id, *asked)))
        return await run_in_threadpool(store, await compute(services.capacity, request, work, series_id, *asked))

    def train(series_id: str, body: bytes, key: str | None, caller: Caller, faults: list[Fault]) -> Computed | Version:
        asked = bodies.parse_fit(body, services.settings, faults)
        caller.charge_points(len(asked.history))
        return services.training.compute(series_id, *asked, idempotency_key=key, created_by=caller.name)

    def store(computed: Computed | Version) -> Response:
        return answers.fit_answer(services.training.publish_one(computed))
