"""Bulk fits: many versions whose artifacts share two files, on PostgreSQL and on SQLite."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from app import training_data
from app.artifacts.base import ArtifactStore, Part, StoredArtifact
from app.bootstrap import Services
from app.catalog import Entry
from app.db import changes, packs, series, versions
from app.detectors import codec
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import ArtifactDamaged, DatabaseUnavailable, VersionDeleted
from app.migrations import migrate
from app.preconditions import Precondition
from app.versions import LATEST, Idempotency, Version
from tests.crashing import history
from tests.fleets import files, publish_many, read_model
from tests.servers import let_time_pass

ANY = Precondition()
GRACE = timedelta(hours=1)
BuildServices = Callable[..., Services]


def fit(services: Services, series_id: str, seed: int) -> Version:
    return services.training.fit(series_id, history(seed), MeanStd, MeanStdParams())


def rows(services: Services) -> list[int]:
    with services.database.read() as connection:
        tables = (series, versions, packs, changes)
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]


def judge(services: Services, series_id: str, number: int) -> object:
    return services.prediction.predict_one(series_id, number, 60.0, 11.0)


# ---- versions ------------------------------------------------------------------------------------------------


def test_each_series_of_a_batch_gets_its_next_number_however_its_other_versions_came_about(services: Services) -> None:
    fit(services, "b", seed=1)
    first = publish_many(services, ["a", "b", "c"])
    assert [(version.series_id, version.version) for version in first] == [("a", 1), ("b", 2), ("c", 1)]
    assert fit(services, "c", seed=1).version == 2
    second = publish_many(services, ["c", "a", "c", "c"])
    assert [(version.series_id, version.version) for version in second] == [("c", 3), ("a", 2), ("c", 4), ("c", 5)]
    # of several histories of one series the last one is the latest
    assert services.registry.catalog.get_version("c", LATEST) == second[-1]
    assert services.registry.load("c", LATEST).version == 5
    assert fit(services, "c", seed=1).version == 6
    assert [v.version for v in services.registry.catalog.list_versions("c", 10, None)] == [6, 5, 4, 3, 2, 1]


def test_a_version_of_a_pack_is_what_a_fit_of_the_same_data_by_itself_is(services: Services) -> None:
    """But for how its training data is stored, and so for the digest of that."""
    packed = publish_many(services, ["a", "b", "c"])
    for seed, version in enumerate(packed):
        single = fit(services, f"single.{version.series_id}", seed)
        assert version.model_digest == single.model_digest
        assert (version.detector, version.params, version.points) == (single.detector, single.params, single.points)
        assert version.first_timestamp_s == single.first_timestamp_s
        assert version.last_timestamp_s == single.last_timestamp_s
        assert codec.encode(read_model(services, version)) == codec.encode(read_model(services, single))
        assert judge(services, version.series_id, 1) == judge(services, single.series_id, 1)
        assert services.registry.catalog.get_version(version.series_id, 1) == version


def test_the_training_data_of_a_version_of_a_pack_is_its_own_and_can_be_looked_at(services: Services) -> None:
    for seed, version in enumerate(publish_many(services, ["a", "b", "a"])):
        read = services.registry.read_training_data(version)
        assert read.values.tobytes() == history(seed).values.tobytes()
        assert read.timestamps_s.tobytes() == history(seed).timestamps_s.tobytes()
        assert training_data.digest_of(read) == version.data_digest
        view = services.inspection.view(version.series_id, version.version)
        assert view.version == version
        assert view.points.values.tobytes() == history(seed).values.tobytes()


def test_a_batch_is_two_files_whose_names_are_their_checksums_and_the_rows_say_where_each_model_is(
    services: Services, tmp_path: Path
) -> None:
    published = publish_many(services, [f"s{n}" for n in range(20)])
    [[model_file], [data_file]] = files(services)
    models, data = (
        (tmp_path / "data" / name).read_bytes() for name in (f"models/{model_file}", f"training/{data_file}")
    )
    assert model_file.endswith(f"{hashlib.sha256(models).hexdigest()}.pack")
    assert data_file.endswith(f"{hashlib.sha256(data).hexdigest()}.parquet")
    end = 0
    for n, version in enumerate(published):
        assert version.place is not None
        assert version.place.model_offset == end
        end += version.place.model_length
        model = models[version.place.model_offset : end]
        assert hashlib.sha256(model).digest() == version.model_digest
        assert version.place.first_row == 50 * n
    assert end == len(models)


def test_the_same_batch_twice_is_two_versions_each_and_the_same_two_files(services: Services) -> None:
    first, second = publish_many(services, ["a", "b"]), publish_many(services, ["a", "b"])
    assert [version.version for version in (*first, *second)] == [1, 1, 2, 2]
    assert [version.place for version in first] == [version.place for version in second]
    assert [len(keys) for keys in files(services)] == [1, 1]
    assert judge(services, "a", 1)[1] == judge(services, "a", 2)[1]


def test_a_batch_is_the_latest_at_once_and_followed_by_other_processes(
    services: Services, build_services: BuildServices
) -> None:
    other = build_services(database_url=services.settings.database_url)
    publish_many(services, ["a", "b"])
    for replica in (services, other):
        replica.follower.poll()
        assert [judge(replica, name, LATEST)[0] for name in ("a", "b")] == [1, 1]
    publish_many(services, ["b", "a"])
    assert [judge(services, name, LATEST)[0] for name in ("a", "b")] == [2, 2]
    other.follower.poll()
    assert [judge(other, name, LATEST)[0] for name in ("a", "b")] == [2, 2]


# ---- all or none ---------------------------------------------------------------------------------------------


def test_a_batch_with_one_series_whose_rows_contradict_each_other_stores_no_version(services: Services) -> None:
    """As after a restore of half a backup: its next number is taken already."""
    fit(services, "broken", seed=1)
    with services.database.write() as connection:
        connection.execute(update(series).where(series.c.series_id == "broken").values(last_version=0))
    before = rows(services)
    with pytest.raises(IntegrityError):
        publish_many(services, ["a", "broken", "b"])
    assert rows(services) == before
    assert [version.version for version in publish_many(services, ["a", "b"])] == [1, 1]


@pytest.mark.parametrize("ending", ["cancelled", "terminated"])
def test_a_bulk_fit_cut_off_while_it_copies_its_rows_stores_nothing_and_the_next_one_works(
    build_services: BuildServices, new_postgres_url: str, ending: str
) -> None:
    services = build_services(database_url=new_postgres_url, database_timeout_s=1 if ending == "cancelled" else 10)
    holder = build_services(database_url=new_postgres_url)
    migrate(services.database)
    publish_many(services, ["a"])
    before = rows(services)
    copying = "FROM pg_stat_activity WHERE starts_with(query, 'COPY versions') AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, holder.database.read() as asking, holder.database.write() as connection:
        connection.exec_driver_sql("LOCK TABLE versions IN SHARE MODE")
        cut_off = pool.submit(publish_many, services, ["a", "b"])
        while ending == "terminated" and not cut_off.done():
            asking.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {copying}")
        with pytest.raises(DatabaseUnavailable):
            cut_off.result(10)
    assert rows(services) == before
    assert [version.version for version in publish_many(services, ["a", "b"])] == [2, 1]


# ---- COPY ----------------------------------------------------------------------------------------------------

AWKWARD = (
    "\\", "\\N", "\\.", "a\\tb", "a\tb", "a\nb", "a\r\nb", "\t", "\n", " ", "", "'", '"', "{}", "é漢😀", "\\x41",
    "\\\\",    "%s", ":name", "\x7f", "\v\b\f", "a\\", "\\134",
)  # fmt: skip


def test_texts_arrive_in_the_database_as_they_are(services: Services) -> None:
    template = fit(services, "template", seed=1)
    entries = []
    for n, text in enumerate(AWKWARD):
        params = {"text": text, text: [text, None, True, 0.1, {"nested": text}]}
        version = Version(
            series_id=f"s{n}", version=0, detector="mean_std", params=params, points=n, first_timestamp_s=0.1 + 0.2,
            last_timestamp_s=1e-310, model_digest=bytes(range(32)), data_digest=template.data_digest,
            libraries={text: text}, created_at=datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC),
        )  # fmt: skip
        key = Idempotency(text, bytes(reversed(range(32)))) if text else None
        entries.append(Entry(version, key))
    published = services.registry.catalog.append(entries, lambda: None)
    for text, version in zip(AWKWARD, published, strict=True):
        assert services.registry.catalog.get_version(version.series_id, 1) == version
        if text:
            found = services.registry.catalog.find_by_key(version.series_id, text)
            assert found == (version, bytes(reversed(range(32))))


def test_a_batch_of_thousands_of_rows_is_stored_whole(services: Services) -> None:
    template = fit(services, "template", seed=1)
    entries = [Entry(template._replace(series_id=f"s{n}"), None) for n in range(3000)]
    assert {version.version for version in services.registry.catalog.append(entries, lambda: None)} == {1}
    assert services.registry.catalog.count_series() == 3001
    assert rows(services) == [3001, 3001, 0, 2]
    *_, last = services.registry.catalog.changes_after(0, [], 10)  # one row of the feed for the whole batch
    assert set(last.series_ids) == {entry.version.series_id for entry in entries}


# ---- damage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("damage", "harmed"), [("changed", ["b"]), ("cut", ["c"]), ("missing", ["a", "b", "c"])])
def test_a_damaged_pack_of_models_is_named_and_harms_only_the_versions_at_the_damage(
    services: Services, tmp_path: Path, damage: str, harmed: list[str]
) -> None:
    published = publish_many(services, ["a", "b", "c"])
    path = tmp_path / "data/models" / files(services)[0][0]
    place = published[1].place
    assert place is not None
    spoil(path, damage, place.model_offset + 100)
    found = dict(zip("abc", [services.registry.begin_load(name, LATEST) for name in "abc"], strict=True))
    for name, future in found.items():
        if name in harmed:
            with pytest.raises(ArtifactDamaged, match=path.name):
                future.result(10)
        else:
            assert future.result(10).version == 1
    publish_many(services, ["a", "b", "c"])  # the same again heals it
    assert [judge(services, name, 1)[0] for name in "abc"] == [1, 1, 1]


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_pack_of_training_data_is_named_and_predictions_go_on(
    services: Services, tmp_path: Path, damage: str
) -> None:
    published = publish_many(services, ["a", "b"])
    path = tmp_path / "data/training" / files(services)[1][0]
    spoil(path, damage, 40)
    for version in published:
        with pytest.raises(ArtifactDamaged, match=path.name):
            services.registry.read_training_data(version)
        with pytest.raises(ArtifactDamaged, match=path.name):
            services.inspection.view(version.series_id, 1)
        assert judge(services, version.series_id, 1)[0] == 1


def test_rows_that_point_at_another_place_of_a_pack_give_no_other_series_data(services: Services) -> None:
    """As after a mixed-up restore."""
    [version, _] = publish_many(services, ["a", "b"])
    with services.database.write() as connection:
        moved = update(versions).where(versions.c.series_id == "a")
        connection.execute(moved.values(first_row=50, model_offset=versions.c.model_offset + 8))
    version = services.registry.catalog.get_version("a", 1)
    with pytest.raises(ArtifactDamaged, match="version 1 of a"):
        services.registry.read_training_data(version)
    with pytest.raises(ArtifactDamaged, match=r"at byte 8 of .*\.pack"):
        services.registry.load("a", 1)
    assert judge(services, "b", 1)[0] == 1


def spoil(path: Path, damage: str, place: int) -> None:
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


# ---- deletions and sweeps ------------------------------------------------------------------------------------


def test_a_pack_is_swept_with_the_last_of_its_versions_and_not_before(services: Services, tmp_path: Path) -> None:
    fit(services, "single", seed=9)
    publish_many(services, ["a", "b", "a"])
    let_time_pass(tmp_path / "data")
    whole = files(services)
    for delete in (
        lambda: services.registry.delete_version("a", 1, ANY),
        lambda: services.registry.delete_series("b"),
    ):
        delete()
        assert services.registry.sweep(GRACE).artifacts == 0
        assert files(services) == whole
        assert len(services.registry.read_training_data(services.registry.catalog.get_version("a", 2))) == 50
        assert judge(services, "a", 2)[0] == 2
    with pytest.raises(VersionDeleted):
        services.registry.delete_version("a", 1, ANY)  # is not counted twice
    assert services.registry.sweep(GRACE).artifacts == 0
    services.registry.delete_series("a")
    assert services.registry.sweep(GRACE).artifacts == 2
    assert [len(keys) for keys in files(services)] == [1, 1]
    assert judge(services, "single", 1)[0] == 1


def test_of_two_batches_with_the_same_files_both_have_to_be_deleted(services: Services, tmp_path: Path) -> None:
    publish_many(services, ["a", "b"])
    publish_many(services, ["a", "b"])
    let_time_pass(tmp_path / "data")
    for name in ("a", "b"):
        services.registry.delete_version(name, 1, ANY)
    assert services.registry.sweep(GRACE).artifacts == 0
    assert judge(services, "a", 2)[0] == 2
    services.registry.delete_series("a")
    services.registry.delete_series("b")
    assert services.registry.sweep(GRACE, force=True).artifacts == 2


def test_a_pack_of_one_model_and_the_same_model_alone_do_not_take_each_other_away(
    services: Services, tmp_path: Path
) -> None:
    """Both have the same digest."""
    [packed] = publish_many(services, ["a"], seeds=[1])
    single = fit(services, "a", seed=1)
    assert packed.model_digest == single.model_digest
    let_time_pass(tmp_path / "data")
    services.registry.delete_version("a", 1, ANY)
    services.registry.sweep(GRACE)
    read_model(services, single)
    [again] = publish_many(services, ["b"], seeds=[1])
    services.registry.delete_version("a", 2, ANY)
    let_time_pass(tmp_path / "data")
    services.registry.sweep(GRACE)
    read_model(services, again)
    assert len(services.registry.read_training_data(again)) == 50


def test_packs_that_no_row_names_are_spared_while_they_are_young(services: Services, tmp_path: Path) -> None:
    fit(services, "single", seed=9)
    models, training = services.stores
    for content in (models, training):
        content.put_pack(hashlib.sha256(b"cut off").digest(), b"cut off")
    assert services.registry.sweep(GRACE).artifacts == 0
    let_time_pass(tmp_path / "data", hours=1.1)
    assert services.registry.sweep(GRACE).artifacts == 2
    assert judge(services, "single", 1)[0] == 1


class MeddledStore:
    """A store with something else going on after each of its puts, or before its listing is used."""

    def __init__(self, store: ArtifactStore, after: str, meddle: Callable[[], object]) -> None:
        self.store, self.after, self.meddle = store, after, meddle

    def put(self, artifacts: Mapping[str, bytes], *, replace: bool = False) -> set[str]:
        new = self.store.put(artifacts, replace=replace)
        self._meddle("put")
        return new

    def get(self, parts: Sequence[Part]) -> Sequence[bytes | None]:
        return self.store.get(parts)

    def list(self) -> Iterator[StoredArtifact]:
        listed = list(self.store.list())
        self._meddle("list")
        return iter(listed)

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def _meddle(self, verb: str) -> None:
        if verb == self.after:
            self.after = "done"
            self.meddle()


@pytest.fixture
def sweeper(services: Services, build_services: BuildServices, tmp_path: Path) -> Services:
    """Another process, after a batch whose versions were all deleted long ago."""
    fit(services, "single", seed=9)
    publish_many(services, ["a", "b"])
    for name in ("a", "b"):
        services.registry.delete_series(name)
    let_time_pass(tmp_path / "data")
    return build_services(database_url=services.settings.database_url)


def test_a_batch_that_shares_an_old_orphan_is_spared_by_a_sweep_that_has_listed_it(
    services: Services, sweeper: Services
) -> None:
    published: list[Version] = []
    models, _ = sweeper.stores
    models.store = MeddledStore(
        models.store, "list", lambda: published.extend(publish_many(services, ["c", "d"], seeds=[0, 1]))
    )
    assert sweeper.registry.sweep(GRACE).artifacts == 2  # listed, and then left alone
    for version in published:
        read_model(services, version)
        assert len(services.registry.read_training_data(version)) == 50
    assert len(published) == 2


def test_a_batch_that_shares_an_old_orphan_restores_it_when_a_sweep_was_faster(
    services: Services, sweeper: Services
) -> None:
    _, training = services.stores
    swept: list[int] = []
    training.store = MeddledStore(training.store, "put", lambda: swept.append(sweeper.registry.sweep(GRACE).artifacts))
    published = publish_many(services, ["c", "d"], seeds=[0, 1])
    assert swept == [2]
    assert [len(keys) for keys in files(services)] == [2, 2]
    for version in published:
        read_model(services, version)
        assert len(services.registry.read_training_data(version)) == 50
