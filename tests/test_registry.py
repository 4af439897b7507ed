"""Versions, aliases and deletions, from many threads and processes at once, on PostgreSQL and on SQLite."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, text, update

from app.bootstrap import Services
from app.db import Database, aliases, changes, series, versions
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import (
    ArtifactDamaged,
    ArtifactStoreUnavailable,
    DatabaseUnavailable,
    IdempotencyKeyReused,
    VersionDeleted,
)
from app.preconditions import Precondition
from app.series import Series
from app.versions import LATEST, Version
from tests.crashing import history
from tests.servers import REPOSITORY, Tidemark
from tests.streaming import PARAMS

ANY = Precondition()
BODY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}


def fit(services: Services, series_id: str = "s", seed: int = 1, key: str | None = None) -> Version:
    return services.training.fit(series_id, history(seed), MeanStd, MeanStdParams(), key)


def begin_fit(services: Services, series_id: str = "s", seed: int = 1) -> Future[Version]:
    return services.training.begin_fit(series_id, history(seed), MeanStd, MeanStdParams())


def numbers(services: Services, series_id: str = "s") -> list[int]:
    return [version.version for version in services.registry.catalog.list_versions(series_id, 10_000, None)]


def files(services: Services) -> list[list[str]]:
    return [[entry.key for entry in content.store.list()] for content in services.stores]


def rows(services: Services) -> list[int]:
    with services.database.read() as connection:
        tables = (series, versions, aliases, changes)
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]


# ---- versions ------------------------------------------------------------------------------------------------


def test_the_same_data_and_parameters_twice_give_two_versions_that_share_their_blobs(services: Services) -> None:
    first, second = fit(services), fit(services)
    assert (first.version, second.version) == (1, 2)
    assert (first.model_digest, first.data_digest) == (second.model_digest, second.data_digest)
    assert [len(keys) for keys in files(services)] == [1, 1]
    assert begin_fit(services, "another").result().data_digest == first.data_digest
    assert [len(keys) for keys in files(services)] == [1, 1]


def test_other_parameters_share_the_training_data_only(services: Services) -> None:
    fit(services)
    services.training.fit("s", history(1), MeanStd, MeanStdParams(k=4.0))
    assert [len(keys) for keys in files(services)] == [2, 1]


def test_each_version_answers_bit_for_bit_the_same_from_another_process(
    services: Services, build_services: Callable[..., Services]
) -> None:
    for seed in range(5):
        fit(services, seed=seed)
    other = build_services(database_url=services.settings.database_url)
    points = Series(np.arange(200.0), np.random.default_rng(0).normal(10, 3, 200))
    seen = set()
    for number in range(1, 6):
        mine, theirs = (s.prediction.predict("s", number, points)[1] for s in (services, other))
        assert mine.score.tobytes() == theirs.score.tobytes()
        assert mine.expected.tobytes() == theirs.expected.tobytes()
        seen.add(mine.score.tobytes())
    assert len(seen) == 5


def test_a_fit_is_the_latest_at_once_in_the_process_that_made_it(services: Services) -> None:
    for n in range(1, 30):
        made = (fit if n % 2 else lambda s, seed: begin_fit(s, seed=seed).result())(services, seed=n % 3)
        assert made.version == n
        assert services.prediction.predict_one("s", LATEST, 60.0, 1.0)[0] == n


def test_a_version_carries_all_of_its_provenance(services: Services) -> None:
    made = services.training.fit("s", history(3), MeanStd, MeanStdParams(k=2.5, direction="above"))
    read = services.registry.catalog.get_version("s", 1)
    assert read == made
    assert read.params == {**PARAMS, "k": 2.5, "direction": "above"}
    assert (read.points, read.first_timestamp_s, read.last_timestamp_s) == (50, 0.0, 49.0)
    assert set(read.libraries) == {"tidemark", "python", "numpy"}
    assert read.created_at.tzinfo is not None
    assert services.registry.read_training_data(read).values.tobytes() == history(3).values.tobytes()


def test_a_model_in_memory_is_not_read_again_when_only_what_points_at_it_changed(services: Services) -> None:
    version = fit(services)
    assert services.prediction.predict_one("s", LATEST, 60.0, 1.0)[0] == 1
    models, _ = services.stores
    models.store.delete(models.key(version.model_digest))  # the store is of no use any more
    services.registry.set_alias("s", "prod", 1, ANY)
    assert services.prediction.predict_one("s", "prod", 60.0, 1.0)[0] == 1
    assert services.prediction.predict_one("s", LATEST, 60.0, 1.0)[0] == 1


# ---- damage --------------------------------------------------------------------------------------------------


def test_a_damaged_model_is_a_clear_500_that_names_it_and_harms_no_other_version(
    serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    client = serve().client
    first = client.post("/fit/s", json=BODY).json()
    other = BODY | {"values": [1.0, 2.0, 3.0, 4.0]}
    client.post("/fit/s", json=other)
    client.post("/fit/t", json=other)
    [path] = (tmp_path / "data/models").glob(f"*/{first['model_digest'].removeprefix('sha256:')}*")
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    answer = client.post("/predict/s?version=1", json={"timestamp": 5, "value": 1})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert path.name in answer.json()["detail"]
    assert answer.json()["type"].endswith("artifact-damaged")
    for name in ("s", "s?version=2", "t"):
        assert client.post(f"/predict/{name}", json={"timestamp": 5, "value": 1}).status_code == 200
    assert client.get("/readyz").status_code == 200
    # a fit of the same data writes the same artifact, and so heals it
    assert client.post("/fit/s", json=BODY).json()["version"] == "3"
    assert client.post("/predict/s?version=1", json={"timestamp": 5, "value": 1}).status_code == 200


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_damaged_training_data_is_named_and_predictions_go_on(services: Services, damage: str) -> None:
    version = fit(services)
    _, training = services.stores
    key = training.key(version.data_digest)
    data = training.get(version.data_digest)
    training.store.delete(key)
    if damage != "missing":
        training.store.put({key: data[:-1] if damage == "truncated" else data[:40] + b"?" + data[41:]})
    with pytest.raises(ArtifactDamaged, match=version.data_digest.hex()):
        services.registry.read_training_data(version)
    with pytest.raises(ArtifactDamaged, match=version.data_digest.hex()):
        services.inspection.view("s", 1)
    assert services.prediction.predict_one("s", 1, 60.0, 1.0)[0] == 1
    fit(services)
    assert len(services.registry.read_training_data(version)) == 50


def test_an_artifact_whole_by_its_checksum_that_is_no_model_is_named(services: Services) -> None:
    version = fit(services)
    models, training = services.stores
    with services.database.write() as connection:  # as after a mixed-up restore
        connection.execute(update(versions).values(model_digest=version.data_digest))
    models.put({version.data_digest: training.get(version.data_digest)})
    with pytest.raises(ArtifactDamaged, match=f"{version.data_digest.hex()}.safetensors .* not a model file"):
        services.registry.load("s", 1)


# ---- numbers -------------------------------------------------------------------------------------------------


def test_fits_of_few_series_from_16_threads_get_numbers_without_gap_or_clash(services: Services) -> None:
    names = ["a", "b", "c"]

    def work(worker: int) -> list[tuple[str, int]]:
        made = []
        for n in range(8):
            name = names[(worker + n) % 3]
            version = fit(services, name, seed=n) if n % 2 else begin_fit(services, name, seed=n).result()
            made.append((name, version.version))
        return made

    with ThreadPoolExecutor(16) as pool:
        made = [version for versions_ in pool.map(work, range(16)) for version in versions_]
    assert len(set(made)) == 128
    for name in names:
        count = sum(1 for series_id, _ in made if series_id == name)
        assert numbers(services, name) == list(range(count, 0, -1))


FITTING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.crashing import MeanStd, MeanStdParams, Settings, build, history
services = build(Settings(_env_file=None, database_url=sys.argv[1], data_dir=Path(sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
def fit(n):
    name = f"s{n % 5}"
    begun = services.training.begin_fit(name, history(n % 4), MeanStd, MeanStdParams())
    return f"{name} {begun.result().version}"
with ThreadPoolExecutor(16) as pool:
    print("\\n".join(pool.map(fit, range(200))))
"""


