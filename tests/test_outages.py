"""What goes on, what is said and what comes back by itself when PostgreSQL, Redis or the disk is away."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
import redis

from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import DatabaseUnavailable
from app.migrations import migrate
from app.telemetry import KEY_PREFIX
from app.versions import LATEST
from tests.crashing import history
from tests.fleets import publish_many
from tests.servers import PostgresServer, RedisServer, Tidemark, create_database, postgres_folder, run_tidemark

BODY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
POINT = {"timestamp": 5, "value": 13.0}
REAL_REDIS = pytest.mark.skipif(not RedisServer.is_real, reason="a redis-server that can be frozen is wanted")


def eventually(holds: Callable[[], bool], within_s: float = 15.0) -> float:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < within_s, f"not within {within_s} s"
        time.sleep(0.05)
    return time.monotonic() - started


def fit(server: Tidemark, series_id: str = "s", **headers: str) -> httpx.Response:
    return server.client.post(f"/fit/{series_id}", json=BODY, headers=headers)


def predict(server: Tidemark, series_id: str = "s", version: str = "latest") -> httpx.Response:
    return server.client.post(f"/predict/{series_id}?version={version}", json=POINT)


def is_unavailable(answer: httpx.Response, kind: str) -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"].endswith(kind)
    assert len(answer.json()["detail"]) > 20


# ---- PostgreSQL ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> PostgresServer:
    """A PostgreSQL server of this module's own, to be stopped and started; it ends with the worker."""
    return PostgresServer(postgres_folder())


@pytest.fixture
def server(
    postgres: PostgresServer, serve: Callable[..., Tidemark], redis_server: RedisServer, tmp_path: Path
) -> Iterator[Tidemark]:
    """A service on that PostgreSQL, with one series of two versions in memory and one that is not."""
    settings = {"DATABASE_URL": create_database(postgres.url, "outages"), "DATABASE_TIMEOUT_S": "2"}
    assert run_tidemark(tmp_path, "migrate", settings=settings).returncode == 0
    running = serve(**settings, REDIS_URL=redis_server.url)
    for series_id in ("s", "s", "cold"):
        assert fit(running, series_id).status_code == 200
    running.client.put("/series/s/aliases/prod", json={"version": "1"}).raise_for_status()
    for version in ("latest", "1", "@prod"):
        assert predict(running, version=version).status_code == 200
    time.sleep(0.3)  # the feed has been read to its end
    assert predict(running, version="@prod").status_code == 200
    assert predict(running).status_code == 200
    yield running
    postgres.start()


def test_without_postgresql_warm_predictions_go_on_and_all_else_is_503_until_it_is_back(
    server: Tidemark, postgres: PostgresServer
) -> None:
    before = {version: predict(server, version=version).json() for version in ("latest", "1", "@prod")}
    postgres.stop()
    for _ in range(100):  # no query for each of them, and the failing feed makes nothing cold
        for version, judged in before.items():
            assert predict(server, version=version).json() == judged
    time.sleep(0.5)
    assert predict(server).json() == before["latest"]

    is_unavailable(fit(server), "database-unavailable")
    is_unavailable(fit(server, **{"Idempotency-Key": "k"}), "database-unavailable")
    is_unavailable(predict(server, "cold"), "database-unavailable")
    is_unavailable(predict(server, "unknown"), "database-unavailable")
    for path in ("/series", "/series/s", "/series/s/versions", "/series/s/versions/1", "/healthcheck"):
        is_unavailable(server.client.get(path), "database-unavailable")
    is_unavailable(server.client.delete("/series/s"), "database-unavailable")
    is_unavailable(server.client.put("/series/s/aliases/prod", json={"version": "2"}), "database-unavailable")
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] != "ok"
    assert ready.json()["checks"]["model_store"] == "ok"
    assert server.client.get("/livez").status_code == 200
    assert server.client.get("/metrics").status_code == 200
    assert "Traceback" not in server.log.read_text()

    postgres.start()
    eventually(lambda: fit(server).status_code == 200, within_s=5)
    assert predict(server).json()["model_version"] == "3"
    assert predict(server, "cold").status_code == 200
    assert predict(server, version="@prod").json()["model_version"] == "1"
    assert server.client.get("/readyz").status_code == 200
    assert [v["version"] for v in server.client.get("/series/s/versions").json()["versions"]] == ["3", "2", "1"]


