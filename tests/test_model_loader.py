"""Models that are not in memory: loaded once however many ask, together with others, and never older than a fit."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from app.artifacts.base import Part
from app.artifacts.local import LocalStore
from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import (
    AliasNotFound,
    ArtifactDamaged,
    ArtifactStoreUnavailable,
    SeriesNotFound,
    TidemarkError,
    VersionDeleted,
    VersionNotFound,
)
from app.preconditions import Precondition
from app.versions import LATEST, LoadedModel, Selector
from tests.crashing import history
from tests.fleets import publish_many

ANY = Precondition()
PATIENCE_S = 20.0
BuildServices = Callable[..., Services]


class WatchedStore(LocalStore):
    """A folder that counts what is read, and lets nothing be read while its gate is shut."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.batches: list[int] = []
        self.reading = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def get(self, parts: Sequence[Part]) -> Sequence[bytes | None]:
        if parts:
            gate = self.gate
            self.reading.set()
            assert gate.wait(PATIENCE_S)
            self.batches.append(len(parts))
        return super().get(parts)

    @contextmanager
    def shut(self) -> Iterator[threading.Event]:
        """Reads that begin in the block wait for this gate, which is open at its end."""
        self.reading.clear()
        self.gate = gate = threading.Event()
        try:
            yield gate
        finally:
            gate.set()


@pytest.fixture
def store(services: Services) -> WatchedStore:
    """The store of the services' models, watched."""
    models, _ = services.stores
    models.store = watched = WatchedStore(Path(models.location))
    return watched


def fit(services: Services, series_id: str = "s", seed: int = 1) -> int:
    return services.training.fit(series_id, history(seed), MeanStd, MeanStdParams()).version


def begin(services: Services, series_id: str = "s", selector: Selector = LATEST) -> Future[LoadedModel]:
    return services.registry.begin_load(series_id, selector)


def versions_of(futures: Sequence[Future[LoadedModel]]) -> list[int | type[BaseException]]:
    """For each load the version that it gave, or its error."""
    wait(futures, PATIENCE_S)
    errors = [future.exception(0) for future in futures]
    return [
        future.result(0).version if error is None else type(error)
        for future, error in zip(futures, errors, strict=True)
    ]


def occupy(services: Services, store: WatchedStore, threads: int = 2) -> list[Future[LoadedModel]]:
    """Loads, one for each thread of the loader, that have begun and wait at the gate: what follows is one batch."""
    begun = []
    for n in range(threads):
        store.reading.clear()
        begun.append(begin(services, f"occupied{n}"))
        assert store.reading.wait(PATIENCE_S)
    return begun


# ---- once, and together --------------------------------------------------------------------------------------


def test_a_model_that_many_threads_miss_at_once_is_read_once(services: Services, store: WatchedStore) -> None:
    fit(services)
    with ThreadPoolExecutor(32) as pool:
        with store.shut():
            loads = [pool.submit(services.registry.load, "s", LATEST) for _ in range(32)]
            assert store.reading.wait(PATIENCE_S)
            time.sleep(0.05)  # the others join it
        loaded = [load.result(PATIENCE_S) for load in loads]
    assert store.batches == [1]
    assert all(model is loaded[0] for model in loaded)
    assert services.registry.find_loaded("s", LATEST) is loaded[0]


def test_loads_that_wait_are_read_together(services: Services, store: WatchedStore) -> None:
    names = [f"s{n}" for n in range(300)]
    publish_many(services, [*names, "occupied0", "occupied1"])
    with store.shut():
        occupied = occupy(services, store)
        begun = [begin(services, name) for name in names]
    assert versions_of([*occupied, *begun]) == [1] * 302
    assert sorted(store.batches) == [1, 1, 300]
    assert all(services.registry.find_loaded(name, LATEST) for name in names)


