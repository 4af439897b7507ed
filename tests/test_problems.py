"""Errors as RFC 9457 problem documents, with every fault of a request at once."""

import gzip
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app import errors
from tests.servers import REPOSITORY, Tidemark, serve_tidemark

FOUR_POINTS = {"timestamps": [1705000000, 1705000001, 1705000002, 1705000003], "values": [10.0, 10.5, 9.5, 10.0]}
MEBIBYTE = 2**20
URI_REFERENCE = re.compile(r"/([A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*", re.ASCII)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The document of a refused request, of which everything that is promised of any is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert document["status"] == status
    assert document["type"].startswith("/problems/")
    assert document["title"]
    assert document["detail"]
    assert URI_REFERENCE.fullmatch(document["instance"])
    for fault in document["errors"]:
        assert set(fault) == {"in", "pointer", "detail"}
        assert fault["in"] in {"body", "path", "query", "header"}
        assert re.fullmatch(r"(/([^~/]|~[01])*)*", fault["pointer"]), "RFC 6901"
        assert fault["detail"]
    return document


def faults(answer: httpx.Response) -> list[tuple[str, str]]:
    return sorted((fault["in"], fault["pointer"]) for fault in problem(answer, 422)["errors"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with small limits."""
    settings = {"MAX_BODY_MB": "1", "MAX_POINTS": "10", "MIN_TRAINING_DATA_POINTS": "5"}
    with serve_tidemark(tmp_path_factory.mktemp("small"), settings) as running:
        yield running.client


# ---- each status -----------------------------------------------------------------------------------------


def test_an_unknown_path_is_a_problem(client: httpx.Client) -> None:
    for path in ("/nowhere", "/fit/", "/predict/", "/fit/a/b", "/series/a/b/c/d", "/nowhere%20x/%C3%A9%3F"):
        document = problem(client.get(path), 404)
        assert document["instance"].lower() == path.lower()
        assert document["errors"] == []


def test_a_wrong_method_is_a_problem_that_names_the_right_ones(client: httpx.Client) -> None:
    for method, path, allowed in (
        ("GET", "/fit/a", {"POST"}),
        ("DELETE", "/predict/a", {"POST"}),
        ("POST", "/series", {"GET"}),
        ("POST", "/series/a", {"DELETE", "GET"}),
        ("PATCH", "/series/a/aliases/prod", {"DELETE", "GET", "PUT"}),
        ("PUT", "/healthcheck", {"GET"}),
    ):
        answer = client.request(method, path)
        problem(answer, 405)
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD"} == allowed


def test_a_series_that_is_not_found_is_a_problem_that_says_what_to_do(client: httpx.Client, series_id: str) -> None:
    document = problem(client.get(f"/series/{series_id}"), 404)
    assert document["type"] == "/problems/series-not-found"
    assert document["instance"] == f"/series/{series_id}"
    assert f"/fit/{series_id}" in document["detail"]


def test_each_kind_of_refusal_has_its_own_type(client: httpx.Client, series_id: str) -> None:
    for key in ("k1", "k2"):
        client.post(f"/fit/{series_id}", json=FOUR_POINTS, headers={"Idempotency-Key": key})
    client.put(f"/series/{series_id}/aliases/prod", json={"version": "2"})
    client.delete(f"/series/{series_id}/versions/1")
    fit, predict, versions = f"/fit/{series_id}", f"/predict/{series_id}", f"/series/{series_id}/versions"
    alias, point = f"/series/{series_id}/aliases/prod", {"timestamp": 1, "value": 1}
    other = FOUR_POINTS | {"params": {"k": 1}}
    refusals = {
        "invalid-input": (client.post(predict, json={}), 422),
        "malformed-body": (client.post(predict, content=b"{"), 422),
        "idempotency-key-reused": (client.post(fit, json=other, headers={"Idempotency-Key": "k2"}), 422),
        "version-not-found": (client.get(f"{versions}/99"), 404),
        "alias-not-found": (client.post(f"{predict}?version=@no", json=point), 404),
        "version-deleted": (client.get(f"{versions}/1"), 410),
        "alias-in-use": (client.delete(f"{versions}/2"), 409),
        "precondition-failed": (client.delete(alias, headers={"If-Match": '"x"'}), 412),
    }
    for kind, (answer, status) in refusals.items():
        assert problem(answer, status)["type"] == f"/problems/{kind}"


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^(?:[|` ]*[+`]-- )?([A-Z]\w+) +(?:(\d{3})|\()", errors.__doc__ or "", re.MULTILINE)

    def tree(error: type[errors.TidemarkError]) -> Iterator[type[errors.TidemarkError]]:
        yield error
        for child in error.__subclasses__():
            yield from tree(child)

    known = {error.__name__: error for error in tree(errors.TidemarkError) if error.__module__ == errors.__name__}
    assert {name for name, _ in drawn} == set(known)
    for name, status in drawn:
        if status:
            assert known[name].status == int(status)


# ---- all faults at once ----------------------------------------------------------------------------------


def test_every_fault_of_a_fit_is_named_at_once(client: httpx.Client, series_id: str) -> None:
    body = {
        "timestamps": [1, 0, "x", -4, None],
        "values": [1, "2", None, True],
        "detector": "mean_std",
        "params": {"k": -1, "direction": "up", "more": 1},
    }
    answer = client.post(f"/fit/{series_id}..", json=body, headers={"Idempotency-Key": "a b"})
    assert faults(answer) == sorted(
        [
            ("path", "/series_id"),
            ("header", "/Idempotency-Key"),
            *(("body", f"/timestamps/{i}") for i in (2, 3, 4)),
            *(("body", f"/values/{i}") for i in (1, 2, 3)),
            ("body", "/values"),
            *(("body", f"/params/{name}") for name in ("k", "direction", "more")),
        ]
    )


def test_every_fault_of_a_prediction_is_named_at_once(client: httpx.Client) -> None:
    everything = [("body", "/timestamp"), ("body", "/value"), ("path", "/series_id"), ("query", "/version")]
    assert faults(client.post("/predict/a..b?version=x", json={"timestamp": "x", "value": "y"})) == everything
    assert faults(client.post("/predict/a..b?version=x", json={})) == everything
    lists = [("body", "/timestamps"), ("body", "/values"), ("path", "/series_id"), ("query", "/version")]
    assert faults(client.post("/predict/a..b?version=x", json={"timestamps": 1, "values": None})) == lists


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_body_that_is_no_object_does_not_hide_the_other_faults(client: httpx.Client, body: bytes) -> None:
    fit = client.post("/fit/a..b", content=body, headers={"Idempotency-Key": "a b"})
    assert faults(fit) == [("body", ""), ("header", "/Idempotency-Key"), ("path", "/series_id")]
    predict = client.post("/predict/a..b?version=x", content=body)
    assert faults(predict) == [("body", ""), ("path", "/series_id"), ("query", "/version")]
    alias = client.put("/series/a..b/aliases/!", content=body)
    assert faults(alias) == [("body", ""), ("path", "/name"), ("path", "/series_id")]


def test_every_fault_of_path_and_query_is_named_at_once(client: httpx.Client) -> None:
    page = client.get("/series/a..b/versions?limit=0&cursor=x")
    assert faults(page) == [("path", "/series_id"), ("query", "/cursor"), ("query", "/limit")]
    assert faults(client.get("/series?limit=0&cursor=%00")) == [("query", "/cursor"), ("query", "/limit")]
    assert faults(client.get("/series/a..b/versions/x")) == [("path", "/series_id"), ("path", "/version")]
    alias = client.put("/series/a..b/aliases/!", json={"version": "x"})
    assert faults(alias) == [("body", "/version"), ("path", "/name"), ("path", "/series_id")]


def test_the_detail_counts_the_faults(client: httpx.Client) -> None:
    one = problem(client.post("/predict/a", json={"timestamp": 1}), 422)
    two = problem(client.post("/predict/a", json={}), 422)
    assert "One thing" in one["detail"]
    assert "2 things" in two["detail"]


def test_names_in_pointers_are_escaped(client: httpx.Client, series_id: str) -> None:
    answer = client.post(f"/fit/{series_id}", json=FOUR_POINTS | {"params": {"a/b~c": 1, "": 2}})
    assert faults(answer) == [("body", "/params/"), ("body", "/params/a~1b~0c")]


# ---- bodies that are no JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/fit/a", "/predict/a"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"NaN",
        b"{'timestamp': 1}",
        b'{"timestamp": 1,}',
        b'{"timestamp": 1} x',
        b'{"timestamp": 01}',
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"NaN":' * 5_000,
        b"<fit/>",
        "{}".encode("utf-16"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_malformed_json_is_refused_and_the_place_is_named(client: httpx.Client, path: str, body: bytes) -> None:
    document = problem(client.post(path, content=body), 422)
    assert document["type"] == "/problems/malformed-body"
    assert [fault["pointer"] for fault in document["errors"]] == [""]
    if len(body) > 1 and body[:1] == b"{":
        assert "column" in document["errors"][0]["detail"]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400])
def test_numbers_that_are_not_finite_are_named_by_their_place(
    client: httpx.Client, series_id: str, literal: str
) -> None:
    def answers(timestamps: str, values: str) -> Iterator[httpx.Response]:
        for path in (f"/fit/{series_id}", f"/predict/{series_id}"):
            yield client.post(path, content=f'{{"timestamps": {timestamps}, "values": {values}}}')

    for answer in answers("[1, 2, 3, 4]", f"[1, {literal}, 2, {literal}]"):
        assert faults(answer) == [("body", "/values/1"), ("body", "/values/3")]
    for answer in answers(f"[1, {literal}, 3, 4]", "[1, 2, 3, 4]"):
        assert faults(answer) == [("body", "/timestamps/1")]
    one = client.post(f"/predict/{series_id}", content=f'{{"timestamp": 1, "value": {literal}}}')
    assert faults(one) == [("body", "/value")]
    k = client.post(f"/fit/{series_id}", content=json.dumps(FOUR_POINTS)[:-1] + f', "params": {{"k": {literal}}}}}')
    assert faults(k) == [("body", "/params/k")]


@pytest.mark.parametrize(
    "body",
    [
        b'{"timestamps": [1, 2, NaN], "values": ["\\ud800", 1, 2]}',
        b'{"timestamps": ["\\udfff", 2, NaN], "values": [1, 2, 3]}',
        b'{"timestamps": [1, 2, NaN], "values": [1, 2, 3], "params": {"\\ud800": 1}}',
        b'{"timestamps": [1, 2, 3], "values": [1, 2, NaN], "detector": "\\ud800"}',
    ],
)
def test_half_a_character_beside_nan_is_refused_like_any_other_fault(client: httpx.Client, body: bytes) -> None:
    assert faults(client.post("/fit/a", content=body))


# ---- limits ----------------------------------------------------------------------------------------------


def exchange(
    client: httpx.Client,
    headers: Mapping[str, str],
    chunks: Iterator[bytes],
    method: str = "POST",
    path: str = "/fit/a",
) -> tuple[int, dict[str, Any]]:
    """Send a request piece by piece and read the answer, also when it comes before the request has ended."""
    url = urlsplit(str(client.base_url))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    for chunk in chunks:
        connection.send(chunk)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document


def in_chunks(size_bytes: int) -> Iterator[bytes]:
    step = 64 * 1024
    for start in range(0, size_bytes, step):
        piece = b" " * min(step, size_bytes - start)
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    yield b"0\r\n\r\n"


def test_an_announced_body_over_the_limit_is_refused_before_it_is_sent(small: httpx.Client) -> None:
    for method, path in (("POST", "/fit/a"), ("POST", "/predict/a"), ("PUT", "/series/a/aliases/prod")):
        status, document = exchange(small, {"Content-Length": str(MEBIBYTE + 1)}, iter(()), method, path)
        assert (status, document["type"], document["instance"]) == (413, "/problems/body-too-large", path)
        assert "MAX_BODY_MB" in document["detail"]


def test_a_body_in_chunks_over_the_limit_is_refused(small: httpx.Client) -> None:
    for method, path in (("POST", "/fit/a"), ("POST", "/predict/a"), ("PUT", "/series/a/aliases/prod")):
        status, document = exchange(small, {"Transfer-Encoding": "chunked"}, in_chunks(MEBIBYTE + 1), method, path)
        assert (status, document["type"], document["instance"]) == (413, "/problems/body-too-large", path)


def test_a_client_that_sends_all_of_a_body_over_the_limit_gets_the_answer(small: httpx.Client, series_id: str) -> None:
    problem(small.post(f"/fit/{series_id}", content=b" " * 20 * MEBIBYTE), 413)
    assert small.post(f"/fit/{series_id}", json=FOUR_POINTS | {"values": [1, 2]}).status_code == 422


def test_a_body_of_just_the_limit_is_read(small: httpx.Client, series_id: str) -> None:
    body = json.dumps({"timestamps": list(range(5)), "values": list(range(5))}).encode()
    body += b" " * (MEBIBYTE - len(body))
    assert small.post(f"/fit/{series_id}", content=body).status_code == 200
    assert small.post(f"/fit/{series_id}", content=iter([body[:1000], body[1000:]])).status_code == 200


def test_more_points_than_the_limit_are_refused(small: httpx.Client, series_id: str) -> None:
    def body(count: int) -> dict[str, list[int]]:
        return {"timestamps": list(range(count)), "values": list(range(count))}

    assert small.post(f"/fit/{series_id}", json=body(10)).status_code == 200
    assert small.post(f"/predict/{series_id}", json=body(10)).status_code == 200
    for path in (f"/fit/{series_id}", f"/predict/{series_id}"):
        answer = small.post(path, json=body(11))
        assert faults(answer) == [("body", "/timestamps"), ("body", "/values")]
        assert "MAX_POINTS" in answer.json()["errors"][0]["detail"]
    assert small.get(f"/series/{series_id}").json()["latest_version"] == "1"


def test_fewer_points_than_a_fit_needs_are_refused(small: httpx.Client, series_id: str) -> None:
    answer = small.post(f"/fit/{series_id}", json=FOUR_POINTS)
    assert faults(answer) == [("body", "/values")]
    assert "at least 5" in answer.json()["errors"][0]["detail"]
    assert small.get(f"/series/{series_id}").status_code == 404


# ---- clients that do odd things ---------------------------------------------------------------------------


def test_a_version_given_twice_is_refused(client: httpx.Client, series_id: str) -> None:
    answer = client.post(f"/predict/{series_id}?version=1&version=2", json={"timestamp": 1, "value": 1})
    assert faults(answer) == [("query", "/version")]


@pytest.mark.parametrize("name", ["verison", "Version"])
def test_a_mistyped_parameter_does_not_end_in_the_latest_version(
    client: httpx.Client, series_id: str, name: str
) -> None:
    answer = client.post(f"/predict/{series_id}?{name}=1", json={"timestamp": 1, "value": 1})
    assert faults(answer) == [("query", f"/{name}")]


@pytest.mark.parametrize("size_bytes", [65_000, 200_000])
def test_headers_that_are_too_large_are_refused_before_they_are_all_read(client: httpx.Client, size_bytes: int) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * size_bytes)
        if size_bytes < 65_536:
            connection.sendall(b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200" if size_bytes < 65_536 else b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (gzip.compress(b"{}"), "compressed by gzip"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
    ],
    ids=["gzip", "utf-16", "byte order mark"],
)
def test_a_body_that_is_not_utf_8_text_is_called_what_it_is(
    client: httpx.Client, series_id: str, body: bytes, said: str
) -> None:
    answer = client.post(f"/fit/{series_id}", content=body)
    assert said in problem(answer, 422)["errors"][0]["detail"]


def test_many_unknown_parameters_are_counted_not_listed(client: httpx.Client, series_id: str) -> None:
    answer = client.post(f"/fit/{series_id}", json=FOUR_POINTS | {"params": {f"p{n}": n for n in range(10_000)}})
    assert faults(answer) == [("body", "/params")]
    assert "has 10000 names" in answer.json()["errors"][0]["detail"]


def test_a_client_that_goes_away_in_the_middle_of_its_body_is_not_a_failure_of_ours(
    serve: Callable[..., Tidemark],
) -> None:
    running = serve()
    with socket.create_connection((running.client.base_url.host, running.client.base_url.port)) as connection:
        connection.sendall(b"POST /fit/half HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    deadline = time.monotonic() + 10
    while 'route="/fit/{series_id}",status="499"' not in running.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ],
)
def test_a_page_of_another_site_cannot_fit_through_its_visitors_browser(
    client: httpx.Client, series_id: str, headers: dict[str, str]
) -> None:
    problem(client.post(f"/fit/{series_id}", json=FOUR_POINTS, headers=headers), 403)
    assert client.get(f"/series/{series_id}", headers=headers).status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_page_of_our_own_may_fit(client: httpx.Client, series_id: str, headers: dict[str, str]) -> None:
    origin = {"Origin": str(client.base_url).rstrip("/")}
    assert client.post(f"/fit/{series_id}", json=FOUR_POINTS, headers=origin | headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz"])
def test_monitors_may_ask_by_head(client: httpx.Client, path: str) -> None:
    answer = client.head(path)
    assert answer.status_code == 200
    assert answer.content == b""


def test_a_path_with_a_slash_too_many_is_not_redirected(client: httpx.Client) -> None:
    assert client.get("/series/", follow_redirects=False).status_code == 404


# ---- faults of our own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_log_of_an_unexpected_error_is_short_and_holds_no_values_of_variables(log_format: str) -> None:
    script = f"""
import structlog
from app.logs import configure_logs
configure_logs("info", {log_format!r})
def fail(password):
    body = ["point " + str(i) for i in range(100_000)]
    raise KeyError("the reason")
try:
    fail("hunter" + str(2))
except KeyError as error:
    structlog.get_logger().error("request failed unexpectedly", exc_info=error)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "the reason" in run.stderr
    assert "in fail" in run.stderr
    assert "hunter2" not in run.stderr
    assert "point 7" not in run.stderr
    assert len(run.stderr) < 3000
