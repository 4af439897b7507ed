"""A network that is slow, stalls, or breaks: a TCP proxy in front of a server on a Unix socket."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.servers import free_port

_PIECE_BYTES = 65_536


class SlowProxy:
    """Passes bytes on both ways, those of the server `delay_s` later; stalls while `stalled` is set."""

    def __init__(self, socket_path: Path) -> None:
        self.port = free_port()
        self.delay_s = 0.0
        self._socket_path = socket_path
        self._flowing = threading.Event()
        self._flowing.set()
        self._connections: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=100)
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Take connections and bytes, and pass nothing on."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on what has come, and what comes."""
        self._flowing.set()

    def cut(self) -> None:
        """End all connections, in the middle of whatever they carry; new ones are taken."""
        connections, self._connections = self._connections, []
        for connection in connections:
            _shut_down(connection)

    def close(self) -> None:
        """Stop."""
        self._listening.close()
        self.flow()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._flowing.wait()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._socket_path))
        except OSError:
            server.close()
            client.close()
            return
        self._connections += [client, server]
        for source, target, is_answer in ((client, server, False), (server, client, True)):
            threading.Thread(target=self._pass_on, args=(source, target, is_answer), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                if is_answer:
                    time.sleep(self.delay_s)
                self._flowing.wait()
                target.sendall(data)
        _end(source, target)


def _end(*connections: socket.socket) -> None:
    for connection in connections:
        _shut_down(connection)  # closed only, it would stay open until the other thread has done reading from it
        connection.close()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def through(proxy: SlowProxy, url: str) -> str:
    """The URL of PostgreSQL on a Unix socket, by way of the proxy."""
    parts = urlsplit(url)
    return f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"


def socket_of(url: str) -> Path:
    """The Unix socket that the URL of a PostgreSQL names."""
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"
