"""Requests and answers of any length, both at once: lines come in while answers go out, in flat memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import structlog
from anyio import from_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from app.api import bodies
from app.capacity import Budget, Capacity, Share
from app.errors import BodyTooLarge, TidemarkError

SPOOL_MEMORY_BYTES = 8 * 2**20
_PIECE_BYTES = 2**18
_FREE_BYTES = 2**16
_PATIENCE_S = 0.05
"""How long lines wait for others before they are worked on."""
_LINGER_S = 1.0


log = structlog.get_logger()


class Line(NamedTuple):
    """A line of a stream."""

    number: int
    """Counted from 1, blank lines too."""
    data: bytes | None
    """None when it is too long."""


class LineCutter:
    """Cuts pieces of bytes into lines, without those that are blank. Keeps one unfinished line at most."""

    def __init__(self, limit_bytes: int, first: int = 1) -> None:
        """Of a line longer than `limit_bytes` nothing is kept. `first` is the number of the first line."""
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._length = 0
        self._number = first

    @property
    def held_bytes(self) -> int:
        """Of the unfinished line."""
        return sum(map(len, self._pieces))

    def cut(self, data: bytes) -> list[Line]:
        """The lines that end within `data`."""
        *ended, rest = data.split(b"\n")
        lines = [line for piece in ended if (line := self._end_line(piece))]
        if rest:
            self._keep(rest)
        return lines

    def end(self) -> list[Line]:
        """The last line, when no newline followed it."""
        line = self._end_line(b"")
        return [line] if line else []

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length <= self._limit_bytes:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def _end_line(self, piece: bytes) -> Line | None:
        self._keep(piece)
        is_too_long = self._length > self._limit_bytes
        data = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0] if self._pieces else b""
        number = self._number
        self._number += 1
        self._length = 0
        self._pieces.clear()
        if is_too_long:
            return Line(number, None)
        return Line(number, data) if data.strip() else None


async def open_lines(request: Request) -> AsyncIterator[bytes]:
    """The body, piece by piece, once its beginning is there. Raises MalformedBody when it is no text."""
    pieces = aiter(request.stream())
    first = await _next(pieces)
    bodies.refuse_binary(first or b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        if first is not None:
            yield first
        async for piece in pieces:
            yield piece

    return all_pieces()


async def batches_of_lines(
    pieces: AsyncIterator[bytes], line_limit_bytes: int, budget: Budget, *, enough_lines: int, enough_bytes: int
) -> AsyncIterator[list[Line]]:
    """The lines of a body as they come: at once when there are enough, or when no more come for a moment.

    The next bytes come in while a batch is worked on. What waits is held of `budget`, and goes on at once when there is
    no room. Raises Overloaded when a single line finds none, ClientDisconnect; then an unfinished line is lost.
    """
    cutter = LineCutter(line_limit_bytes)
    waiting: list[Line] = []
    size = 0
    share = Share(budget)
    coming = asyncio.ensure_future(_next(pieces))
    try:
        while True:
            await asyncio.wait([coming], timeout=_PATIENCE_S if waiting else None)
            if coming.done():
                piece = coming.result()
                if piece is None:
                    break
                coming = asyncio.ensure_future(_next(pieces))
                waiting += cutter.cut(piece)
                size += len(piece)
                has_room = share.try_hold(_beyond_free(size + cutter.held_bytes))
                if has_room and len(waiting) < enough_lines and size < enough_bytes:
                    continue
                if not has_room and not waiting:
                    share.hold(_beyond_free(cutter.held_bytes))
            if waiting:
                yield waiting
                waiting, size = [], 0
                share.hold(_beyond_free(cutter.held_bytes))
        waiting += cutter.end()
        if waiting:
            yield waiting
    finally:
        coming.cancel()
        share.release()


def _beyond_free(size: int) -> int:
    """What has to be held of a budget: not the first piece, which every stream may have."""
    return max(0, size - _FREE_BYTES)


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


class StreamedAnswer(Response):
    """An answer whose bytes are sent while `write` still makes them, and while the request still comes in.

    A fault that `write` does not turn into bytes cuts the answer off, so that no client takes it for whole.
    """

    def __init__(self, write: Callable[["Spool"], Awaitable[None]], media_type: str, capacity: Capacity) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._write = write
        self._capacity = capacity

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        spool = Spool(Share(self._capacity.bodies), Share(self._capacity.spool))
        writing = asyncio.ensure_future(self._fill(spool))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while data := await spool.read():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            if await writing:
                await send({"type": "http.response.body"})
            else:
                await _take_rest(receive)
        finally:
            spool.discard()

    async def _fill(self, spool: "Spool") -> bool:
        """Whether all of the answer was written; without its end, the server cuts it off."""
        with closing(spool):
            try:
                await self._write(spool)
            except ClientDisconnect:
                return False
            except TidemarkError as error:
                log.warning("answer cut off", error=error.kind, detail=error.detail, faults=error.faults)
                return False
        return True


async def _take_rest(receive: Receive) -> None:
    """Let the client send on for a moment: closed with bytes unread, a connection loses the answers on their way."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                pass