def test_fits_of_the_same_series_from_two_processes_get_numbers_without_gap_or_clash(services: Services) -> None:
    command = [sys.executable, "-c", FITTING, str(services.settings.database_url), str(services.settings.data_dir)]
    with process(command) as one, process(command) as two:
        for running in (one, two):
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
        for running in (one, two):
            assert running.stdin is not None
            running.stdin.write("go\n")
            running.stdin.flush()
        made = [line for running in (one, two) for line in running.communicate(timeout=60)[0].splitlines()]
    assert sorted(made) == sorted(f"s{n % 5} {n // 5 + 1}" for n in range(400))
    assert numbers(services, "s0") == list(range(80, 0, -1))


@contextmanager
def process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


# ---- refused and failed fits ---------------------------------------------------------------------------------


def test_a_fit_whose_artifacts_cannot_be_stored_leaves_no_row(services: Services, tmp_path: Path) -> None:
    fit(services)
    before = rows(services)
    training = tmp_path / "data/training"
    training.rename(tmp_path / "away")
    training.touch()
    for attempt in (lambda: fit(services, seed=2), lambda: begin_fit(services, seed=2).result()):
        with pytest.raises(ArtifactStoreUnavailable, match="training"):
            attempt()
    assert rows(services) == before
    training.unlink()
    (tmp_path / "away").rename(training)
    assert fit(services, seed=2).version == 2


