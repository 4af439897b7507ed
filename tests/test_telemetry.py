"""Request latencies, over all replicas, and metrics; neither ever fails a request."""

import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError, LatencyStoreUnavailable
from app.model_cache import ModelCache
from app.telemetry import KEY_PREFIX, LocalLatencyHistory, Metrics, RedisLatencyHistory, summarize
from tests.servers import RedisServer, Tidemark

LATENCIES = st.lists(st.floats(0.0, 1e6, allow_subnormal=False), max_size=300)


@pytest.fixture(autouse=True)
def empty_redis(request: pytest.FixtureRequest) -> None:
    """Histories begin empty in each test."""
    if "redis_server" in request.fixturenames:
        with redis.Redis.from_url(request.getfixturevalue("redis_server").url) as client:
            client.flushdb()


@pytest.fixture
def make_history(redis_server: RedisServer) -> Iterator[Callable[..., RedisLatencyHistory]]:
    """Makes the histories of replicas, all on one Redis; their threads are not started."""
    made = []

    def make(limit: int = 100, url: str = redis_server.url) -> RedisLatencyHistory:
        made.append(RedisLatencyHistory(url, limit))
        return made[-1]

    yield make
    for history in made:
        history.stop()


# ---- mean and percentile -------------------------------------------------------------------------------------


@given(LATENCIES)
def test_p95_is_the_smallest_latency_that_95_percent_do_not_exceed(latencies: list[float]) -> None:
    summary = summarize(latencies)
    if not latencies:
        assert summary == (0.0, 0.0)
        return
    n = len(latencies)
    # in whole numbers, where 0.95 is exact: at least 95 % of n are <= p95
    enough = [x for x in latencies if 100 * sum(y <= x for y in latencies) >= 95 * n]
    assert summary.p95 == min(enough)
    assert summary.avg == pytest.approx(math.fsum(latencies) / n, rel=1e-9, abs=1e-9)


