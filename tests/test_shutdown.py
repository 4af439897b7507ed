"""The end of a server: it says that it is going, finishes what it can, and is gone in time whatever the others do."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest
import redis

from app.telemetry import KEY_PREFIX
from tests.servers import RedisServer, Tidemark
from tests.test_outages import eventually

HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0], "detector": "mean_std"}
POINT = {"timestamp": 5, "value": 10.2}
IN_TIME_S = 10.0


def connect(server: Tidemark) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30)


def ends_in(server: Tidemark) -> float:
    """Seconds from SIGTERM to the end of the process."""
    started = time.monotonic()
    server.process.terminate()
    server.process.wait(30)
    return time.monotonic() - started


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of one that takes connections and never says a word."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield listening.getsockname()[1]


def test_sigterm_makes_it_unready_at_once_and_served_until_the_delay_is_over(serve: Callable[..., Tidemark]) -> None:
    server = serve(SHUTDOWN_DELAY_S="2")
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    started = time.monotonic()
    server.process.terminate()
    time.sleep(0.3)
    ready = httpx.get(f"{server.url}/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "shutting down", "checks": {}})
    assert httpx.get(f"{server.url}/livez").status_code == 200
    assert httpx.post(f"{server.url}/fit/s", json=HISTORY).status_code == 200
    assert httpx.post(f"{server.url}/predict/s", json=POINT).status_code == 200
    server.process.wait(15)
    assert 2 <= time.monotonic() - started < 2 + IN_TIME_S


def test_it_warms_up_beside_the_requests_and_ends_in_time_although_it_does(
    serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    server = serve(WARM_UP="on")
    eventually(lambda: "warmed up" in server.log.read_text(), within_s=120)
    compiles = serve(WARM_UP="on", NUMBA_CACHE_DIR=str(tmp_path / "nothing-compiled-yet"))
    assert httpx.get(f"{compiles.url}/readyz").status_code == 200
    time.sleep(1)
    assert ends_in(compiles) < IN_TIME_S
    assert compiles.process.returncode == -signal.SIGTERM
    assert "warmed up" not in compiles.log.read_text()


def test_a_second_sigterm_does_not_wait_for_the_delay(serve: Callable[..., Tidemark]) -> None:
    server = serve(SHUTDOWN_DELAY_S="600")
    server.process.terminate()
    time.sleep(0.3)
    assert server.process.poll() is None
    assert ends_in(server) < IN_TIME_S


def test_clients_that_are_stuck_and_a_long_computation_do_not_hold_up_the_end(serve: Callable[..., Tidemark]) -> None:
    server = serve()
    half = b'POST /fit/s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"timestamps": ['
    lines = b'{"series_id": "nobody", "timestamp": 1, "value": 1}\n' * 100_000
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(lines)}\r\n\r\n".encode()
    long = {"timestamps": list(range(150_000)), "values": [i * i % 1009 for i in range(150_000)], "detector": "lof"}
    with closing(connect(server)) as half_sent, closing(connect(server)) as unread, closing(connect(server)) as busy:
        half_sent.sendall(half)
        sending = Thread(target=lambda: unread.sendall(head + lines), daemon=True)
        sending.start()
        content = json.dumps(long).encode()
        busy.sendall(f"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        busy.sendall(content)
        time.sleep(2)
        busy.setblocking(False)
        with pytest.raises(BlockingIOError):
            busy.recv(1)  # it is still being computed
        assert ends_in(server) < IN_TIME_S
    assert "shutdown cut short" not in server.log.read_text()


def test_a_database_and_a_redis_that_hang_do_not_hold_up_the_end(serve: Callable[..., Tidemark]) -> None:
    with silent_server() as port:
        server = serve(
            DATABASE_URL=f"postgresql://someone@127.0.0.1:{port}/tidemark", REDIS_URL=f"redis://127.0.0.1:{port}/0"
        )
        with closing(connect(server)) as asking:
            asking.sendall(b"GET /series HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.5)
            assert ends_in(server) < IN_TIME_S


def test_the_latencies_of_the_last_moment_are_in_redis(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    own = RedisServer(tmp_path / "redis")
    try:
        server = serve(REDIS_URL=own.url)
        server.client.post("/fit/s", json=HISTORY)
        for _ in range(50):
            assert server.client.post("/predict/s", json=POINT).status_code == 200
        assert ends_in(server) < IN_TIME_S
        with redis.Redis(port=own.port) as client:
            assert client.llen(f"{KEY_PREFIX}inference") == 50
    finally:
        own.stop()
