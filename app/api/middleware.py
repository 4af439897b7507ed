"""What wraps every request: its id and its answer's headers, the measure of its time.

Plain ASGI, for speed.
"""

import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.headers import security_headers
from app.api.request_ids import HEADER, request_id
from app.logs import log_as_part_of
from app.telemetry import Kind, LatencyHistory, Metrics

_OK = 200
_UNMATCHED = "(unmatched)"
_KINDS: Mapping[str, Kind] = {"/predict/{series_id}": "inference", "/fit/{series_id}": "training"}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class MeasureRequests:
    """Counts each request and remembers how long it took; its answer gets its id and what a browser must know."""

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
        own_id = (HEADER, request_id(scope).encode())
        log_as_part_of(scope)

        async def add_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                message["headers"] = [*headers, *security_headers(scope, headers), own_id]
            await send(message)

        try:
            await self._app(scope, receive, add_headers)
        finally:
            self._observe(scope, status, time.perf_counter() - started)

    def _observe(self, scope: Scope, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self._metrics.observe(method, route, status, duration_s)
        if status == _OK and (kind := _KINDS.get(route)):
            self._latencies.record(kind, duration_s * 1000.0)