def test_the_rank_is_exact_for_every_count() -> None:
    for n in [*range(1, 2000), 100_000]:
        assert summarize(range(1, n + 1)).p95 == -(-95 * n // 100)


@pytest.mark.parametrize(
    ("latencies", "avg", "p95"),
    [([], 0, 0), ([7.0], 7, 7), ([1.0] * 19 + [100.0], 5.95, 1), ([1.0] * 18 + [100.0] * 2, 10.9, 100)],
)
def test_examples(latencies: list[float], avg: float, p95: float) -> None:
    assert summarize(latencies) == pytest.approx((avg, p95))


# ---- in this process -----------------------------------------------------------------------------------------


def test_without_redis_the_last_requests_of_each_kind_are_kept_up_to_the_limit() -> None:
    history = LocalLatencyHistory(3)
    for n in range(10):
        history.record("inference", float(n))
    history.record("training", 1.0)
    assert history.last("inference") == [7.0, 8.0, 9.0]
    assert history.last("training") == [1.0]


# ---- in redis ------------------------------------------------------------------------------------------------


def test_replicas_share_one_history_and_keep_kinds_apart(make_history: Callable[..., RedisLatencyHistory]) -> None:
    first, second = make_history(), make_history()
    first.record("inference", 1.0)
    second.record("inference", 2.0)
    second.record("training", 3.0)
    second.last("inference")  # carries off its buffer
    assert sorted(first.last("inference")) == [1.0, 2.0]
    assert first.last("training") == [3.0]


def test_the_limit_holds_across_replicas_and_the_newest_stay(make_history: Callable[..., RedisLatencyHistory]) -> None:
    first, second = make_history(limit=10), make_history(limit=10)
    for n in range(25):
        first.record("inference", float(n))
    assert sorted(first.last("inference")) == [float(n) for n in range(15, 25)]
    for n in range(25, 28):
        second.record("inference", float(n))
    assert sorted(second.last("inference")) == [float(n) for n in range(18, 28)]
    assert sorted(first.last("inference")) == [float(n) for n in range(18, 28)]


def test_redis_holds_no_more_than_the_limit(
    make_history: Callable[..., RedisLatencyHistory], redis_server: RedisServer
) -> None:
    histories = [make_history(limit=7) for _ in range(3)]
    for n in range(50):
        histories[n % 3].record("training", float(n))
        histories[n % 3].last("training")
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.llen(KEY_PREFIX + "training") == 7


@given(latencies=st.lists(st.floats(0.0, 1e9), min_size=1, max_size=20))
def test_latencies_come_back_exactly(redis_server: RedisServer, latencies: list[float]) -> None:
    history = RedisLatencyHistory(redis_server.url, 20)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushdb()
    for latency_ms in latencies:
        history.record("inference", latency_ms)
    assert sorted(history.last("inference")) == sorted(latencies)
    history.stop()


def test_the_thread_carries_latencies_to_redis_without_being_asked(
    make_history: Callable[..., RedisLatencyHistory], redis_server: RedisServer
) -> None:
    history = make_history()
    history.start()
    history.record("inference", 5.0)
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        deadline = time.monotonic() + 5
        while not client.llen(KEY_PREFIX + "inference") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.lrange(KEY_PREFIX + "inference", 0, -1) == ["5.0"]


def test_stopping_carries_off_what_is_buffered(
    make_history: Callable[..., RedisLatencyHistory], redis_server: RedisServer
) -> None:
    history = make_history()
    history.start()
    history.record("training", 5.0)
    history.stop()
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        assert client.lrange(KEY_PREFIX + "training", 0, -1) == ["5.0"]


def test_recording_from_many_threads_while_flushing_loses_nothing(
    make_history: Callable[..., RedisLatencyHistory],
) -> None:
    history = make_history(limit=4000)
    history.start()

    def record(worker: int) -> None:
        for n in range(500):
            history.record("inference", float(worker * 500 + n))
            if n % 100 == 0:
                history.last("training")

    threads = [threading.Thread(target=record, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(history.last("inference")) == [float(n) for n in range(4000)]


def test_while_redis_is_away_recording_goes_on_within_bounds_and_the_newest_arrive_later(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    history = RedisLatencyHistory(server.url, 5)
    history.start()
    history.record("inference", -1.0)
    assert history.last("inference") == [-1.0]
    server.stop()
    for n in range(1000):
        history.record("inference", float(n))
    with pytest.raises(LatencyStoreUnavailable, match="REDIS_URL"):
        history.last("inference")
    for n in range(1000, 1003):
        history.record("inference", float(n))
    with pytest.raises(LatencyStoreUnavailable):
        history.last("training")
    server.start()
    assert sorted(history.last("inference")) == [998.0, 999.0, 1000.0, 1001.0, 1002.0]
    history.stop()
    server.stop()


@pytest.mark.skipif(not RedisServer.is_real, reason="a frozen redis-server is wanted")
def test_a_frozen_redis_delays_neither_recording_nor_the_error_for_long(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    history = RedisLatencyHistory(server.url, 100)
    history.start()
    assert history.last("inference") == []
    server.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    for n in range(10_000):
        history.record("inference", float(n))
    assert time.monotonic() - started < 0.5
    with pytest.raises(LatencyStoreUnavailable):
        history.last("inference")
    assert time.monotonic() - started < 5
    server.send_signal(signal.SIGCONT)
    assert max(history.last("inference")) == 9999.0
    history.stop()
    server.stop()


def test_a_key_that_is_no_list_is_a_clear_error(
    make_history: Callable[..., RedisLatencyHistory], redis_server: RedisServer
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(KEY_PREFIX + "inference", "something else")
    with pytest.raises(LatencyStoreUnavailable, match="WRONGTYPE"):
        make_history().last("inference")


@pytest.mark.parametrize("url", ["not a url", "http://localhost", "redis://host:port"])
def test_a_url_that_is_not_of_redis_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        RedisLatencyHistory(url, 100)


# ---- metrics -------------------------------------------------------------------------------------------------


def test_metrics_have_no_label_for_each_series_and_no_label_from_a_client(client: httpx.Client, series_id: str) -> None:
    body = {"timestamps": [1, 2, 3], "values": [1.0, 2.0, 3.0]}
    strange = f"strange{random.Random(1).random()}"
    before = label_sets(client)
    for n in range(30):
        client.post(f"/fit/{series_id}.{n}", json=body)
        client.post(f"/predict/{series_id}.{n}?version={n}", json={"timestamp": 4, "value": 1})
        client.get(f"/series/{series_id}.{n}/versions/1")
        client.get(f"/{strange}/{n}")
        client.request(f"{strange}{n}".upper(), "/livez")
    metrics = client.get("/metrics").text
    assert series_id not in metrics
    assert strange not in metrics.lower()
    new = label_sets(client) - before
    assert len(new) < 150, new  # some routes and statuses, each with its buckets


def test_metrics_count_requests_by_route_and_status(client: httpx.Client, series_id: str) -> None:
    line = 'tidemark_requests_total{method="POST",route="/predict/{series_id}",status="404"}'
    before = value_of(client, line)
    for _ in range(3):
        assert client.post(f"/predict/{series_id}", json={"timestamp": 4, "value": 1}).status_code == 404
    assert value_of(client, line) == before + 3


def test_a_duration_is_observed_in_seconds() -> None:
    metrics = Metrics(ModelCache(1000).statistics)
    metrics.observe("POST", "/fit/{series_id}", 200, 0.2)
    text = metrics.render().decode()
    assert 'tidemark_request_duration_seconds_bucket{le="0.1",method="POST",route="/fit/{series_id}"} 0.0' in text
    assert 'tidemark_request_duration_seconds_bucket{le="0.25",method="POST",route="/fit/{series_id}"} 1.0' in text


def test_healthcheck_shows_the_last_successful_requests_only(
    serve: Callable[..., Tidemark], redis_server: RedisServer
) -> None:
    client = serve(REDIS_URL=redis_server.url, LATENCY_HISTORY_LIMIT="4").client
    nothing = {"avg": 0, "p95": 0}
    empty = client.get("/healthcheck").json()
    assert empty == {"series_trained": 0, "inference_latency_ms": nothing, "training_latency_ms": nothing}
    client.post("/fit/s", json={"timestamps": [1, 2], "values": [1, 2]})  # refused: too few points
    client.post("/predict/unknown", json={"timestamp": 4, "value": 1})  # 404
    assert client.get("/healthcheck").json() == empty
    client.post("/fit/s", json={"timestamps": [1, 2, 3], "values": [1, 2, 3]})
    for _ in range(9):
        client.post("/predict/s", json={"timestamp": 4, "value": 1})
    health = client.get("/healthcheck").json()
    assert health["series_trained"] == 1
    assert 0 < health["inference_latency_ms"]["avg"] < 1000
    assert health["training_latency_ms"]["avg"] == health["training_latency_ms"]["p95"] > 0
    with redis.Redis.from_url(redis_server.url) as stored:
        assert stored.llen(KEY_PREFIX + "inference") == 4


def label_sets(client: httpx.Client) -> set[str]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if line.startswith("tidemark_")}


def value_of(client: httpx.Client, line: str) -> float:
    values = [row.rpartition(" ")[2] for row in client.get("/metrics").text.splitlines() if row.startswith(line)]
    return float(values[0]) if values else 0.0
