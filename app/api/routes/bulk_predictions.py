"""POST /predict: points of many series in one call, as lines of NDJSON or as an Arrow stream."""

from contextlib import closing
from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api import arrow, formats, lines
from app.api.callers import caller_of
from app.api.documentation import (
    BUDGET_PARAMETERS,
    BULK_JUDGING,
    LOOKAHEAD_PARAMETER,
    PREDICT_LINE,
    VERSION_PARAMETER,
    stream_answer,
    stream_body,
)
from app.api.parameters import refuse
from app.api.queries import parse_predict_query
from app.api.streams import BodyFile, Spool, SpoolFile, StreamedAnswer, batches_of_lines, open_lines
from app.bootstrap import Services
from app.errors import Fault

_MB = 2**20
_MOST_READERS = 40
"""Threads that read Arrow streams; they wait for their clients, so they are not those of the other requests."""


def router(services: Services) -> APIRouter:
    """The route that judges points of many series."""
    routes = APIRouter(tags=["many series"])
    capacity = services.capacity
    limit_bytes = services.settings.max_body_mb * _MB
    readers = CapacityLimiter(_MOST_READERS)

    @routes.post(
        "/predict",
        summary="Judge points of many series: a stream of lines, or an Arrow stream",
        response_model=None,
        responses=stream_answer("A line for each line, or a row for each row.", formats.NDJSON, formats.ARROW)
        | BULK_JUDGING,
        openapi_extra={
            "parameters": [VERSION_PARAMETER, *BUDGET_PARAMETERS, LOOKAHEAD_PARAMETER],
            "requestBody": stream_body(PREDICT_LINE, formats.ARROW),
        },
    )
    async def predict(request: Request) -> Response:
        faults: list[Fault] = []
        query = parse_predict_query(request.query_params.multi_items(), faults)
        refuse(faults)
        caller = caller_of(request)
        if not formats.names(formats.ARROW, request.headers.get("content-type")):
            batches = batches_of_lines(
                await open_lines(request), limit_bytes, capacity.bodies, enough_lines=1, enough_bytes=1
            )
            judge = lines.judging(services.registry, services.settings, query, caller)

            async def write_lines(spool: Spool) -> None:
                async for batch in batches:
                    spool.write(await run_in_threadpool(judge, batch))

            return StreamedAnswer(write_lines, formats.NDJSON, capacity)

        body = BodyFile(request, limit_bytes, capacity.bodies)
        read = partial(arrow.open_rows, body, arrow.Limits.of(services.settings))
        try:
            rows = await to_thread.run_sync(read, limiter=readers)
        except BaseException:
            body.close()
            raise

        async def write_rows(spool: Spool) -> None:
            with closing(body):
                judge = partial(arrow.judge_rows, rows, services.prediction, query, caller, SpoolFile(spool))
                await to_thread.run_sync(judge, limiter=readers)

        return StreamedAnswer(write_rows, formats.ARROW, capacity)

    return routes
