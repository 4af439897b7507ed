"""POST /predict with lines: an answer for each, in order, while the request still comes in."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.follower import POLL_INTERVAL_S
from tests.servers import Tidemark, serve_tidemark
from tests.streaming import NDJSON, Answer, answers_of, body_of, fit, open_duplex, pointers, send_lines
from tests.test_telemetry import value_of

POINT = {"timestamp": 5, "value": 13.0}
MB = 2**20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service that takes lines of one megabyte at most, with one series."""
    with serve_tidemark(tmp_path_factory.mktemp("small"), {"MAX_BODY_MB": "1", "MAX_POINTS": "20000"}) as running:
        fit(running.client, "s")
        yield running
        assert "Traceback" not in running.log.read_text()


@pytest.fixture
def fitted(client: httpx.Client, series_id: str) -> str:
    """A series of three versions, the third of which is deleted, and an alias of the first."""
    for level in (0.0, 10.0, 20.0):
        fit(client, series_id, values=[level, level + 1, level, level + 1])
    client.put(f"/series/{series_id}/aliases/prod", json={"version": "1"}).raise_for_status()
    client.delete(f"/series/{series_id}/versions/3").raise_for_status()
    return series_id


def predict(client: httpx.Client, *lines: object, **query: str) -> list[Answer]:
    return send_lines(client, "/predict", lines, **query)


def single(client: httpx.Client, series_id: str, body: object, version: object = None) -> httpx.Response:
    query = {} if version is None else {"version": str(version)}
    return client.post(f"/predict/{series_id}", json=body, params=query)


# ---- answers -------------------------------------------------------------------------------------------------


def test_each_line_is_answered_in_order_with_the_very_bytes_of_the_single_route(
    client: httpx.Client, fitted: str
) -> None:
    points: list[dict[str, Any]] = [
        POINT,
        {"timestamp": "2024-01-11T19:06:40Z", "value": -1e308},
        {"timestamp": "5.25", "value": 0.1 + 0.2, "note": "extra fields are let be"},
        {"timestamps": [1, "2", 3.5], "values": [10.4, 1e-300, 7]},
        {"timestamps": [], "values": []},
    ]
    wanted = [(point, version) for point in points for version in (None, "latest", 1, 2.0, "v2", "@prod")]
    lines = [
        {"series_id": fitted} | point | ({} if version is None else {"version": version}) for point, version in wanted
    ]
    answer = client.post("/predict", content=body_of(lines), headers={"Content-Type": NDJSON})
    answers_of(answer)
    for line, (point, version) in zip(answer.content.splitlines(), wanted, strict=True):
        alone = single(client, fitted, point, int(version) if isinstance(version, float) else version)
        assert line == b'{"series_id":"%b","status":200,' % fitted.encode() + alone.content[1:]


def test_open_bounds_are_null(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, params={"direction": "above"})
    one, many = predict(
        client,
        {"series_id": series_id} | POINT,
        {"series_id": series_id, "timestamps": [1, 2], "values": [13.0, 0.0]},
    )
    assert (one["lower"], many["lower"]) == (None, [None, None])
    assert many["upper"] == [one["upper"]] * 2


def test_the_version_of_the_query_is_meant_where_a_line_names_none(client: httpx.Client, fitted: str) -> None:
    lines = [{"series_id": fitted} | POINT | version for version in ({}, {"version": "latest"}, {"version": None})]
    for query, expected in (("1", "1"), ("@prod", "1"), ("v2", "2"), ("latest", "2")):
        judged = predict(client, *lines, version=query)
        assert [answer["model_version"] for answer in judged] == [expected, "2", expected]


def test_a_query_that_is_wrong_is_one_problem_for_all_lines(client: httpx.Client, fitted: str) -> None:
    for query in ("version=abc", "version=1&version=2", "versoin=1"):
        answer = client.post(f"/predict?{query}", content=body_of([{"series_id": fitted} | POINT]))
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert [fault["in"] for fault in answer.json()["errors"]] == ["query"]


