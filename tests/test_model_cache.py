"""Models in memory: bounded, least recently used first out, never older than what was announced."""

import random
import tracemalloc
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.detectors import codec
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.model_cache import ModelCache
from app.versions import LATEST, LoadedModel

PARAMS = MeanStdParams()


def model(version: int) -> LoadedModel:
    return LoadedModel(version, MeanStd(float(version), 1.0, PARAMS))


def keep(
    cache: ModelCache, series_id: str, latest: int, aliases: Mapping[str, int] | None = None, version: int | None = None
) -> None:
    cache.finish(cache.begin(series_id), (latest, aliases or {}), model(version or latest))


def test_a_model_is_found_by_number_latest_and_alias() -> None:
    cache = ModelCache(10_000)
    keep(cache, "s", latest=2, aliases={"prod": 1, "next": 2})
    for selector in (LATEST, 2, "next"):
        found = cache.find("s", selector)
        assert found is not None
        assert found.version == 2
    assert cache.find("s", 1) is None
    assert cache.find("s", "prod") is None  # known, but not in memory
    assert cache.find("s", "unknown") is None
    assert cache.find("t", LATEST) is None


def test_after_a_change_selectors_are_unknown_and_numbers_are_not() -> None:
    cache = ModelCache(10_000)
    keep(cache, "s", latest=1, aliases={"prod": 1})
    keep(cache, "t", latest=1)
    cache.forget("s")
    assert cache.find("s", LATEST) is None
    assert cache.find("s", "prod") is None
    assert cache.find("s", 1) is not None
    assert cache.find("t", LATEST) is not None


def test_after_a_deletion_numbers_are_unknown_too() -> None:
    cache = ModelCache(10_000)
    keep(cache, "s", latest=1)
    cache.forget("s", models=True)
    assert cache.find("s", 1) is None


@pytest.mark.parametrize("forget", [lambda c: c.forget("s"), lambda c: c.forget_all()], ids=["one", "all"])
def test_a_load_during_which_the_series_changed_is_not_kept(forget: object) -> None:
    cache = ModelCache(10_000)
    loading = cache.begin("s")
    forget(cache)  # type: ignore[operator]
    cache.finish(loading, (1, {"prod": 1}), model(1))
    assert cache.find("s", LATEST) is None
    assert cache.find("s", "prod") is None


@pytest.mark.parametrize("forget", [lambda c: c.forget("s", models=True), lambda c: c.forget_all()], ids=["one", "all"])
def test_a_load_during_which_versions_were_deleted_keeps_no_model(forget: object) -> None:
    cache = ModelCache(10_000)
    loading = cache.begin("s")
    forget(cache)  # type: ignore[operator]
    cache.finish(loading, (1, {}), model(1))
    assert cache.find("s", 1) is None


def test_a_load_during_which_only_the_latest_changed_keeps_its_model() -> None:
    cache = ModelCache(10_000)
    loading = cache.begin("s")
    cache.forget("s")
    cache.finish(loading, (1, {}), model(1))
    assert cache.find("s", 1) is not None
    keep(cache, "s", latest=2)
    assert cache.find("s", LATEST) is not None


def test_a_change_of_another_series_does_not_make_a_load_stale() -> None:
    cache = ModelCache(10_000)
    loading = cache.begin("s")
    cache.forget("t", models=True)
    cache.finish(loading, (1, {}), model(1))
    assert cache.find("s", LATEST) is not None


def test_an_older_load_that_ends_after_a_newer_one_does_not_turn_the_clock_back() -> None:
    cache = ModelCache(10_000)
    older = cache.begin("s")  # has read version 1
    cache.forget("s")  # version 2 is published
    keep(cache, "s", latest=2)
    cache.finish(older, (1, {}), model(1))
    found = cache.find("s", LATEST)
    assert found is not None
    assert found.version == 2


def test_a_load_that_failed_leaves_nothing() -> None:
    cache = ModelCache(10_000)
    cache.finish(cache.begin("s"))
    assert cache.find("s", LATEST) is None
    cache.finish(cache.begin("s"), (1, {}))
    assert cache.find("s", LATEST) is None


def test_the_least_recently_used_series_goes_first() -> None:
    cache = ModelCache(20_000)
    names = [f"s{n}" for n in range(8)]
    for name in names:
        keep(cache, name, latest=1)
    assert all(cache.find(name, LATEST) for name in names)
    cache.find("s0", LATEST)  # now s1 is the one that was used longest ago
    gone: list[str] = []
    for n in range(100):
        keep(cache, f"new{n}", latest=1)
        held = set(cache._entries)
        gone += [name for name in names if name not in held and name not in gone]
    assert gone == [*names[1:], "s0"]


