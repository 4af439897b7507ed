"""Two replicas under random operations, with kills and restarts, never say what a registry must not say.

CONSISTENCY_OPERATIONS and CONSISTENCY_SEED make it longer, and other: 10,000 operations take a minute or two.
"""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.bootstrap import build
from app.config import Settings
from app.db import Database
from app.migrations import migrate
from app.verification import Verification
from tests.consistency import Event, History, Stored, counts, objections
from tests.servers import PostgresServer, RedisServer, create_database, free_port, postgres_folder, serve_tidemark
from tests.streaming import VERDICT, send_lines
from tests.test_crashes import list_versions

OPERATIONS = int(os.environ.get("CONSISTENCY_OPERATIONS", "1500"))
SEED = int(os.environ.get("CONSISTENCY_SEED", "1"))
CLIENTS = 16
SERIES = [f"s{n}" for n in range(12)]
ONE_SIDED = SERIES[:4]
"""Written at one replica alone, so that the other hears of it from the feed and in no other way."""
NAMES = ("prod", "beta")
POINT = {"timestamp": 100, "value": 7.25}
ATTEMPTS = 400


class Replica:
    """A service that is killed and started again, always at the same address."""

    def __init__(self, number: int, folder: Path, settings: dict[str, str]) -> None:
        self.number = number
        self._folder = folder / str(number)
        self._settings = settings | {"PORT": str(free_port()), "DATA_DIR": str(folder / "data")}
        self.url = f"http://127.0.0.1:{self._settings['PORT']}"
        self._stack = ExitStack()
        self.logs: list[Path] = []
        self.start()

    def start(self) -> None:
        running = self._stack.enter_context(serve_tidemark(self._folder / str(len(self.logs)), self._settings))
        self._process = running.process
        self.logs.append(running.log)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._stack.close()


def writer_of(series_id: str, choices: random.Random) -> int:
    """The replica to change it at."""
    return 0 if series_id in ONE_SIDED else choices.randrange(2)


