"""The sockets of a service, and how connections are taken from them."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from app.errors import ConfigurationError

_BACKLOG = 2048
_AT_ONCE = 256
_AT_ONCE_OF_SHARED = 16
"""Fewer, so that no worker takes them all."""
_PAUSE_S = 1.0
_HANDSHAKE_S = 10.0

log = structlog.get_logger()


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets of all addresses that `host` stands for. Raises ConfigurationError."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
            listening.setblocking(False)
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise ConfigurationError(f"HOST {host} and PORT {port} cannot be listened on: {error}") from None
    return sockets


class Listener:
    """Takes the connections that wait, many in a round of the event loop, as an `asyncio.Server` does.

    That of uvloop takes one in a round. With thousands of busy connections a round takes long, and a new one would
    wait for minutes.
    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        workers: int,
    ) -> None:
        self._socket = listening
        self._make_protocol = make_protocol
        self._tls = tls
        self._at_once = _AT_ONCE if workers == 1 else _AT_ONCE_OF_SHARED
        self._opening: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening.fileno(), self._take)

    def close(self) -> None:
        """Take no more."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def _take(self) -> None:
        for _ in range(self._at_once):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no files are left, or no memory: those that are open have to end first
                log.warning("connections cannot be taken", reason=str(error))
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(_PAUSE_S, self._go_on)
                return
            connection.setblocking(False)
            if connection.family in {socket.AF_INET, socket.AF_INET6}:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep(self._open(connection))

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
            )
        except OSError:  # it is gone already
            connection.close()

    def _keep(self, opening: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _go_on(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._take)
