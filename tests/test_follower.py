"""The feed of changes: what one process did, every other one knows soon, whatever the order of commits."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, delete, func, insert, select, text

from app.bootstrap import Services
from app.catalog import Catalog
from app.db import Database, changes
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.follower import ChangeFollower
from app.migrations import migrate
from app.model_cache import ModelCache
from app.preconditions import Precondition
from app.versions import LATEST
from tests.crashing import history

ANY = Precondition()
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Replica:
    """Another process, as far as the database can tell: a follower and a service of its own, polled by hand."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.catalog = services.registry.catalog

    def fit(self, series_id: str, seed: int = 1) -> int:
        return self.services.training.fit(series_id, history(seed), MeanStd, MeanStdParams()).version

    def predicts(self, series_id: str, selector: int | str = LATEST) -> int:
        return self.services.prediction.predict_one(series_id, selector, 60.0, 10.0)[0]

    def is_warm(self, series_id: str, selector: int | str = LATEST) -> bool:
        return self.services.registry.find_loaded(series_id, selector) is not None

    def poll(self) -> None:
        self.services.follower.poll()


@pytest.fixture
def here(services: Services) -> Replica:
    """The process that follows."""
    replica = Replica(services)
    replica.poll()
    return replica


@pytest.fixture
def there(here: Replica, build_services: Callable[..., Services]) -> Replica:
    """The process that changes something."""
    return Replica(build_services(database_url=here.services.settings.database_url))


def test_a_fit_elsewhere_is_followed(here: Replica, there: Replica) -> None:
    there.fit("s")
    here.poll()
    assert here.predicts("s") == 1
    there.fit("s")
    assert here.predicts("s") == 1  # until the feed is read
    here.poll()
    assert not here.is_warm("s")
    assert here.is_warm("s", 1)  # versions never change
    assert here.predicts("s") == 2


def test_an_alias_moved_or_deleted_elsewhere_is_followed(here: Replica, there: Replica) -> None:
    there.fit("s")
    there.fit("s")
    there.services.registry.set_alias("s", "prod", 1, ANY)
    assert here.predicts("s", "prod") == 1
    there.services.registry.set_alias("s", "prod", 2, ANY)
    here.poll()
    assert here.predicts("s", "prod") == 2
    there.services.registry.delete_alias("s", "prod", ANY)
    here.poll()
    assert not here.is_warm("s", "prod")


def test_a_deletion_elsewhere_is_followed_even_for_a_version_asked_by_number(here: Replica, there: Replica) -> None:
    there.fit("s")
    there.fit("s")
    assert here.predicts("s", 1) == 1
    there.services.registry.delete_version("s", 1, ANY)
    here.poll()
    assert not here.is_warm("s", 1)
    there.services.registry.delete_series("s")
    here.poll()
    assert not here.is_warm("s", 2)
    assert not here.is_warm("s")


def test_other_series_stay_warm(here: Replica, there: Replica) -> None:
    there.fit("s")
    there.fit("t")
    here.predicts("s")
    here.predicts("t")
    here.poll()
    here.predicts("s")
    here.predicts("t")
    there.fit("s")
    here.poll()
    assert here.is_warm("t")
    assert not here.is_warm("s")


def test_what_happened_before_the_first_poll_is_not_missed(here: Replica, there: Replica) -> None:
    there.fit("s")
    assert here.predicts("s") == 1
    follower = here.services.follower
    follower._position = None  # as in a process that has just started and loaded something already
    there.fit("s")
    here.poll()
    assert here.predicts("s") == 2


def test_a_change_committed_late_with_a_smaller_id_is_seen(
    new_postgres_database: Database, build_services: Callable[..., Services]
) -> None:
    url = new_postgres_database.url.render_as_string(hide_password=False)
    here, there = Replica(build_services(database_url=url)), Replica(build_services(database_url=url))
    here.poll()
    for name in ("late", "early"):
        there.fit(name)
    here.poll()
    assert (here.predicts("late"), here.predicts("early")) == (1, 1)

    with new_postgres_database.write() as connection:
        record_change(connection, "late")  # takes its id now, and commits when the block ends
        there.fit("early")
        here.poll()
        assert not here.is_warm("early")
        assert here.is_warm("late")
    here.poll()
    assert not here.is_warm("late")


def test_a_process_that_starts_while_a_change_is_being_committed_sees_it(
    new_postgres_database: Database, build_services: Callable[..., Services]
) -> None:
    url = new_postgres_database.url.render_as_string(hide_password=False)
    here, there = Replica(build_services(database_url=url)), Replica(build_services(database_url=url))
    for name in ("late", "early"):
        there.fit(name)
    with new_postgres_database.write() as connection:
        record_change(connection, "late")
        there.fit("early")
        here.poll()  # the first of this process: the feed ends behind the id that is not there yet
        assert here.predicts("late") == 1
    here.poll()
    assert not here.is_warm("late")


def test_a_process_that_starts_then_sees_it_even_when_nothing_older_is_left_in_the_feed(
    new_postgres_database: Database, build_services: Callable[..., Services]
) -> None:
    url = new_postgres_database.url.render_as_string(hide_password=False)
    here, there = Replica(build_services(database_url=url)), Replica(build_services(database_url=url))
    for name in ("late", "early"):
        there.fit(name)
    with new_postgres_database.write() as connection:
        connection.execute(delete(changes))
    with new_postgres_database.write() as connection:
        record_change(connection, "late")
        there.fit("early")
        here.poll()
        assert here.predicts("late") == 1
    here.poll()
    assert not here.is_warm("late")