class BodyFile:
    """The body of a request as a file that a thread of the pool reads, while the event loop receives it."""

    closed = False

    def __init__(self, request: Request, limit_bytes: int, budget: Budget) -> None:
        """`limit_bytes` is the most that one read may ask for; what a read gave is held of `budget` until the next."""
        self._pieces = aiter(request.stream())
        self._rest = b""
        self._limit_bytes = limit_bytes
        self._share = Share(budget)

    def close(self) -> None:
        """Hold nothing any more."""
        self._share.release()

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the body. Raises BodyTooLarge, Overloaded."""
        pieces = [self._rest]
        length = len(self._rest)
        self._share.hold(_beyond_free(length))
        while length < size and (piece := from_thread.run(_next, self._pieces)) is not None:
            pieces.append(piece)
            length += len(piece)
            self._share.hold(_beyond_free(length))
            if length > self._limit_bytes and size > self._limit_bytes:  # not before: it may be garbage that asks
                advice = f"send batches of fewer rows, or raise MAX_BODY_MB, which is {self._limit_bytes // 2**20}"
                raise BodyTooLarge(f"A batch of the stream has {size} bytes: {advice}.")
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]


class SpoolFile:
    """A spool as a file that a thread of the pool writes."""

    closed = False

    def __init__(self, spool: "Spool") -> None:
        self._spool = spool

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:
        """Never waits for the client."""
        from_thread.run_sync(self._spool.write, bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class Spool:
    """Bytes on their way to a client that may not read them yet: in memory, then in a temporary file."""

    def __init__(self, memory: Share, disk: Share, memory_bytes: int = SPOOL_MEMORY_BYTES) -> None:
        """At most `memory_bytes` in memory, and fewer when `memory` has no room for them."""
        self._memory = memory
        self._disk = disk
        self._memory_bytes = memory_bytes
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._read_at = self._written_at = 0
        self._is_closed = self._is_discarded = False
        self._changed = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Take `data`; never waits for the client. Raises Overloaded when the disk has no room for it."""
        if self._is_discarded:
            return
        held = self._held_bytes + len(data)
        if self._written_at > self._read_at or held > self._memory_bytes or not self._memory.try_hold(held):
            self._disk.hold(self._written_at + len(data))
            self._file = self._file or TemporaryFile()  # noqa: SIM115  closed when it was read to its end
            self._file.seek(self._written_at)
            self._written_at += self._file.write(data)
        else:
            self._pieces.append(data)
            self._held_bytes += len(data)
        self._changed.set()

    def close(self) -> None:
        """Nothing follows."""
        self._is_closed = True
        self._changed.set()

    async def read(self) -> bytes:
        """The next bytes in order, waiting for them; empty at the end."""
        while not (data := self._take()):
            if self._is_closed:
                break
            self._changed.clear()
            await self._changed.wait()
        return data

    def _take(self) -> bytes:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
            self._memory.release()
            return data
        if self._file is None or self._read_at == self._written_at:
            return b""
        self._file.seek(self._read_at)
        data = self._file.read(_PIECE_BYTES)
        self._read_at += len(data)
        if self._read_at == self._written_at:
            self._drop_file()
        return data

    def discard(self) -> None:
        """Nobody reads it any more, nor what is still written."""
        self._is_discarded = True
        self._pieces.clear()
        self._memory.release()
        self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._read_at = self._written_at = 0
        self._disk.release()
