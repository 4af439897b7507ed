"""Rate limits: exact in one process, shared by many through Redis, and never a reason to fail when Redis is away."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
import redis

from app.api_keys import ALL_SERIES, ApiKey, Limits
from app.errors import RateLimitExceeded
from app.rate_limits import KEY_PREFIX, WINDOW_S, Meter
from tests.keys import add_key, with_key
from tests.servers import RedisServer, Tidemark, serve_tidemark
from tests.test_outages import eventually

BODY = {"detector": "mean_std", "timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
POINT = {"timestamp": 5, "value": 13.0}
SETTINGS = {"AUTH": "on"}


def enough_of_this_minute(seconds: float = 12.0) -> None:
    """Counting starts anew with each minute of the clock: a test that counts begins where some of it is left."""
    left_s = WINDOW_S - time.time() % WINDOW_S
    if left_s < seconds:
        time.sleep(left_s + 0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service that asks for keys, with one series."""
    with serve_tidemark(tmp_path_factory.mktemp("limits"), SETTINGS) as server:
        with client(server, "owner") as owner:
            owner.post("/fit/s", json=BODY).raise_for_status()
        yield server


def url_of(server: Tidemark) -> str:
    return f"sqlite:///{server.log.parent / 'data/tidemark.db'}"


def client(server: Tidemark, name: str, requests: int | None = None, points: int | None = None) -> httpx.Client:
    return with_key(server.url, add_key(url_of(server), name, limits=Limits(requests, points)))


def is_refused(answer: httpx.Response) -> bool:
    if answer.status_code != 429:
        return False
    assert answer.json()["type"] == "/problems/rate-limit-exceeded"
    assert 1 <= int(answer.headers["retry-after"]) <= WINDOW_S
    return True


def test_exactly_so_many_requests_of_a_minute_are_let_in_however_many_come_at_once(server: Tidemark) -> None:
    with client(server, "forty", requests=40) as limited, ThreadPoolExecutor(8) as pool:
        enough_of_this_minute()
        limited.get("/series").raise_for_status()
        paths = ("/predict/s", "/series", "/predict/unknown", "/nothing")
        ways = [lambda path=path: limited.post(path, json=POINT) for path in paths] * 25
        answers = list(pool.map(lambda way: way(), ways))
    refused = [is_refused(answer) for answer in answers]
    assert refused.count(False) == 39
    assert all(answer.status_code in {200, 404, 405} for answer, no in zip(answers, refused, strict=True) if not no)


def test_answers_say_what_is_left(server: Tidemark) -> None:
    with client(server, "counted", requests=3, points=10) as limited:
        enough_of_this_minute()
        answers = [limited.post("/predict/s", json=POINT), limited.get("/series"), limited.post("/fit/s", json=BODY)]
        answers.append(limited.get("/series"))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    left = [answer.headers["ratelimit"].replace(";t=", " ").split() for answer in answers]
    assert [(requests, points) for requests, _, points, _ in left] == [
        ('"requests";r=2', '"points";r=9'),
        ('"requests";r=1', '"points";r=9'),
        ('"requests";r=0', '"points";r=5'),
        ('"requests";r=0', '"points";r=5'),
    ]
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60, "points";q=10;w=60'
    with client(server, "unlimited") as unlimited:
        assert "ratelimit" not in unlimited.post("/predict/s", json=POINT).headers