def test_five_hundred_mixed_selectors_in_one_batch_each_get_what_they_mean(
    services: Services, store: WatchedStore
) -> None:
    names = [f"s{n}" for n in range(100)]
    publish_many(services, [*names, *names, "occupied0", "occupied1"])
    fit(services, "s0", seed=7)
    services.registry.set_alias("s1", "prod", 1, ANY)
    services.registry.delete_version("s2", 2, ANY)
    services.registry.delete_series("s3")
    expected: dict[tuple[str, Selector], int | type[TidemarkError]] = {}
    for name in names:
        expected |= {(name, LATEST): 2, (name, 1): 1, (name, 2): 2, (name, "prod"): AliasNotFound}
        expected |= {(name, 9): VersionNotFound, (f"unknown.{name}", LATEST): SeriesNotFound}
    expected |= {("s0", LATEST): 3, ("s1", "prod"): 1, ("s2", LATEST): 1, ("s2", 2): VersionDeleted}
    expected |= {("s3", selector): VersionDeleted for selector in (LATEST, 1, 2, "prod")}
    with store.shut():
        occupied = occupy(services, store)
        begun = [begin(services, *pair) for pair in expected]
    assert versions_of(occupied) == [1, 1]
    assert dict(zip(expected, versions_of(begun), strict=True)) == expected
    for (name, selector), version in expected.items():
        kept = services.registry.find_loaded(name, selector)
        assert (kept.version if kept else None) == (version if isinstance(version, int) else None)


def test_a_model_in_memory_under_another_selector_is_not_read_again(services: Services, store: WatchedStore) -> None:
    fit(services)
    services.registry.set_alias("s", "prod", 1, ANY)
    model = services.registry.load("s", 1)
    services.registry.set_alias("s", "next", 1, ANY)
    for selector in (LATEST, "prod", "next"):
        assert services.registry.load("s", selector) is model
    assert store.batches == [1]


# ---- errors --------------------------------------------------------------------------------------------------


def test_the_errors_of_one_series_do_not_hit_the_others_of_its_batch(
    services: Services, store: WatchedStore, tmp_path: Path
) -> None:
    for n, name in enumerate(("good", "damaged", "missing", "better", "occupied0", "occupied1")):
        fit(services, name, seed=n)
    models, _ = services.stores
    damaged, missing = (
        tmp_path / "data/models" / models.key(services.registry.catalog.get_version(name, 1).model_digest)
        for name in ("damaged", "missing")
    )
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    missing.unlink()
    with store.shut():
        occupy(services, store)
        begun = [begin(services, name) for name in ("good", "damaged", "missing", "unknown", "better")]
    assert versions_of(begun) == [1, ArtifactDamaged, ArtifactDamaged, SeriesNotFound, 1]
    damaged.write_bytes(whole)
    assert services.registry.load("damaged", LATEST).version == 1  # an error is not remembered


def test_a_store_that_is_away_fails_each_load_that_waits_and_the_next_try_works(
    services: Services, tmp_path: Path
) -> None:
    publish_many(services, ["a", "b", "c"])
    models = tmp_path / "data/models"
    models.rename(tmp_path / "away")
    models.touch()
    begun = [begin(services, name, selector) for name in "abc" for selector in (LATEST, 1)]
    assert versions_of(begun) == [ArtifactStoreUnavailable] * 6
    models.unlink()
    (tmp_path / "away").rename(models)
    assert versions_of([begin(services, name) for name in "abc"]) == [1, 1, 1]


# ---- changes during a load -----------------------------------------------------------------------------------


@pytest.mark.parametrize("publish", [fit, lambda services: publish_many(services, ["s"])], ids=["single", "packed"])
def test_who_asks_after_a_fit_was_answered_gets_it_though_an_older_load_is_under_way(
    services: Services, store: WatchedStore, publish: Callable[[Services], object]
) -> None:
    fit(services, seed=5)
    with store.shut():
        older = begin(services)
        assert store.reading.wait(PATIENCE_S)
        publish(services)
        newer = begin(services)
        assert newer is not older
        assert begin(services) is newer
    assert versions_of([older, newer]) == [1, 2]
    assert services.registry.load("s", LATEST).version == 2
    found = services.registry.find_loaded("s", LATEST)
    assert found is not None
    assert found.version == 2


def test_who_asks_after_an_alias_moved_gets_where_it_points_now(services: Services, store: WatchedStore) -> None:
    fit(services, seed=1)
    fit(services, seed=2)
    services.registry.set_alias("s", "prod", 1, ANY)
    with store.shut():
        older = begin(services, selector="prod")
        assert store.reading.wait(PATIENCE_S)
        services.registry.set_alias("s", "prod", 2, ANY)
        newer = begin(services, selector="prod")
    assert versions_of([older, newer]) == [1, 2]
    assert services.registry.load("s", "prod").version == 2


