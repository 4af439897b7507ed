"""/healthcheck, /livez, /readyz and /metrics, over HTTP."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.db import Database
from app.migrations import migrate
from app.telemetry import KEY_PREFIX, summarize
from tests.servers import RedisServer, Tidemark

FOUR_POINTS = {"timestamps": [0, 1, 2, 3], "values": [10.0, 10.5, 9.5, 10.0]}
A_POINT = {"timestamp": 4, "value": 13.0}
ZEROS = {"avg": 0, "p95": 0}
SOON_S = 10.0


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def health(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/healthcheck")
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"series_trained", "inference_latency_ms", "training_latency_ms"}
    return answer.json()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that a test may stop."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture(params=["local", "redis"])
def new_client(request: pytest.FixtureRequest, serve: Callable[..., Tidemark]) -> httpx.Client:
    """A service that nobody has used yet, without Redis and with one."""
    settings = {"LATENCY_HISTORY_LIMIT": "20"}
    if request.param == "redis":
        settings["REDIS_URL"] = request.getfixturevalue("own_redis").url
    return serve(**settings).client


# ---- p95 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latencies_ms", "p95"),
    [
        ([], 0),
        ([7], 7),
        ([1, 2], 2),
        (range(1, 11), 10),
        (range(1, 20), 19),
        (range(1, 21), 19),
        (range(1, 22), 20),
        (range(1, 41), 38),
        (range(100, 0, -1), 95),
        (range(1, 102), 96),
        ([1] * 95 + [9] * 5, 1),
        ([9] * 6 + [1] * 94, 9),
    ],
)
def test_p95_is_the_value_at_the_nearest_rank(latencies_ms: Any, p95: float) -> None:
    assert summarize(list(latencies_ms)).p95 == p95


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_p95_is_the_least_latency_that_95_percent_do_not_exceed(latencies_ms: list[float]) -> None:
    def share_within(limit: float) -> bool:
        return 100 * sum(latency <= limit for latency in latencies_ms) >= 95 * len(latencies_ms)

    summary = summarize(latencies_ms)
    assert summary.p95 == min(filter(share_within, latencies_ms))
    assert summary.avg == pytest.approx(sum(latencies_ms) / len(latencies_ms))


# ---- /healthcheck ----------------------------------------------------------------------------------------


def test_each_kind_of_successful_request_is_measured_apart(new_client: httpx.Client) -> None:
    new_client.post("/fit/a", json=FOUR_POINTS)
    fitted = health(new_client)
    assert fitted["inference_latency_ms"] == ZEROS
    assert 0 < fitted["training_latency_ms"]["avg"] == fitted["training_latency_ms"]["p95"] < 10_000
    new_client.post("/predict/a", json=A_POINT)
    both = health(new_client)
    assert both["training_latency_ms"] == fitted["training_latency_ms"]
    assert 0 < both["inference_latency_ms"]["avg"] == both["inference_latency_ms"]["p95"] < 10_000


def test_all_is_zero_before_the_first_request_that_succeeds(new_client: httpx.Client) -> None:
    zeros = {"series_trained": 0, "inference_latency_ms": ZEROS, "training_latency_ms": ZEROS}
    assert health(new_client) == zeros
    assert new_client.post("/fit/a", json={}).status_code == 422
    assert new_client.post("/predict/a", json=A_POINT).status_code == 404
    assert new_client.post("/predict/a..b", json=A_POINT).status_code == 422
    assert new_client.get("/series").status_code == 200
    time.sleep(0.2)
    assert health(new_client) == zeros


def test_series_trained_counts_the_series_that_have_a_version(serve: Callable[..., Tidemark]) -> None:
    new_client = serve().client

    def trained() -> int:
        return health(new_client)["series_trained"]

    new_client.post("/fit/a", json=FOUR_POINTS)
    new_client.post("/fit/a", json=FOUR_POINTS)
    assert trained() == 1
    new_client.post("/fit/b", json=FOUR_POINTS)
    assert trained() == 2
    new_client.delete("/series/a/versions/1")
    assert trained() == 2
    new_client.delete("/series/a/versions/2")
    new_client.delete("/series/b")
    assert trained() == 0


def test_the_last_latencies_of_all_replicas_are_summarized(
    serve: Callable[..., Tidemark], own_redis: RedisServer
) -> None:
    replicas = [serve(REDIS_URL=own_redis.url, LATENCY_HISTORY_LIMIT="20").client for _ in range(2)]
    with redis.Redis(port=own_redis.port) as store:
        store.lpush(f"{KEY_PREFIX}inference", *range(1000, 0, -1))  # newest first: 1, 2, 3 ...
        for replica in replicas:
            assert health(replica)["inference_latency_ms"] == {"avg": 10.5, "p95": 19}
        replicas[0].post("/fit/a", json=FOUR_POINTS)
        soon(lambda: health(replicas[1])["training_latency_ms"]["avg"] > 0)
        assert health(replicas[1])["training_latency_ms"] == health(replicas[0])["training_latency_ms"]
        for replica in replicas:
            for _ in range(15):
                replica.post("/predict/a", json=A_POINT)
        soon(lambda: store.llen(f"{KEY_PREFIX}inference") == 20)
    soon(lambda: health(replicas[0]) == health(replicas[1]))


def test_without_redis_fits_and_predictions_go_on_and_the_healthcheck_says_so(
    serve: Callable[..., Tidemark], own_redis: RedisServer
) -> None:
    client = serve(REDIS_URL=own_redis.url).client
    assert client.post("/fit/a", json=FOUR_POINTS).status_code == 200
    assert health(client)["training_latency_ms"]["avg"] > 0
    own_redis.stop()
    refused = client.get("/healthcheck")
    assert refused.status_code == 503
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["type"] == "/problems/latency-store-unavailable"
    assert "REDIS_URL" in refused.json()["detail"]
    assert client.post("/fit/a", json=FOUR_POINTS).json()["version"] == "2"
    assert client.post("/predict/a", json=A_POINT).json()["model_version"] == "2"
    assert client.get("/readyz").status_code == 200, "a replica without Redis serves all the same"
    own_redis.start()
    soon(lambda: client.get("/healthcheck").status_code == 200)
    soon(lambda: health(client)["inference_latency_ms"]["avg"] > 0)  # what was measured meanwhile is not lost


# ---- /livez and /readyz ----------------------------------------------------------------------------------


def test_a_running_service_is_alive_and_ready(client: httpx.Client) -> None:
    assert (client.get("/livez").status_code, client.get("/livez").json()) == (200, {"status": "alive"})
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "checks": {"database": "ok", "model_store": "ok", "training_data_store": "ok"},
    }


def not_ready(client: httpx.Client) -> dict[str, str]:
    """What readyz says of the parts that cannot be used; the process is alive all the same."""
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert client.get("/livez").status_code == 200
    return {name: reason for name, reason in answer.json()["checks"].items() if reason != "ok"}


@pytest.mark.parametrize(("folder", "check"), [("models", "model_store"), ("training", "training_data_store")])
def test_a_store_that_cannot_be_written_is_named(
    serve: Callable[..., Tidemark], tmp_path: Path, folder: str, check: str
) -> None:
    client = serve().client
    client.post("/fit/a", json=FOUR_POINTS)
    store = tmp_path / "data" / folder
    shutil.move(store, tmp_path / "aside")
    store.write_text("a file where the folder was")  # a change of permissions would not stop root
    (reason,) = not_ready(client).items()
    assert reason[0] == check
    assert str(store) in reason[1]
    refused = client.post("/fit/a", json=FOUR_POINTS | {"values": [1, 2, 3, 4]})
    assert refused.status_code == 503
    assert refused.json()["type"] == "/problems/artifact-store-unavailable"
    assert int(refused.headers["Retry-After"]) > 0
    store.unlink()
    shutil.move(tmp_path / "aside", store)
    assert client.get("/readyz").status_code == 200
    assert client.post("/fit/a", json=FOUR_POINTS).json()["version"] == "2", "the refused fit took no number"


def test_a_schema_of_another_release_is_named(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    client = serve().client
    assert client.get("/readyz").status_code == 200
    with sqlite3.connect(tmp_path / "data" / "tidemark.db") as database:
        (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = 'another'")
    database.close()
    assert "another, which a later release made" in not_ready(client)["database"]
    with sqlite3.connect(tmp_path / "data" / "tidemark.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    database.close()
    assert client.get("/readyz").status_code == 200


def test_without_its_database_a_service_predicts_what_it_knows_and_says_what_is_wrong(
    serve: Callable[..., Tidemark], new_postgres_url: str, postgres_server: str
) -> None:
    database = Database(new_postgres_url, timeout_s=10)
    migrate(database)
    database.close()
    client = serve(DATABASE_URL=new_postgres_url, DATABASE_TIMEOUT_S="2").client
    client.post("/fit/a", json=FOUR_POINTS)
    known = client.post("/predict/a?version=1", json=A_POINT)
    name = new_postgres_url.partition("?")[0].rpartition("/")[2]
    connection = psycopg2.connect(postgres_server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        assert "database" in not_ready(client)
        for method, path in (("POST", "/fit/a"), ("GET", "/series"), ("GET", "/healthcheck"), ("POST", "/predict/b")):
            body = FOUR_POINTS if path == "/fit/a" else A_POINT
            refused = client.request(method, path, json=body)
            assert refused.status_code == 503, path
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.json()["type"] == "/problems/database-unavailable"
        assert client.post("/predict/a?version=1", json=A_POINT).content == known.content
        cursor.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')
    connection.close()
    soon(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/fit/a", json=FOUR_POINTS).json()["version"] == "2"


# ---- /metrics --------------------------------------------------------------------------------------------


def metrics(client: httpx.Client) -> dict[tuple[str, str, str, str], float]:
    """Requests counted, by what is counted, method, route and status; and the seconds measured."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = (sample for family in text_string_to_metric_families(answer.text) for sample in family.samples)
    return {
        (s.name.removeprefix("tidemark_"), s.labels["method"], s.labels["route"], s.labels.get("status", "")): s.value
        for s in samples
        if "route" in s.labels and "le" not in s.labels
    }