def test_a_series_that_is_used_stays_while_others_come_and_go() -> None:
    cache = ModelCache(10_000)
    keep(cache, "hot", latest=1)
    for n in range(1000):
        keep(cache, f"cold{n}", latest=1)
        assert cache.find("hot", LATEST) is not None
    assert cache.find("cold0", LATEST) is None
    assert cache.find("cold999", LATEST) is not None


def test_memory_stays_within_the_limit_as_measured() -> None:
    capacity = 2_000_000
    generator = random.Random(1)
    names = [f"a.series.with.a.name.of.usual.length.{n}" for n in range(20_000)]
    cache = ModelCache(capacity)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for name in names:
            for _ in range(generator.choice((1, 1, 3))):
                aliases = {f"alias{n}": 1 for n in range(generator.choice((0, 0, 5)))}
                keep(cache, name, latest=9, aliases=aliases, version=generator.randint(1, 9))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert capacity / 3 < after - before < capacity * 1.1
    assert peak - before < capacity * 1.2


@pytest.mark.parametrize(("count", "versions"), [(11_000, 1), (1_500, 4)])
def test_a_baseline_model_takes_less_than_1_kb_and_the_cache_knows_what_it_takes(count: int, versions: int) -> None:
    files = [codec.encode(MeanStd(float(n), 1.0 + n, PARAMS)) for n in range(1000)]
    cache = ModelCache(1_000_000_000)
    codec.decode(files[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(count):
            for version in range(1, versions + 1):
                loaded = LoadedModel(version, codec.decode(files[n % 1000]))
                cache.finish(cache.begin(f"plant.line.sensor_{n}"), (versions, {}), loaded)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    figures = cache.statistics()
    assert figures.models == count * versions
    assert (after - before) / figures.models < 1000
    assert after - before <= figures.size_bytes <= 1.5 * (after - before)


def test_one_series_with_very_many_versions_stays_within_the_limit_and_is_fast() -> None:
    cache = ModelCache(20_000_000)
    for version in range(1, 100_001):
        cache.finish(cache.begin("s"), (100_000, {}), model(version))
    assert cache._size_bytes <= 20_000_000


@given(st.integers(0, 2000))
def test_a_model_larger_than_the_cache_is_not_kept_and_nothing_breaks(capacity_bytes: int) -> None:
    cache = ModelCache(capacity_bytes)
    for n in range(5):
        keep(cache, f"s{n}", latest=1, aliases={"prod": 1})
        assert cache._size_bytes <= capacity_bytes


class CacheAgainstTruth(RuleBasedStateMachine):
    """Whatever the order of loads, changes and evictions, the cache never gives what is no longer so."""

    SERIES = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.cache = ModelCache(3_500)
        self.latest = {"a": 0, "b": 0, "c": 0}
        self.alive = {"a": set[int](), "b": set[int](), "c": set[int]()}
        self.loads: list[tuple[object, str, int]] = []

    @rule(name=SERIES)
    def publish(self, name: str) -> None:
        self.latest[name] += 1
        self.alive[name].add(self.latest[name])
        self.cache.forget(name)

    @rule(name=SERIES)
    def delete_latest(self, name: str) -> None:
        self.alive[name].discard(max(self.alive[name], default=0))
        self.cache.forget(name, models=True)

    @rule(name=SERIES)
    def begin_load(self, name: str) -> None:
        if self.alive[name]:
            self.loads.append((self.cache.begin(name), name, max(self.alive[name])))

    @rule(pick=st.integers(0, 1000))
    def finish_load(self, pick: int) -> None:
        if self.loads:
            loading, _, version = self.loads.pop(pick % len(self.loads))
            self.cache.finish(loading, (version, {"prod": version}), model(version))  # type: ignore[arg-type]

    @rule()
    def forget_all(self) -> None:
        self.cache.forget_all()

    @invariant()
    def nothing_is_stale(self) -> None:
        for name, alive in self.alive.items():
            for selector in (LATEST, "prod"):
                if found := self.cache.find(name, selector):
                    assert found.version == max(alive)
            for number in range(1, self.latest[name] + 1):
                if self.cache.find(name, number):
                    assert number in alive

    @invariant()
    def bytes_are_counted_and_bounded(self) -> None:
        assert self.cache._size_bytes == sum(entry.size_bytes for entry in self.cache._entries.values())
        assert self.cache._size_bytes <= 3_500


TestCacheAgainstTruth = CacheAgainstTruth.TestCase
