"""Each way in which PostgreSQL fails, under load and without a restart of ours: what goes on, what is said, when."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg2
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from app.bootstrap import Services
from app.db import Database
from app.errors import DatabaseUnavailable
from app.migrations import migrate
from tests.proxies import SlowProxy, socket_of, through
from tests.servers import PostgresServer, Tidemark, create_database, postgres_folder, serve_tidemark
from tests.test_crashes import list_versions
from tests.test_outages import POINT, eventually, is_unavailable, predict

TIMEOUT_S = 1
ANSWERED_S = TIMEOUT_S + 3.0
"""What was promised, and what a busy machine may add: hanging threads would add further multiples of TIMEOUT_S."""
AWAY_S = 2.0
MAX_CONNECTIONS = 40
PATIENCE_S = 10.0
"""How long fits are repeated that are not answered when all should be well."""


def fit(server: Tidemark, series_id: str) -> httpx.Response:
    body = {"timestamps": [1, 2, 3], "values": [1.0, 2.0, 1.0], "detector": "mean_std"}
    return server.client.post(f"/fit/{series_id}", json=body)


class Broken(NamedTuple):
    """A service on a PostgreSQL that can be reached through a network that can be broken."""

    server: Tidemark
    postgres: PostgresServer
    proxy: SlowProxy


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """The same service for all tests, since none of them may leave it worse than it was."""
    folder = tmp_path_factory.mktemp("broken")
    postgres = PostgresServer(postgres_folder())
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    connection.cursor().execute(f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
    connection.close()
    postgres.stop()
    postgres.start()
    proxy = SlowProxy(socket_of(postgres.url))
    url = through(proxy, create_database(postgres.url, "broken"))
    database = Database(url, timeout_s=10)
    migrate(database)
    database.close()
    with serve_tidemark(folder, {"DATABASE_URL": url, "DATABASE_TIMEOUT_S": str(TIMEOUT_S)}) as server:
        for series_id in ("s", "s", *(f"cold-{way}" for way in (*WAYS, "slow", "cut"))):
            assert fit(server, series_id).status_code == 200
        yield Broken(server, postgres, proxy)
    proxy.close()
    postgres.delete()


def leave_no_connection(broken: Broken) -> Callable[[], None]:
    """Others take each connection that there is, ours too, which do not come back before."""
    stack = ExitStack()
    broken.proxy.stall()
    stack.callback(broken.proxy.flow)
    taken = [psycopg2.connect(broken.postgres.url)]
    stack.callback(taken[0].close)
    taken[0].autocommit = True
    ends_at = time.monotonic() + 30
    while len(taken) < MAX_CONNECTIONS and time.monotonic() < ends_at:
        try:
            taken.append(psycopg2.connect(broken.postgres.url))
            stack.callback(taken[-1].close)
        except psycopg2.OperationalError:
            ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'broken'"
            taken[0].cursor().execute(ours)
            time.sleep(0.01)
    broken.proxy.flow()
    assert len(taken) == MAX_CONNECTIONS
    return stack.close


def stop(broken: Broken) -> Callable[[], None]:
    broken.postgres.stop()
    return broken.postgres.start


def crash(broken: Broken) -> Callable[[], None]:
    broken.postgres.crash()
    return broken.postgres.start


def kill(broken: Broken) -> Callable[[], None]:
    broken.postgres.kill()
    return broken.postgres.start


def freeze(broken: Broken) -> Callable[[], None]:
    broken.postgres.freeze()
    return broken.postgres.thaw


def stall(broken: Broken) -> Callable[[], None]:
    broken.proxy.stall()
    return broken.proxy.flow


WAYS: Mapping[str, Callable[[Broken], Callable[[], None]]] = {
    "stopped": stop,
    "crashed": crash,
    "killed": kill,
    "frozen": freeze,
    "unreachable": stall,
    "without-connections": leave_no_connection,
}
OTHERS = (
    ("GET", "/series", None),
    ("GET", "/healthcheck", None),
    ("GET", "/series/s/versions/1", None),
    ("PUT", "/series/s/aliases/prod", {"version": "1"}),
    ("DELETE", "/series/unknown", None),
    ("POST", "/predict/unknown", POINT),
)


class Load:
    """Clients that fit with keys, and ask again until they hear of the version; and others that ask for all else."""

    def __init__(self, server: Tidemark, name: str) -> None:
        self.faults: list[str] = []
        self.statuses: set[int] = set()
        self.made: dict[str, list[str]] = {f"keyed-{name}-{n}": [] for n in range(2)}
        self.longest_s = 0.0
        self._server = server
        self._ending = threading.Event()
        self._given_up = threading.Event()
        self._threads = [threading.Thread(target=self._fit, args=(series_id,)) for series_id in self.made]
        self._threads += [threading.Thread(target=self._ask, args=(n,)) for n in range(12)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in self._threads:
                thread.join(PATIENCE_S)
            self._given_up.set()
            for thread in self._threads:
                thread.join()

    def is_making(self) -> Callable[[], bool]:
        """Whether each fitting client made two more versions since this call."""
        before = {series_id: len(versions) for series_id, versions in self.made.items()}
        return lambda: all(len(self.made[series_id]) >= count + 2 for series_id, count in before.items())

    def _fit(self, series_id: str) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30.0) as client:
            while not self._ending.is_set():
                n = len(self.made[series_id])
                body = {"timestamps": [1, 2, 3], "values": [n, n + 1, n], "detector": "mean_std"}
                while (answer := self._timed(client, "POST", f"/fit/{series_id}", body, f"key-{n}")).status_code == 503:
                    if self._given_up.wait(0.02):
                        break
                if answer.status_code != 200:
                    self.faults.append(answer.text)
                    return
                self.made[series_id].append(answer.json()["version"])

    def _ask(self, first: int) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30.0) as client:
            n = first
            while not self._ending.wait(0.02):
                answer = self._timed(client, *OTHERS[n % len(OTHERS)])
                self.statuses.add(answer.status_code)
                n += 1

    def _timed(
        self, client: httpx.Client, method: str, path: str, body: object, key: str | None = None
    ) -> httpx.Response:
        started = time.monotonic()
        answer = client.request(method, path, json=body, headers={"Idempotency-Key": key} if key else {})
        took_s = time.monotonic() - started
        self.longest_s = max(self.longest_s, took_s)
        if took_s > ANSWERED_S:
            self.faults.append(f"{method} {path}: {answer.status_code} after {took_s:.1f} s")
        if answer.status_code == 503 and int(answer.headers["retry-after"]) < 1:
            self.faults.append(f"{method} {path}: no Retry-After")
        return answer


def predict_for(server: Tidemark, seconds: float) -> list[float]:
    """Warm predictions, each of them answered as ever; their latencies in ms."""
    expected = predict(server, version="1").content
    latencies_ms = []
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        started = time.perf_counter()
        answer = server.client.post("/predict/s?version=1", json=POINT)
        latencies_ms.append((time.perf_counter() - started) * 1000)
        assert (answer.status_code, answer.content) == (200, expected)
        time.sleep(0.002)
    return latencies_ms


@pytest.mark.parametrize("way", WAYS)
def test_predictions_go_on_all_else_is_503_in_time_and_no_fit_is_lost_or_doubled(
    broken: Broken, way: str, record_property: Callable[[str, object], None]
) -> None:
    server = broken.server
    load = Load(server, way)
    with load.running():
        eventually(load.is_making())
        usual_ms = statistics.median(predict_for(server, 1.0))
        load.statuses.clear()
        mend = WAYS[way](broken)
        try:
            latencies_ms = predict_for(server, AWAY_S)
            assert 503 in load.statuses
            load.statuses.clear()
            is_unavailable(predict(server, f"cold-{way}"), "database-unavailable")
            latencies_ms += predict_for(server, 0.5)
            assert load.statuses == {503}
            assert server.client.get("/livez").status_code == 200
            assert server.client.get("/metrics").status_code == 200
        finally:
            mend()
        recovered_s = eventually(load.is_making())
        assert predict(server, f"cold-{way}").status_code == 200
    assert load.faults == []
    # compared with the same load; a prediction that waited for the database would take 1000 ms
    during_ms = statistics.median(latencies_ms)
    assert during_ms < 3 * usual_ms + 5
    print(f"{way}: prediction {usual_ms:.1f} ms, then {during_ms:.1f}, at most {max(latencies_ms):.0f};", end=" ")
    print(f"all else within {load.longest_s:.1f} s; recovered after {recovered_s:.1f} s")
    record_property("longest_s", load.longest_s)
    for series_id, versions in load.made.items():
        assert versions == [str(n) for n in range(1, len(versions) + 1)]
        assert list_versions(server.client, series_id) == list(range(len(versions), 0, -1))
    assert server.client.get("/readyz").status_code == 200
    assert "Traceback" not in server.log.read_text()


def test_a_network_that_is_cut_again_and_again_loses_and_doubles_no_fit(broken: Broken) -> None:
    load = Load(broken.server, "cut")
    with load.running():
        for _ in range(10):
            broken.proxy.cut()
            time.sleep(0.1)
        eventually(load.is_making())
    assert load.faults == []
    for series_id, versions in load.made.items():
        assert list_versions(broken.server.client, series_id) == list(range(len(versions), 0, -1))


def test_a_slow_database_slows_down_no_warm_prediction_and_fails_nothing_that_is_in_time(broken: Broken) -> None:
    usual_ms = statistics.median(predict_for(broken.server, 0.5))
    broken.proxy.delay_s = 0.1
    try:
        during_ms = statistics.median(predict_for(broken.server, 0.5))
        started = time.monotonic()
        assert fit(broken.server, "slow").status_code == 200
        assert time.monotonic() - started > 0.3  # some answers of the database, each of them late
        assert predict(broken.server, "cold-slow").status_code == 200
    finally:
        broken.proxy.delay_s = 0.0
    assert during_ms < 3 * usual_ms + 5


def test_who_waits_for_a_statement_of_a_frozen_database_is_told_in_time_and_those_after_him_at_once(
    broken: Broken,
) -> None:
    """Inside a transaction too, whose connection was sound when it was taken."""
    database = Database(through(broken.proxy, broken.postgres.url), timeout_s=TIMEOUT_S)

    def wait_inside() -> float:
        with database.write() as connection:
            broken.postgres.freeze()
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="did not answer within"), database._failing_clearly():
                connection.exec_driver_sql("SELECT 1")
            waited_s = time.monotonic() - started
            raise DatabaseUnavailable(str(waited_s))

    try:
        with pytest.raises(DatabaseUnavailable) as raised:
            wait_inside()
        assert TIMEOUT_S < float(raised.value.detail) < ANSWERED_S
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(DatabaseUnavailable, match="has not answered for"), database.read():
                pass
        assert time.monotonic() - started < TIMEOUT_S
    finally:
        broken.postgres.thaw()

    def answers() -> bool:
        with suppress(DatabaseUnavailable), database.read() as connection:
            return connection.exec_driver_sql("SELECT 1").scalar() == 1
        return False

    eventually(answers, within_s=5)
    database.close()


SILENT = [psycopg2.OperationalError(""), psycopg2.DatabaseError(""), psycopg2.DatabaseError("\n")]


@pytest.mark.parametrize("error", SILENT)
def test_a_connection_that_breaks_without_a_word_is_503_like_any_other(
    build_services: Callable[..., Services], error: psycopg2.Error, tmp_path: Path
) -> None:
    database = build_services(database_url=f"sqlite:///{tmp_path / 'any.db'}").database
    with pytest.raises(DatabaseUnavailable, match="gave no reason"), database.read():
        raise DBAPIError.instance("SELECT 1", None, error, psycopg2.Error, dialect=postgresql.dialect())
    with pytest.raises(DatabaseUnavailable, match="gave no reason"), database.read():
        raise psycopg2.OperationalError("")
