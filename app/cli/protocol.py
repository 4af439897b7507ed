"""HTTP as uvicorn speaks it, with the limits that it does not have: on heads, on time, and on connections."""

import asyncio
import json
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.admission import GONE, LATE, STREAM
from app.config import Settings
from app.errors import Overloaded, RequestTimeout, TidemarkError

MAX_HEAD_BYTES = 65_536
"""Request line and headers: four times what the common proxies let through."""
_BYTES_A_SECOND = 131_072
_REST_PAUSE_S = 0.02
_OTHER_FILES = 256
"""That a process has open beside its connections."""
_MOMENT_S = 0.1
"""How long nobody looks again whether connections are idle, and how long a new one is given to say something."""


class Limits:
    """Of the connections of a process, and what they share."""

    def __init__(self, settings: Settings) -> None:
        self.request_s = settings.request_timeout_s
        self.stream_s = settings.stream_timeout_s
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = settings.max_connections
        self.most_connections = most if files == resource.RLIM_INFINITY else min(most, max(1, files - _OTHER_FILES))
        self.full_until_s = 0.0
        """When room for connections may next be looked for, since all were busy."""


class _Watched(NamedTuple):
    """What a connection is waiting for: the same for as long as it is one wait."""

    phase: str
    scope: object
    progress: object


class LimitedHttpProtocol(HttpToolsProtocol):
    """Ends requests whose heads are too long, whose bytes do not come, or whose answers are not read.

    `check` is to be called every second or so: time limits cost a request nothing.
    """

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._is_in_head = True
        self._head_bytes = 0
        self._received_bytes = 0
        self._resumed = 0
        self._watched: _Watched | None = None
        self._made_s = self._waits_since_s = self._began_s = time.monotonic()
        self._had_bytes = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.most_connections and not self._make_room():
            advice = "try again in a moment, or raise MAX_CONNECTIONS"
            error = Overloaded(f"There are {self._limits.most_connections} connections, and all are in use: {advice}.")
            self._refuse(error)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.cycle is not None:
            self.cycle.scope[GONE] = True  # type: ignore[literal-required]
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.logger.warning("A request's headers are too large.")
            self.send_400_response(f"The headers of a request may have {MAX_HEAD_BYTES} bytes.")

    @override
    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete:
            super().on_body(body)
        elif not self.flow.read_paused:  # of a request that was refused: taken, so that its client comes to its answer
            self.flow.pause_reading()
            self.loop.call_later(_REST_PAUSE_S, self._take_more)

    def _take_more(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    @override
    def resume_writing(self) -> None:
        self._resumed += 1
        super().resume_writing()

    def check(self, now_s: float) -> None:
        """End what has taken too long."""
        watched = self._look()
        before = self._watched
        self._watched = watched
        if watched is None or before is None or watched[:2] != before[:2]:  # another wait than before
            self._waits_since_s = self._began_s = now_s
            self._had_bytes = self._received_bytes
            return
        if watched.progress != before.progress:
            self._waits_since_s = now_s
        self._end_when_late(watched.phase, now_s)

    def _look(self) -> _Watched | None:
        """What it waits for from its client; None while that has nothing to do."""
        if self.transport.is_closing():  # as soon as its client has read the rest
            unread = self.transport.get_write_buffer_size()
            return _Watched("answer", None, unread) if unread else None
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return self._look_at_request(cycle)
        if self._is_in_head:
            return _Watched("head" if self._head_bytes else "silent", self.scope, None)
        return None if cycle is None or not cycle.more_body else _Watched("rest", cycle.scope, None)

    def _look_at_request(self, cycle: RequestResponseCycle) -> _Watched | None:
        read = self._resumed, self.transport.get_write_buffer_size()
        is_awaited = cycle.more_body and not self.flow.read_paused
        if is_awaited and STREAM in cycle.scope:  # whose client may read its answers later
            return _Watched("stream", cycle.scope, (self._received_bytes, read))
        if self.flow.write_paused:
            return _Watched("answer", cycle.scope, read)
        return _Watched("body", cycle.scope, None) if is_awaited else None

    def _end_when_late(self, phase: str, now_s: float) -> None:
        waited_s, took_s = now_s - self._waits_since_s, now_s - self._began_s
        limit_s = self._limits.request_s
        earned_s = (self._received_bytes - self._had_bytes) / _BYTES_A_SECOND
        if phase == "body" and took_s > limit_s + earned_s:
            self._say_late(
                f"did not come in within REQUEST_TIMEOUT_S, which is {limit_s:g}, and a second for each 128 KB"
            )
        elif phase == "stream" and waited_s > self._limits.stream_s:
            self._say_late(f"was silent for STREAM_TIMEOUT_S, which is {self._limits.stream_s:g}")
        elif phase == "head" and took_s > limit_s:
            self._refuse(RequestTimeout(f"Its head did not come in within REQUEST_TIMEOUT_S, which is {limit_s:g}."))
        elif phase in {"silent", "rest"} and took_s > limit_s:
            self.transport.close()
        elif phase == "answer" and waited_s > limit_s:
            self.logger.warning("An answer is not read by its client: REQUEST_TIMEOUT_S is over.")
            self.transport.abort()

    def _say_late(self, what: str) -> None:
        """Have the application answer it, which waits for the body; when it does not, hang up."""
        if LATE in self.cycle.scope:
            self.transport.abort()
            return
        self.cycle.scope[LATE] = f"The request {what}."  # type: ignore[literal-required]
        self.cycle.message_event.set()

    def _make_room(self) -> bool:
        """Close the connections that were idle for longest, some at once so that looking for them stays cheap."""
        now_s = time.monotonic()
        if now_s < self._limits.full_until_s:
            return False
        idle = [other for other in self.connections if isinstance(other, LimitedHttpProtocol) and other.is_idle(now_s)]
        idle.sort(key=LimitedHttpProtocol.idle_since_s)
        for other in idle[: 1 + len(self.connections) // 50]:
            other.transport.close()
        if not idle:
            self._limits.full_until_s = now_s + _MOMENT_S
        return bool(idle)

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing is lost when it is closed; not a new one, which has had no time to ask for anything."""
        if self.transport.is_closing():
            return False
        if self.cycle is None:
            return self._head_bytes == 0 and now_s > self._made_s + _MOMENT_S
        return self.timeout_keep_alive_task is not None

    def idle_since_s(self) -> float:
        """When it was opened, or was last answered."""
        task = self.timeout_keep_alive_task
        return self._made_s if task is None else task.when() - self.timeout_keep_alive

    def _refuse(self, error: TidemarkError) -> None:
        """Answer before there is a request that the application could, and hang up."""
        fields = {"type": f"/problems/{error.kind}", "title": error.title, "status": error.status}
        content = json.dumps(fields | {"detail": error.detail, "instance": "/", "errors": []}).encode()
        retry = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % error.retry_after_s
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\n" % len(content)
        self.transport.write(STATUS_LINE[error.status] + head + retry + b"connection: close\r\n\r\n" + content)
        self.transport.close()


def limited_protocol(settings: Settings) -> Callable[..., LimitedHttpProtocol]:
    """The protocol with the limits of these settings."""
    limits = Limits(settings)

    def make(*args: Any, **kwargs: Any) -> LimitedHttpProtocol:
        return LimitedHttpProtocol(*args, limits=limits, **kwargs)

    return make
