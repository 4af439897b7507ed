"""The application: routers, errors and what runs beside them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig

from app import __version__
from app.api import problems
from app.api.fast_lane import PredictionFastLane
from app.api.middleware import LimitBody, MeasureRequests, RefuseOtherSites
from app.api.routes import aliases, bulk_fits, bulk_predictions, detection, health, models, series
from app.api.schemas import Problem
from app.bootstrap import Services
from app.dashboard import pages

DESCRIPTION = """Post a series' history, get a **versioned model**; post points, get verdicts that explain themselves.

Errors are [problem documents](https://www.rfc-editor.org/rfc/rfc9457): `errors` names every fault at once."""

_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own would ask OpenTelemetry at each request whether it is there, for a tenth of a prediction's time."""


def create_app(services: Services) -> FastAPI:
    """The ASGI application over these services."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.start()
        yield
        services.close()

    app = FastAPI(
        title="Tidemark",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # the dashboard serves /docs: FastAPI's own pages load their scripts from the internet
        redoc_url=None,
        telemetry=_TELEMETRY,
    )
    app.add_middleware(RefuseOtherSites)
    app.add_middleware(LimitBody, max_body_mb=services.settings.max_body_mb)
    measures = services.metrics, services.latencies
    app.add_middleware(MeasureRequests, *measures)
    problems.install(app)
    hot = models, bulk_predictions, bulk_fits, detection
    for routes in (*hot, series, aliases, health, pages):
        app.include_router(routes.router(services))
    app.middleware_stack = PredictionFastLane(
        app.build_middleware_stack(), services.settings, services.registry, *measures
    )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= problem.pop("$defs") | {"Problem": problem}
        app.openapi_schema = document
    return app.openapi_schema