def test_points_are_counted_on_every_way_in(server: Tidemark) -> None:
    many = {"timestamps": [5, 6, 7, 8], "values": [10.0, 9.0, 10.0, 11.0]}
    large = {"timestamps": list(range(5, 3005)), "values": [10.0, 11.0] * 1500}
    line = json.dumps({"series_id": "s", **many})
    table = pa.table({"series_id": ["s"] * 4, "timestamp": [5.0, 6.0, 7.0, 8.0], "value": [9.0, 10.0, 9.0, 8.0]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = {
        "content": sink.getvalue().to_pybytes(),
        "headers": {"Content-Type": "application/vnd.apache.arrow.stream"},
    }
    ndjson = {"content": line, "headers": {"Content-Type": "application/x-ndjson"}}
    ways = {
        "fast": ("/predict/s", {"json": many}, 4),
        "large": ("/predict/s", {"json": large}, 3000),
        "fit": ("/fit/s", {"json": BODY}, 4),
        "slow fit": ("/fit/s", {"json": BODY, "headers": {"Idempotency-Key": "k"}}, 4),
        "fit lines": ("/fit", ndjson, 4),
        "fit table": ("/fit", arrow, 4),
        "predict lines": ("/predict", ndjson, 4),
        "predict rows": ("/predict", arrow, 4),
        "detect": ("/detect", {"json": BODY}, 4),
        "detect lines": ("/detect", ndjson, 4),
        "detect rows": ("/detect", arrow, 4),
    }
    for name, (path, request, points) in ways.items():
        with client(server, f"points.{name.replace(' ', '-')}", points=points) as limited:
            enough_of_this_minute(5)
            assert succeeded(limited.post(path, **request)), name
            second = limited.post(path, **request)
            assert not succeeded(second), name
            with client(server, f"peeps.{name.replace(' ', '-')}", points=points - 1) as short:
                assert not succeeded(short.post(path, **request)), name
            if second.status_code == 429:
                assert is_refused(second)
                assert '"points";r=0' in second.headers["ratelimit"]


def succeeded(answer: httpx.Response) -> bool:
    """Whether it and every line or row of it is a 200; any other must be a 429."""
    statuses = {answer.status_code}
    if answer.headers["content-type"].startswith("application/x-ndjson"):
        statuses |= {json.loads(each)["status"] for each in answer.text.splitlines()}
    elif answer.headers["content-type"].startswith("application/vnd.apache.arrow"):
        statuses |= set(pa.ipc.open_stream(answer.content).read_all()["status"].to_pylist())
    assert statuses <= {200, 429}, answer.text
    return statuses == {200}


def test_two_processes_share_a_limit_through_redis_and_go_on_without_it(tmp_path: Path) -> None:
    own_redis = RedisServer(tmp_path)
    settings = SETTINGS | {"REDIS_URL": own_redis.url, "DATA_DIR": str(tmp_path / "data")}
    with serve_tidemark(tmp_path / "one", settings) as one, serve_tidemark(tmp_path / "two", settings) as two:
        key = add_key(f"sqlite:///{tmp_path / 'data/tidemark.db'}", "shared", limits=Limits(30))
        with with_key(one.url, key) as here, with_key(two.url, key) as there:
            enough_of_this_minute(20)
            there.get("/series").raise_for_status()
            for _ in range(29):
                here.get("/series").raise_for_status()
            eventually(lambda: is_refused(there.get("/series")), within_s=3)
            eventually(lambda: is_refused(here.get("/series")), within_s=3)
            with redis.Redis.from_url(own_redis.url, decode_responses=True) as stored:
                (name,) = stored.keys(f"{KEY_PREFIX}*")
                assert int(stored.hget(name, "requests")) >= 30
                assert 0 < stored.ttl(name) <= 2 * WINDOW_S
                assert key[16:] not in name

        own_redis.stop()
        free = add_key(f"sqlite:///{tmp_path / 'data/tidemark.db'}", "alone", limits=Limits(5))
        with with_key(one.url, free) as here, with_key(two.url, free) as there:
            enough_of_this_minute(10)
            assert [each.get("/series").status_code for each in (here, there) for _ in range(5)] == [200] * 10
            assert is_refused(here.get("/series"))
        eventually(lambda: "each process counts for itself" in one.log.read_text(), within_s=5)
        own_redis.start()
        eventually(lambda: "shared through Redis again" in one.log.read_text(), within_s=5)
    own_redis.stop()


def test_a_minute_later_everything_is_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    limits = Limits(2, 10)
    meter = Meter(ApiKey("k", "k", b"", frozenset(), ALL_SERIES, limits), limits)
    meter.charge("requests", 1)
    meter.charge("requests", 1)
    with pytest.raises(RateLimitExceeded) as refused:
        meter.charge("requests", 1)
    assert refused.value.retry_after_s == 40  # 1,700,000,000 s are 20 s after a minute began
    with pytest.raises(RateLimitExceeded, match="this request alone has 11"):
        meter.charge("points", 11)
    meter.charge("points", 10)
    with pytest.raises(RateLimitExceeded, match="0 are left"):
        meter.charge("points", 1)
    now += 40
    meter.charge("requests", 1)
    meter.charge("points", 10)