def test_a_refused_fit_leaves_neither_row_nor_file(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    client = serve().client
    for body in (BODY | {"values": [1, 1, 1, 1]}, BODY | {"detector": "unknown"}, BODY | {"params": {"k": -1}}, {}):
        assert client.post("/fit/s", json=body).status_code == 422
    assert client.get("/series").json()["series"] == []
    assert [path for path in (tmp_path / "data").glob("*/*/*") if path.is_file()] == []
    assert client.post("/fit/s", json=BODY).json()["version"] == "1"


def test_a_series_whose_rows_contradict_each_other_does_not_fail_the_fits_of_others(services: Services) -> None:
    """As after a restore of half a backup: its next number is taken already."""
    fit(services, "broken")
    with services.database.write() as connection:
        connection.execute(update(series).where(series.c.series_id == "broken").values(last_version=0))
    names = ["a", "broken", "b", "c"]
    with held_back(services):
        futures = [begin_fit(services, name) for name in names]
    wait(futures, 20)
    assert [future.exception() is None for future in futures] == [name != "broken" for name in names]
    assert [numbers(services, name) for name in ("a", "b", "c")] == [[1]] * 3


@contextmanager
def held_back(services: Services) -> Iterator[None]:
    """Commits wait until the end of the block; what is begun within it then goes into one batch."""
    with services.database.write() as connection:
        services.database.pause_publishing(connection)
        first = begin_fit(services, "held.back")
        time.sleep(0.1)  # its commit is under way, and waits
        yield
    first.result(20)


# ---- idempotency ---------------------------------------------------------------------------------------------


def test_the_same_key_and_body_from_many_threads_and_two_processes_make_one_version(
    services: Services, build_services: Callable[..., Services]
) -> None:
    other = build_services(database_url=services.settings.database_url)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: fit((services, other)[n % 2], key="k"), range(32)))
    assert {version.version for version in made} == {1}
    assert numbers(services) == [1]
    assert fit(services, key="another").version == 2


def test_the_same_key_belongs_to_its_series(services: Services) -> None:
    assert fit(services, "a", key="k").version == fit(services, "b", seed=2, key="k").version == 1


def test_two_bodies_with_one_key_in_one_batch_are_settled_without_harm_to_the_fits_beside_them(
    services: Services,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        with held_back(services):
            beside = [begin_fit(services, f"beside{n}") for n in range(3)]
            keyed = [pool.submit(fit, services, "s", seed, "k") for seed in (1, 2)]
            time.sleep(0.2)
            beside += [begin_fit(services, f"beside{n}") for n in range(3, 6)]
        wait([*beside, *keyed], 20)
    assert [future.exception() for future in beside] == [None] * 6
    assert [numbers(services, f"beside{n}") for n in range(6)] == [[1]] * 6
    errors = [future.exception() for future in keyed]
    assert errors.count(None) == 1
    assert isinstance(next(error for error in errors if error), IdempotencyKeyReused)
    assert numbers(services) == [1]


def test_a_key_whose_version_was_deleted_says_so_and_harms_no_other_fit(services: Services) -> None:
    fit(services, key="k")
    fit(services, seed=2)
    services.registry.delete_version("s", 1, ANY)
    with pytest.raises(VersionDeleted):
        fit(services, key="k")
    assert numbers(services) == [2]


def test_a_key_with_another_body_is_refused_and_leaves_nothing(services: Services) -> None:
    fit(services, key="k")
    before = rows(services)
    with pytest.raises(IdempotencyKeyReused):
        fit(services, seed=2, key="k")
    with pytest.raises(IdempotencyKeyReused):
        services.training.fit("s", history(1), MeanStd, MeanStdParams(k=2.0), "k")
    assert rows(services) == before


# ---- a database that refuses ---------------------------------------------------------------------------------


def test_a_database_that_is_read_only_for_now_is_unavailable(
    build_services: Callable[..., Services], new_postgres_url: str
) -> None:
    """As after a failover to a standby that is not promoted yet."""
    from app.migrations import migrate

    database = Database(new_postgres_url, timeout_s=5)
    migrate(database)
    with database.write() as connection:
        connection.execute(text(f'ALTER DATABASE "{database.url.database}" SET default_transaction_read_only = on'))
    database.close()
    services = build_services(database_url=new_postgres_url)
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        fit(services)


def test_a_database_locked_by_another_for_too_long_is_unavailable_and_nothing_is_stored(
    build_services: Callable[..., Services], database_url: str
) -> None:
    services = build_services(database_url=database_url, database_timeout_s=1)
    holder = build_services(database_url=database_url)
    fit(services)
    with holder.database.write() as connection:
        holder.database.pause_publishing(connection)
        with pytest.raises(DatabaseUnavailable):
            fit(services, seed=2)
        assert services.prediction.predict_one("s", LATEST, 60.0, 1.0)[0] == 1
    assert fit(services, seed=2).version == 2
