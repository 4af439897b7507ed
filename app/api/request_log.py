"""One line for each request, or for those that failed or took long. Never bodies, queries or headers."""

import time
from typing import Literal
from urllib.parse import quote

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.request_ids import request_id
from app.logs import log_as_part_of

Logged = Literal["none", "failures", "all"]

SLOW_S = 1.0
"""What answers from memory or a table takes longer only when something is wrong."""
_TAKES_ITS_TIME = frozenset(
    {"/fit/{series_id}", "/fit", "/predict", "/detect", "/plot/data", "/series/{series_id}/versions/{version}"}
)
"""As long as there is data; `auto` has seconds to choose, and so has the report, which fits once more."""
REFUSED = "tidemark.refused"
"""Set in the scope of a request that finds no room: of these there are too many for a line each."""
_PREDICT = "/predict/"
_MOST_CHARACTERS = 500
_OK = 200
_FAILED = 500

log = structlog.get_logger()


class LogRequests:
    """Writes the line when the answer is sent."""

    def __init__(self, app: ASGIApp, logged: Logged) -> None:
        self._app = app
        self._logs_all = logged == "all"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = _FAILED

        async def remember_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, remember_status)
        finally:
            self._write(scope, status, time.perf_counter() - started)

    def _write(self, scope: Scope, status: int, duration_s: float) -> None:
        route = _route(scope, status)
        is_failure = (status >= _FAILED and REFUSED not in scope) or (
            duration_s > SLOW_S and route not in _TAKES_ITS_TIME
        )
        if not (is_failure or self._logs_all):
            return
        request_id(scope)
        log_as_part_of(scope)
        fields = {"method": scope["method"], "route": route, "path": escape_path(scope)}
        key = getattr(scope.get("tidemark.caller"), "name", None)
        if key is not None:
            fields["key"] = key
        write = log.warning if is_failure else log.info
        write("request", **fields, status=status, duration_ms=round(duration_s * 1000.0, 3))


def _route(scope: Scope, status: int) -> str:
    """The template of the path. The fast lane looks for none; nobody else succeeds without."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        return str(route)
    if status == _OK and scope["method"] == "POST" and scope["path"].startswith(_PREDICT):
        scope["path_params"] = {"series_id": scope["path"].removeprefix(_PREDICT)}
        return f"{_PREDICT}{{series_id}}"
    return "(unmatched)"


def escape_path(scope: Scope) -> str:
    """The path of a request as a log may have it."""
    return quote(scope["path"])[:_MOST_CHARACTERS]
