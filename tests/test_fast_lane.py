"""The fast lane answers plain predictions exactly as the ordinary route does, and leaves everything else to it."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.fast_lane import INLINE_BODY_BYTES, PredictionFastLane
from app.api.gate import Gate
from app.api.headers import security_headers
from app.api.sessions import Sessions
from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.follower import POLL_INTERVAL_S
from tests.crashing import history
from tests.servers import Tidemark
from tests.test_telemetry import value_of

HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
POINT = b'{"timestamp": 5, "value": 13.0}'
WITH_CONTEXT = POINT[:-1] + b', "context": {"timestamps": [3, 4], "values": [10, 10]}}'
COUNTED = 'tidemark_requests_total{method="POST",route="/predict/{series_id}",status="200"}'
TIMED = 'tidemark_request_duration_seconds_count{method="POST",route="/predict/{series_id}"}'


def lists(count: int) -> bytes:
    return json.dumps({"timestamps": list(range(count)), "values": [n % 7 for n in range(count)]}).encode()


BODIES = {
    "a point": POINT,
    "a point within": b'{"timestamp": 5, "value": 10}',
    "a point as text": b'{"timestamp": "2024-01-11T19:06:40Z", "value": -1e308}',
    "more fields": b'{"value": 1, "timestamp": "5", "extra": {"a": [1]}, "value": 2}',
    "layout": b' \n{ "timestamp":5.25,\t"value" : 1e-300 }\r\n',
    "no points": lists(0),
    "one": lists(1),
    "lists": lists(500),
    "as large as can be": POINT[:-1] + b" " * (INLINE_BODY_BYTES - len(POINT)) + b"}",
    "a byte more": POINT[:-1] + b" " * (INLINE_BODY_BYTES - len(POINT) + 1) + b"}",
    "large": lists(5000),
    "nothing": b"",
    "no JSON": b'{"timestamp": 5',
    "a list": b"[1, 2]",
    "null": b"null",
    "no value": b'{"timestamp": 5}',
    "no object": b"{}",
    "wrong types": b'{"timestamp": true, "value": "13"}',
    "negative": b'{"timestamp": -1, "value": 1}',
    "NaN": b'{"timestamp": 5, "value": NaN}',
    "too large a number": b'{"timestamp": 5, "value": 1e400}',
    "a very long number": b'{"timestamp": 5, "value": 1' + b"0" * 400 + b"}",
    "half a pair": b'{"timestamp": "\\ud800", "value": 1}',
    "not UTF-8": b'{"timestamp": "\xff", "value": 1}',
    "a mark": b"\xef\xbb\xbf" + POINT,
    "compressed": b"\x1f\x8b\x08\x00",
    "deep": b"[" * 5000,
    "of two lengths": b'{"timestamps": [1, 2], "values": [1]}',
    "faults in lists": b'{"timestamps": [1, "x", null], "values": [1, "2", NaN]}',
    "both forms": b'{"timestamp": 5, "value": 1, "timestamps": [1], "values": [1]}',
}
QUERIES = (
    "version=latest", "version=0", "version=1", "version=v2", "version=V1", "version=@prod", "version=%40prod",
    "version=%201%20", "version=+1", "", "version=", "version=99", "version=@none", "version=abc", "version=-1",
    "version=1&version=2", "versoin=1", "version=1&x=", "version", "&", "version=%ff", "version=1;2", "version=@prod#1",
)  # fmt: skip
PATHS = (
    "{id}", "%20{id}", "{id}%20", "%09{id}", "{encoded}", "{id}.unknown", "{id}/", "{id}/x", "/{id}", "{id}%2F", "a..b",
    "%00", "%C3%A9", "{id}%00", "", "%20", "{id}%0A", "%ff", "x" * 201, "{id}%3Fversion=1", "{id};x", "../predict/{id}",
)  # fmt: skip
HEADERS = (
    {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}, {"Accept": "text/html"},
    {"Accept": "application/json"}, {"Accept-Encoding": "gzip, br"}, {"Idempotency-Key": "k"}, {"Connection": "close"},
)  # fmt: skip


FOR_BROWSERS = {name for name, _ in security_headers({"scheme": "http"}, [])}
"""Headers that the fast lane, which answers no browser, leaves out."""


class Answer(NamedTuple):
    """All of an answer but for its time and what only browsers look at."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def send(client: httpx.Client, target: str, body: object, headers: Mapping[str, str]) -> Answer:
    answer = client.post(target, content=body, headers={"X-Request-ID": "the-same", **headers})
    left_out = {b"date", *FOR_BROWSERS}
    kept = [(name, value) for name, value in answer.headers.raw if name.lower() not in left_out]
    return Answer(answer.status_code, kept, answer.content)


