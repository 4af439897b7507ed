"""POST /fit: many series in one request, as lines, as an Arrow stream or as a Parquet file; a line back for each."""

import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.servers import Tidemark, serve_tidemark
from tests.streaming import (
    ARROW,
    HISTORY,
    NDJSON,
    PARAMS,
    PARQUET,
    Answer,
    answers_of,
    batch_of,
    body_of,
    fit,
    open_duplex,
    pointers,
    send_lines,
    stream_of,
)

Histories = dict[str, tuple[list[float], list[float]]]
"""Times and values by the name of the series."""
POINT = {"timestamp": 5, "value": 13.0}
FORMATS = ("ndjson", "arrow", "parquet")
TABLES = FORMATS[1:]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service with low limits."""
    limits = {"MAX_BODY_MB": "1", "MAX_POINTS": "1000", "MIN_TRAINING_DATA_POINTS": "4"}
    with serve_tidemark(tmp_path_factory.mktemp("small"), limits) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def parquet_of(rows: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(rows), sink)
    return sink.getvalue()


def post_table(client: httpx.Client, rows: pa.RecordBatch, kind: str, **query: str) -> httpx.Response:
    content, media_type = (stream_of(rows), ARROW) if kind == "arrow" else (parquet_of(rows), PARQUET)
    return client.post("/fit", content=content, params=query, headers={"Content-Type": media_type})


def long_form(histories: Histories) -> pa.RecordBatch:
    rows = [(name, time, value) for name, points in histories.items() for time, value in zip(*points, strict=True)]
    names, times, values = zip(*rows, strict=True)
    return batch_of(series_id=names, timestamp=times, value=values)


def send(client: httpx.Client, histories: Histories, kind: str, **query: str) -> list[Answer]:
    if kind == "ndjson":
        lines = [{"series_id": name, "timestamps": t, "values": v} for name, (t, v) in histories.items()]
        return send_lines(client, "/fit", lines, **query)
    return answers_of(post_table(client, long_form(histories), kind, **query))


def some_histories(series_id: str, count: int = 5) -> Histories:
    rng = np.random.default_rng(count)
    lengths = rng.integers(4, 40, count).tolist()
    return {
        f"{series_id}.{number}": (np.arange(1.0, length + 1).tolist(), rng.normal(10, 1, length).tolist())
        for number, length in enumerate(lengths)
    }


# ---- versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_each_series_gets_its_next_version_with_the_model_of_a_single_fit(
    tidemark: Tidemark, series_id: str, kind: str
) -> None:
    histories = some_histories(series_id)
    client = tidemark.client
    first, *others = histories
    fit(client, first)
    fitted = send(client, histories, kind)
    assert [answer["series_id"] for answer in fitted] == list(histories)
    assert [answer["version"] for answer in fitted] == ["2", "1", "1", "1", "1"]
    for answer, (times, values) in zip(fitted, histories.values(), strict=True):
        points = {"timestamps": times, "values": values, "detector": "mean_std"}  # which is the default of many
        alone = client.post(f"/fit/{series_id}", json=points).json()
        assert set(answer) == {"status", *alone}
        assert answer["status"] == 200
        for name in ("model_digest", "points_used", "detector"):
            assert answer[name] == alone[name]
        described = client.get(f"/series/{answer['series_id']}/versions/{answer['version']}").json()
        assert described["data_digest"] == answer["data_digest"]
        assert described["created_at"] == answer["created_at"]
    assert [answer["version"] for answer in send(client, histories, kind)] == ["3", "2", "2", "2", "2"]
    assert client.get(f"/series/{others[0]}").json()["latest_version"] == "2"


@pytest.mark.parametrize("kind", FORMATS)
def test_series_are_then_judged_listed_and_plotted(tidemark: Tidemark, series_id: str, kind: str) -> None:
    client = tidemark.client
    histories = some_histories(series_id)
    send(client, histories, kind)
    listed = client.get("/series", params={"search": series_id}).json()["series"]
    assert [series["series_id"] for series in listed] == list(histories)
    for name, (times, values) in histories.items():
        judged = client.post(f"/predict/{name}", json=POINT).json()
        assert judged["model_version"] == "1"
        assert judged["expected"] == pytest.approx(np.mean(values))
        plotted = client.get("/plot/data", params={"series_id": name, "version": "1"})
        assert plotted.status_code == 200
        found = json.loads(plotted.content)
        assert values[0] in _numbers(found)
        assert client.get("/plot", params={"series_id": name}).status_code == 200
        assert len(client.get(f"/series/{name}/versions").json()["versions"]) == 1
        assert times[0] == 1.0


def _numbers(found: Any) -> list[float]:
    if isinstance(found, dict):
        return [number for part in found.values() for number in _numbers(part)]
    if isinstance(found, list):
        return [number for part in found for number in _numbers(part)]
    return [found] if isinstance(found, float) else []


def test_a_series_that_comes_more_than_once_gets_its_versions_in_order(client: httpx.Client, series_id: str) -> None:
    levels = [3.0, 1.0, 2.0, 3.0]
    lines = [
        {"series_id": name, "timestamps": [1, 2, 3, 4], "values": [level, level + 1, level, level + 1]}
        for level in levels
        for name in (series_id, f"{series_id}.other")
    ]
    fitted = send_lines(client, "/fit", lines)
    assert [answer["version"] for answer in fitted] == ["1", "1", "2", "2", "3", "3", "4", "4"]
    assert fitted[0]["model_digest"] == fitted[6]["model_digest"]
    for version, level in enumerate(levels, start=1):
        judged = client.post(f"/predict/{series_id}?version={version}", json=POINT).json()
        assert judged["expected"] == level + 0.5


def test_lines_name_their_detector_and_others_have_that_of_the_query(client: httpx.Client, series_id: str) -> None:
    lines: list[dict[str, Any]] = [
        HISTORY,
        HISTORY | {"params": {"k": 5.0}},
        HISTORY | {"detector": "mean_std", "params": {"direction": "above"}},
        HISTORY | {"detector": "mean_std"},
    ]
    lines = [{"series_id": f"{series_id}.{number}"} | line for number, line in enumerate(lines)]
    query = {"detector": "mean_std", "params": '{"k": 4.0, "direction": "below"}'}
    assert [answer["status"] for answer in send_lines(client, "/fit", lines, **query)] == [200] * 4
    expected = [{"k": 4.0, "direction": "below"}, {"k": 5.0}, {"direction": "above"}, {}]
    for line, params in zip(lines, expected, strict=True):
        assert client.get(f"/series/{line['series_id']}/versions/1").json()["params"] == {**PARAMS, **params}


@pytest.mark.parametrize("kind", TABLES)
def test_the_detector_of_a_table_is_named_in_the_query(tidemark: Tidemark, series_id: str, kind: str) -> None:
    (answer,) = send(tidemark.client, some_histories(series_id, 1), kind, params='{"k": 4.5}')
    version = tidemark.client.get(f"/series/{answer['series_id']}/versions/1").json()
    assert version["params"] == {**PARAMS, "k": 4.5}


def test_what_is_wrong_with_the_query_is_one_problem(small: Tidemark) -> None:
    for query, places in (
        ("detector=nonsense", ["/detector"]),
        ("params={", ["/params"]),
        ("params=7", ["/params"]),
        ('params={"k":-1}', ["/params/k"]),
        ("versoin=1", ["/versoin"]),
        ('params={"nonsense":1}&x=1', ["/x", "/params/nonsense"]),
    ):
        for headers in ({"Content-Type": NDJSON}, {"Content-Type": ARROW}):
            answer = small.client.post(f"/fit?{query}", content=b"{}", headers=headers)
            assert answer.status_code == 422
            assert pointers(answer.json()) == places
            assert {fault["in"] for fault in answer.json()["errors"]} == {"query"}


# ---- faults --------------------------------------------------------------------------------------------------


def test_a_line_with_a_fault_is_answered_with_a_problem_and_stops_no_other(
    client: httpx.Client, series_id: str
) -> None:
    named: dict[str, Any] = {"series_id": series_id}
    unordered = {"timestamps": [1, 3, 2, 2], "values": [1, 2, 3, None]}
    faulty: list[tuple[object, str, list[str]]] = [
        (b"not JSON", "malformed-body", [""]),
        (b'{"series_id": "\xff"}', "malformed-body", [""]),
        (b"[]", "malformed-body", [""]),
        (named, "invalid-input", ["/timestamps", "/values"]),
        (HISTORY, "invalid-input", ["/series_id"]),
        (HISTORY | {"series_id": "../x", "values": "7"}, "invalid-input", ["/series_id", "/values"]),
        (HISTORY | named | {"values": [1, 1, 1, 1]}, "invalid-input", ["/values"]),
        (named | {"timestamps": [1, 2], "values": [1, 2]}, "invalid-input", ["/values"]),
        (named | unordered, "invalid-input", ["/timestamps/2", "/timestamps/3", "/values/3"]),
        (HISTORY | named | {"detector": "nonsense"}, "invalid-input", ["/detector"]),
        (HISTORY | named | {"params": {"k": "x"}}, "invalid-input", ["/params/k"]),
    ]  # fmt: skip
    good = HISTORY | named
    answers = send_lines(client, "/fit", [good, *(line for fault in faulty for line in (b"", fault[0], good))])
    assert [answer["status"] for answer in answers[1::2]] == [422] * len(faulty)
    assert [answer["version"] for answer in answers[::2]] == [str(n + 1) for n in range(len(faulty) + 1)]
    for number, (answer, (line, kind, places)) in enumerate(zip(answers[1::2], faulty, strict=True)):
        assert answer["line"] == 3 + 3 * number
        assert (answer["type"], pointers(answer)) == (f"/problems/{kind}", places), line
        assert answer["series_id"] == (line.get("series_id") if isinstance(line, dict) else None)


def test_a_deleted_series_gets_its_next_version_all_the_same(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id)
    client.delete(f"/series/{series_id}").raise_for_status()
    (answer,) = send_lines(client, "/fit", [{"series_id": series_id} | HISTORY])
    assert (answer["status"], answer["version"]) == (200, "2")


def test_the_lines_of_a_stream_have_the_limits_of_a_request(small: Tidemark) -> None:
    def line(name: str, points: int, padding: int = 0) -> bytes:
        values = [number % 7 for number in range(points)]
        fields = {"series_id": name, "timestamps": list(range(points)), "values": values, "remark": "x" * padding}
        return json.dumps(fields).encode()

    lines = [line("a", 1_000), line("b", 1_001), line("c", 4), line("d", 3), line("e", 4, 2**20), line("f", 4, 10**6)]
    answers = send_lines(small.client, "/fit", [*lines * 2, line("a", 4)])
    assert [answer["status"] for answer in answers] == [200, 422, 200, 422, 413, 200] * 2 + [200]
    assert [answer.get("version") for answer in answers[::12]] == ["1", "3"]
    assert "MAX_POINTS" in answers[1]["errors"][0]["detail"]
    assert "at least 4" in answers[3]["errors"][0]["detail"]
    assert answers[4]["type"] == "/problems/body-too-large"
    assert small.client.get("/series?search=b").json()["series"] == []


# ---- tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLES)
def test_rows_may_come_in_any_order(tidemark: Tidemark, series_id: str, kind: str) -> None:
    histories = some_histories(series_id, 8)
    rows = long_form(histories)
    client = tidemark.client
    ordered = answers_of(post_table(client, rows, kind))
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = answers_of(post_table(client, rows.take(pa.array(order)), kind))
    appeared = list(dict.fromkeys(rows["series_id"].take(pa.array(order)).to_pylist()))
    assert [answer["series_id"] for answer in mixed] == appeared
    digests = [{answer["series_id"]: answer["data_digest"] for answer in fitted} for fitted in (ordered, mixed)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("kind", TABLES)
def test_faults_of_a_series_of_a_table_stop_no_other(tidemark: Tidemark, series_id: str, kind: str) -> None:
    nan, t, v = float("nan"), [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]
    good, name = (t, v), f"{series_id}.{{}}".format
    histories: dict[str, tuple[list[float], list[float], list[str]]] = {
        name(0): (*good, []),
        name("twice"): ([1.0, 2.0, 2.0, 4.0], v, ["/timestamp"]),
        name("early"): ([-1.0, 2.0, 3.0, 4.0], v, ["/timestamp"]),
        name("no time"): ([nan, 2.0, 3.0, 4.0], v, ["/timestamp", "/series_id"]),
        name("none"): (t, [1.0, nan, 3.0, 4.0], ["/value"]),
        name("endless"): (t, [1.0, float("inf"), 3.0, 4.0], ["/value"]),
        name("level"): (t, [7.0] * 4, ["/value"]),
        name("short"): ([1.0, 2.0], [1.0, 2.0], ["/value"]),
        "a..b": (*good, ["/series_id"]),
        "": (*good, ["/series_id"]),
        name("both"): ([1.0, 1.0, 3.0, 4.0], [nan] * 4, ["/timestamp", "/value"]),
        name(1): (*good, []),
    }
    rows = long_form({series: points[:2] for series, points in histories.items()})
    missing = batch_of(
        **{
            column: pa.array(rows[column].to_numpy(zero_copy_only=False), from_pandas=True)
            for column in rows.schema.names
        }
    )
    for table in (rows, missing):
        answers = answers_of(post_table(tidemark.client, table, kind))
        assert {answer["series_id"] or "": answer["status"] for answer in answers} == {
            series: 422 if places else 200 for series, (_, _, places) in histories.items()
        }
        for answer in answers:
            places = histories[answer["series_id"] or ""][2]
            assert not places or sorted(pointers(answer)) == sorted(places)
            assert "line" not in answer


@pytest.mark.parametrize("kind", TABLES)
def test_rows_without_a_name_are_refused_by_themselves(tidemark: Tidemark, series_id: str, kind: str) -> None:
    names = pa.array([series_id, None] * 4)
    in_dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 4, pa.int32()), pa.array([series_id, None]))
    for column in (names, in_dictionary) if kind == "arrow" else (names,):  # which Parquet has no way to say
        rows = batch_of(series_id=column, timestamp=np.arange(8.0), value=np.arange(8.0))
        answers = answers_of(post_table(tidemark.client, rows, kind))
        assert [(answer["series_id"], answer["status"]) for answer in answers] == [(series_id, 200), (None, 422)]


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_that_cannot_be_read_is_one_problem(small: Tidemark, kind: str) -> None:
    def refusal(rows: pa.RecordBatch) -> Answer:
        answer = post_table(small.client, rows, kind)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        document: Answer = answer.json()
        return document

    missing = refusal(batch_of(id=["a"], timestamp=[1.0], value=[1.0]))
    assert pointers(missing) == ["/series_id"]
    assert "id, timestamp, value" in missing["errors"][0]["detail"]
    types = refusal(batch_of(series_id=["a"], timestamp=[True], value=["1"]))
    assert pointers(types) == ["/timestamp", "/value"]
    assert pointers(refusal(batch_of(series_id=[1.5], timestamp=[1.0], value=[1.0]))) == ["/series_id"]
    assert pointers(refusal(batch_of(series_id=["a"], timestamp=["then"], value=[1.0]))) == ["/timestamp"]
    nested = refusal(batch_of(series_id=pa.array([{"x": 1}]), timestamp=[1.0], value=[1.0]))
    assert nested["status"] == 422
    many = refusal(batch_of(series_id=["a"] * 1_001, timestamp=np.arange(1_001.0), value=np.arange(1_001.0)))
    assert "MAX_POINTS" in many["errors"][0]["detail"]
    media_type = ARROW if kind == "arrow" else PARQUET
    for body in (b"", b"garbage", b"PAR1", b"PAR1" * 9, b"\xff" * 40, stream_of(batch_of(a=[1]))[:60]):
        answer = small.client.post("/fit", content=body, headers={"Content-Type": media_type})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/malformed-body"), body
    large = small.client.post("/fit", content=b"x" * (2**20 + 1), headers={"Content-Type": media_type})
    assert large.status_code == 413


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_without_rows_fits_nothing(small: Tidemark, kind: str) -> None:
    rows = batch_of(series_id=["a"], timestamp=[1.0], value=[1.0])[:0]
    assert answers_of(post_table(small.client, rows, kind)) == []
    assert send_lines(small.client, "/fit", []) == []


@pytest.mark.parametrize("kind", TABLES)
def test_names_times_and_values_may_have_other_types(tidemark: Tidemark, series_id: str, kind: str) -> None:
    times = ["2024-01-11T19:06:40Z", "2024-01-11T19:06:41Z", "2024-01-11T19:06:42Z"]
    unix = pa.array([1_705_000_000, 1_705_000_001, 1_705_000_002])
    twice = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array([series_id] * 2))
    tables = [
        batch_of(series_id=[series_id] * 3, timestamp=unix.cast(pa.float64()), value=[1.0, 2.0, 4.0]),
        batch_of(series_id=twice, timestamp=times, value=pa.array([1, 2, 4], pa.int8())),
        batch_of(series_id=pa.array([series_id] * 3, pa.large_string()), timestamp=unix, value=[1, 2, 4]),
        batch_of(
            remark=["x"] * 3,
            value=pa.array([1, 2, 4], pa.float32()),
            timestamp=unix.cast(pa.timestamp("s")).cast(pa.timestamp("us", "UTC")),
            series_id=pa.array([series_id] * 3).dictionary_encode(),
        ),
    ]
    fitted = [answer for rows in tables for answer in answers_of(post_table(tidemark.client, rows, kind))]
    assert [answer["version"] for answer in fitted] == ["1", "2", "3", "4"]
    assert len({answer["data_digest"] for answer in fitted}) == 1
    numbered = batch_of(series_id=pa.array([7] * 3, pa.int16()), timestamp=unix, value=[1, 2, 4])
    (answer,) = answers_of(post_table(tidemark.client, numbered, kind))
    assert (answer["series_id"], answer["status"]) == ("7", 200)


# ---- streams -------------------------------------------------------------------------------------------------


def test_an_answer_arrives_while_the_request_is_still_open_and_is_durable(client: httpx.Client, series_id: str) -> None:
    with open_duplex(str(client.base_url), "/fit") as stream:
        for number in range(1, 4):
            stream.send(body_of([{"series_id": series_id} | HISTORY]))
            assert stream.line()["version"] == str(number)
            assert client.get(f"/series/{series_id}").json()["latest_version"] == str(number)
        stream.send(b"faulty")
        stream.end()
        assert stream.line()["line"] == 4
        assert stream.rest() == b""


def test_a_long_stream_is_answered_in_order_whatever_the_batches(client: httpx.Client, series_id: str) -> None:
    lines = [{"series_id": f"{series_id}.{number % 1700}"} | HISTORY for number in range(2_300)]
    lines[999] = lines[1_500] = {"series_id": "a..b"}
    answers = send_lines(client, "/fit", lines)
    assert [answer["series_id"] for answer in answers] == [line["series_id"] for line in lines]
    assert [answer["line"] for answer in answers if answer["status"] != 200] == [1_000, 1_501]
    versions = [answer["version"] for answer in answers if answer["status"] == 200]
    assert versions.count("1") == 1_698
    assert versions.count("2") == 600


def test_a_client_that_hangs_up_in_the_middle_harms_nobody(small: Tidemark) -> None:
    line = {"series_id": "left"} | HISTORY
    with open_duplex(small.url, "/fit") as stream:
        stream.send(body_of([line, line])[:-20])
        assert stream.line()["version"] == "1"
        stream.hang_up()
    time.sleep(0.2)
    (answer,) = send_lines(small.client, "/fit", [line])
    assert answer["version"] == "2"  # half a line is no fit


def test_two_clients_that_stream_the_same_series_at_once_leave_no_gaps(client: httpx.Client, series_id: str) -> None:
    names = [f"{series_id}.{number}" for number in range(10)]
    answers: list[Answer] = []

    def stream(ordered: list[str]) -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            for _ in range(4):
                lines = [{"series_id": name} | HISTORY for name in ordered * 5]
                answers.extend(send_lines(own, "/fit", lines))

    threads = [threading.Thread(target=stream, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer["status"] for answer in answers} == {200}
    for name in names:
        numbers = sorted(int(answer["version"]) for answer in answers if answer["series_id"] == name)
        assert numbers == list(range(1, 41))
        assert client.get(f"/series/{name}").json()["latest_version"] == "40"
