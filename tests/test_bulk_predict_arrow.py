"""POST /predict with an Arrow stream: a batch of verdicts for each batch of rows, row for row."""

import io
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from tests.servers import Tidemark, serve_tidemark
from tests.streaming import (
    ARROW,
    AS_ARROW,
    KIND,
    NUMBERS,
    VERDICT,
    Answer,
    batch_of,
    bits,
    fit,
    open_duplex,
    pointers,
    send_lines,
    stream_of,
    table_of,
)

NOON = 1_705_000_000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service that takes batches of one megabyte at most, with one series."""
    with serve_tidemark(tmp_path_factory.mktemp("small"), {"MAX_BODY_MB": "1"}) as running:
        fit(running.client, "s")
        yield running


@pytest.fixture
def fitted(client: httpx.Client, series_id: str) -> str:
    """A series of two versions."""
    fit(client, series_id, values=[1.0, 2.0, 3.0, 4.0])
    fit(client, series_id)
    return series_id


def post(client: httpx.Client, body: bytes, **query: str) -> httpx.Response:
    return client.post("/predict", content=body, params=query, headers=AS_ARROW)


def judge(client: httpx.Client, *batches: pa.RecordBatch, **query: str) -> list[Answer]:
    rows: list[Answer] = table_of(post(client, stream_of(*batches), **query)).to_pylist()
    return rows


def points(series_ids: Any, values: Any, timestamps: Any = None) -> pa.RecordBatch:
    timestamps = np.arange(float(len(values))) if timestamps is None else timestamps
    return batch_of(series_id=series_ids, timestamp=timestamps, value=values)


def rows_as_lines(client: httpx.Client, batch: pa.RecordBatch, **query: str) -> list[Answer]:
    """What the lines of NDJSON with these points are answered; a verdict that is not there is null."""
    lines = [
        {key: None if isinstance(field, float) and not math.isfinite(field) else field for key, field in row.items()}
        for row in batch.to_pylist()
    ]
    answers = send_lines(client, "/predict", lines, **query)
    return [
        {"status": answer["status"]} | {name: answer.get(name) for name in ("model_version", *VERDICT)}
        for answer in answers
    ]


# ---- row for row ---------------------------------------------------------------------------------------------


def test_interleaved_rows_are_judged_row_for_row_as_lines_are(client: httpx.Client, series_id: str) -> None:
    names = [f"{series_id}.{number}" for number in range(6)]
    for level, name in enumerate(names[:4]):
        fit(client, name, values=[level, level + 1, level, level + 0.1])
    fit(client, names[4], params={"direction": "below"})
    fit(client, names[0])
    rng = np.random.default_rng(0)
    odd_names = ["", "a..b", "größe", "x" * 201, f" {names[1]} "]
    chosen = rng.choice([*names, *odd_names], 400)
    values = rng.normal(5.0, 5.0, 400)
    faulty = np.arange(0, 400, 10)
    chosen[faulty] = rng.choice(names[:5], 40)
    values[faulty[:20]] = [np.nan, np.inf, -np.inf, 1e308] * 5
    times = rng.integers(0, 2_000, 400).astype(float)
    times[faulty[20:]] = [np.nan, -1.0, 1e12, np.inf] * 5
    batch = points(chosen, values, times)
    expected = rows_as_lines(client, batch)
    assert {row["status"] for row in expected} == {200, 404, 422}
    for sizes in ([400], [1, 0, 150, 249], [100] * 4):
        edges = np.cumsum([0, *sizes])
        answer = post(client, stream_of(*(batch[a:b] for a, b in pairwise(edges))))
        judged = table_of(answer)
        assert [len(part) for part in pa.ipc.open_stream(answer.content)] == sizes
        assert judged.to_pylist() == expected
        for name in NUMBERS:
            assert bits(judged[name].to_pylist()) == bits([row[name] for row in expected])


def test_the_schema_of_the_answer_is_fixed(client: httpx.Client, fitted: str) -> None:
    expected = {"status": pa.int16(), "model_version": pa.string(), "anomaly": pa.bool_()}
    expected |= dict.fromkeys(NUMBERS, pa.float64()) | {"kind": KIND}
    for batch in (points([fitted], [1.0]), points(["unknown"], [1.0]), points([fitted], [1.0])[:0]):
        table = table_of(post(client, stream_of(batch)))
        assert {field.name: field.type for field in table.schema} == expected
    empty = batch_of(series_id=pa.array([], pa.string()), timestamp=pa.array([], pa.float64()), value=pa.nulls(0))
    assert judge(client, empty) == []


def test_the_version_of_the_query_is_meant_for_every_row(client: httpx.Client, fitted: str, series_id: str) -> None:
    client.put(f"/series/{fitted}/aliases/prod", json={"version": "1"}).raise_for_status()
    other = f"{series_id}.other"
    fit(client, other)
    batch = points([fitted, other, fitted], [1.0, 2.0, 3.0])
    for query, statuses, version in (
        ("1", [200] * 3, "1"),
        ("v2", [200, 404, 200], "2"),
        ("@prod", [200, 404, 200], "1"),
    ):
        rows = judge(client, batch, version=query)
        assert [row["status"] for row in rows] == statuses
        assert rows == rows_as_lines(client, batch, version=query)
        assert rows[0]["model_version"] == version
    client.delete(f"/series/{fitted}/versions/2").raise_for_status()
    assert [row["status"] for row in judge(client, batch, version="2")] == [410, 404, 410]
    refused = post(client, stream_of(batch), version="abc")
    assert refused.status_code == 422
    assert pointers(refused.json()) == ["/version"]


def test_rows_without_a_name_a_time_or_a_value_are_422_and_the_others_are_judged(
    client: httpx.Client, fitted: str
) -> None:
    names = pa.array([fitted, None, fitted, fitted, fitted])
    batch = batch_of(
        series_id=names,
        timestamp=pa.array([1.0, 2.0, None, 4.0, 5.0]),
        value=pa.array([1.0, 2.0, 3.0, None, 5.0]),
    )
    statuses = [200, 422, 422, 422, 200]
    in_dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 0, 0], pa.int8()), pa.array([fitted, None]))
    for column in (names, names.dictionary_encode(), in_dictionary):
        rows = judge(client, batch.set_column(0, "series_id", column))
        assert [row["status"] for row in rows] == statuses
        assert all(set(row.values()) == {422, None} for row in rows if row["status"] == 422)
    nothing = batch.set_column(2, "value", pa.nulls(5))
    assert [row["status"] for row in judge(client, nothing)] == [422] * 5


# ---- types ---------------------------------------------------------------------------------------------------

NOON_AS: dict[str, Callable[[], pa.Array]] = {
    "float64": lambda: pa.array([NOON], pa.float64()),
    "float32": lambda: pa.array([NOON * 1.0], pa.float32()),
    "int64": lambda: pa.array([NOON], pa.int64()),
    "uint32": lambda: pa.array([NOON], pa.uint32()),
    "seconds": lambda: pa.array([NOON]).cast(pa.timestamp("s")),
    "milliseconds": lambda: pa.array([datetime.fromtimestamp(NOON, UTC)], pa.timestamp("ms", "UTC")),
    "microseconds": lambda: pa.array([datetime.fromtimestamp(NOON, UTC)], pa.timestamp("us")),
    "nanoseconds": lambda: pa.array([datetime.fromtimestamp(NOON, UTC)], pa.timestamp("ns", "Europe/Berlin")),
    "a date": lambda: pa.array([date(2024, 1, 11)]),
    "text": lambda: pa.array(["2024-01-11T19:06:40Z"]),
    "digits": lambda: pa.array([str(NOON)], pa.large_string()),
    "a view of text": lambda: pa.array(["2024-01-11T21:06:40+02:00"], pa.string_view()),
    "a dictionary of text": lambda: pa.array(["2024-01-11T19:06:40Z"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", NOON_AS)
def test_times_may_have_any_type_of_time(tidemark: Tidemark, series_id: str, kind: str) -> None:
    fit(tidemark.client, series_id)
    expected = judge(tidemark.client, points([series_id], [13.0]))
    assert expected[0]["anomaly"] is True
    assert judge(tidemark.client, points([series_id], [13.0], NOON_AS[kind]())) == expected


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(25, 2)], ids=str)
def test_values_may_have_any_type_of_number(tidemark: Tidemark, series_id: str, kind: pa.DataType) -> None:
    fit(tidemark.client, series_id)
    batch = points([series_id] * 2, [13.0, 10.0])
    assert judge(tidemark.client, batch.set_column(2, "value", pa.array([13, 10]).cast(kind))) == judge(
        tidemark.client, batch
    )


def test_names_may_be_text_dictionaries_or_integers(client: httpx.Client, series_id: str) -> None:
    names = [series_id, "404404", series_id]
    if client.get("/series/404404").status_code == 404:
        fit(client, "404404")
    fit(client, series_id)
    expected = judge(client, points(names, [1.0, 2.0, 3.0]))
    assert [row["status"] for row in expected] == [200] * 3
    unordered = pa.DictionaryArray.from_arrays(
        pa.array([3, 1, 0], pa.int8()), [series_id, "404404", "unknown", series_id]
    )
    texts = [pa.array(names, kind) for kind in (pa.large_string(), pa.string_view())]
    for column in (*texts, pa.array(names).dictionary_encode(), unordered):
        assert judge(client, points(column, [1.0, 2.0, 3.0])) == expected
    numbered = judge(client, points(pa.array([404404, 7404], pa.int64()), [2.0, 1.0]))
    assert numbered[0] == expected[1]
    assert numbered[1]["status"] == 404


def test_dictionaries_may_change_from_batch_to_batch(client: httpx.Client, fitted: str) -> None:
    batches = [
        points(pa.array(names).dictionary_encode(), [1.0, 2.0]) for names in ((fitted, "unknown"), ("unknown", fitted))
    ]
    assert [row["status"] for row in judge(client, *batches)] == [200, 404, 404, 200]


def test_other_columns_and_any_order_of_them_are_let_be(client: httpx.Client, fitted: str) -> None:
    batch = batch_of(value=[13.0], remark=["!"], timestamp=[5.0], nested=pa.array([{"a": 1}]), series_id=[fitted])
    assert judge(client, batch) == judge(client, points([fitted], [13.0]))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_streams_are_read(client: httpx.Client, fitted: str, compression: str) -> None:
    batch = points([fitted, "unknown"] * 500, np.arange(1_000.0))
    expected = table_of(post(client, stream_of(batch)))
    assert table_of(post(client, stream_of(batch, compression=compression))).equals(expected)


# ---- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"series_id": ["s"], "time": [1.0]}, {"/timestamp": "series_id, time", "/value": "series_id, time"}),
        ({"timestamp": [1.0], "value": [1.0]}, {"/series_id": "timestamp, value"}),
        ({"series_id": ["s"], "timestamp": [1.0], "value": [True]}, {"/value": "bool: send numbers"}),
        ({"series_id": ["s"], "timestamp": [1.0], "value": ["1"]}, {"/value": "string: send numbers"}),
        ({"series_id": ["s"], "timestamp": [True], "value": ["1"]}, {"/timestamp": "bool: send", "/value": "string"}),
        ({"series_id": [1.5], "timestamp": [1.0], "value": [1.0]}, {"/series_id": "double: send the names"}),
    ],
)
def test_a_table_without_the_columns_or_of_other_types_is_one_problem(
    small: Tidemark, columns: dict[str, Any], said: dict[str, str]
) -> None:
    answer = post(small.client, stream_of(batch_of(**columns)))
    assert answer.status_code == 422
    document = answer.json()
    assert document["type"] == "/problems/invalid-input"
    assert pointers(document) == list(said)
    for fault, part in zip(document["errors"], said.values(), strict=True):
        assert part in fault["detail"]


def test_a_column_that_is_there_twice_is_refused(small: Tidemark) -> None:
    twice = pa.record_batch([["s"], [1.0], [1.0], [2.0]], names=["series_id", "timestamp", "value", "value"])
    answer = post(small.client, stream_of(twice))
    assert answer.status_code == 422
    assert "2 times" in answer.json()["errors"][0]["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b'{"series_id": "s", "timestamp": 1, "value": 1}\n' * 9, b"PAR1" * 99, b"ARROW1\0\0", b"\0" * 99],
)
def test_what_is_no_arrow_stream_is_malformed(small: Tidemark, body: bytes) -> None:
    answer = post(small.client, body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/malformed-body"
    assert "Arrow stream" in answer.json()["errors"][0]["detail"]


def test_garbage_without_an_end_is_refused_at_the_limit(small: Tidemark) -> None:
    answer = small.client.post("/predict", content=(b"garbage" * 10_000 for _ in range(100)), headers=AS_ARROW)
    assert answer.status_code == 413
    assert "MAX_BODY_MB" in answer.json()["detail"]


def cut_off(client: httpx.Client, body: bytes) -> list[Answer]:
    """The rows that came before the answer was cut off; that it was is noticed."""
    received: list[bytes] = []
    with pytest.raises(httpx.TransportError):
        receive(client, body, received)
    rows: list[Answer] = []
    with suppress(pa.ArrowInvalid):
        for batch in pa.ipc.open_stream(b"".join(received)):
            rows += batch.to_pylist()
    return rows


def receive(client: httpx.Client, body: bytes, received: list[bytes]) -> None:
    with client.stream("POST", "/predict", content=body, headers=AS_ARROW) as answer:
        assert answer.status_code == 200
        received.extend(answer.iter_raw())


def test_of_a_stream_that_ends_in_the_middle_of_a_batch_the_answer_is_cut_off(small: Tidemark) -> None:
    batch = points(["s", "unknown"], [1.0, 2.0])
    whole = stream_of(batch, batch)
    assert len(cut_off(small.client, whole[:-40])) in {0, 2}
    assert len(judge(small.client, batch)) == 2  # and the service goes on


def refused(client: httpx.Client, body: bytes, status: int, kind: str) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": ARROW})
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{kind}")


def test_bytes_that_lead_out_of_a_batch_are_never_followed(small: Tidemark) -> None:
    names = points(["s", "t", "u"], [1.0, 2.0, 3.0])
    codes = points(pa.array(["s", "t", "s"]).dictionary_encode(), [1.0, 2.0, 3.0])
    forged: tuple[tuple[bytes, list[int], list[list[int]]], ...] = (
        (stream_of(names), [0, 1, 2, 3], [[0, 1, 2, 2**30], [0, -5, 2**30, -7], [3, 2, 1, 0]]),
        (stream_of(codes), [0, 1, 0], [[0, 1, 2**28], [0, -1, 7]]),
    )
    for data, true, false in forged:
        place = data.rfind(np.array(true, np.int32).tobytes())
        assert place > 0
        for numbers in false:
            lie = np.array(numbers, np.int32).tobytes()
            refused(small.client, data[:place] + lie + data[place + len(lie) :], 422, "malformed-body")
            assert small.client.get("/livez").status_code == 200


def test_a_batch_over_the_limit_is_refused_and_many_below_it_are_not(small: Tidemark) -> None:
    batch = points(["s"] * 20_000, np.arange(20_000.0))
    rows = table_of(post(small.client, stream_of(*[batch] * 12)))
    assert len(rows) == 240_000
    whole = stream_of(batch)
    assert rows[:20_000].equals(table_of(post(small.client, whole)))
    large = pa.concat_tables([pa.table(batch)] * 5).combine_chunks().to_batches()[0]
    refused(small.client, stream_of(large), 413, "body-too-large")
    assert len(cut_off(small.client, stream_of(batch, large))) == 20_000  # too late for another status


def test_what_was_answered_before_a_cut_reaches_a_client_that_reads_late(small: Tidemark) -> None:
    batch = points(["s"] * 20_000, np.arange(20_000.0))
    large = pa.concat_tables([pa.table(batch)] * 5).combine_chunks().to_batches()[0]
    body = stream_of(batch, large)
    url = httpx.URL(small.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # so that most of the answer waits in the server
        client.settimeout(30)
        client.connect((url.host, url.port))
        head = f"POST /predict HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: {ARROW}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        time.sleep(2)
        received = b"".join(iter(lambda: client.recv(65_536), b""))
    assert len(received) > 1_125_000
    assert not received.endswith(b"0\r\n\r\n"), "it was cut off"


def test_a_batch_is_answered_while_the_request_is_still_open(small: Tidemark) -> None:
    batch = points(["s", "unknown"], [13.0, 2.0])
    memory = io.BytesIO()
    writer = pa.ipc.new_stream(memory, batch.schema)

    def fresh() -> bytes:
        piece = memory.getvalue()
        memory.seek(0)
        memory.truncate()
        return piece

    with open_duplex(small.url, "/predict", ARROW) as stream:
        writer.write_batch(batch)
        stream.send(fresh())
        answers = pa.ipc.open_stream(stream.answer)
        assert [row["status"] for row in answers.read_next_batch().to_pylist()] == [200, 404]
        time.sleep(0.05)
        writer.write_batch(batch[:1])
        stream.send(fresh())
        assert [row["anomaly"] for row in answers.read_next_batch().to_pylist()] == [True]
        writer.close()
        stream.send(fresh())
        stream.end()
        with pytest.raises(StopIteration):
            answers.read_next_batch()


def test_a_client_that_hangs_up_in_the_middle_harms_nobody(small: Tidemark) -> None:
    batch = points(["s"] * 20_000, np.arange(20_000.0))
    body = stream_of(*[batch] * 3)
    for size in (100, 1_000, len(body) // 2, len(body) - 100):
        with open_duplex(small.url, "/predict", ARROW) as stream:
            stream.send(body[:size])
            time.sleep(0.02)
            stream.hang_up()
    assert [row["status"] for row in judge(small.client, batch[:2])] == [200, 200]