def ask_three_ways(
    client: httpx.Client, target: str, body: bytes = POINT, headers: Mapping[str, str] | None = None
) -> Answer:
    """As it is, and in two ways that are not plain: the answer, which is the same."""
    headers = headers or {}
    origin = f"http://{client.base_url.host}:{client.base_url.port}"
    plain = send(client, target, body, headers)
    assert send(client, target, body, {"Origin": origin, **headers}) == plain
    assert send(client, target, iter([body[:7], body[7:]]), headers) == plain
    return plain


@pytest.fixture
def warm(client: httpx.Client, series_id: str) -> str:
    """A series of two versions and an alias, all in memory."""
    for values in ([1.0, 2.0, 3.0, 4.0], HISTORY["values"]):
        client.post(f"/fit/{series_id}", json=HISTORY | {"values": values}).raise_for_status()
    client.put(f"/series/{series_id}/aliases/prod", json={"version": "1"}).raise_for_status()
    for _ in range(2):  # the feed may tell of the alias in between
        for version in ("latest", "1", "2", "@prod"):
            client.post(f"/predict/{series_id}?version={version}", content=POINT).raise_for_status()
    return series_id


# ---- the same answer -----------------------------------------------------------------------------------------


def test_every_body_is_answered_as_by_the_ordinary_route(client: httpx.Client, warm: str) -> None:
    answers = {name: ask_three_ways(client, f"/predict/{warm}", body) for name, body in BODIES.items()}
    well = [name for name, answer in answers.items() if answer.status == 200]
    assert well == [*list(BODIES)[:11], "both forms"]
    assert {answer.status for answer in answers.values()} == {200, 422}
    assert json.loads(answers["a point"].body) == {
        "anomaly": True,
        "model_version": "2",
        "score": pytest.approx(2.8284271),
        "expected": 10.0,
        "lower": pytest.approx(8.93933983),
        "upper": pytest.approx(11.06066017),
        "severity": pytest.approx(0.6464466),
        "p_value": pytest.approx(math.exp(-28)),
        "kind": "spike",
    }
    assert len(json.loads(answers["lists"].body)["score"]) == 500


def test_every_query_is_answered_as_by_the_ordinary_route(client: httpx.Client, warm: str) -> None:
    answers = {query: ask_three_ways(client, f"/predict/{warm}?{query}") for query in QUERIES}
    versions = [json.loads(answer.body)["model_version"] for answer in answers.values() if answer.status == 200]
    assert versions[:10] == ["2", "2", "1", "2", "1", "1", "1", "1", "1", "2"]
    assert [answers[query].status for query in ("version=99", "version=@none", "version=abc")] == [404, 404, 422]
    assert [answers[query].status for query in ("version=1&version=2", "versoin=1", "version=")] == [422] * 3


def test_every_path_is_answered_as_by_the_ordinary_route(client: httpx.Client, warm: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in warm.encode())
    answers = {path: ask_three_ways(client, f"/predict/{path.format(id=warm, encoded=encoded)}") for path in PATHS}
    assert [path for path, answer in answers.items() if answer.status == 200][:5] == list(PATHS[:5])
    assert [answers[path].status for path in ("{id}.unknown", "a..b", "{id}/x", "")] == [404, 422, 404, 404]


def test_every_header_is_answered_as_by_the_ordinary_route(client: httpx.Client, warm: str) -> None:
    assert {ask_three_ways(client, f"/predict/{warm}", headers=headers).status for headers in HEADERS} == {200}
    # a browser would name its origin
    assert send(client, f"/predict/{warm}", POINT, {"Sec-Fetch-Site": "cross-site"}).status == 200
    assert send(client, f"/predict/{warm}", POINT, {"Origin": "http://elsewhere"}).status == 403


def test_an_id_that_is_fit_to_be_repeated_is_repeated(client: httpx.Client, warm: str) -> None:
    for sent, is_fit in (("trace-1", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)):
        answer = client.post(f"/predict/{warm}", content=POINT, headers={"X-Request-ID": sent})
        assert answer.status_code == 200
        assert (answer.headers.get("X-Request-ID") == sent) is is_fit


def test_a_cold_model_and_a_warm_one_are_answered_alike(client: httpx.Client, series_id: str) -> None:
    client.post(f"/fit/{series_id}", json=HISTORY).raise_for_status()
    cold = send(client, f"/predict/{series_id}", POINT, {})
    assert ask_three_ways(client, f"/predict/{series_id}") == cold


