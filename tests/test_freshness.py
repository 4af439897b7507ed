"""Two services on one PostgreSQL, which is restarted: what one answers, the other one says within 250 ms."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.db import Database
from app.migrations import migrate
from tests.servers import PostgresServer, Tidemark, create_database, postgres_folder, serve_tidemark

BOUND_S = 0.25
PATIENCE_S = 10.0
CHANGES = 100
POINT = {"timestamp": 5, "value": 0.0}
MISSING = {404, 410}

Seen = Callable[[], bool]


@pytest.fixture(scope="module")
def postgres() -> PostgresServer:
    """A PostgreSQL server of this module's own, to be stopped and started; it ends with the worker."""
    return PostgresServer(postgres_folder())


@pytest.fixture
def replicas(postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[Tidemark, Tidemark]]:
    """Two services on that PostgreSQL and the same folder."""
    settings = {"DATABASE_URL": create_database(postgres.url, "freshness"), "DATA_DIR": str(tmp_path / "data")}
    settings["DATABASE_TIMEOUT_S"] = "2"
    database = Database(settings["DATABASE_URL"], timeout_s=10)
    migrate(database)
    database.close()
    with ExitStack() as stack:
        one, two = (stack.enter_context(serve_tidemark(tmp_path / name, settings)) for name in ("one", "two"))
        yield one, two
        postgres.start()


def fit(server: Tidemark, series_id: str, level: float = 10.0) -> httpx.Response:
    values = [level, level + 1, level, level + 1]
    return server.client.post(f"/fit/{series_id}", json={"timestamps": [1, 2, 3, 4], "values": values})


def judge(server: Tidemark, series_id: str, version: object = "latest") -> httpx.Response:
    return server.client.post(f"/predict/{series_id}?version={version}", json=POINT)


def says(server: Tidemark, series_id: str, selector: object, version: int | None) -> bool:
    """Whether this is the version that it judges by; None for no version any more."""
    answer = judge(server, series_id, selector)
    if version is None:
        return answer.status_code in MISSING
    return answer.status_code == 200 and answer.json()["model_version"] == str(version)


def change(here: Tidemark, there: Tidemark, series_id: str, number: int) -> Seen:
    """Answered by one: a fit, a move of an alias, a deletion. Whether the other one says so."""
    kind = number % 4
    if kind in {0, 1}:
        answer = fit(here, series_id, number)
        version = int(answer.raise_for_status().json()["version"])
        return lambda: says(there, series_id, "latest", version)
    latest = int(here.client.get(f"/series/{series_id}").json()["latest_version"])
    if kind == 2:
        here.client.put(f"/series/{series_id}/aliases/prod", json={"version": latest - 1}).raise_for_status()
        return lambda: says(there, series_id, "@prod", latest - 1)
    here.client.delete(f"/series/{series_id}/versions/{latest}").raise_for_status()
    return lambda: says(there, series_id, latest, None) and says(there, series_id, "latest", latest - 1)


def delays_of(replicas: tuple[Tidemark, Tidemark], series_id: str, changes: int) -> list[float]:
    """Seconds from an answer until the other service says the same, in order."""
    delays = []
    for number in range(changes):
        here, there = replicas if number // 4 % 2 else replicas[::-1]
        for selector in ("latest", "@prod"):  # in memory there, so that it would go on with what was
            judge(there, series_id, selector)
        is_seen = change(here, there, series_id, number)
        started = time.monotonic()
        while not is_seen():
            assert time.monotonic() - started < PATIENCE_S, f"change {number} is not seen"
            time.sleep(0.002)
        delays.append(time.monotonic() - started)
    return sorted(delays)


def p99_of(replicas: tuple[Tidemark, Tidemark], series_id: str, changes: int) -> float:
    """Of the best of three rounds at most: whatever else the machine does can only add to it."""
    rounds = []
    while not rounds or (rounds[-1] >= BOUND_S and len(rounds) < 3):
        delays = delays_of(replicas, series_id, changes)
        rounds.append(delays[-2])
        print(f"seen elsewhere after: median {delays[changes // 2] * 1000:.0f} ms, p99 {delays[-2] * 1000:.0f} ms")
    return min(rounds)


def test_each_answered_change_is_seen_by_the_other_service_in_time_also_after_a_restart_of_the_database(
    replicas: tuple[Tidemark, Tidemark],
    postgres: PostgresServer,
    series_id: str,
    record_property: Callable[[str, object], None],
) -> None:
    here, there = replicas
    for _ in range(2):
        fit(here, series_id).raise_for_status()
    here.client.put(f"/series/{series_id}/aliases/prod", json={"version": 1}).raise_for_status()
    p99_s = p99_of(replicas, series_id, CHANGES)
    record_property("p99_ms", round(p99_s * 1000))
    assert p99_s < BOUND_S

    selectors = ("latest", "@prod")
    warm = [[judge(server, series_id, selector).json() for selector in selectors] for server in replicas]
    time.sleep(0.3)  # the feed has been read to its end
    assert warm == [[judge(server, series_id, selector).json() for selector in selectors] for server in replicas]
    postgres.stop()
    for _ in range(20):
        assert warm == [[judge(server, series_id, selector).json() for selector in selectors] for server in replicas]
    assert fit(here, series_id).status_code == 503
    time.sleep(0.5)  # the feed has failed many times
    assert warm == [[judge(server, series_id, selector).json() for selector in selectors] for server in replicas]

    postgres.start()
    started = time.monotonic()
    while fit(here, series_id).status_code != 200 or fit(there, series_id).status_code != 200:
        assert time.monotonic() - started < PATIENCE_S
        time.sleep(0.05)
    assert p99_of(replicas, series_id, CHANGES // 4) < BOUND_S
    deleted = time.monotonic()
    here.client.delete(f"/series/{series_id}").raise_for_status()
    while not says(there, series_id, "latest", None):
        assert time.monotonic() - deleted < PATIENCE_S
