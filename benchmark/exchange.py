"""Requests whose answer comes while the body is still sent: a thread sends, the caller reads."""

from collections.abc import Iterable, Iterator
from http.client import HTTPConnection, HTTPResponse
from threading import Thread
from urllib.parse import urlsplit

_READ_BYTES = 1 << 18
_STATUS_200 = b'"status":200'
_OK = 200
_TIMEOUT_S = 600.0


def post_lines(url: str, path: str, content_type: str, body: bytes | Iterable[bytes]) -> int:
    """POST a body, in chunks when it is not in one piece; the number of lines of the answer.

    Raises RuntimeError when the answer, or any line of it, is not a success, or when it is cut off.
    """
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", content_type)
    if isinstance(body, bytes):
        connection.putheader("Content-Length", str(len(body)))
    else:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    sender = _Sender(connection, body)
    sender.start()
    try:
        response = HTTPResponse(connection.sock, method="POST")
        response.begin()
        if response.status != _OK:
            raise RuntimeError(f"POST {path} answers {response.status}: {response.read(1000)!r}")
        lines = _count_lines(response, path)
    finally:
        connection.close()  # ends the sender too, when the answer was an error
        sender.join()
    if sender.error is not None:
        raise RuntimeError(f"POST {path}: the body was not taken to its end") from sender.error
    return lines


class _Sender(Thread):
    """Sends a body; `error` is what it failed with."""

    def __init__(self, connection: HTTPConnection, body: bytes | Iterable[bytes]) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._socket = connection.sock
        self._body = body

    def run(self) -> None:
        try:
            for piece in [self._body] if isinstance(self._body, bytes) else _chunked(self._body):
                self._socket.sendall(piece)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller raises it
            self.error = error


def _chunked(body: Iterable[bytes]) -> Iterator[bytes]:
    for piece in body:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _count_lines(response: HTTPResponse, path: str) -> int:
    lines = 0
    rest = b""
    while block := response.read1(_READ_BYTES):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        count = whole.count(b"\n") + len(newline)
        if count != whole.count(_STATUS_200):
            failed = next(line for line in whole.split(b"\n") if _STATUS_200 not in line)
            raise RuntimeError(f"POST {path}: a line was refused: {failed[:500]!r}")
        lines += count
    if rest:
        raise RuntimeError(f"POST {path}: the answer ends within a line: {rest[-500:]!r}")
    return lines
