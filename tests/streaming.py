"""Streams for the tests: lines and tables as bodies, and a connection that reads while it still sends."""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
AS_ARROW = {"Content-Type": ARROW}
HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
PARAMS: Mapping[str, object] = {
    "k": 3.0,
    "direction": "both",
    "false_alarm_rate": None,
    "max_false_alarms_per_week": None,
    "min_dev_from_expected": 0.0,
    "min_rel_dev_from_expected": 0.0,
    "seed": 0,
}
"""The parameters of a version where a fit names none."""
NUMBERS = ("score", "expected", "lower", "upper", "severity", "p_value")
VERDICT = ("anomaly", *NUMBERS, "kind")
KIND = pa.dictionary(pa.int8(), pa.string())

Answer = dict[str, Any]


def body_of(lines: Iterable[object]) -> bytes:
    """NDJSON of lines that are bytes already, or anything that JSON can say."""
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def answers_of(answer: httpx.Response) -> list[Answer]:
    """The lines of an answer, which is whole."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON
    assert not answer.content or answer.content.endswith(b"\n")
    return [json.loads(line) for line in answer.content.splitlines()]


def send_lines(client: httpx.Client, path: str, lines: Iterable[object], **query: str) -> list[Answer]:
    """The answers to lines of NDJSON."""
    return answers_of(client.post(path, content=body_of(lines), params=query, headers={"Content-Type": NDJSON}))


def pointers(answer: Answer) -> list[str]:
    """Where an answer says the faults are."""
    return [fault["pointer"] for fault in answer["errors"]]


def fit(client: httpx.Client, series_id: str, **body: object) -> str:
    """The version that a single fit makes."""
    fitted = client.post(f"/fit/{series_id}", json=HISTORY | body)
    assert fitted.status_code == 200, fitted.text
    return str(fitted.json()["version"])


def batch_of(**columns: Any) -> pa.RecordBatch:
    """A batch of named columns."""
    return pa.record_batch(
        {name: column if isinstance(column, pa.Array) else list(column) for name, column in columns.items()}
    )


def stream_of(*batches: pa.RecordBatch, **options: Any) -> bytes:
    """An Arrow stream of these batches."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def table_of(answer: httpx.Response) -> pa.Table:
    """The Arrow stream that an answer is."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW
    return pa.ipc.open_stream(answer.content).read_all()


def bits(numbers: Iterable[float | None]) -> list[int]:
    """Floats as they lie in memory, so that equal means equal; null is NaN."""
    array = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    return [int(number) for number in array.view(np.int64)]


class Duplex:
    """One request over a connection of its own: its pieces are sent when the test says so, in chunks."""

    def __init__(self, connection: socket.socket, target: str, headers: Mapping[str, str]) -> None:
        self.connection = connection
        head = {"Host": "localhost", "Transfer-Encoding": "chunked", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        connection.sendall(f"POST {target} HTTP/1.1\r\n{text}\r\n".encode())
        self._answer: HTTPResponse | None = None
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """One chunk."""
        self.connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The end of the request."""
        self.connection.sendall(b"0\r\n\r\n")

    @property
    def answer(self) -> HTTPResponse:
        """The answer, of which the head has come; the rest is read as it comes."""
        if self._answer is None:
            self._answer = HTTPResponse(self.connection, method="POST")
            self._answer.begin()
        return self._answer

    def line(self) -> Answer:
        """The next line of the answer, which may still be on its way."""
        while b"\n" not in self._buffer:
            data = self.answer.read1(2**16)
            assert data, "the answer has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: Answer = json.loads(line)
        return answer

    def rest(self) -> bytes:
        """What follows, to the end of the answer. Raises IncompleteRead when it is cut off."""
        return self._buffer + self.answer.read()

    def hang_up(self) -> None:
        """Leave at once, without a word."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
        if self._answer is not None:
            self._answer.close()


@contextmanager
def open_duplex(url: str, target: str, content_type: str = NDJSON) -> Iterator[Duplex]:
    """Begin a POST whose answer is read while it is sent."""
    address = httpx.URL(url)
    with closing(socket.create_connection((address.host, address.port), timeout=30)) as connection:
        duplex = Duplex(connection, target, {"Content-Type": content_type})
        try:
            yield duplex
        finally:
            if duplex._answer is not None:
                duplex._answer.close()
