"""What wraps every request: the limit on its body, and the measure of its time. Plain ASGI, for speed."""

import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import formats
from app.api.problems import answer_error
from app.errors import BodyTooLarge, CrossSiteRequest
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


class LimitBody:
    """Refuses a body over the limit: by its announced length, or when the bytes that come exceed it.

    Streams are exempt: what their routes hold of them at a time has this limit. FastAPI's own limit wraps every
    receive and send, and answers plain text where no route reads the body.
    """

    def __init__(self, app: ASGIApp, max_body_mb: int) -> None:
        self._app = app
        self._limit_bytes = max_body_mb * 2**20
        advice = f"send less at a time, or raise MAX_BODY_MB, which is {max_body_mb}"
        self._error = f"A request body may have {self._limit_bytes} bytes: {advice}."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http" or _is_stream(scope):
            await self._app(scope, receive, send)
            return
        announced = _announced_length(scope)
        if announced is not None and announced > self._limit_bytes:
            await answer_error(Request(scope), BodyTooLarge(self._error))(scope, receive, send)
        elif announced is not None or scope["method"] == "GET":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                raise BodyTooLarge(self._error)
            return message

        return count


def _is_stream(scope: Scope) -> bool:
    """Whether the body is read piece by piece, so that only a piece of it needs a limit."""
    content_type = (_header(scope, b"content-type") or b"").decode("latin-1")
    if scope["path"] == "/fit":
        return not formats.is_table(content_type)
    if scope["path"] == "/detect":
        return formats.names(formats.NDJSON, content_type)
    return bool(scope["path"] == "/predict")


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


def _announced_length(scope: Scope) -> int | None:
    length = _header(scope, b"content-length")
    return None if length is None else int(length)


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
