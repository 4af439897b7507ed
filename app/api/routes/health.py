"""How the service is doing: for people, for orchestrators, for Prometheus."""

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from app.api.callers import CallerOf
from app.api.documentation import problems
from app.api.schemas import Alive, Health, Latency, Ready
from app.api_keys import SeriesPatterns
from app.bootstrap import Services
from app.errors import TidemarkError, Unavailable
from app.migrations import check_schema
from app.telemetry import METRICS_CONTENT_TYPE, Kind, summarize

_UNAVAILABLE = 503


def router(services: Services) -> APIRouter:
    """The routes that say how the service is doing."""
    routes = APIRouter(tags=["health"])
    look = services.capacity.look

    @routes.get("/healthcheck", summary="Series trained and request latencies", responses=problems(Unavailable))
    async def healthcheck(caller: CallerOf) -> Health:
        return await look(partial(summarize_health, caller.series))

    def summarize_health(visible: SeriesPatterns) -> Health:
        return Health(
            series_trained=services.registry.catalog.count_series(visible=visible),
            inference_latency_ms=latency("inference"),
            training_latency_ms=latency("training"),
        )

    def latency(kind: Kind) -> Latency:
        summary = summarize(services.latencies.last(kind))
        return Latency(avg=round(summary.avg, 3), p95=round(summary.p95, 3))

    @routes.head("/livez", include_in_schema=False)
    @routes.get("/livez", summary="Whether the process answers")
    async def livez() -> Alive:
        return Alive()

    @routes.head("/readyz", include_in_schema=False)
    @routes.get(
        "/readyz",
        summary="Whether the parts that it stands on can be used",
        response_model=Ready,
        responses={_UNAVAILABLE: {"model": Ready, "description": "Which part cannot be used, and what to do."}},
    )
    async def readyz() -> JSONResponse:
        return await look(check_all)

    def check_all() -> JSONResponse:
        if services.shutting_down.is_set():
            return JSONResponse(Ready(status="shutting down", checks={}).model_dump(), _UNAVAILABLE)
        models, training = services.stores
        checks = {
            "database": _check(check_database),
            "model_store": _check(models.check_writable),
            "training_data_store": _check(training.check_writable),
        }
        is_ready = all(result == "ok" for result in checks.values())
        ready = Ready(status="ready" if is_ready else "not ready", checks=checks)
        return JSONResponse(ready.model_dump(), 200 if is_ready else _UNAVAILABLE)

    def check_database() -> None:
        check_schema(services.database)
        services.database.check_writable()

    @routes.get(
        "/metrics",
        summary="Metrics in the Prometheus text format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        return Response(await look(services.metrics.render), media_type=METRICS_CONTENT_TYPE)

    return routes


def _check(probe: Callable[[], None]) -> str:
    try:
        probe()
    except TidemarkError as error:
        return error.detail
    return "ok"