def test_other_methods_are_refused_as_ever(client: httpx.Client, warm: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"):
        answer = client.request(method, f"/predict/{warm}", content=POINT)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# ---- what is measured ----------------------------------------------------------------------------------------


def test_both_lanes_are_counted_and_timed(client: httpx.Client, warm: str) -> None:
    before = [value_of(client, line) for line in (COUNTED, TIMED)]
    ask_three_ways(client, f"/predict/{warm}")
    assert [value_of(client, line) for line in (COUNTED, TIMED)] == [count + 3 for count in before]


def test_the_metrics_show_what_the_cache_did_and_holds(serve: Callable[..., Tidemark]) -> None:
    client = serve().client

    def figures() -> list[float]:
        names = ("hits_total", "misses_total", "models", "bytes")
        return [value_of(client, f"tidemark_model_cache_{name} ") for name in names]

    assert figures() == [0, 0, 0, 0]
    for series_id in ("s", "t"):
        client.post(f"/fit/{series_id}", json=HISTORY).raise_for_status()
    time.sleep(3 * POLL_INTERVAL_S)  # else the feed makes them cold again
    for series_id in ("s", "t"):
        client.post(f"/predict/{series_id}", content=POINT).raise_for_status()
    assert figures()[:3] == [0, 2, 2]
    assert client.get("/healthcheck").json()["inference_latency_ms"]["avg"] > 0
    for headers in ({}, {"Origin": str(client.base_url).rstrip("/")}):
        client.post("/predict/s", content=POINT, headers=headers).raise_for_status()
    assert figures()[:3] == [2, 2, 2]
    assert 500 < figures()[3] < 2 * 2000
    client.delete("/series/t").raise_for_status()
    assert figures()[2] == 1


# ---- which lane ----------------------------------------------------------------------------------------------


class Ordinary:
    """An application behind the fast lane: remembers the bodies that reach it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def through(
    lane: PredictionFastLane, pieces: Sequence[bytes], path: str = "/predict/s", **changes: object
) -> tuple[int, bytes]:
    """Status and body of what the lane, or the application behind it, answers to a POST."""
    headers = [(b"host", b"localhost"), (b"content-length", b"%d" % sum(map(len, pieces)))]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(lane(scope | changes, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def ordinary() -> Ordinary:
    """What is behind the fast lane."""
    return Ordinary()


@pytest.fixture
def lane(services: Services, ordinary: Ordinary) -> PredictionFastLane:
    """The fast lane before it, over one series that is in memory."""
    services.training.fit("s", history(1), MeanStd, MeanStdParams())
    services.registry.load("s", 0)
    services.keyring.open()
    gate = Gate(services.keyring, services.limiter, Sessions(services.keyring, ""))
    measures = {"metrics": services.metrics, "latencies": services.latencies}
    return PredictionFastLane(ordinary, services.settings, services.registry, gate=gate, **measures)


def test_a_plain_prediction_never_reaches_the_application_and_is_timed(
    lane: PredictionFastLane, ordinary: Ordinary, services: Services
) -> None:
    status, body = through(lane, [POINT])
    assert (status, json.loads(body)["model_version"]) == (200, "1")
    assert through(lane, [lists(100)], query_string=b"version=v1")[0] == 200
    assert through(lane, [WITH_CONTEXT], query_string=b"false_alarm_rate=0.01")[0] == 200
    assert ordinary.bodies == []
    assert len(services.latencies.last("inference")) == 3
    assert COUNTED.encode() + b" 3.0" in services.metrics.render()


def test_what_is_not_plain_reaches_the_application_whole_and_is_not_counted_here(
    lane: PredictionFastLane, ordinary: Ordinary, services: Services
) -> None:
    large, faulty = lists(5000), b'{"timestamp": 5}'
    others: list[tuple[list[bytes], dict[str, object]]] = [
        ([POINT[:9], POINT[9:20], POINT[20:]], {}),
        ([large], {}),
        ([faulty], {}),
        ([b""], {}),
        ([POINT], {"path": "/predict/cold"}),
        ([POINT], {"path": "/predict/s/x"}),
        ([POINT], {"path": "/fit/s"}),
        ([POINT], {"path": "/predict"}),
        ([POINT], {"method": "PUT"}),
        ([POINT], {"method": "GET"}),
        ([POINT], {"query_string": b"version=2"}),
        ([POINT], {"query_string": b"version=1&version=1"}),
        ([POINT], {"query_string": b"false_alarm_rate=1"}),
        ([POINT], {"query_string": b"max_false_alarms_per_week=1"}),
        ([WITH_CONTEXT.replace(b"4]", b"3]")], {}),
        ([POINT], {"headers": [(b"origin", b"http://localhost")]}),
        ([POINT], {"headers": [(b"accept", b"application/vnd.apache.arrow.stream")]}),
        ([POINT], {"headers": [(b"content-type", b"application/vnd.apache.arrow.stream")]}),
    ]
    for pieces, changes in others:
        assert through(lane, pieces, **changes) == (418, b"")
        assert ordinary.bodies.pop() == b"".join(pieces)
    assert ordinary.bodies == []
    assert services.latencies.last("inference") == []
