"""`python -m app verify`: it finds every damage, names it, and finds none where there is none."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.preconditions import Precondition
from app.verification import Finding, Verification
from app.versions import Version
from tests.crashing import history
from tests.fleets import publish_many
from tests.servers import run_tidemark

ADVICE = "Restore it from a backup, or fit the series again"


class Stored(NamedTuple):
    """Something to damage, and the command that should notice."""

    services: Services
    folder: Path
    singles: list[Version]
    packed: list[Version]

    def verify(self, *options: str) -> subprocess.CompletedProcess[str]:
        settings = {"DATABASE_URL": str(self.services.settings.database_url)}
        return run_tidemark(self.folder, "verify", *options, settings=settings)

    def findings(self) -> list[Finding]:
        """What it finds, without the command around it."""
        verification = Verification(self.services.registry.catalog, *self.services.stores)
        found = list(verification.check_rows())
        return found + [finding for step in verification.check_artifacts() for finding in step.findings]

    def model_file(self, version: Version) -> Path:
        models, _ = self.services.stores
        key = models.key(version.model_digest) if version.place is None else models.pack_key(version.place.model_pack)
        return self.folder / "data/models" / key

    def data_file(self, version: Version) -> Path:
        _, training = self.services.stores
        key = training.key(version.data_digest) if version.place is None else training.pack_key(version.place.data_pack)
        return self.folder / "data/training" / key

    def execute(self, statement: str) -> None:
        with self.services.database.write() as connection:
            connection.execute(text(statement))


@pytest.fixture
def stored(services: Services, tmp_path: Path) -> Stored:
    """Versions with files of their own and of a pack, some of them deleted, and aliases."""
    fit = services.training.fit
    singles = [fit("single", history(seed), MeanStd, MeanStdParams()) for seed in (1, 2, 3, 4)]
    packed = publish_many(services, ["a", "b", "c"], [5, 6, 7])
    services.registry.set_alias("single", "prod", 2, Precondition())
    services.registry.delete_version("single", 4, Precondition())
    services.registry.delete_version("single", 1, Precondition())
    services.registry.delete_series("c")
    return Stored(services, tmp_path, singles, packed)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def exchange(path: Path) -> None:
    path.write_bytes(b"something else")


DAMAGES: list[Callable[[Path], None]] = [truncate, flip_a_bit, Path.unlink, exchange]


@pytest.fixture
def damaged_file(request: pytest.FixtureRequest, stored: Stored) -> Path:
    kind, which = request.param
    version = {"single": stored.singles[1], "pack": stored.packed[1]}[which]
    return stored.model_file(version) if kind == "model" else stored.data_file(version)


def test_it_finds_nothing_where_nothing_is_wrong(stored: Stored) -> None:
    done = stored.verify()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("4 versions checked in ")
    assert done.stdout.endswith(": all is well.\n")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_it_names_every_version_whose_files_are_damaged(stored: Stored, damage: Callable[[Path], None]) -> None:
    """Of each kind of file one, at once."""
    single, other = stored.singles[1:3]
    files = [stored.model_file(single), stored.data_file(other), stored.data_file(stored.packed[0])]
    for path in files:
        damage(path)
    findings = stored.findings()
    assert {(f.series_id, f.version, Path(f.path).name) for f in findings} == {
        ("single", 2, files[0].name),
        ("single", 3, files[1].name),
        ("a", 1, files[2].name),
        ("b", 1, files[2].name),
    }
    for finding in findings:
        assert finding.path in finding.fault
        assert ADVICE in finding.advice


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_has_a_line_for_each_finding_and_a_summary_and_exits_with_1(stored: Stored) -> None:
    stored.model_file(stored.singles[1]).unlink()
    truncate(stored.data_file(stored.packed[0]))
    done = stored.verify()
    assert done.returncode == 1
    *lines, summary = done.stdout.splitlines()
    assert sorted(line.partition(",")[0] for line in lines) == ["a", "b", "single"]
    assert all(ADVICE in line for line in lines)
    assert summary.startswith("4 versions checked in ")
    assert summary.endswith(": 3 things are wrong.")
    done = stored.verify("--json")
    assert done.returncode == 1
    assert done.stderr.endswith(": 3 things are wrong.\n")
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == [finding._asdict() for finding in stored.findings()]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_of_a_pack_of_models_it_names_the_parts_that_are_damaged_and_the_pack(stored: Stored) -> None:
    place = stored.packed[1].place
    assert place is not None
    path = stored.model_file(stored.packed[1])
    data = bytearray(path.read_bytes())
    data[place.model_offset + place.model_length - 1] ^= 128
    path.write_bytes(data)
    assert [(f.series_id, f.version) for f in stored.findings()] == [(None, None), ("b", 1)]
    path.unlink()
    assert [(f.series_id, f.version) for f in stored.findings()] == [(None, None), ("a", 1), ("b", 1)]


CONTRADICTIONS = {
    "an alias that points at nothing": (
        "INSERT INTO aliases VALUES ('single', 'beta', 1, 'r', '2026-01-01 00:00:00')",
        ("single", 1),
        "alias beta points at version 1",
    ),
    "a wrong latest version": (
        "UPDATE series SET latest_version = 2 WHERE series_id = 'single'",
        ("single", None),
        "the latest is 2. In truth there are 4 rows up to 4, and the latest is 3",
    ),
    "a latest version of a series without one": (
        "UPDATE series SET latest_version = 1 WHERE series_id = 'c'",
        ("c", None),
        "the latest is none",
    ),
    "a lost version": (
        "DELETE FROM versions WHERE series_id = 'single' AND version = 1",
        ("single", None),
        "there are 3 rows up to 4",
    ),
    "a number that was never taken": (
        "UPDATE series SET last_version = 3 WHERE series_id = 'single'",
        ("single", None),
        "Versions 1 to 3 were given",
    ),
    "a pack that is miscounted": ("UPDATE packs SET versions = 7", (None, None), "counts 7 versions, and there are 2"),
    "a pack without a row": ("DELETE FROM packs", ("a", 1), "which has no row"),
    "another model's place": (
        "UPDATE versions SET model_offset = 0 WHERE series_id = 'b'",
        ("b", 1),
        "does not match its checksum",
    ),
    "another series' rows": (
        "UPDATE versions SET first_row = 0 WHERE series_id = 'b'",
        ("b", 1),
        "from row 0 are not its own",
    ),
    "another detector": (
        "UPDATE versions SET detector = 'ewma' WHERE series_id = 'single' AND version = 2",
        ("single", 2),
        "It is a model of mean_std",
    ),
    "another length": (
        "UPDATE versions SET points = 49 WHERE series_id = 'single' AND version = 2",
        ("single", 2),
        "It has 50 points, and its version 49",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_it_finds_rows_that_contradict_each_other_or_the_artifacts(stored: Stored, case: str) -> None:
    statement, where, fault = CONTRADICTIONS[case]
    stored.execute(statement)
    found = [f for f in stored.findings() if fault in f.fault]
    assert [(f.series_id, f.version) for f in found[:1]] == [where]
    assert found[0].advice


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_it_finds_the_same_on_postgresql(stored: Stored) -> None:
    sound = ("an alias that points at nothing", "a wrong latest version", "a pack that is miscounted")
    stored.execute("ALTER TABLE aliases DROP CONSTRAINT aliases_series_id_version_fkey")
    stored.execute("INSERT INTO aliases VALUES ('single', 'gamma', 9, 'r', '2026-01-01 00:00:00')")
    for case in sound:
        stored.execute(CONTRADICTIONS[case][0])
    stored.model_file(stored.singles[2]).unlink()
    stored.data_file(stored.packed[0]).unlink()
    findings = stored.findings()
    assert all(any(CONTRADICTIONS[case][2] in f.fault for f in findings) for case in sound)
    named = {("single", 1), ("single", 9), ("single", None), (None, None), ("a", 1), ("b", 1), ("single", 3)}
    assert {(f.series_id, f.version) for f in findings} == named
    assert len(findings) == len(named)


def keep_fitting(services: Services, stopping: threading.Event) -> None:
    for seed in range(10_000):
        if stopping.is_set():
            return
        services.training.fit("busy", history(seed), MeanStd, MeanStdParams())
        publish_many(services, ["busy", f"packed{seed}"], [seed, seed + 1])
        number = services.registry.catalog.get_pointers("busy")[0]
        services.registry.delete_version("busy", number - 1, Precondition())


@pytest.fixture
def load(services: Services) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=keep_fitting, args=(services, stopping))
    thread.start()
    yield
    stopping.set()
    thread.join()


@pytest.mark.usefixtures("load")
def test_while_others_fit_and_delete_it_finds_nothing_wrong_and_holds_nobody_up(stored: Stored) -> None:
    catalog = stored.services.registry.catalog
    deadline = time.monotonic() + 60
    while catalog.count_series() < 6:
        assert time.monotonic() < deadline
    first = catalog.get_pointers("busy")[0]
    for _ in range(5):
        assert stored.findings() == []
    while catalog.get_pointers("busy")[0] < first + 30:
        assert stored.findings() == []
        assert time.monotonic() < deadline


def test_what_is_deleted_and_swept_after_it_was_listed_is_no_finding(services: Services) -> None:
    futures = [services.training.begin_fit("s", history(n), MeanStd, MeanStdParams()) for n in range(150)]
    made = sorted((future.result() for future in futures), key=lambda version: version.version)
    models, _ = services.stores
    steps = Verification(services.registry.catalog, *services.stores).check_artifacts()
    first = next(steps)
    assert (first.versions, first.findings) == (100, [])
    for version in made[-3:]:
        models.store.delete(models.key(version.model_digest))
    services.registry.delete_version("s", 150, Precondition())
    services.registry.delete_version("s", 149, Precondition())
    [second] = steps
    assert second.versions == 50
    assert [finding.version for finding in second.findings] == [148]


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_object_store_is_verified_too(
    build_services: Callable[..., Services], database_url: str, tmp_path: Path
) -> None:
    folders = {
        "model_state_folder": f"s3://tidemark/{tmp_path.name}/models",
        "training_data_folder": f"s3://tidemark/{tmp_path.name}/training",
    }
    services = build_services(database_url=database_url, **folders)
    [one, two, *_] = publish_many(services, ["a", "b", "c"])
    single = services.training.fit("single", history(1), MeanStd, MeanStdParams())
    stored = Stored(services, tmp_path, [single], [one, two])
    assert stored.findings() == []
    models, training = services.stores
    training.store.delete(training.key(single.data_digest))
    assert one.place is not None
    models.store.put({models.pack_key(one.place.model_pack): b"short"}, replace=True)
    found = [(finding.series_id, finding.version) for finding in stored.findings()]
    assert sorted(found, key=str) == [("a", 1), ("b", 1), ("c", 1), ("single", 1), (None, None)]


def test_without_a_schema_it_says_what_to_run(new_postgres_url: str, tmp_path: Path) -> None:
    done = run_tidemark(tmp_path, "verify", settings={"DATABASE_URL": new_postgres_url})
    assert done.returncode == 1
    assert "python -m app migrate" in done.stderr