class Clients:
    """What asks at random, and remembers."""

    def __init__(self, replicas: list[Replica], seed: int, operations: int) -> None:
        self.history = History()
        self.done = itertools.count()
        self.finished = 0
        self.all_broken = threading.Event()
        self._replicas = replicas
        self._means = itertools.count()
        self._highest = dict.fromkeys(SERIES, 0)
        share = operations // CLIENTS
        self._threads = [threading.Thread(target=self._run, args=(seed, n, share)) for n in range(CLIENTS)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.all_broken.set()
            for thread in self._threads:
                thread.join()

    @property
    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _run(self, seed: int, number: int, operations: int) -> None:
        choices = random.Random(f"{seed} {number}")
        with ExitStack() as stack:
            clients = [stack.enter_context(httpx.Client(base_url=r.url, timeout=30.0)) for r in self._replicas]
            for n in itertools.count():
                if n >= operations and self.all_broken.is_set():
                    break
                action = choices.choices(
                    (self._fit, self._fit_with_key, self._predict, self._set_alias, self._delete), (13, 12, 58, 10, 7)
                )
                action[0](clients, choices, f"{number}-{n}")
                next(self.done)
                self.finished += 1

    def _ask(
        self, clients: list[httpx.Client], event: Event, request: tuple[str, str, object], key: str = ""
    ) -> tuple[Event, dict[str, Any]]:
        """Ask with method, path and body; the event as it came to pass, and what was answered."""
        method, path, body = request
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            started = time.monotonic()
            try:
                answer = clients[event.replica].request(method, path, json=body, headers=headers)
                status, content = answer.status_code, answer.json() if answer.content else {}
            except httpx.ConnectError:  # it is being started again, and has heard nothing
                event = replace(event, replica=1 - event.replica)
                time.sleep(0.01)
                continue
            except httpx.TransportError:
                status, content = None, {}
            return replace(event, start_s=started, end_s=time.monotonic(), status=status), content

    def _fit(self, clients: list[httpx.Client], choices: random.Random, _: str) -> None:
        series_id = choices.choice(SERIES)
        self._fit_once(clients, series_id, writer_of(series_id, choices), next(self._means))

    def _fit_with_key(self, clients: list[httpx.Client], choices: random.Random, key: str) -> None:
        """Again and again, at either replica, until one says which version it is."""
        series_id, base = choices.choice(SERIES), next(self._means)
        for _ in range(ATTEMPTS):
            if self._fit_once(clients, series_id, writer_of(series_id, choices), base, key) not in {None, 503}:
                return
            time.sleep(0.02)
        raise AssertionError(f"no answer to {ATTEMPTS} attempts")

    def _fit_once(
        self, clients: list[httpx.Client], series_id: str, replica: int, base: int, key: str = ""
    ) -> int | None:
        body = {"timestamps": [1, 2, 3, 4], "values": [base, base + 1, base, base + 1], "detector": "mean_std"}
        event = Event("fit", series_id, replica, 0, 0, None, mean=base + 0.5, key=key)
        event, content = self._ask(clients, event, ("POST", f"/fit/{series_id}", body), key)
        if event.status == 200:
            event = replace(event, version=int(content["version"]))
            self._highest[series_id] = max(self._highest[series_id], event.version)
        self.history.events.append(event)
        return event.status

    def _predict(self, clients: list[httpx.Client], choices: random.Random, _: str) -> None:
        series_id = choices.choice(SERIES)
        number = str(choices.randint(1, max(1, self._highest[series_id])))
        selector = choices.choice(("latest", "latest", number, number, f"@{choices.choice(NAMES)}"))
        event = Event("predict", series_id, choices.randrange(2), 0, 0, None, selector=selector)
        event, content = self._ask(clients, event, ("POST", f"/predict/{series_id}?version={selector}", POINT))
        if event.status == 200:
            verdict = tuple(content[name] for name in VERDICT)
            event = replace(event, version=int(content["model_version"]), mean=content["expected"], verdict=verdict)
        self.history.events.append(event)

    def _set_alias(self, clients: list[httpx.Client], choices: random.Random, _: str) -> None:
        series_id, name = choices.choice(SERIES), choices.choice(NAMES)
        replica = writer_of(series_id, choices)
        number = choices.randint(1, max(1, self._highest[series_id]))
        is_deleted = choices.random() < 0.2
        kind = "delete_alias" if is_deleted else "put_alias"
        event = Event(kind, series_id, replica, 0, 0, None, version=number, name=name)
        body = None if is_deleted else {"version": str(number)}
        method = "DELETE" if is_deleted else "PUT"
        event, _content = self._ask(clients, event, (method, f"/series/{series_id}/aliases/{name}", body))
        self.history.events.append(event)

    def _delete(self, clients: list[httpx.Client], choices: random.Random, _: str) -> None:
        series_id = choices.choice(SERIES)
        number = choices.randint(1, max(1, self._highest[series_id]))
        is_all = choices.random() < 0.05
        kind, path = ("delete_series", "") if is_all else ("delete_version", f"/versions/{number}")
        replica = writer_of(series_id, choices)
        event = Event(kind, series_id, replica, 0, 0, None, version=0 if is_all else number)
        event, _content = self._ask(clients, event, ("DELETE", f"/series/{series_id}{path}", None))
        self.history.events.append(event)


def break_things(clients: Clients, replicas: list[Replica], postgres: PostgresServer, operations: int) -> int:
    """Kill one replica or the other again and again, and PostgreSQL once in the middle; how often in all."""
    steps = max(5, operations // 800)
    for n in range(steps):
        while clients.is_running and clients.finished < operations * (n + 1) // (steps + 2):
            time.sleep(0.01)
        assert clients.is_running, "the clients have failed"
        if n == steps // 2:
            began_s = time.monotonic()
            postgres.crash()
            time.sleep(0.5)
            postgres.start()
            clients.history.outages_s.append((began_s, time.monotonic()))
        else:
            replicas[n % 2].kill()
            replicas[n % 2].start()
    return steps


def read_all(history: History, replicas: list[Replica]) -> None:
    """What there is at the end, which is the same wherever one asks."""
    with httpx.Client(base_url=replicas[0].url, timeout=60) as one, httpx.Client(base_url=replicas[1].url) as two:
        for series_id in SERIES:
            body = {"timestamps": [1, 2, 3], "values": [1, 2, 3], "detector": "mean_std"}
            end = int(one.post(f"/fit/{series_id}", json=body).json()["version"])
            history.last[series_id] = end - 1
            lines = [{"series_id": series_id, "version": n} | POINT for n in range(1, end)]
            answers = send_lines(one, "/predict", lines)
            assert answers == send_lines(two, "/predict", lines)
            alive = set(list_versions(one, series_id))
            for number, answer in enumerate(answers, 1):
                assert (answer["status"] == 200) == (number in alive)
                verdict = tuple(answer[name] for name in VERDICT) if answer["status"] == 200 else ()
                stored = Stored(answer["status"], answer.get("expected", 0.0), verdict)
                history.versions[series_id, number] = stored
            for alias in one.get(f"/series/{series_id}/aliases").json()["aliases"]:
                history.aliases[series_id, alias["name"]] = int(alias["version"])


def test_no_replica_ever_says_what_a_registry_must_not_say(tmp_path: Path) -> None:
    postgres = PostgresServer(postgres_folder())
    (tmp_path / "redis").mkdir()
    redis = RedisServer(tmp_path / "redis")
    settings = {
        "DATABASE_URL": create_database(postgres.url, "consistency"),
        "REDIS_URL": redis.url,
        "DATABASE_TIMEOUT_S": "5",
    }
    database = Database(settings["DATABASE_URL"], timeout_s=10)
    migrate(database)
    database.close()
    with ExitStack() as stack:
        stack.callback(postgres.delete)
        stack.callback(redis.stop)
        replicas = [Replica(n, tmp_path, settings) for n in range(2)]
        for replica in replicas:
            stack.callback(replica.close)
        clients = Clients(replicas, SEED, OPERATIONS)
        started = time.monotonic()
        with clients.running():
            breaks = break_things(clients, replicas, postgres, OPERATIONS)
        took_s = time.monotonic() - started
        history = clients.history
        read_all(history, replicas)
        found = objections(history)
        print(f"seed {SEED}: {OPERATIONS} operations in {took_s:.0f} s, {breaks} breaks, {dict(counts(history))}")
        faults = [text for r in replicas for log in r.logs if "unexpectedly" in (text := log.read_text())]
        assert found == [], (
            f"{len(found)} objections with CONSISTENCY_SEED={SEED}, the first: {found[:10]}\n{faults[:1]}"
        )
        services = build(Settings(_env_file=None, database_url=settings["DATABASE_URL"], data_dir=tmp_path / "data"))
        verification = Verification(services.registry.catalog, *services.stores)
        wrong = list(verification.check_rows())
        checked = list(verification.check_artifacts())
        services.close()
        assert wrong + [finding for step in checked for finding in step.findings] == []
        assert sum(step.versions for step in checked) > OPERATIONS // 20
    for kind in ("fit", "predict", "put_alias", "delete_version", "unanswered", "503"):
        assert counts(history)[kind] > 0


# ---- the check itself ------------------------------------------------------------------------------------------


def at(start_s: float, kind: str, status: int | None = 200, **more: Any) -> Event:
    return Event(kind, "s", more.pop("replica", 0), start_s, start_s + 0.5, status, **more)


def sound() -> History:
    """Two versions, one of which is deleted; an alias; all of it seen at both replicas."""
    verdict = ("x",)
    events = [
        at(1, "fit", version=1, mean=10.5, key="k"),
        at(2, "fit", None, mean=20.5, key="l"),
        at(3, "fit", replica=1, version=2, mean=20.5, key="l"),
        at(4, "predict", selector="latest", version=1, mean=10.5, verdict=verdict),
        at(5, "predict", selector="latest", replica=1, version=2, mean=20.5, verdict=verdict),
        at(6, "put_alias", name="prod", version=2),
        at(7, "predict", selector="@prod", version=2, mean=20.5, verdict=verdict),
        at(8, "predict", 404, selector="@prod", replica=1),
        at(9, "delete_version", version=1),
        at(10, "predict", selector="1", replica=1, version=1, mean=10.5, verdict=verdict),
        at(11, "predict", 410, selector="1"),
        at(12, "fit", None, mean=30.5),
    ]
    versions = {("s", 1): Stored(410), ("s", 2): Stored(200, 20.5, verdict)}
    return History(events, [], {"s": 2}, versions, {("s", "prod"): 2})


def test_the_check_has_nothing_against_a_history_that_may_be() -> None:
    assert objections(sound()) == []
    happened = sound()  # the fit that was never answered
    happened.last["s"] = 3
    happened.versions["s", 3] = Stored(200, 30.5, ("y",))
    assert objections(happened) == []


def lose_a_version(history: History) -> None:
    history.versions["s", 2] = Stored(404)


def lose_the_last_version(history: History) -> None:
    history.last["s"] = 1


def delete_what_nobody_deleted(history: History) -> None:
    history.versions["s", 2] = Stored(410)


def keep_what_was_deleted(history: History) -> None:
    history.versions["s", 1] = Stored(200, 10.5, ("x",))


def give_a_number_twice(history: History) -> None:
    history.events.append(at(13, "fit", version=2, mean=40.5))


def make_two_versions_of_a_key(history: History) -> None:
    history.events.append(at(13, "fit", version=3, mean=20.5, key="l"))
    history.last["s"] = 3
    history.versions["s", 3] = Stored(200, 20.5, ("x",))


def leave_a_gap(history: History) -> None:
    history.last["s"] = 4
    history.versions["s", 4] = Stored(200, 30.5, ("y",))


def judge_wrongly(history: History) -> None:
    history.events.append(at(13, "predict", selector="2", version=2, mean=20.5, verdict=("y",)))


def judge_by_another_version(history: History) -> None:
    history.events.append(at(13, "predict", selector="2", version=2, mean=10.5, verdict=("x",)))


def answer_with_another_version(history: History) -> None:
    history.events.append(at(13, "predict", selector="1", version=2, mean=20.5, verdict=("x",)))


def invent_a_fit(history: History) -> None:
    history.last["s"] = 3
    history.versions["s", 3] = Stored(200, 99.5, ("y",))


def forget_the_latest_where_it_was_made(history: History) -> None:
    history.events.append(at(3.6, "predict", selector="latest", replica=1, version=1, mean=10.5, verdict=("x",)))


def forget_the_latest_elsewhere_for_long(history: History) -> None:
    history.events.append(at(13, "predict", selector="latest", version=1, mean=10.5, verdict=("x",)))


def find_nothing(history: History) -> None:
    history.events.append(at(13, "predict", 404, selector="latest"))


def not_find_a_number(history: History) -> None:
    history.events.append(at(13, "predict", 404, selector="2"))


def answer_by_a_deleted_version(history: History) -> None:
    history.events.append(at(9.6, "predict", selector="1", version=1, mean=10.5, verdict=("x",)))


def delete_too_early(history: History) -> None:
    history.events.append(at(8.1, "predict", 410, selector="1"))


def point_an_alias_at_a_deleted_version(history: History) -> None:
    history.aliases["s", "prod"] = 1


def forget_an_alias(history: History) -> None:
    history.events.append(at(6.6, "predict", 404, selector="@prod"))


def follow_an_alias_to_where_it_never_pointed(history: History) -> None:
    history.events.append(at(13, "predict", selector="@prod", version=1, mean=10.5, verdict=("x",)))


def fail(history: History) -> None:
    history.events.append(at(13, "put_alias", 500, name="prod", version=2))


BENT: list[Callable[[History], None]] = [
    lose_a_version,
    lose_the_last_version,
    delete_what_nobody_deleted,
    keep_what_was_deleted,
    give_a_number_twice,
    make_two_versions_of_a_key,
    leave_a_gap,
    judge_wrongly,
    judge_by_another_version,
    answer_with_another_version,
    invent_a_fit,
    forget_the_latest_where_it_was_made,
    forget_the_latest_elsewhere_for_long,
    find_nothing,
    not_find_a_number,
    answer_by_a_deleted_version,
    delete_too_early,
    point_an_alias_at_a_deleted_version,
    forget_an_alias,
    follow_an_alias_to_where_it_never_pointed,
    fail,
]


@pytest.mark.parametrize("bend", BENT, ids=lambda bend: bend.__name__)
def test_the_check_objects_to_a_history_that_must_not_be(bend: Callable[[History], None]) -> None:
    history = sound()
    bend(history)
    assert objections(history) != []
