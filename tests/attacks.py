"""Attacks on a service from outside, and a watch on how it bears them."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse

import httpx
import numpy as np
import psutil
import pyarrow as pa

from tests.servers import Tidemark
from tests.streaming import ARROW, stream_of

HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0], "detector": "mean_std"}
POINT = b'{"timestamp": 5, "value": 10.2}'
MB = 2**20
HUNG_UP = "hung up"
HEALTH = ("/livez", "/readyz", "/healthcheck", "/metrics")


def address_of(server: Tidemark) -> tuple[str, int]:
    """Host and port."""
    url = httpx.URL(server.url)
    assert url.port is not None
    return url.host, url.port


class Watch:
    """What the health of a service takes, and its memory, while something else goes on."""

    def __init__(self, server: Tidemark) -> None:
        self._server = server
        self._process = psutil.Process(server.process.pid)
        self.rss_before_mb = self._process.memory_info().rss / MB
        self.rss_mb = self.rss_before_mb
        self.latencies_s: dict[str, list[float]] = {path: [] for path in HEALTH}
        self.failures: list[str] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(path,)) for path in HEALTH]
        self._threads.append(threading.Thread(target=self._weigh))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; then the figures are there."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    @property
    def worst_s(self) -> dict[str, float]:
        """The slowest answer of each health endpoint."""
        return {path: max(latencies, default=0.0) for path, latencies in self.latencies_s.items()}

    def _ask(self, path: str) -> None:
        while not self._ends.wait(0.05):
            started = time.perf_counter()
            try:
                status = answer_to(self._server, request_of("GET", path), timeout_s=30)
            except OSError as error:
                status = repr(error)
            self.latencies_s[path].append(time.perf_counter() - started)
            if status != "200":
                self.failures.append(f"{path}: {status}")

    def _weigh(self) -> None:
        while not self._ends.wait(0.02):
            self.rss_mb = max(self.rss_mb, self._process.memory_info().rss / MB)


@contextmanager
def watch(server: Tidemark) -> Iterator[Watch]:
    """Watch while the block runs."""
    watching = Watch(server)
    watching.start()
    try:
        yield watching
    finally:
        watching.stop()


def request_of(method: str, target: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """A whole request."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer_to(server: Tidemark, request: bytes, timeout_s: float = 60) -> str:
    """The status of the answer, over a connection of its own; or that there was none."""
    with closing(socket.create_connection(address_of(server), timeout=timeout_s)) as connection:
        with suppress(ConnectionError):  # it may have answered before it has all
            connection.sendall(request)
        return status_of(connection)


def status_of(connection: socket.socket) -> str:
    """Of the answer that comes, which is read to its end."""
    answer = HTTPResponse(connection)
    try:
        answer.begin()
        answer.read()
    except (HTTPException, ConnectionError):
        return HUNG_UP
    return str(answer.status)


def all_at_once(server: Tidemark, requests: Sequence[bytes]) -> Counter[str]:
    """How often each status was answered."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return Counter(pool.map(lambda request: answer_to(server, request), requests))


def trickle(server: Tidemark, count: int, target: str, announced: int, until_s: float) -> Counter[str]:
    """Requests whose bodies come a byte every now and then; how each ended."""
    head = request_of("POST", target, b"x" * announced)[: -announced + 1]
    ended: Counter[str] = Counter()
    open_ones = []
    for _ in range(count):
        connection = socket.create_connection(address_of(server), timeout=30)
        connection.sendall(head)
        open_ones.append(connection)
    deadline = time.monotonic() + until_s
    while open_ones and time.monotonic() < deadline:
        time.sleep(0.5)
        for connection in list(open_ones):
            connection.setblocking(False)
            try:
                is_over = connection.recv(1, socket.MSG_PEEK) is not None
                connection.settimeout(5)
            except BlockingIOError:
                is_over = False
            except ConnectionError:
                is_over = True
            if is_over:
                connection.settimeout(5)
                ended[status_of(connection)] += 1
                connection.close()
                open_ones.remove(connection)
            else:
                with suppress(OSError):
                    connection.send(b"1")
    for connection in open_ones:
        connection.close()
        ended["still open"] += 1
    return ended


def crowd(server: Tidemark, count: int) -> list[socket.socket]:
    """Connections that say nothing."""
    return [socket.create_connection(address_of(server), timeout=30) for _ in range(count)]


def rate(server: Tidemark, seconds: float, connections: int = 4) -> float:
    """Predictions a second over connections that stay."""

    def keep_asking(_: int) -> int:
        answered = 0
        with closing(HTTPConnection(*address_of(server), timeout=30)) as connection:
            while time.monotonic() < ends_s:
                connection.request("POST", "/predict/steady", POINT, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                answered += answer.status == 200
        return answered

    ends_s = time.monotonic() + seconds
    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(keep_asking, range(connections))) / seconds


def seconds_until(holds: Callable[[], bool], limit_s: float) -> float:
    """How long it took to hold; infinite when it did not."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        if holds():
            return time.monotonic() - started
    return float("inf")


def large_fit(points: int = 2_000_000) -> bytes:
    """A fit of so many points: of two million, some 60 MB."""
    timestamps = ",".join(map(str, range(1_700_000_000, 1_700_000_000 + points)))
    values = ",".join(f"{value:.16f}" for value in np.resize(np.random.default_rng(0).normal(size=1000), points))
    return f'{{"timestamps":[{timestamps}],"values":[{values}],"detector":"mean_std"}}'.encode()


def arrow_bomb(rows: int = 40_000_000) -> bytes:
    """Some KB of Arrow that expand to 16 bytes a row."""
    zeros = pa.array(np.zeros(rows))
    return stream_of(pa.record_batch({"timestamp": zeros, "value": zeros}), compression="zstd")


def nonsense(megabytes: int, piece: bytes = b"{},") -> bytes:
    """JSON of nothing but tiny parts."""
    return b'{"values":[' + piece * (megabytes * MB // len(piece)) + b"{}]}"


def deep(megabytes: int) -> bytes:
    """JSON of brackets within brackets."""
    half = megabytes * MB // 2
    return b"[" * half + b"]" * half


def bombs() -> dict[str, bytes]:
    """Requests that take far more than they weigh."""
    return {
        "compressed Arrow": request_of("POST", "/predict/steady", arrow_bomb(), ARROW),
        "tiny objects": request_of("POST", "/fit/bomb", nonsense(60)),
        "tiny numbers": request_of("POST", "/fit/bomb", nonsense(60, b"1,")),
        "deep JSON": request_of("POST", "/fit/bomb", deep(60)),
        "small deep JSON": request_of("POST", "/fit/bomb", deep(1)),
    }


def prepare(server: Tidemark) -> None:
    """Fit what `rate` predicts."""
    answer = server.client.post("/fit/steady", content=json.dumps(HISTORY))
    assert answer.status_code == 200, answer.text
