"""The application: routers, errors and what runs beside them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from app import __version__
from app.api import openapi, problems
from app.api.admission import Admission
from app.api.fast_lane import PredictionFastLane
from app.api.gate import Authenticate, Gate
from app.api.middleware import MeasureRequests
from app.api.origins import Hosts, LeaveOutOtherHosts, RefuseOtherHosts, RefuseOtherSites, ShareWithOrigins
from app.api.request_log import LogRequests
from app.api.routes import aliases, bulk_fits, bulk_predictions, detection, health, models, series
from app.api.sessions import Sessions
from app.bootstrap import Services
from app.dashboard import pages
from app.dashboard.rendering import Pages

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
    sessions = Sessions(services.keyring, services.settings.session_secret.get_secret_value())
    gate = Gate(services.keyring, services.limiter, sessions)
    rendering = Pages()
    app.add_middleware(Admission, capacity=services.capacity, max_body_mb=services.settings.max_body_mb)
    app.add_middleware(Authenticate, gate, show=rendering.fail)
    app.add_middleware(RefuseOtherSites, origins=services.settings.cors_origins or ())  # before a cookie counts
    problems.install(app)
    hot = models, bulk_predictions, bulk_fits, detection
    for routes in (*hot, series, aliases, health):
        app.include_router(routes.router(services))
    app.include_router(pages.router(services, sessions, rendering))
    app.middleware_stack = _wrap(app.build_middleware_stack(), services, gate)
    app.openapi = lambda: _openapi(app, services)  # type: ignore[method-assign]
    return app


def _wrap(app: ASGIApp, services: Services, gate: Gate) -> ASGIApp:
    """What goes around all of the application, also around the answers to its faults; the first line is innermost."""
    settings = services.settings
    measures = services.metrics, services.latencies
    hosts = Hosts(settings.allowed_hosts, settings.host) if settings.allowed_hosts or settings.is_on_loopback else None
    if settings.cors_origins:
        app = ShareWithOrigins(app, settings.cors_origins)
    if hosts is not None:  # a stranger's page has no key, so that a proxy of any name may stand before who asks for one
        app = RefuseOtherHosts(app, hosts, lambda: bool(settings.allowed_hosts) or not services.keyring.is_required)
    app = MeasureRequests(app, *measures)
    if settings.log_requests == "failures":
        app = LogRequests(app, settings.log_requests)
    fast: ASGIApp = PredictionFastLane(
        app, settings, services.registry, gate=gate, metrics=services.metrics, latencies=services.latencies
    )
    if hosts is not None and settings.allowed_hosts:  # else only browsers are kept out, which the fast lane leaves be
        fast = LeaveOutOtherHosts(fast, app, hosts)
    return LogRequests(fast, settings.log_requests) if settings.log_requests == "all" else fast


def _openapi(app: FastAPI, services: Services) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = openapi.describe(app, asks_for_keys=bool(services.keyring.is_required))
    return app.openapi_schema