def test_a_load_that_has_ended_and_is_not_answered_yet_is_not_joined_after_a_change(
    services: Services, store: WatchedStore, build_services: BuildServices
) -> None:
    """The model is in memory a moment before those that wait for it hear of it."""
    names = ["s", *(f"s{n}" for n in range(300))]
    other = build_services(database_url=services.settings.database_url)
    publish_many(services, [*names, "occupied0", "occupied1"])
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in (1, 2, 3):
            with store.shut() as first:
                begun = [*occupy(services, store), *(begin(services, name) for name in names)]
                with store.shut():
                    first.set()
                    assert store.reading.wait(PATIENCE_S)  # the batch knows its versions
                    publish_many(other, ["s"])
            while services.registry.find_loaded("s", number) is None:
                pass
            services.registry._cache.forget("s")  # as the follower does
            assert services.registry.load("s", LATEST).version == number + 1
            wait(begun, PATIENCE_S)
            services.registry._cache.forget_all()
    finally:
        sys.setswitchinterval(interval_s)


def test_a_version_deleted_during_its_load_is_not_kept(services: Services, store: WatchedStore) -> None:
    fit(services, seed=1)
    fit(services, seed=2)
    with store.shut():
        begun = [begin(services, selector=selector) for selector in (1, LATEST)]
        assert store.reading.wait(PATIENCE_S)
        services.registry.delete_version("s", 1, ANY)
        after = begin(services, selector=1)
    assert versions_of([begun[0], after]) == [1, VersionDeleted]
    assert services.registry.find_loaded("s", 1) is None
    assert services.registry.load("s", LATEST).version == 2


def test_a_series_deleted_and_swept_during_a_load_is_a_clear_error(services: Services, store: WatchedStore) -> None:
    fit(services, "kept", seed=2)
    fit(services, seed=1)
    models, _ = services.stores
    digest = services.registry.catalog.get_version("s", 1).model_digest
    with store.shut():
        begun = begin(services)
        assert store.reading.wait(PATIENCE_S)
        services.registry.delete_series("s")
        store.delete(models.key(digest))
    assert versions_of([begun, begin(services)]) == [ArtifactDamaged, VersionDeleted]
    assert services.registry.sweep(timedelta(minutes=1)).artifacts == 0


def test_while_fits_and_loads_run_at_once_nobody_gets_less_than_the_last_fit_that_was_answered(
    services: Services,
) -> None:
    answered = {name: fit(services, name) for name in "ab"}
    stop = threading.Event()

    def fit_over_and_over(name: str) -> None:
        while not stop.is_set():
            answered[name] = services.training.begin_fit(name, history(1), MeanStd, MeanStdParams()).result().version

    def load_over_and_over(name: str) -> int:
        loads = 0
        while not stop.is_set():
            least = answered[name]
            assert services.registry.load(name, LATEST).version >= least
            loads += 1
        return loads

    with ThreadPoolExecutor(6) as pool:
        fitting = [pool.submit(fit_over_and_over, name) for name in "ab"]
        loading = [pool.submit(load_over_and_over, name) for name in "abab"]
        wait(fitting + loading, 0.8, "FIRST_COMPLETED")
        stop.set()
        assert all(load.result(PATIENCE_S) > 10 for load in loading)
        wait(fitting, PATIENCE_S)


# ---- what is counted -----------------------------------------------------------------------------------------


def test_a_load_is_one_miss_however_many_wait_and_each_prediction_in_memory_one_hit(
    services: Services, store: WatchedStore
) -> None:
    fit(services)
    cache = services.registry._cache
    assert cache.statistics() == (0, 0, 0, 0)
    with store.shut():
        begun = [begin(services) for _ in range(20)]
    versions_of(begun)
    assert cache.statistics()[:3] == (0, 1, 1)
    for _ in range(5):
        services.prediction.predict_one("s", LATEST, 60.0, 1.0)
    assert cache.statistics()[:3] == (5, 1, 1)
    with pytest.raises(SeriesNotFound):
        services.prediction.predict_one("unknown", LATEST, 60.0, 1.0)
    assert cache.statistics()[:3] == (5, 2, 1)
    assert cache.statistics().size_bytes > 0
    cache.forget_all()
    assert cache.statistics() == (5, 2, 0, 0)


def test_a_load_that_finds_its_model_in_memory_under_another_selector_is_no_hit(services: Services) -> None:
    fit(services)
    services.prediction.predict_one("s", 1, 60.0, 1.0)
    fit(services, "t")
    services.registry.set_alias("s", "prod", 1, ANY)  # what points at it has to be read anew
    services.prediction.predict_one("s", LATEST, 60.0, 1.0)
    assert services.registry._cache.statistics()[:3] == (0, 2, 1)
