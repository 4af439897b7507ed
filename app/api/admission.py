"""Which requests are let in: the limit on their bodies. Plain ASGI, for speed."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import formats
from app.api.problems import answer_error
from app.errors import BodyTooLarge


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


def _announced_length(scope: Scope) -> int | None:
    length = _header(scope, b"content-length")
    return None if length is None else int(length)


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
