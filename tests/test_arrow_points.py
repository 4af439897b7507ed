"""POST /predict/{series_id} with Arrow: the verdicts of JSON, bit for bit, in another coat."""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.expansion import check_arrow
from app.errors import BodyTooLarge
from app.series import LATEST_TIMESTAMP_S
from tests.servers import Tidemark, serve_tidemark
from tests.streaming import (
    ARROW,
    AS_ARROW,
    KIND,
    NUMBERS,
    VERDICT,
    batch_of,
    bits,
    fit,
    pointers,
    stream_of,
    table_of,
)

JSON = "application/json"
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.floats(0, LATEST_TIMESTAMP_S) | st.integers(0, int(LATEST_TIMESTAMP_S)).map(float)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service with low limits, and models of each direction."""
    limits = {"MAX_BODY_MB": "1", "MAX_POINTS": "2000"}
    with serve_tidemark(tmp_path_factory.mktemp("small"), limits) as running:
        for direction in ("both", "above", "below"):
            fit(running.client, direction, params={"direction": direction})
            fit(running.client, direction, params={"direction": direction}, values=[-1e300, 1.5, 2.25, 1e300])
        yield running


def points(timestamps: Any, values: Any) -> pa.RecordBatch:
    kinds = {name: pa.array(column, pa.float64()) for name, column in (("t", timestamps), ("v", values))}
    return batch_of(timestamp=kinds["t"], value=kinds["v"])


def post(client: httpx.Client, series_id: str, body: bytes, **query: str) -> httpx.Response:
    return client.post(f"/predict/{series_id}", content=body, params=query, headers=AS_ARROW)


@given(
    rows=st.lists(st.tuples(TIMES, FLOATS | st.floats(9, 11)), max_size=30),
    series_id=st.sampled_from(["both", "above", "below"]),
    version=st.sampled_from(["1", "2", "latest"]),
    cuts=st.lists(st.integers(0, 30), max_size=3),
)
@settings(max_examples=80, deadline=None)
def test_verdicts_are_those_of_json_bit_for_bit(
    small: Tidemark, rows: list[tuple[float, float]], series_id: str, version: str, cuts: list[int]
) -> None:
    timestamps, values = [row[0] for row in rows], [row[1] for row in rows]
    body = {"timestamps": timestamps, "values": values}
    expected = small.client.post(f"/predict/{series_id}?version={version}", json=body).json()
    batch = points(timestamps, values)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    batches = [batch[start:end] for start, end in pairwise(edges)] or [batch]
    table = table_of(post(small.client, series_id, stream_of(*batches), version=version))
    assert table.schema.metadata == {b"model_version": expected["model_version"].encode()}
    assert table.column_names == list(VERDICT)
    assert table["anomaly"].to_pylist() == expected["anomaly"]
    for name in NUMBERS:
        assert table.schema.field(name).type == pa.float64()
        assert bits(table[name].to_pylist()) == bits(expected[name])
    assert table.schema.field("kind").type == KIND
    assert table["kind"].to_pylist() == expected["kind"]


def test_an_infinite_bound_is_null(small: Tidemark) -> None:
    body = stream_of(points([1, 2], [0.0, 13.0]))
    for series_id, is_null in (("both", (False, False)), ("above", (True, False)), ("below", (False, True))):
        table = table_of(post(small.client, series_id, body, version="1"))
        assert [table[name].null_count for name in ("lower", "upper")] == [2 * missing for missing in is_null]


def test_no_points_get_no_verdicts(small: Tidemark) -> None:
    for body in (stream_of(points([], [])), stream_of(points([], []))[:-8], stream_of(points([1], [1])[:0])):
        table = table_of(post(small.client, "both", body))
        assert table.num_rows == 0
        assert table.column_names == list(VERDICT)


@pytest.mark.parametrize(
    ("content_type", "accept", "answered"),
    [
        (JSON, None, JSON),
        (JSON, "*/*", JSON),
        (JSON, JSON, JSON),
        (JSON, ARROW, ARROW),
        (JSON, f"{ARROW}, */*;q=0.1", ARROW),
        (ARROW, None, ARROW),
        (ARROW, "*/*", ARROW),
        (ARROW, ARROW, ARROW),
        (ARROW, JSON, JSON),
        (ARROW, f"{JSON}, */*;q=0.1", ARROW),
        (ARROW.upper(), None, ARROW),
        (f"{ARROW}; charset=binary", ARROW.title(), ARROW),
        (None, None, JSON),
        ("text/plain", "text/html", JSON),
    ],
)
def test_the_answer_is_in_the_format_that_is_accepted_else_in_that_of_the_request(
    small: Tidemark, content_type: str | None, accept: str | None, answered: str
) -> None:
    is_arrow = content_type is not None and content_type.lower().startswith(ARROW)
    body = stream_of(points([5], [13.0])) if is_arrow else b'{"timestamps": [5], "values": [13.0]}'
    headers = {"Content-Type": content_type, "Accept": accept}
    request = small.client.build_request("POST", "/predict/both?version=1", content=body)
    for name, value in headers.items():
        request.headers.pop(name, None)
        if value is not None:
            request.headers[name] = value
    answer = small.client.send(request)
    assert answer.headers["content-type"] == answered, answer.text
    verdicts = answer.json() if answered == JSON else table_of(answer).to_pydict()
    assert verdicts["anomaly"] == [True]
    assert verdicts["expected"] == [10.0]


def test_one_point_as_json_may_be_answered_in_arrow(small: Tidemark) -> None:
    point = {"timestamp": 5, "value": 13.0}
    one = small.client.post("/predict/both?version=1", json=point).json()
    answer = small.client.post("/predict/both?version=1", json=point, headers={"Accept": ARROW})
    (row,) = table_of(answer).to_pylist()
    assert row | {"model_version": "1"} == one


def test_large_bodies_are_judged_like_small_ones(small: Tidemark) -> None:
    values = np.random.default_rng(0).normal(10, 1, 2_000)
    whole = table_of(post(small.client, "both", stream_of(points(np.arange(2_000), values)), version="1"))
    for start in (0, 1_000, 1_990):
        part = stream_of(points(np.arange(10), values[start : start + 10]))
        assert table_of(post(small.client, "both", part, version="1")).equals(whole[start : start + 10])


def test_answers_are_compressed_for_those_who_accept_that(small: Tidemark) -> None:
    batch = points(np.arange(2_000), np.full(2_000, 10.0))
    plain = post(small.client, "both", stream_of(batch))
    assert len(plain.content) > 2_000 * len(NUMBERS) * 8
    for compression in ("lz4", "zstd"):  # only the request is compressed: not every reader of Arrow can undo it
        answer = post(small.client, "both", stream_of(batch, compression=compression))
        assert answer.content == plain.content
    for accept in (f"{ARROW};compression=lz4", f"{ARROW}; compression=lz4"):
        for body in (stream_of(batch), stream_of(batch, compression="lz4")):
            headers = AS_ARROW | {"Accept": accept}
            answer = small.client.post("/predict/both", content=body, headers=headers)
            assert table_of(answer).equals(table_of(plain))
            assert len(answer.content) < len(plain.content) / 3


def test_every_fault_of_the_points_is_named_at_once(small: Tidemark) -> None:
    faulty: list[tuple[pa.RecordBatch, list[str]]] = [
        (points([1, 2, None], [1.0, float("nan"), 3.0]), ["/timestamp/2", "/value/1"]),
        (points([1, -1], [1.0, 2.0]), ["/timestamp/1"]),
        (points([1, 1e12], [float("inf"), 2.0]), ["/timestamp/1", "/value/0"]),
        (points([1], [None]), ["/value/0"]),
        (batch_of(timestamp=[True], value=["1"]), ["/timestamp", "/value"]),
        (batch_of(timestamp=["then"], value=[1.0]), ["/timestamp"]),
        (batch_of(time=[1.0]), ["/timestamp", "/value"]),
    ]
    for batch, places in faulty:
        answer = post(small.client, "both", stream_of(batch))
        assert answer.status_code == 422, batch
        assert answer.headers["content-type"] == "application/problem+json"
        assert pointers(answer.json()) == places
    answer = post(small.client, "a..b", stream_of(points([1], [None])), version="abc")
    assert [(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]] == [
        ("path", "/series_id"),
        ("query", "/version"),
        ("body", "/value/0"),
    ]


def test_errors_are_problems_whatever_is_accepted(small: Tidemark) -> None:
    body = stream_of(points([1], [1.0]))
    for path, status in (("unknown", 404), ("both?version=99", 404), ("both?version=@none", 404), ("both?x=1", 422)):
        answer = small.client.post(f"/predict/{path}", content=body, headers=AS_ARROW | {"Accept": ARROW})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"timestamp": 1, "value": 1}', b"\0" * 99, b"PAR1", b"ARROW1\0\0" * 9])
def test_what_is_no_arrow_stream_is_malformed(small: Tidemark, body: bytes) -> None:
    answer = post(small.client, "both", body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/malformed-body")


def test_a_stream_without_its_end_is_malformed_when_rows_are_missing(small: Tidemark) -> None:
    body = stream_of(points([1, 2, 3], [1.0, 2.0, 3.0]))
    for length in (10, 100, len(body) // 2, len(body) - 30):
        answer = post(small.client, "both", body[:length])
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/malformed-body"), length


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_whatever_harm_the_service(small: Tidemark, data: st.DataObject) -> None:
    """Damaged streams are refused, or read as something else; the process and its answers stay."""
    codes = pa.array(["2024-01-11T19:06:40Z", "2024-01-11T19:06:41Z"]).dictionary_encode()
    times = data.draw(st.sampled_from([pa.array([1.0, 2.0]), pa.array(["1", "2"]), codes]))
    body = bytearray(stream_of(batch_of(timestamp=times, value=[10.0, 11.0])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    answer = post(small.client, "both", bytes(body))
    assert answer.status_code in {200, 413, 422}
    assert small.process.poll() is None


def test_more_than_max_points_and_more_than_max_body_mb_are_refused(small: Tidemark) -> None:
    batch = points(np.arange(1_000), np.arange(1_000.0))
    assert table_of(post(small.client, "both", stream_of(batch, batch))).num_rows == 2_000
    answer = post(small.client, "both", stream_of(batch, batch, batch[:1]))
    assert answer.status_code == 422
    assert "MAX_POINTS" in answer.json()["errors"][0]["detail"]
    assert post(small.client, "both", stream_of(*[batch] * 100)).status_code == 413


def test_columns_may_have_other_types_and_others_beside_them(small: Tidemark) -> None:
    expected = table_of(post(small.client, "both", stream_of(points([5, 6], [13.0, 10.0]))))
    for batch in (
        batch_of(value=pa.array([13, 10], pa.int16()), remark=["a", "b"], timestamp=pa.array([5, 6], pa.uint8())),
        batch_of(timestamp=pa.array([5, 6]).cast(pa.timestamp("s")), value=pa.array([13, 10], pa.float32())),
        batch_of(timestamp=["1970-01-01T00:00:05Z", "1970-01-01T00:00:06Z"], value=[13.0, 10.0]),
    ):
        assert table_of(post(small.client, "both", stream_of(batch))).equals(expected)


def test_cold_and_unknown_series_are_answered_over_arrow_too(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id)
    body = stream_of(points([5], [13.0]))
    assert post(client, f"{series_id}.unknown", body).status_code == 404
    cold = table_of(post(client, series_id, body))
    assert cold.equals(table_of(post(client, series_id, body)))
    client.delete(f"/series/{series_id}").raise_for_status()
    assert post(client, series_id, body).status_code == 410


def test_a_buffer_of_negative_length_makes_no_room_for_others() -> None:
    rows = 1_000
    plain = stream_of(batch_of(timestamp=np.arange(rows, dtype=float), value=np.ones(rows)))
    check_arrow(plain, 16 * rows)
    validity = struct.pack("<4q", 0, 0, 0, 8 * rows)  # of no bytes, as nothing is missing: Arrow never looks at it
    forged = plain.replace(validity, struct.pack("<4q", 0, -(2**60), 0, 8 * rows))
    assert forged != plain
    assert pa.ipc.open_stream(forged).read_all().num_rows == rows
    with pytest.raises(BodyTooLarge):
        check_arrow(forged, 16 * rows - 1)
