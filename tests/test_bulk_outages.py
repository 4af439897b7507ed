"""A stream of fits while the database is away, and a server that is killed in the middle of one."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import httpx
import pytest

from app.db import Database
from app.migrations import migrate
from tests.servers import PostgresServer, Tidemark, create_database, postgres_folder
from tests.streaming import HISTORY, Answer, Duplex, body_of, open_duplex, send_lines
from tests.test_crashes import list_versions

POINT = {"timestamp": 5, "value": 13.0}


@pytest.fixture(scope="module")
def postgres() -> PostgresServer:
    """A PostgreSQL server of this module's own, to be stopped and started; it ends with the worker."""
    return PostgresServer(postgres_folder())


@pytest.fixture
def server(postgres: PostgresServer, serve: Callable[..., Tidemark]) -> Iterator[Tidemark]:
    """A service on that PostgreSQL."""
    settings = {"DATABASE_URL": create_database(postgres.url, "bulk"), "DATABASE_TIMEOUT_S": "2"}
    database = Database(settings["DATABASE_URL"], timeout_s=10)
    migrate(database)
    database.close()
    yield serve(**settings)
    postgres.start()


def fit_line(series_id: str, level: float = 10.0) -> dict[str, Any]:
    return HISTORY | {"series_id": series_id, "values": [level, level + 1, level, level + 1]}


def ask(stream: Duplex, *lines: object) -> list[Answer]:
    stream.send(body_of(lines))
    return [stream.line() for _ in lines]


def test_lines_are_503_while_postgresql_is_away_and_the_streams_go_on_when_it_is_back(
    server: Tidemark, postgres: PostgresServer
) -> None:
    fit, judge = fit_line("a"), {"series_id": "a"} | POINT
    cold = {"series_id": "cold"} | POINT
    with open_duplex(server.url, "/fit") as fits, open_duplex(server.url, "/predict") as predictions:
        assert [answer["version"] for answer in ask(fits, fit, fit_line("cold"), fit)] == ["1", "1", "2"]
        time.sleep(0.3)  # the feed has been read to its end
        (warm,) = ask(predictions, judge)
        postgres.stop()
        refused = ask(fits, fit, "no object", fit_line("b"))
        assert [answer["status"] for answer in refused] == [503, 422, 503]
        assert [answer["line"] for answer in refused] == [4, 5, 6]
        assert refused[0]["type"] == "/problems/database-unavailable"
        assert [answer["series_id"] for answer in refused] == ["a", None, "b"]
        judged = ask(predictions, judge, cold, judge)
        assert [answer["status"] for answer in judged] == [200, 503, 200]
        assert judged[::2] == [warm, warm]
        postgres.start()
        deadline = time.monotonic() + 10
        while (answer := ask(fits, fit)[0])["status"] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer["version"] == "3"  # of those that were refused nothing is there
        assert [answer["status"] for answer in ask(fits, fit_line("b"), fit_line("cold"))] == [200, 200]
        assert [answer["status"] for answer in ask(predictions, judge, cold)] == [200, 200]
        for stream in (fits, predictions):
            stream.end()
            assert stream.rest() == b""
    assert server.client.get("/series/b").json()["latest_version"] == "1"
    assert "Traceback" not in server.log.read_text()


def test_a_table_is_answered_with_503_for_each_series_while_postgresql_is_away(
    server: Tidemark, postgres: PostgresServer
) -> None:
    postgres.stop()
    answers = send_lines(server.client, "/fit", [fit_line("a"), fit_line("b")])
    assert [answer["status"] for answer in answers] == [503, 503]
    postgres.start()
    deadline = time.monotonic() + 10
    while {answer["status"] for answer in send_lines(server.client, "/fit", [fit_line("a")])} != {200}:
        assert time.monotonic() < deadline


def write_without_end(stream: Duplex) -> None:
    """Pairs of lines, the n-th of them with the mean n + 0.5: one of some series, one of a series of its own."""
    with suppress(OSError):
        for n in itertools.count():
            stream.send(body_of([fit_line(f"s{n % 400}", n), fit_line(f"once{n}", n)]))


def list_series(client: httpx.Client) -> dict[str, int]:
    """The latest version of each series."""
    found: dict[str, int] = {}
    cursor = ""
    while True:
        page = client.get(f"/series?limit=1000{cursor}").json()
        found |= {series["series_id"]: int(series["latest_version"]) for series in page["series"]}
        if not page["next_cursor"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_every_answered_line_of_a_server_killed_in_the_middle_of_a_stream_is_there_afterwards(
    serve: Callable[..., Tidemark], database_url: str
) -> None:
    first = serve(DATABASE_URL=database_url)
    acknowledged: list[tuple[str, int, float]] = []
    with open_duplex(first.url, "/fit") as stream:
        writing = threading.Thread(target=write_without_end, args=(stream,))
        writing.start()
        with suppress(OSError, HTTPException):
            for n in itertools.count():
                answer = stream.line()
                assert answer["status"] == 200
                acknowledged.append((answer["series_id"], int(answer["version"]), n // 2 + 0.5))
                if n == 1_500:
                    first.process.kill()
        writing.join()
    first.process.wait()
    assert len(acknowledged) > 1_500

    client = serve(DATABASE_URL=database_url).client
    lines = [{"series_id": name, "version": number} | POINT for name, number, _ in acknowledged]
    for answer, (name, number, mean) in zip(send_lines(client, "/predict", lines), acknowledged, strict=True):
        assert (answer["status"], answer["series_id"], answer["model_version"]) == (200, name, str(number))
        assert answer["expected"] == pytest.approx(mean)
    # what was not acknowledged is whole or not there
    names = list_series(client)
    assert {name for name, _, _ in acknowledged} <= set(names)
    every = [
        {"series_id": name, "version": number} | POINT for name, last in names.items() for number in range(1, last + 1)
    ]
    assert {answer["status"] for answer in send_lines(client, "/predict", every)} == {200}
    assert list_versions(client, "s0") == list(range(names["s0"], 0, -1))
    for name in ("s0", acknowledged[-1][0]):
        assert client.get("/plot/data", params={"series_id": name, "version": "1"}).status_code == 200
    (again,) = send_lines(client, "/fit", [fit_line("s0")])
    assert int(again["version"]) == names["s0"] + 1