def test_a_postgresql_restarted_between_two_requests_fails_neither(
    postgres: PostgresServer, build_services: Callable[..., Services]
) -> None:
    """Connections that broke while they were idle are replaced, not handed out."""
    services = build_services(database_url=create_database(postgres.url, "restarted"))
    migrate(services.database)
    for n in range(1, 4):
        assert services.training.fit("s", history(n), MeanStd, MeanStdParams()).version == n
        assert services.registry.catalog.get_series("s")[1] == n
        postgres.stop()
        postgres.start()


def test_bulk_fits_fail_clearly_while_postgresql_is_away_and_work_again_without_a_restart(
    postgres: PostgresServer, build_services: Callable[..., Services]
) -> None:
    services = build_services(database_url=create_database(postgres.url, "packs"), database_timeout_s=2)
    migrate(services.database)
    publish_many(services, ["a", "b"])
    postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        publish_many(services, ["a", "b"])
    postgres.start()
    assert [version.version for version in publish_many(services, ["a", "b"])] == [2, 2]


def test_loads_that_wait_while_postgresql_goes_away_all_fail_clearly_and_the_next_ones_work(
    postgres: PostgresServer, build_services: Callable[..., Services]
) -> None:
    services = build_services(database_url=create_database(postgres.url, "loads"), database_timeout_s=2)
    migrate(services.database)
    names = [f"s{n}" for n in range(50)]
    publish_many(services, names)
    postgres.stop()
    begun = [services.registry.begin_load(name, selector) for name in names for selector in (LATEST, 1, "prod")]
    for load in begun:
        assert isinstance(load.exception(10), DatabaseUnavailable)
    postgres.start()
    begun = [services.registry.begin_load(name, LATEST) for name in names]
    assert {load.result(10).version for load in begun} == {1}


