"""POST /fit: many series in one call, as lines of NDJSON, an Arrow stream or a Parquet file."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api import arrow, formats, lines
from app.api.admission import compute
from app.api.callers import Caller, caller_of
from app.api.documentation import (
    BULK_FITTING,
    FIT_LINE,
    PARAMS_PARAMETER,
    detector_parameter,
    stream_answer,
    stream_body,
)
from app.api.lines import Asked, FitDefaults
from app.api.streams import Spool, StreamedAnswer, batches_of_lines, open_lines
from app.bootstrap import Services
from app.config import Settings
from app.detectors import DETECTOR_OF_MANY
from app.series_batch import SeriesBatch
from app.services.training import FitJob, Prepared, TrainingService

ENOUGH_SERIES = 4_000
"""For one transaction and one pack; fewer go in when a stream pauses."""
ENOUGH_BYTES = 8 * 2**20
ENOUGH_POINTS = 1_000_000
_MB = 2**20

Read = Callable[[], list[Asked[FitJob]]]
"""Parses a batch; to be called in a thread."""


def router(services: Services) -> APIRouter:
    """The route that fits many series."""
    routes = APIRouter(tags=["many series"])
    settings, capacity = services.settings, services.capacity

    @routes.post(
        "/fit",
        summary="Fit models to many series: a stream of lines, an Arrow stream or a Parquet file",
        response_model=None,
        responses=stream_answer("A line for each series, with its version or its faults.", formats.NDJSON)
        | BULK_FITTING,
        openapi_extra={
            "parameters": [detector_parameter(DETECTOR_OF_MANY), PARAMS_PARAMETER],
            "requestBody": stream_body(FIT_LINE, formats.ARROW, formats.PARQUET),
        },
    )
    async def fit(request: Request) -> Response:
        defaults, caller = lines.parse_defaults(request.query_params.multi_items()), caller_of(request)
        content_type = request.headers.get("content-type")
        if formats.is_table(content_type):
            parse = partial(arrow.parse_histories, is_parquet=formats.names(formats.PARQUET, content_type))
            table = await compute(capacity, request, parse, await request.body(), arrow.Limits.of(settings), [])
            reads = _of_table(table, settings, defaults, caller)
        else:
            reads = _of_lines(await open_lines(request), services, defaults, caller)
        return StreamedAnswer(partial(_fit_all, services, reads, caller), formats.NDJSON, capacity)

    return routes


async def _of_lines(
    pieces: AsyncIterator[bytes], services: Services, defaults: FitDefaults, caller: Caller
) -> AsyncIterator[Read]:
    settings, budget = services.settings, services.capacity.bodies
    limit_bytes = settings.max_body_mb * _MB
    batches = batches_of_lines(pieces, limit_bytes, budget, enough_lines=ENOUGH_SERIES, enough_bytes=ENOUGH_BYTES)
    async for batch in batches:
        yield partial(lines.read_fits, batch, settings, defaults, caller)


async def _of_table(
    table: SeriesBatch, settings: Settings, defaults: FitDefaults, caller: Caller
) -> AsyncIterator[Read]:
    for batch in table.cut(ENOUGH_SERIES, ENOUGH_POINTS):
        yield partial(lines.read_table, batch, settings, defaults, caller)


async def _fit_all(services: Services, reads: AsyncIterator[Read], caller: Caller, spool: Spool) -> None:
    """Compute one batch while the one before it is published; answers are in the order of the request."""
    training = services.training
    publishing: asyncio.Future[None] | None = None
    try:
        async for read in reads:
            asked, prepared = await services.capacity.compute_in_turn(_compute, training, read, caller)
            if publishing is not None:
                await publishing
            publishing = asyncio.ensure_future(_publish(training, asked, prepared, spool))
    finally:
        if publishing is not None:
            await publishing


def _compute(training: TrainingService, read: Read, caller: Caller) -> tuple[list[Asked[FitJob]], Prepared]:
    asked = read()
    return asked, training.prepare([ask.wanted for ask in asked], caller.name)


async def _publish(training: TrainingService, asked: list[Asked[FitJob]], prepared: Prepared, spool: Spool) -> None:
    outcomes = await run_in_threadpool(training.publish, prepared)
    spool.write(lines.fit_answers(asked, outcomes))
