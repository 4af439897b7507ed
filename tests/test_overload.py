"""More than the service can do: bounded memory, quick refusals, health that answers, and full speed again after it."""

import io
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import attacks
from tests.attacks import HUNG_UP, MB, POINT, address_of, answer_to, request_of, status_of, watch
from tests.servers import Tidemark, serve_tidemark
from tests.streaming import ARROW, NDJSON, PARQUET, Duplex, open_duplex, stream_of

LIMITS = {
    "MAX_BODY_MB": "32",
    "MAX_BODIES_MB": "64",
    "MAX_SPOOL_MB": "4",
    "MAX_CONNECTIONS": "120",
    "MAX_COMPUTATIONS": "1",
    "MAX_WAITING_COMPUTATIONS": "1",
    "REQUEST_TIMEOUT_S": "2",
    "STREAM_TIMEOUT_S": "3",
}
LATE_S = 10.0
"""Limits of time are looked at once a second, by a server that may be busy."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service with small limits."""
    with serve_tidemark(tmp_path_factory.mktemp("small"), LIMITS) as running:
        attacks.prepare(running)
        yield running


@pytest.fixture
def recovers(small: Tidemark) -> Iterator[None]:
    """Whatever a test does, the service answers at its old rate within five seconds after it.

    0.7 of the rate, measured over a second on both sides, since others use the machine too.
    """
    before = attacks.rate(small, 0.5)
    yield
    recovery_s = attacks.seconds_until(lambda: attacks.rate(small, 0.5) >= 0.7 * before, limit_s=15)
    assert recovery_s < 5 + 1


def connect(server: Tidemark) -> socket.socket:
    return socket.create_connection(address_of(server), timeout=30)


def overloaded(answer: httpx.Response, setting: str) -> bool:
    """Whether a refusal says what it should."""
    if answer.status_code != 503:
        return False
    document = answer.json()
    assert document["type"] == "/problems/overloaded"
    assert setting in document["detail"]
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Content-Type"] == "application/problem+json"
    return True


# ---- bombs ---------------------------------------------------------------------------------------------------


def parquet_bomb() -> bytes:
    """A name of a megabyte, in every row, and in the file but once."""
    rows = 500_000
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * MB]))
    times = pa.array(np.arange(rows, dtype=float))
    sink = io.BytesIO()
    pq.write_table(pa.table({"series_id": names, "timestamp": times, "value": times}), sink)
    return sink.getvalue()


def times_bomb() -> bytes:
    """A time of a megabyte, likewise."""
    rows = 500_000
    times = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["1" * MB]))
    return stream_of(pa.record_batch({"timestamp": times, "value": pa.array(np.zeros(rows))}))


def rows_bomb() -> bytes:
    """Rows of three bytes each, which take eight times as many as floats."""
    column = pa.array(np.zeros(10_000_000, np.int8))
    batch = pa.record_batch({"series_id": column, "timestamp": column, "value": column})
    return stream_of(batch, compression="zstd")


def stream_bomb() -> bytes:
    """A batch of some KB that expands to hundreds of MB."""
    zeros = pa.array(np.zeros(20_000_000))
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000_000, np.int8)), pa.array(["steady"]))
    return stream_of(pa.record_batch({"series_id": names, "timestamp": zeros, "value": zeros}), compression="zstd")


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed Arrow": (lambda: request_of("POST", "/predict/steady", attacks.arrow_bomb(), ARROW), "413"),
    "compressed Arrow stream": (lambda: request_of("POST", "/predict", stream_bomb(), ARROW), "413"),
    "small rows": (lambda: request_of("POST", "/predict", rows_bomb(), ARROW), "413"),
    "one long name": (lambda: request_of("POST", "/fit", parquet_bomb(), PARQUET), "422"),
    "one long time": (lambda: request_of("POST", "/predict/steady", times_bomb(), ARROW), "422"),
    "tiny objects": (lambda: request_of("POST", "/fit/bomb", attacks.nonsense(24)), "422"),
    "tiny numbers": (lambda: request_of("POST", "/predict/steady", attacks.nonsense(24, b"1,")), "422"),
    "tiny objects in a line": (lambda: request_of("POST", "/predict", attacks.nonsense(24), NDJSON), "200"),
    "deep JSON": (lambda: request_of("POST", "/detect", attacks.deep(24)), "422"),
    "less deep JSON": (lambda: request_of("POST", "/detect", attacks.deep(1)), "422"),
}


