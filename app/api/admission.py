"""Which requests are let in: the limits on their bodies, their number and their pace. Plain ASGI, for speed."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import formats
from app.api.problems import answer_error
from app.capacity import Capacity, Share
from app.errors import BodyTooLarge, RequestTimeout, TidemarkError

LATE = "tidemark.late"
"""Set in a request's scope, to what its client is told, when it came too slowly; a wait for its body then ends."""
STREAM = "tidemark.stream"
"""Set in the scope of a request whose body is a stream, which has time."""
GONE = "tidemark.gone"
"""Set in a request's scope when its client has hung up."""

_HEALTH = frozenset({"/livez", "/readyz", "/healthcheck", "/metrics"})
_PIECE_BYTES = 2**18

Given = ParamSpec("Given")
Made = TypeVar("Made")


class Admission:
    """Refuses what is too large, too slow, or more than the process takes on at once; never what asks for its health.

    A body that announces its length has that reserved before it comes, so that what is let in can be served. What a
    stream holds is for its route to count. FastAPI's own limit on bodies wraps every receive and send, and answers
    plain text where no route reads the body.
    """

    def __init__(self, app: ASGIApp, capacity: Capacity, max_body_mb: int) -> None:
        self._app = app
        self._capacity = capacity
        self._limit_bytes = max_body_mb * 2**20
        advice = f"send less at a time, or raise MAX_BODY_MB, which is {max_body_mb}"
        self._too_large = f"A request body may have {self._limit_bytes} bytes: {advice}."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http" or scope["path"] in _HEALTH:
            await self._app(scope, receive, send)
            return
        length, content_type = _announced(scope)
        if _is_stream(scope["path"], content_type):
            scope[STREAM] = True
            await self._app(scope, _in_time(scope, receive), send)
            return
        share = Share(self._capacity.bodies)
        try:
            if length is not None and length > self._limit_bytes:
                raise BodyTooLarge(self._too_large)
            share.hold(length or 0)
            await self._serve(scope, receive, send, share, is_announced=length is not None)
        except TidemarkError as error:  # of ours; what the routes raise is answered where they are
            await answer_error(Request(scope), error)(scope, receive, send)
        finally:
            share.release()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, share: Share, *, is_announced: bool) -> None:
        place = _Place(self._capacity)
        counted = self._counting(_in_time(scope, receive), share, place.take, is_announced=is_announced)
        try:
            if scope["method"] in {"GET", "HEAD"}:
                place.take()
            await self._app(scope, counted, _in_pieces(send, share, place.leave))
        finally:
            place.leave()

    def _counting(self, receive: Receive, share: Share, is_whole: Callable[[], None], *, is_announced: bool) -> Receive:
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            if not is_announced and (size := len(message.get("body", b""))):
                received += size
                if received > self._limit_bytes:
                    raise BodyTooLarge(self._too_large)
                share.hold(received)
            if message["type"] == "http.request" and not message.get("more_body"):
                is_whole()
            return message

        return count


async def compute(
    capacity: Capacity,
    request: Request,
    work: Callable[Given, Made],
    *args: Given.args,
    **kwargs: Given.kwargs,
) -> Made:
    """Do what takes the processor for long, when its turn comes, and if its client still waits for it then.

    Raises Overloaded, ClientDisconnect.
    """

    def work_when_wanted() -> Made:
        if GONE in request.scope:
            raise ClientDisconnect
        return work(*args, **kwargs)

    return await capacity.compute(work_when_wanted)


class _Place:
    """A place among the requests that are worked on: taken once the request is whole, left once its answer begins."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._is_taken = False

    def take(self) -> None:
        """Raises Overloaded when there is none."""
        if not self._is_taken:
            self._capacity.enter()
            self._is_taken = True

    def leave(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._capacity.leave()


def _in_time(scope: Scope, receive: Receive) -> Receive:
    async def receive_in_time() -> Message:
        message = await receive()
        if LATE in scope:
            raise RequestTimeout(scope[LATE])
        return message

    return receive_in_time


def _in_pieces(send: Send, share: Share, begins: Callable[[], None]) -> Send:
    """Large answers go out as the client reads them, and not into the server's buffer all at once."""

    async def send_in_pieces(message: Message) -> None:
        if message["type"] == "http.response.start":
            begins()
        body = message.get("body", b"")
        if len(body) <= _PIECE_BYTES:
            await send(message)
            return
        share.add(len(body))
        view = memoryview(body)
        for start in range(0, len(view), _PIECE_BYTES):
            is_last = start + _PIECE_BYTES >= len(view)
            piece = bytes(view[start : start + _PIECE_BYTES])
            more_body = message.get("more_body", False) or not is_last
            await send({"type": "http.response.body", "body": piece, "more_body": more_body})

    return send_in_pieces


def _is_stream(path: str, content_type: str) -> bool:
    """Whether the body is read piece by piece, so that only a piece of it needs a limit."""
    if path == "/fit":
        return not formats.is_table(content_type)
    if path == "/detect":
        return formats.names(formats.NDJSON, content_type)
    return path == "/predict"


def _announced(scope: Scope) -> tuple[int | None, str]:
    """Length and type of the body, as the headers have them."""
    length, content_type = None, ""
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-type":
            content_type = value.decode("latin-1")
    return length, content_type