def test_a_line_with_a_fault_is_answered_with_a_problem_and_its_number_and_stops_no_other(
    client: httpx.Client, fitted: str
) -> None:
    known = {"series_id": fitted}
    faulty: list[tuple[object, int, str, list[str] | None]] = [
        (b"not JSON", 422, "malformed-body", [""]),
        (b'{"series_id": "a"', 422, "malformed-body", [""]),
        (b"[1, 2]", 422, "malformed-body", [""]),
        (b"null", 422, "malformed-body", [""]),
        (b'{"series_id": "\xff"}', 422, "malformed-body", [""]),
        (b"\xff\xfe\x00", 422, "malformed-body", [""]),
        (b"[" * 5_000, 422, "malformed-body", [""]),
        ({}, 422, "invalid-input", ["/series_id", "/timestamp", "/value"]),
        (POINT, 422, "invalid-input", ["/series_id"]),
        ({"series_id": 7} | POINT, 422, "invalid-input", ["/series_id"]),
        ({"series_id": "a..b"} | POINT, 422, "invalid-input", ["/series_id"]),
        (b'{"series_id": "\\ud800", "timestamp": 5, "value": 1}', 422, "malformed-body", [""]),
        (known, 422, "invalid-input", ["/timestamp", "/value"]),
        (known | {"timestamp": -1, "value": "x"}, 422, "invalid-input", ["/timestamp", "/value"]),
        (known | {"timestamp": 5, "value": float("nan")}, 422, "invalid-input", ["/value"]),
        (known | {"timestamps": [1, "?", None], "values": [1, 2, "3"]}, 422, "invalid-input", None),
        (known | {"timestamps": [1, 2], "values": [1]}, 422, "invalid-input", ["/values"]),
        (known | POINT | {"version": "abc"}, 422, "invalid-input", ["/version"]),
        (known | POINT | {"version": True}, 422, "invalid-input", ["/version"]),
        (known | POINT | {"version": [1]}, 422, "invalid-input", ["/version"]),
        (known | POINT | {"version": 99}, 404, "version-not-found", []),
        (known | POINT | {"version": "@none"}, 404, "alias-not-found", []),
        (known | POINT | {"version": 3}, 410, "version-deleted", []),
        ({"series_id": fitted + ".unknown"} | POINT, 404, "series-not-found", []),
    ]
    good = known | POINT
    answers = predict(client, good, *(line for faults in faulty for line in (faults[0], b"", good)))
    assert [answer["status"] for answer in answers[::2]] == [200] * (len(faulty) + 1)
    assert {tuple(answer) for answer in answers[::2]} == {tuple(answers[0])}
    for number, (answer, (line, status, kind, places)) in enumerate(zip(answers[1::2], faulty, strict=True)):
        assert (answer["status"], answer["type"]) == (status, f"/problems/{kind}"), line
        assert answer["line"] == 2 + 3 * number
        assert places is None or pointers(answer) == places, line
        named = line["series_id"] if isinstance(line, dict) and isinstance(line.get("series_id"), str) else None
        assert answer["series_id"] == named
        if named == fitted:  # in the words of the single route
            body = {name: value for name, value in line.items() if name not in {"series_id", "version"}}  # type: ignore[union-attr]
            alone = client.post(f"/predict/{fitted}", content=json.dumps(body)).json()
            if status == 422 and "version" not in line:  # type: ignore[operator]
                of_the_request = {name: alone[name] for name in ("instance", "request_id")}
                assert alone | {"line": answer["line"], "series_id": fitted} == answer | of_the_request


def test_deleted_series_are_told_from_unknown_ones(client: httpx.Client, fitted: str) -> None:
    client.delete(f"/series/{fitted}").raise_for_status()
    line = {"series_id": fitted} | POINT
    answers = predict(client, line, line | {"version": 1}, line | {"version": "@prod"}, {"series_id": "nobody"} | POINT)
    statuses = [single(client, fitted, POINT, version).status_code for version in (None, 1, "@prod")]
    assert [answer["status"] for answer in answers] == [*statuses, 404]
    assert statuses[:2] == [410, 410]


