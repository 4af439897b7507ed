"""`sweep` removes what no version names, and nothing else, whatever goes on at the same time."""

import hashlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from app.artifacts.base import UNFINISHED, ArtifactStore, Part, StoredArtifact
from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import ConfigurationError
from app.migrations import migrate
from app.preconditions import Precondition
from tests.crashing import history
from tests.fleets import read_model
from tests.servers import let_time_pass, run_tidemark

ANY = Precondition()
GRACE = timedelta(hours=1)
BuildServices = Callable[..., Services]


def fit(services: Services, series_id: str, seed: int) -> int:
    return services.training.fit(series_id, history(seed), MeanStd, MeanStdParams()).version


def begin_fit(services: Services, series_id: str, seed: int) -> int:
    return services.training.begin_fit(series_id, history(seed), MeanStd, MeanStdParams()).result(30).version


def files(services: Services) -> set[str]:
    return {entry.key for content in services.stores for entry in content.store.list()}


def load_everything(services: Services, names: list[str]) -> int:
    """Read both artifacts of every version; how many there are."""
    count = 0
    for name in names:
        for version in services.registry.catalog.list_versions(name, 10_000, None):
            read_model(services, version)
            services.registry.read_training_data(version)
            count += 1
    return count


def put_orphans(services: Services, count: int) -> None:
    models, _ = services.stores
    blobs = [b"orphan %d" % n for n in range(count)]
    models.put({hashlib.sha256(blob).digest(): blob for blob in blobs})


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_artifacts_of_deleted_versions_are_removed_and_shared_ones_stay(services: Services, data_dir: Path) -> None:
    fit(services, "s", seed=1)
    fit(services, "s", seed=2)
    fit(services, "t", seed=2)
    services.registry.delete_version("s", 1, ANY)
    services.registry.delete_version("s", 2, ANY)
    let_time_pass(data_dir)
    swept = services.registry.sweep(GRACE, force=True)
    assert swept.artifacts == 2
    assert swept.size_bytes > 100
    assert len(files(services)) == 2
    assert load_everything(services, ["t"]) == 1
    assert services.registry.sweep(GRACE, force=True) == (0, 0)


def test_what_is_younger_than_the_grace_stays(services: Services, data_dir: Path) -> None:
    put_orphans(services, 1)
    (data_dir / "models" / UNFINISHED / "cut-off").write_bytes(b"half a mod")
    before = files(services)
    assert services.registry.sweep(GRACE, force=True).artifacts == 0
    let_time_pass(data_dir, hours=0.9)
    assert services.registry.sweep(GRACE, force=True).artifacts == 0
    assert files(services) == before
    let_time_pass(data_dir, hours=0.2)
    assert services.registry.sweep(GRACE, force=True).artifacts == 2
    assert files(services) == set()


def test_a_dry_run_says_what_would_go_and_removes_nothing(services: Services, data_dir: Path) -> None:
    fit(services, "s", seed=1)
    put_orphans(services, 3)
    let_time_pass(data_dir)
    before = files(services)
    said = services.registry.sweep(GRACE, dry_run=True, force=True)
    assert files(services) == before
    assert services.registry.sweep(GRACE, force=True) == said
    assert said.artifacts == 3


def test_files_of_others_in_the_folder_stay(services: Services, data_dir: Path) -> None:
    strangers = ["README.md", "notes/todo.txt", "ab/abcd.safetensors", "models.tar"]
    for name in strangers:
        path = data_dir / "models" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not ours")
    let_time_pass(data_dir)
    services.registry.sweep(GRACE, force=True)
    assert all((data_dir / "models" / name).exists() for name in strangers)


def test_models_and_training_data_may_share_one_folder(
    build_services: BuildServices, database_url: str, tmp_path: Path
) -> None:
    both = str(tmp_path / "both")
    services = build_services(database_url=database_url, model_state_folder=both, training_data_folder=both)
    fit(services, "s", seed=1)
    fit(services, "s", seed=2)
    services.registry.delete_version("s", 1, ANY)
    let_time_pass(tmp_path / "both")
    assert services.registry.sweep(GRACE, force=True).artifacts == 2
    assert load_everything(services, ["s"]) == 1


def test_a_grace_under_a_minute_is_refused(services: Services) -> None:
    with pytest.raises(ConfigurationError, match="60 s"):
        services.registry.sweep(timedelta(seconds=59))


def test_hundreds_of_orphans_are_removed(services: Services, data_dir: Path) -> None:
    fit(services, "s", seed=1)
    put_orphans(services, 250)
    let_time_pass(data_dir)
    assert services.registry.sweep(GRACE, force=True).artifacts == 250
    assert len(files(services)) == 2


# ---- at the same time ----------------------------------------------------------------------------------------