def test_a_replica_that_could_not_read_the_feed_until_parts_of_it_were_pruned_forgets_everything(
    here: Replica, there: Replica
) -> None:
    there.fit("s")
    here.poll()
    assert here.predicts("s") == 1
    there.fit("s")
    with there.services.database.write() as connection:
        connection.execute(delete(changes))
    here.poll()
    assert here.is_warm("s")  # it cannot know, if that were to happen within the hour
    here.services.follower._read_at = time.monotonic() - 3601
    here.poll()
    assert not here.is_warm("s")


def test_ids_that_were_rolled_back_do_no_harm(
    new_postgres_database: Database, build_services: Callable[..., Services]
) -> None:
    url = new_postgres_database.url.render_as_string(hide_password=False)
    here, there = Replica(build_services(database_url=url)), Replica(build_services(database_url=url))
    here.poll()
    there.fit("s")
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            record_change_and_fail(new_postgres_database)
    there.fit("s")
    here.poll()
    assert here.predicts("s") == 2
    here.poll()
    assert here.is_warm("s")


def test_after_the_whole_feed_was_pruned_changes_are_followed_at_no_cost(
    here: Replica, there: Replica, build_services: Callable[..., Services]
) -> None:
    """As after a quiet day and a sweep, in a service that has counted far."""
    there.fit("s")
    set_last_id(there.services.database, 3_000_000_000)
    there.fit("s")
    with there.services.database.write() as connection:
        connection.execute(delete(changes))
    late = Replica(build_services(database_url=here.services.settings.database_url))
    late.poll()
    assert late.predicts("s") == 2
    there.fit("s")
    tracemalloc.start()
    started = time.monotonic()
    late.poll()
    here.poll()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (late.predicts("s"), here.predicts("s")) == (3, 3)
    assert peak_bytes < 20_000_000
    assert time.monotonic() - started < 5


def test_very_many_changes_at_once_are_all_seen(here: Replica, there: Replica) -> None:
    names = ["first", "middle", "last"]
    for name in names:
        there.fit(name)
    here.poll()
    for name in names:
        here.predicts(name)
    with there.services.database.write() as connection:
        for name in names:
            record_change(connection, name)
            row = {"series_id": "another", "deleted": 0, "changed_at": MOMENT}
            connection.execute(insert(changes), [row] * 6_000)
    here.poll()
    assert not any(here.is_warm(name) for name in names)


def test_the_thread_goes_on_after_an_error_of_any_kind(here: Replica, there: Replica) -> None:
    """The feed's table goes away and comes back: an error that is not the network's."""
    follower = here.services.follower
    there.fit("s")
    follower.start()
    rename(there.services.database, "changes", "hidden")
    time.sleep(0.4)
    rename(there.services.database, "hidden", "changes")
    assert here.predicts("s") == 1
    there.fit("s")
    deadline = time.monotonic() + 5
    while here.predicts("s") == 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert here.predicts("s") == 2


def test_a_role_that_may_not_read_the_feed_for_a_while_does_not_end_the_thread(new_postgres_database: Database) -> None:
    database = new_postgres_database
    with database.write() as connection:
        connection.execute(text("DROP ROLE IF EXISTS reader_of_tidemark"))
        connection.execute(text("CREATE ROLE reader_of_tidemark LOGIN"))
    limited = Database(
        database.url.set(username="reader_of_tidemark").render_as_string(hide_password=False), timeout_s=5
    )
    cache = ModelCache(10_000)
    follower = ChangeFollower(Catalog(limited), cache)
    follower.start()
    time.sleep(0.3)  # permission denied
    with database.write() as connection:
        connection.execute(text("GRANT SELECT ON changes TO reader_of_tidemark"))
    time.sleep(0.3)
    loading = cache.begin("s")
    with database.write() as connection:
        record_change(connection, "s")
    deadline = time.monotonic() + 5
    while not loading.is_stale and time.monotonic() < deadline:
        time.sleep(0.02)
    follower.stop()
    limited.close()
    with database.write() as connection:
        connection.execute(text("DROP OWNED BY reader_of_tidemark"))
        connection.execute(text("DROP ROLE reader_of_tidemark"))
    assert loading.is_stale


def test_stopping_ends_the_thread_at_once(here: Replica) -> None:
    here.services.follower.start()
    started = time.monotonic()
    here.services.follower.stop()
    assert time.monotonic() - started < 1
    assert not here.services.follower._loop._thread.is_alive()


# ---- what the tests above do to the feed ---------------------------------------------------------------------


@pytest.fixture
def new_postgres_database(new_postgres_url: str) -> Iterator[Database]:
    """An empty database on PostgreSQL, where transactions overlap."""
    database = Database(new_postgres_url, timeout_s=10)
    migrate(database)
    yield database
    database.close()


def record_change(connection: Connection, series_id: str) -> None:
    connection.execute(insert(changes).values(series_id=series_id, deleted=0, changed_at=MOMENT))


def record_change_and_fail(database: Database) -> None:
    with database.write() as connection:
        record_change(connection, "s")
        raise ZeroDivisionError


def set_last_id(database: Database, last: int) -> None:
    with database.write() as connection:
        if database.is_postgres:
            connection.execute(select(func.setval("changes_id_seq", last)))
        else:
            connection.execute(text(f"UPDATE sqlite_sequence SET seq = {last} WHERE name = 'changes'"))


def rename(database: Database, old: str, new: str) -> None:
    with database.write() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