def test_fits_during_a_crash_of_postgresql_are_acknowledged_only_when_they_are_kept(
    server: Tidemark, postgres: PostgresServer
) -> None:
    acknowledged: list[int] = []
    statuses: set[int] = set()
    stop = threading.Event()

    def fit_over_and_over() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/fit/busy", json=BODY)
                statuses.add(answer.status_code)
                if answer.status_code == 200:
                    acknowledged.append(int(answer.json()["version"]))

    threads = [threading.Thread(target=fit_over_and_over) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 20)
    postgres.crash()
    eventually(lambda: 503 in statuses)
    postgres.start()
    kept = len(acknowledged)
    eventually(lambda: len(acknowledged) > kept + 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == {200, 503}
    assert len(acknowledged) == len(set(acknowledged))
    listed = server.client.get("/series/busy/versions?limit=1000").json()["versions"]
    numbers = [int(version["version"]) for version in listed]
    last = int(server.client.get("/series/busy").json()["latest_version"])
    assert numbers == list(range(last, max(0, last - 1000), -1))
    assert max(acknowledged) <= last


def test_a_table_locked_by_someone_else_is_503_after_the_timeout_and_predictions_go_on(
    server: Tidemark, postgres: PostgresServer
) -> None:
    with psycopg2.connect(postgres.url.replace("/postgres?", "/outages?")) as locking:
        locking.cursor().execute("LOCK TABLE versions IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        is_unavailable(fit(server), "database-unavailable")
        assert 1 < time.monotonic() - started < 6
        assert predict(server).status_code == 200
        locking.rollback()
    locking.close()
    assert fit(server).status_code == 200


def test_sigterm_ends_the_server_within_10_s_while_postgresql_is_away(
    server: Tidemark, postgres: PostgresServer
) -> None:
    postgres.stop()
    fit(server)
    server.process.terminate()
    assert server.process.wait(10) in {0, -signal.SIGTERM}
    assert "Traceback" not in server.log.read_text()


# ---- Redis ---------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server to be stopped, frozen and started."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()


def test_without_redis_fit_and_predict_go_on_and_healthcheck_is_503_until_it_is_back(
    serve: Callable[..., Tidemark], own_redis: RedisServer
) -> None:
    server = serve(REDIS_URL=own_redis.url)
    assert fit(server).status_code == 200
    assert server.client.get("/healthcheck").status_code == 200
    own_redis.stop()
    for _ in range(20):
        assert fit(server).status_code == 200
        assert predict(server).status_code == 200
    is_unavailable(server.client.get("/healthcheck"), "latency-store-unavailable")
    assert server.client.get("/readyz").status_code == 200
    own_redis.start()
    health = server.client.get("/healthcheck")
    assert health.status_code == 200
    assert health.json()["inference_latency_ms"]["avg"] > 0  # what was buffered meanwhile


@REAL_REDIS
def test_a_frozen_redis_slows_nothing_down_but_the_healthcheck(
    serve: Callable[..., Tidemark], own_redis: RedisServer
) -> None:
    server = serve(REDIS_URL=own_redis.url)
    assert fit(server).status_code == 200
    assert predict(server).status_code == 200
    own_redis.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(300):
        assert predict(server).status_code == 200
    for _ in range(10):
        assert fit(server).status_code == 200
    assert time.monotonic() - started < 5
    started = time.monotonic()
    is_unavailable(server.client.get("/healthcheck"), "latency-store-unavailable")
    assert time.monotonic() - started < 6
    own_redis.send_signal(signal.SIGCONT)
    eventually(lambda: server.client.get("/healthcheck").status_code == 200)


def test_a_service_started_before_redis_works_and_finds_it_later(
    serve: Callable[..., Tidemark], own_redis: RedisServer
) -> None:
    own_redis.stop()
    server = serve(REDIS_URL=own_redis.url)
    assert fit(server).status_code == 200
    is_unavailable(server.client.get("/healthcheck"), "latency-store-unavailable")
    own_redis.start()
    assert server.client.get("/healthcheck").json()["training_latency_ms"]["avg"] > 0


def test_sigterm_ends_the_server_within_10_s_and_its_latencies_are_in_redis(
    serve: Callable[..., Tidemark], own_redis: RedisServer
) -> None:
    server = serve(REDIS_URL=own_redis.url)
    fit(server)
    for _ in range(30):
        predict(server)
    with httpx.Client(base_url=server.url) as idle:  # a connection that is kept alive holds nothing up
        idle.get("/livez")
        server.process.terminate()
        server.process.wait(10)
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.llen(KEY_PREFIX + "inference") == 30
        assert client.llen(KEY_PREFIX + "training") == 1
    assert "Traceback" not in server.log.read_text()


# ---- the disk ------------------------------------------------------------------------------------------------


def test_without_its_folder_fits_are_503_and_warm_predictions_go_on_until_it_is_back(
    serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    server = serve()
    fit(server)
    predict(server)
    models = tmp_path / "data/models"
    models.rename(tmp_path / "away")
    models.touch()  # even root cannot write below a file
    assert predict(server).status_code == 200
    is_unavailable(fit(server), "artifact-store-unavailable")
    is_unavailable(fit(server, **{"Idempotency-Key": "k"}), "artifact-store-unavailable")
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert str(models) in ready.json()["checks"]["model_store"]
    assert ready.json()["checks"]["training_data_store"] == "ok"
    models.unlink()
    (tmp_path / "away").rename(models)
    assert server.client.get("/readyz").status_code == 200
    assert fit(server, **{"Idempotency-Key": "k"}).json()["version"] == "2"