# ---- lines ---------------------------------------------------------------------------------------------------


def test_lines_may_be_blank_end_with_crlf_or_lack_the_last_newline(client: httpx.Client, fitted: str) -> None:
    line = json.dumps({"series_id": fitted} | POINT).encode()
    one = answers_of(client.post("/predict", content=line))
    assert [answer["status"] for answer in one] == [200]
    for body in (line + b"\r\n", b"\n" + line, b"  \n\r\n\t\n" + line + b"\n\n \r", b" " + line + b" "):
        assert answers_of(client.post("/predict", content=body)) == one
    for body in (b"", b"\n", b" \r\n\r\n"):
        assert answers_of(client.post("/predict", content=body)) == []
    numbered = answers_of(client.post("/predict", content=b"\r\n\r\n" + line + b"\r\n\r\nfaulty"))
    assert [answer.get("line") for answer in numbered] == [None, 5]


def test_it_does_not_matter_where_the_body_is_cut_nor_whether_its_length_is_announced(
    client: httpx.Client, fitted: str
) -> None:
    lines = body_of([{"series_id": fitted, "timestamp": 1, "value": value} for value in (1.5, "x", 11.0)])
    whole = client.post("/predict", content=lines).content
    for size in (1, 7, len(lines) // 2):
        pieces = (lines[start : start + size] for start in range(0, len(lines), size))
        assert client.post("/predict", content=pieces).content == whole


def test_a_line_over_the_limit_is_413_by_itself_and_is_not_kept_in_memory(small: Tidemark) -> None:
    def peak_mb() -> int:
        status = Path(f"/proc/{small.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    line = body_of([{"series_id": "s"} | POINT])
    limit = line.rstrip() + b" " * (MB - len(line) + 1)
    assert len(limit) == MB
    before = peak_mb()

    def pieces() -> Iterator[bytes]:
        yield line + b'{"series_id": "s", "remark": "'
        for _ in range(100):
            yield b"x" * MB
        yield b'"}\n' + line + limit + b"\n" + limit + b" \n" + line

    answers = answers_of(small.client.post("/predict", content=pieces()))
    assert [answer["status"] for answer in answers] == [200, 413, 200, 200, 413, 200]
    assert [answer.get("line") for answer in answers] == [None, 2, None, None, 5, None]
    assert answers[1]["type"] == "/problems/body-too-large"
    assert answers[1]["series_id"] is None
    assert "MAX_BODY_MB" in answers[1]["detail"]
    assert peak_mb() - before < 40


def test_a_line_has_at_most_max_points(small: Tidemark) -> None:
    points = {"timestamps": list(range(20_001)), "values": [1] * 20_001}
    least = {name: numbers[:-1] for name, numbers in points.items()}
    too_many, enough = predict(small.client, {"series_id": "s"} | points, {"series_id": "s"} | least)
    assert (too_many["status"], enough["status"]) == (422, 200)
    assert "MAX_POINTS" in too_many["errors"][0]["detail"]


def test_warm_and_cold_series_are_mixed_and_each_is_loaded_once(client: httpx.Client, series_id: str) -> None:
    names = [f"{series_id}.{number}" for number in range(20)]
    for level, name in enumerate(names):
        fit(client, name, values=[level, level + 1, level, level])
    time.sleep(4 * POLL_INTERVAL_S)  # else the feed makes them cold again
    misses = "tidemark_model_cache_misses_total"
    for name in names[::2]:
        assert single(client, name, POINT).status_code == 200
    before = value_of(client, misses)
    answers = predict(client, *({"series_id": name} | POINT for _ in range(10) for name in names))
    assert value_of(client, misses) - before == 10
    assert [answer["series_id"] for answer in answers] == names * 10
    assert answers == answers[:20] * 10
    assert answers[:20] == [{"series_id": name, "status": 200} | single(client, name, POINT).json() for name in names]


# ---- both directions at once ---------------------------------------------------------------------------------


def test_an_answer_arrives_while_the_request_is_still_open(client: httpx.Client, fitted: str) -> None:
    with open_duplex(str(client.base_url), "/predict") as stream:
        for value in range(5):
            stream.send(body_of([{"series_id": fitted, "timestamp": 1, "value": value}]))
            assert stream.line()["score"] == single(client, fitted, {"timestamp": 1, "value": value}).json()["score"]
        stream.send(b'{"series_id": "' + fitted.encode())
        time.sleep(0.02)
        stream.send(b'", "timestamp": 1, "value": 2}\nfaulty')
        assert stream.line()["status"] == 200
        stream.end()
        assert stream.line()["line"] == 7
        assert stream.rest() == b""


def test_a_client_that_reads_nothing_before_it_has_sent_everything_gets_every_answer(small: Tidemark) -> None:
    """More than the buffers of two sockets and the memory that is set aside for answers."""
    padding = " " * 500_000
    body = {"timestamps": list(range(3_000)), "values": [value % 23 for value in range(3_000)]}
    lines = [{"series_id": "s", "line": number} | body if number % 2 else {"series_id": "?"} for number in range(100)]
    with open_duplex(small.url, "/predict") as stream:
        for line in lines:
            stream.send(json.dumps(line).encode() + padding.encode() + b"\n")
        stream.end()
        answers = stream.rest().splitlines()
    assert sum(map(len, answers)) > 10 * MB
    assert len(answers) == 100
    assert len(set(answers[1::2])) == 1
    assert answers[1][:40] == b'{"series_id":"s","status":200,"model_ver'
    assert [json.loads(answer)["line"] for answer in answers[::2]] == list(range(1, 100, 2))


@pytest.mark.parametrize("is_read", [True, False], ids=["while it reads", "before it reads"])
def test_a_client_that_hangs_up_in_the_middle_harms_nobody(small: Tidemark, *, is_read: bool) -> None:
    body = {"series_id": "s", "timestamps": list(range(3_000)), "values": [1] * 3_000}
    for _ in range(3):
        with open_duplex(small.url, "/predict") as stream:
            stream.send(body_of([body] * 20)[:-100])
            if is_read:
                assert stream.line()["status"] == 200
            stream.hang_up()
    answers = predict(small.client, {"series_id": "s"} | POINT)
    assert [answer["status"] for answer in answers] == [200]
    time.sleep(0.1)
    assert "Traceback" not in small.log.read_text()
    deleted = [link for link in _open_files(small.process.pid) if "(deleted)" in link]
    assert not deleted, "a spool was left open"


def _open_files(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [str(link.readlink()) for link in folder.iterdir() if link.is_symlink()]


def test_many_streams_at_once_keep_apart(client: httpx.Client, fitted: str) -> None:
    faults: list[object] = []

    def stream(worker: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            lines = [{"series_id": fitted, "timestamp": 1, "value": worker * 1000 + n} for n in range(200)]
            answers = predict(own, *lines, version="1")
            scores = [answer["score"] for answer in answers]
            if scores != sorted(scores) or len(scores) != 200 or len({round(score) for score in scores}) < 100:
                faults.append(worker)

    threads = [threading.Thread(target=stream, args=(worker,)) for worker in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize("path", ["/predict", "/fit"])
@pytest.mark.parametrize(
    ("body", "advice"),
    [
        (b"PAR1" + b"\n" * 1000, "application/vnd.apache.parquet"),
        (b"\xff\xff\xff\xff" + b"\n" * 1000, "application/vnd.apache.arrow.stream"),
        (b"\x1f\x8b" + b"\n" * 1000, "gzip"),
    ],
)
def test_a_file_of_another_kind_is_one_problem_and_not_one_for_each_of_its_lines(
    client: httpx.Client, path: str, body: bytes, advice: str
) -> None:
    answer = client.post(path, content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/malformed-body")
    assert advice in answer.json()["errors"][0]["detail"]
