"""What wraps every request: the measure of its time, and the guard against other sites. Plain ASGI, for speed."""

import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import answer_error
from app.errors import CrossSiteRequest
from app.telemetry import Kind, LatencyHistory, Metrics

_OK = 200
_UNMATCHED = "(unmatched)"
_KINDS: Mapping[str, Kind] = {"/predict/{series_id}": "inference", "/fit/{series_id}": "training"}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class MeasureRequests:
    """Counts each request and remembers how long it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, latencies: LatencyHistory) -> None:
        self._app = app
        self._metrics = metrics
        self._latencies = latencies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def remember_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, remember_status)
        finally:
            self._observe(scope, status, time.perf_counter() - started)

    def _observe(self, scope: Scope, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self._metrics.observe(method, route, status, duration_s)
        if status == _OK and (kind := _KINDS.get(route)):
            self._latencies.record(kind, duration_s * 1000.0)


class RefuseOtherSites:
    """Refuses what the page of another site sends through its visitor's browser, unless it only reads.

    A service on loopback has no other guard: any page that its operator opens could fit models.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] == "http" and scope["method"] not in _READING and _is_cross_site(scope):
            error = CrossSiteRequest(
                "The request comes from a page of another site: send it from this one, or without a browser."
            )
            await answer_error(Request(scope), error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_cross_site(scope: Scope) -> bool:
    origin = _header(scope, b"origin")
    if origin is None:  # browsers always name it with what is not a GET; nobody else does
        return False
    site = _header(scope, b"sec-fetch-site")
    if site is not None:
        return site not in {b"same-origin", b"none"}
    return origin.rpartition(b"//")[2] != _header(scope, b"host")


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