class Workshop:
    """Fits, deletions and sweeps over and over, in threads and over two processes' worth of connections."""

    NAMES = ("a", "b", "c", "d")

    def __init__(self, services: Services, build_services: BuildServices, data_dir: Path) -> None:
        url = services.settings.database_url
        self.sweeper, self.other = build_services(database_url=url), build_services(database_url=url)
        self.services, self.data_dir = services, data_dir
        self.stop = threading.Event()
        self.began_at_s: dict[int, float] = {}
        self.swept = 0

    def sweep(self) -> None:
        while not self.stop.is_set():
            self.make_artifacts_old()
            self.swept += self.sweeper.registry.sweep(timedelta(minutes=1), force=True).artifacts
            time.sleep(0.01)

    def make_artifacts_old(self) -> None:
        """All that no fit under way has written; those are younger than the grace in real life too."""
        began_at_s = min([time.time(), *self.began_at_s.values()]) - 0.02
        for path in self.data_dir.glob("*/??/*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < began_at_s:
                    os.utime(path, (0, 0))

    def fit_and_delete(self, worker: int) -> None:
        """The same data as another worker, so that what one deletes the other fits again."""
        services, name = (self.services, self.other)[worker % 2], self.NAMES[worker]
        while not self.stop.is_set():
            for seed in (worker // 2, worker // 2 + 10):
                self.began_at_s[worker] = time.time()
                number = (fit if worker < 2 else begin_fit)(services, name, seed)
                self.began_at_s[worker] = math.inf
                assert load_everything(services, [name]) == 1
                services.registry.delete_version(name, number, ANY)


def test_fits_that_share_old_orphans_lose_nothing_to_a_sweep_that_runs_at_the_same_time(
    services: Services, build_services: BuildServices, data_dir: Path
) -> None:
    workshop = Workshop(services, build_services, data_dir)
    deadline = time.monotonic() + 20
    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(workshop.sweep)]
        working += [pool.submit(workshop.fit_and_delete, worker) for worker in range(4)]
        while workshop.swept < 40 and time.monotonic() < deadline and not any(work.done() for work in working):
            time.sleep(0.05)
        workshop.stop.set()
        for work in working:
            work.result(30)
    assert workshop.swept >= 40, "the machine is too slow to show anything"


class SlowToDelete:
    """A store whose deletions take their time, as those of an object store far away do."""

    def __init__(self, store: ArtifactStore, delay_s: float) -> None:
        self._store, self._delay_s = store, delay_s
        self.deleting = threading.Event()

    def put(self, artifacts: Mapping[str, bytes], *, replace: bool = False) -> set[str]:
        return self._store.put(artifacts, replace=replace)

    def get(self, parts: Sequence[Part]) -> Sequence[bytes | None]:
        return self._store.get(parts)

    def list(self) -> Iterator[StoredArtifact]:
        return self._store.list()

    def delete(self, key: str) -> None:
        self.deleting.set()
        time.sleep(self._delay_s)
        self._store.delete(key)


def test_a_database_that_names_none_of_many_artifacts_is_not_believed_without_force(
    services: Services, build_services: BuildServices, tmp_path: Path, data_dir: Path
) -> None:
    fit(services, "s", seed=1)
    let_time_pass(data_dir)
    other = build_services(database_url=f"sqlite:///{tmp_path / 'another.db'}")
    migrate(other.database)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        other.registry.sweep(GRACE)
    assert services.registry.sweep(GRACE) == (0, 0)
    assert other.registry.sweep(GRACE, force=True).artifacts == 2


def test_fits_go_on_during_a_long_sweep(services: Services, build_services: BuildServices, data_dir: Path) -> None:
    fit(services, "s", seed=1)
    put_orphans(services, 220)
    let_time_pass(data_dir)
    sweeper = build_services(database_url=services.settings.database_url)
    models, _ = sweeper.stores
    models.store = slow = SlowToDelete(models.store, delay_s=0.01)  # more than 2 s in all
    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(sweeper.registry.sweep, GRACE)
        assert slow.deleting.wait(10)
        began = time.monotonic()
        waited_s = []
        while not sweeping.done():
            started = time.monotonic()
            fit(services, "s", seed=2)
            waited_s.append(time.monotonic() - started)
        swept_s = time.monotonic() - began
        assert sweeping.result().artifacts == 220
    assert len(waited_s) > 2
    assert max(waited_s) < 0.75 * swept_s  # for one batch of 100 files; for two it would be 0.9


# ---- the command ---------------------------------------------------------------------------------------------


def test_the_command_reports_what_it_did(build_services: BuildServices, tmp_path: Path, data_dir: Path) -> None:
    services = build_services()
    migrate(services.database)
    settings = {"DATA_DIR": str(data_dir)}
    fit(services, "s", seed=1)
    put_orphans(services, 2)
    let_time_pass(data_dir, hours=0.5)
    kept = run_tidemark(tmp_path, "sweep", settings=settings)
    assert (kept.returncode, kept.stdout) == (0, "0 artifacts removed, 0 bytes.\n")
    dry = run_tidemark(tmp_path, "sweep", "--grace-minutes", "29", "--dry-run", settings=settings)
    assert (dry.returncode, dry.stdout) == (0, "2 artifacts would be removed, 16 bytes.\n")
    done = run_tidemark(tmp_path, "sweep", "--grace-minutes", "29", settings=settings)
    assert (done.returncode, done.stdout) == (0, "2 artifacts removed, 16 bytes.\n")
    assert load_everything(services, ["s"]) == 1
