"""Ends waits for a PostgreSQL that keeps its connections open and does not answer: frozen, or behind a dead network.

libpq waits for an answer without end. `statement_timeout` is the server's own clock, and keepalives and
`tcp_user_timeout` are answered by a kernel that is well; psycopg2's wait callback would do, but rules out COPY. So a
thread shuts the socket down under a wait that takes too long, which libpq takes for a lost connection like any other.
"""

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Lock, Thread, local
from typing import Any

import psycopg2
import psycopg2.extensions

from app.errors import DatabaseUnavailable

_LOOK_S = 0.1
_SLACK_S = 0.5
"""The server's own limits come first, as they leave the connection whole."""
_LONGEST_CONNECT_S = 10.0


class Watchdog:
    """The time limits of the connections of one database.

    Once it was silent for `timeout_s` nobody waits for it any more, until a thread that keeps trying has had an answer:
    else each caller would hold a thread for `timeout_s`, and soon nothing else would get one.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._waits: set[_Wait] = set()
        self._silent_since: float | None = None
        self._closing: Event | None = None
        self._here = local()
        self._open: Callable[..., Any] = _open

    def check(self) -> None:
        """Before any use of a connection. Raises DatabaseUnavailable while the database is silent."""
        if (since := self._silent_since) is not None:
            advice = "It is asked again and again; try again in a moment."
            raise DatabaseUnavailable(f"The database has not answered for {time.monotonic() - since:.0f} s. {advice}")

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Around taking a connection: half of the time is for an old one to answer, the rest for a new one."""
        self._here.connect_by = time.monotonic() + self._timeout_s
        try:
            yield
        finally:
            self._here.connect_by = None

    def connect(self, *arguments: Any, **parameters: Any) -> Any:
        """A new connection of psycopg2 whose waits are watched. Raises DatabaseUnavailable as `check` does."""
        self.check()  # it may have become silent while this one waited for its turn
        self._start()
        self._open = partial(_open, *arguments, **parameters)
        connect_by = getattr(self._here, "connect_by", None)
        started = time.monotonic()
        try:
            made = self._open(limit_s=self._timeout_s if connect_by is None else connect_by - started)
        except _Silence:
            self._begin_silence(started)
            raise
        made.watchdog = self
        return made

    @contextmanager
    def waiting(self, connection: "_Connection") -> Iterator[None]:
        """Around a wait for the server at the other end of this connection."""
        is_connecting = getattr(self._here, "connect_by", None) is not None
        limit_s = self._timeout_s / 2 if is_connecting else self._timeout_s + _SLACK_S
        wait = _Wait(connection.fileno(), time.monotonic(), limit_s)
        with self._lock:
            self._waits.add(wait)
        try:
            yield
        except psycopg2.Error as error:
            if not wait.is_given_up:
                raise
            if not is_connecting:  # else it may be this connection alone, and a new one is tried next
                self._begin_silence(wait.since)
            raise psycopg2.OperationalError(f"it did not answer within {limit_s:g} s") from error
        finally:
            with self._lock:
                self._waits.discard(wait)

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            if self._closing is not None:
                self._closing.set()
            self._closing = None

    def _start(self) -> None:
        with self._lock:
            if self._closing is None:
                self._closing = Event()
                Thread(target=self._watch, args=(self._closing,), name="Watchdog", daemon=True).start()

    def _watch(self, closing: Event) -> None:
        while not closing.wait(_LOOK_S):
            now = time.monotonic()
            with self._lock:  # nobody closes a socket meanwhile that is waited for
                for wait in [wait for wait in self._waits if now > wait.since + wait.limit_s]:
                    wait.give_up()
                    self._waits.discard(wait)

    def _begin_silence(self, since: float) -> None:
        with self._lock:
            if self._silent_since is None and self._closing is not None:
                self._silent_since = since
                Thread(target=self._end_silence, args=(self._closing,), name="Watchdog", daemon=True).start()

    def _end_silence(self, closing: Event) -> None:
        while not closing.wait(_LOOK_S):
            try:
                self._open(limit_s=self._timeout_s).close()
            except _Silence:
                continue
            except psycopg2.Error:  # refused, which is an answer too
                pass
            break
        self._silent_since = None


class _Wait:
    __slots__ = ("descriptor", "is_given_up", "limit_s", "since")

    def __init__(self, descriptor: int, since: float, limit_s: float) -> None:
        self.descriptor = descriptor
        self.since = since
        self.limit_s = limit_s
        self.is_given_up = False

    def give_up(self) -> None:
        self.is_given_up = True
        with suppress(OSError), socket.socket(fileno=os.dup(self.descriptor)) as ours:
            ours.shutdown(socket.SHUT_RDWR)


class _Connection(psycopg2.extensions.connection):  # type: ignore[misc]  # of a library without types
    """Its waits are watched, once it has a watchdog."""

    watchdog: Watchdog | None = None

    def watched(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """`call`, which waits for the server."""
        if self.watchdog is None or self.closed:
            return call(*arguments)
        with self.watchdog.waiting(self):
            return call(*arguments)

    @property
    def autocommit(self) -> bool:
        """Changing it may ask the server for that."""
        return bool(super().autocommit)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.watched(psycopg2.extensions.connection.autocommit.__set__, self, value)

    def set_isolation_level(self, level: int | None) -> None:
        self.watched(super().set_isolation_level, level)

    def commit(self) -> None:
        self.watched(super().commit)

    def rollback(self) -> None:
        self.watched(super().rollback)


class _Cursor(psycopg2.extensions.cursor):  # type: ignore[misc]
    def execute(self, *arguments: Any) -> None:
        self.connection.watched(super().execute, *arguments)

    def executemany(self, *arguments: Any) -> None:
        self.connection.watched(super().executemany, *arguments)

    def copy_expert(self, *arguments: Any) -> None:
        self.connection.watched(super().copy_expert, *arguments)

    def fetchmany(self, *arguments: Any) -> Sequence[Any]:
        """Of a cursor with a name the next rows are still at the server."""
        if self.name is None:
            return super().fetchmany(*arguments)  # type: ignore[no-any-return]
        return self.connection.watched(super().fetchmany, *arguments)  # type: ignore[no-any-return]


class _Silence(psycopg2.OperationalError):  # type: ignore[misc]
    """Whoever was to be connected to said nothing at all."""


def _open(*arguments: Any, limit_s: float, **parameters: Any) -> _Connection:
    """A new connection. Raises _Silence, or OperationalError when it is refused."""
    whole_s = math.ceil(max(min(limit_s, _LONGEST_CONNECT_S), 1.0))
    ours = {"connect_timeout": whole_s, "connection_factory": _Connection, "cursor_factory": _Cursor}
    started = time.monotonic()
    try:
        connection: _Connection = psycopg2.connect(*arguments, **parameters | ours)
    except psycopg2.OperationalError as error:
        if time.monotonic() - started > whole_s - _SLACK_S:
            raise _Silence(f"it did not answer within {whole_s} s") from error
        raise
    return connection