@pytest.mark.parametrize("name", [*BOMBS])
def test_what_expands_is_refused_before_it_does(small: Tidemark, name: str) -> None:
    make, status = BOMBS[name]
    request = make()
    with watch(small) as watching:
        assert answer_to(small, request) == status
        time.sleep(0.1)
    # What came, a few times over: the parts in which it came, the whole, and what it is read into.
    assert watching.rss_mb - watching.rss_before_mb < 40 + 5 * len(request) / MB
    assert not watching.failures


def test_tables_within_the_limits_expand(small: Tidemark) -> None:
    rows = 500_000
    batch = pa.record_batch({"timestamp": pa.array(np.arange(rows, dtype=float)), "value": pa.array(np.zeros(rows))})
    for compression in (None, "lz4", "zstd"):
        body = stream_of(batch, compression=compression)
        answer = small.client.post("/predict/steady", content=body, headers={"Content-Type": ARROW})
        assert answer.status_code == 200, answer.text
        assert pa.ipc.open_stream(answer.content).read_all().num_rows == rows


# ---- bodies --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("recovers")
def test_bodies_beyond_the_budget_are_refused_and_memory_is_bounded(small: Tidemark) -> None:
    body = attacks.large_fit(1_000_000)  # 30 MB, and there is room for two
    idle = attacks.Watch(small)
    idle.start()
    time.sleep(1)
    idle.stop()
    with watch(small) as watching:
        answers = attacks.all_at_once(small, [request_of("POST", f"/fit/many{n}", body) for n in range(12)])
    assert set(answers) == {"200", "503"}
    assert answers["200"] >= 1
    assert re.search("overloaded .*MAX_BODIES_MB", small.log.read_text())
    assert watching.rss_mb - watching.rss_before_mb < 64 + 8 * len(body) / MB
    assert not watching.failures
    # Half a second where nobody else uses the machine, which the answers of an idle service tell.
    assert watching.worst_s["/livez"] < 1.0 + 10 * idle.worst_s["/livez"]  # other tests take their part of two cores


def test_an_announced_length_is_reserved_before_the_body_comes(small: Tidemark) -> None:
    head = f"POST /fit/s HTTP/1.1\r\nHost: localhost\r\nContent-Length: {30 * MB}\r\n\r\n".encode()
    with closing(connect(small)) as one, closing(connect(small)) as two:
        one.sendall(head)
        two.sendall(head)
        time.sleep(0.3)
        refused = httpx.post(f"{small.url}/fit/s", content=b" " * 5 * MB)
        assert overloaded(refused, "MAX_BODIES_MB")
        assert small.client.post("/fit/s", json=attacks.HISTORY).status_code == 200

    def there_is_room() -> bool:
        return httpx.post(f"{small.url}/fit/s", content=b" " * 5 * MB).status_code == 422

    assert attacks.seconds_until(there_is_room, limit_s=LATE_S) < LATE_S


@pytest.mark.usefixtures("recovers")
def test_a_body_that_trickles_in_is_answered_408_whatever_it_is_for(small: Tidemark) -> None:
    targets = [(path, size) for path in ("/fit/slow", "/predict/steady", "/detect") for size in (1000, 1_000_000)]
    with ThreadPoolExecutor(len(targets)) as pool:
        for ended in pool.map(lambda target: attacks.trickle(small, 5, *target, until_s=LATE_S), targets):
            assert ended == {"408": 5}


def test_a_chunked_body_that_trickles_in_is_told_why(small: Tidemark) -> None:
    with open_duplex(small.url, "/fit/slow", "application/json") as chunked:
        chunked.send(b"{")
        assert chunked.answer.status == 408
        document = json.loads(chunked.answer.read())
    assert document["type"] == "/problems/request-timeout"
    assert "REQUEST_TIMEOUT_S" in document["detail"]