def test_requests_are_counted_by_route_and_status(client: httpx.Client, series_id: str) -> None:
    client.post(f"/fit/{series_id}", json=FOUR_POINTS)
    before = metrics(client)
    for _ in range(5):
        client.post(f"/predict/{series_id}", json=A_POINT)
    client.post(f"/predict/{series_id}", json={})
    client.get(f"/series/{series_id}/versions/7")
    after = metrics(client)
    added = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    predict, version = "/predict/{series_id}", "/series/{series_id}/versions/{version}"
    assert added[("requests_total", "POST", predict, "200")] == 5
    assert added[("requests_total", "POST", predict, "422")] == 1
    assert added[("requests_total", "GET", version, "404")] == 1
    assert added[("request_duration_seconds_count", "POST", predict, "")] == 6
    assert 0 < added[("request_duration_seconds_sum", "POST", predict, "")] < 60


def test_no_label_takes_a_value_from_a_client(client: httpx.Client, series_id: str) -> None:
    client.post(f"/fit/{series_id}", json=FOUR_POINTS)
    client.put(f"/series/{series_id}/aliases/{series_id}", json={"version": "1"})
    client.get(f"/{series_id}/nowhere")
    client.get("/series", params={"search": series_id})
    client.request(f"X{series_id.replace('.', '-')}", "/series")
    client.request("PROPFIND", f"/{series_id}")
    text = client.get("/metrics").text
    assert series_id not in text
    assert series_id.replace(".", "-") not in text
    assert "PROPFIND" not in text
    known = set(client.get("/openapi.json").json()["paths"]) | {"(unmatched)"}
    documented = {route for name, _, route, _ in metrics(client) if name == "requests_total"}
    assert {"/fit/{series_id}", "(unmatched)"} <= documented
    assert all("{" in route or route.count("/") <= 2 for route in documented - known)
