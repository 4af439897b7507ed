"""Deletions and aliases in the registry, one after the other and in races, on PostgreSQL and on SQLite."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count

import pytest

from app.bootstrap import Services
from app.errors import (
    AliasInUse,
    AliasNotFound,
    PreconditionFailed,
    SeriesNotFound,
    TidemarkError,
    VersionDeleted,
    VersionNotFound,
)
from app.preconditions import Precondition
from app.versions import LATEST
from tests.test_registry import ANY, fit, numbers, rows

# ---- deletion ------------------------------------------------------------------------------------------------


def test_a_deleted_version_is_gone_and_its_number_is_never_given_again(services: Services) -> None:
    for seed in range(3):
        fit(services, seed=seed)
    services.registry.delete_version("s", 3, ANY)
    assert numbers(services) == [2, 1]
    assert services.prediction.predict_one("s", LATEST, 60.0, 1.0)[0] == 2
    for attempt in (
        lambda: services.prediction.predict_one("s", 3, 60.0, 1.0),
        lambda: services.registry.catalog.get_version("s", 3),
        lambda: services.registry.delete_version("s", 3, ANY),
        lambda: services.registry.set_alias("s", "prod", 3, ANY),
    ):
        with pytest.raises(VersionDeleted, match="Version 3 of s was deleted"):
            attempt()
    with pytest.raises(VersionNotFound):
        services.registry.catalog.get_version("s", 4)
    assert fit(services).version == 4


def test_a_deleted_series_is_gone_until_it_is_fitted_again(services: Services) -> None:
    fit(services)
    fit(services)
    services.registry.set_alias("s", "prod", 1, ANY)
    services.prediction.predict_one("s", 1, 60.0, 1.0)
    services.registry.delete_series("s")
    catalog = services.registry.catalog
    for attempt in (
        lambda: services.prediction.predict_one("s", LATEST, 60.0, 1.0),
        lambda: services.prediction.predict_one("s", 1, 60.0, 1.0),
        lambda: services.prediction.predict_one("s", "prod", 60.0, 1.0),
        lambda: catalog.get_series("s"),
        lambda: catalog.list_versions("s", 10, None),
    ):
        with pytest.raises(VersionDeleted):
            attempt()
    assert catalog.count_series() == 0
    assert catalog.list_series(10, None, None) == []
    assert fit(services).version == 3
    with pytest.raises(AliasNotFound):
        services.prediction.predict_one("s", "prod", 60.0, 1.0)
    assert catalog.count_series() == 1


@pytest.mark.parametrize("verb", ["delete_series", "delete_version", "set_alias", "delete_alias"])
def test_nothing_can_be_done_to_a_series_that_never_was(services: Services, verb: str) -> None:
    registry = services.registry
    with pytest.raises(SeriesNotFound, match="never"):
        {
            "delete_series": lambda: registry.delete_series("never"),
            "delete_version": lambda: registry.delete_version("never", 1, ANY),
            "set_alias": lambda: registry.set_alias("never", "prod", LATEST, ANY),
            "delete_alias": lambda: registry.delete_alias("never", "prod", ANY),
        }[verb]()
    assert rows(services) == [0, 0, 0, 0]


def test_a_version_behind_an_alias_cannot_be_deleted(services: Services) -> None:
    fit(services)
    services.registry.set_alias("s", "prod", LATEST, ANY)
    with pytest.raises(AliasInUse, match="prod points at version 1"):
        services.registry.delete_version("s", 1, ANY)
    services.registry.delete_alias("s", "prod", ANY)
    services.registry.delete_version("s", 1, ANY)


# ---- races ---------------------------------------------------------------------------------------------------


class Racing:
    """Runs actions over and over in threads of their own until each has run often enough to have met the others."""

    OFTEN_ENOUGH = 6

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(16)
        self._futures: list[Future[None]] = []
        self._often: list[threading.Event] = []

    def forever(self, action: Callable[[], object], *refused: type[TidemarkError]) -> None:
        self._often.append(threading.Event())
        self._futures.append(self._pool.submit(self._repeat, action, refused, self._often[-1]))

    def _repeat(
        self, action: Callable[[], object], refused: tuple[type[TidemarkError], ...], often: threading.Event
    ) -> None:
        for times in count(1):
            if self._stop.is_set():
                return
            with suppress(*refused):
                action()
            if times == self.OFTEN_ENOUGH:
                often.set()

    def finish(self, after_s: float) -> None:
        """Race for `after_s` and then until every action ran often enough; raises what any of them raised."""
        wait(self._futures, after_s, return_when="FIRST_EXCEPTION")
        deadline = time.monotonic() + 60
        while not all(event.is_set() for event in self._often) and time.monotonic() < deadline:
            if wait(self._futures, 0.05, return_when="FIRST_EXCEPTION").done:
                break
        self._stop.set()
        self._pool.shutdown()
        for future in self._futures:
            future.result()
        assert all(event.is_set() for event in self._often), "an action hardly ever ran"


def test_an_alias_never_points_to_nothing_while_it_is_moved_and_versions_are_deleted(
    services: Services, build_services: Callable[..., Services]
) -> None:
    other = build_services(database_url=services.settings.database_url)
    catalog = other.registry.catalog
    fit(services)
    services.registry.set_alias("s", "prod", 1, ANY)

    def release() -> None:
        """Fit, move the alias there, delete what it pointed at before."""
        made = fit(services).version
        before = services.registry.catalog.get_alias("s", "prod").version
        services.registry.set_alias("s", "prod", made, ANY)
        services.registry.delete_version("s", before, ANY)

    def delete_what_the_alias_points_at() -> None:
        other.registry.delete_version("s", catalog.get_alias("s", "prod").version, ANY)

    racing = Racing()
    racing.forever(release, VersionDeleted)
    racing.forever(delete_what_the_alias_points_at, AliasInUse, VersionDeleted)
    for _ in range(3):
        racing.forever(lambda: catalog.get_version("s", "prod"))
        racing.forever(lambda: catalog.get_version("s", LATEST))
        racing.forever(lambda: other.registry.load("s", "prod"))
    racing.finish(after_s=2)
    assert services.registry.catalog.get_version("s", "prod").version > 1


def test_of_two_who_move_an_alias_from_the_same_state_one_is_told(services: Services) -> None:
    for _ in range(2):
        fit(services)
    alias = services.registry.set_alias("s", "prod", 1, ANY)

    def move(_: int) -> bool:
        try:
            services.registry.set_alias("s", "prod", 2, Precondition(if_match=alias.etag))
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(move, range(8))) == [False] * 7 + [True]


def test_of_two_who_create_an_alias_one_is_told(services: Services) -> None:
    fit(services)

    def create(_: int) -> bool:
        try:
            services.registry.set_alias("s", "prod", 1, Precondition(if_none_match="*"))
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [False] * 7 + [True]


def test_what_is_in_memory_is_never_older_than_the_last_change_made_here(services: Services) -> None:
    """Loads, fits and deletions race; after each change made here, this process answers accordingly."""
    fit(services)
    fit(services)
    racing = Racing()

    def publish_and_look() -> None:
        made = fit(services, seed=2).version
        if services.prediction.predict_one("s", LATEST, 60.0, 1.0)[0] < made:
            with pytest.raises(VersionDeleted):  # the other was faster
                services.registry.catalog.get_version("s", made)

    def delete_and_look() -> None:
        victim = services.registry.catalog.get_series("s")[0].latest.version
        if victim < 3:
            return
        services.registry.delete_version("s", victim, ANY)
        with pytest.raises(VersionDeleted):
            services.prediction.predict_one("s", victim, 60.0, 1.0)

    racing.forever(publish_and_look)
    racing.forever(delete_and_look)
    for _ in range(4):
        racing.forever(lambda: services.prediction.predict_one("s", LATEST, 60.0, 1.0))
    racing.finish(after_s=1.5)