def test_a_head_that_trickles_in_is_answered_408(small: Tidemark) -> None:
    with closing(connect(small)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        assert status_of(connection) == "408"


def test_a_stream_has_time_but_not_for_ever(small: Tidemark) -> None:
    with open_duplex(small.url, "/predict") as stream:
        for _ in range(3):
            stream.send(b'{"series_id": "steady", "timestamp": 5, "value": 10}\n')
            assert stream.line()["status"] == 200
            time.sleep(1.5)
        with pytest.raises(IncompleteRead):
            stream.rest()


def test_the_rest_of_a_refused_body_is_taken_for_a_while_only(small: Tidemark) -> None:
    with closing(connect(small)) as connection:
        connection.sendall(request_of("POST", "/nowhere", b"x" * 1000)[:-500].replace(b"close", b"keep-alive"))
        assert connection.recv(12) == b"HTTP/1.1 404"
        connection.settimeout(LATE_S)
        while connection.recv(MB):
            pass


# ---- answers -------------------------------------------------------------------------------------------------


def test_an_answer_that_is_not_read_is_given_up(small: Tidemark) -> None:
    points = 300_000
    body = json.dumps({"timestamps": list(range(points)), "values": [1.0] * points}).encode()
    with closing(connect(small)) as connection:
        connection.sendall(request_of("POST", "/predict/steady", body))
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        time.sleep(6)
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            answer.read()
    assert "not read by its client" in small.log.read_text()


def test_answers_that_nobody_reads_take_so_much_disk_and_no_more(tmp_path: Path) -> None:
    lines = b'{"series_id": "nobody", "timestamp": 1, "value": 1}\n' * 20_000

    def send_all(stream: Duplex) -> None:
        for _ in range(1000):
            stream.send(lines)

    patient = LIMITS | {"REQUEST_TIMEOUT_S": "10"}  # else it may be that which ends it, on a busy machine
    with serve_tidemark(tmp_path, patient) as server:
        with watch(server) as watching, open_duplex(server.url, "/predict") as stream:
            stream.connection.settimeout(60)
            with pytest.raises(ConnectionError):
                send_all(stream)
        assert re.search("answer cut off .*MAX_SPOOL_MB", server.log.read_text())
    assert watching.rss_mb - watching.rss_before_mb < 100


# ---- computations and connections ----------------------------------------------------------------------------


@pytest.mark.usefixtures("recovers")
def test_of_long_computations_some_run_some_wait_and_the_rest_is_refused(small: Tidemark) -> None:
    points = 6_000
    slow = {"timestamps": list(range(points)), "values": [i * i % 1009 for i in range(points)], "detector": "lof"}
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.post(f"{small.url}/detect", json=slow, timeout=60)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    fitted = small.client.post("/fit/meanwhile", json=attacks.HISTORY)
    for thread in threads:
        thread.join()
    assert fitted.status_code == 200, "small fits and predictions do not wait for them"
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] >= 2
    assert statuses[503] >= 1
    assert statuses.total() == statuses[200] + statuses[503]
    assert all(overloaded(answer, "MAX_WAITING_COMPUTATIONS") for answer in answers if answer.status_code == 503)


def test_idle_connections_make_room_for_new_ones(small: Tidemark) -> None:
    silent = attacks.crowd(small, 300)
    time.sleep(0.3)
    started = time.monotonic()
    assert answer_to(small, request_of("POST", "/predict/steady", POINT)) == "200"
    assert time.monotonic() - started < 5
    for connection in silent:
        connection.close()


@pytest.mark.usefixtures("recovers")
def test_connections_beyond_the_limit_are_refused_when_all_are_busy(small: Tidemark) -> None:
    busy = []
    for _ in range(120):
        connection = connect(small)
        connection.sendall(request_of("POST", "/predict/steady", POINT)[:-5])
        busy.append(connection)
    time.sleep(0.3)
    refused = httpx.get(f"{small.url}/livez")
    assert overloaded(refused, "MAX_CONNECTIONS")
    assert {status_of(connection) for connection in busy} <= {"408", HUNG_UP}
    for connection in busy:
        connection.close()
