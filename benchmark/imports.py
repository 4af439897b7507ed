"""Whole files by the command line: `python -m app fit`."""

import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple, Self

from benchmark.fleets import POINTS, Fleet
from benchmark.measures import Row, peak_memory_mb, rounds, say
from benchmark.testbed import Site, Testbed
from tests.servers import begin_tidemark

_SERIES = 100_000
_ROUNDS = 3
_SAMPLE_S = 0.02


class Imported(NamedTuple):
    """What one run of the command took, and where its series are."""

    fleet: Fleet
    site: Site
    seconds: float
    peak_memory_mb: float
    database_bytes: int
    disk_bytes: int


@cache
def import_fleet(bed: Testbed, series: int) -> Imported:
    """A site with a fleet of so many series `sensor-0` .., fitted by one process; asked for again, the same one."""
    fleet = Fleet("sensor", series)
    path = write_fleet(bed, fleet)
    imported = run_import(bed, f"sensors-{series}", fleet, path)
    path.unlink()
    return imported


def write_fleet(bed: Testbed, fleet: Fleet) -> Path:
    """The fleet as a Parquet file."""
    say(f"{fleet.series:,} series of {POINTS} points: writing the file")
    path = bed.folder / f"{fleet.prefix}-{fleet.series}.parquet"
    fleet.write_parquet(path)
    return path


def run_import(bed: Testbed, name: str, fleet: Fleet, path: Path, *options: str) -> Imported:
    """Fit a file on a new site. Raises RuntimeError when the command fails, or has not fitted every series."""
    site = bed.site(name)
    empty_bytes = site.ask("SELECT pg_database_size(current_database())")
    say(f"{fleet.series:,} series of {POINTS} points: fitting them {' '.join(options)}")
    seconds, peak_mb = _run(site, ["fit", str(path), *options])
    versions = site.ask("SELECT count(*) FROM versions")
    if versions != fleet.series:
        raise RuntimeError(f"{versions:,} versions were made of {fleet.series:,} series")
    database_bytes = site.ask("SELECT pg_database_size(current_database())") - empty_bytes
    disk_bytes = sum(path.stat().st_blocks * 512 for path in site.data.rglob("*") if path.is_file())
    return Imported(fleet, site, seconds, peak_mb, database_bytes, disk_bytes)


def measure_imports(bed: Testbed) -> Iterator[Row]:
    """One file by one process, two, and a Dask cluster of two."""
    fleet = Fleet("import", _SERIES)
    path = write_fleet(bed, fleet)
    ways = {"`--workers 1`": ["--workers", "1"], "`--workers 2`": ["--workers", "2"]}
    cluster = _dask_cluster()
    if cluster is not None:
        ways["`--executor dask://...`, 2 worker processes"] = ["--executor", f"dask://{cluster.address}"]
    seconds: dict[str, list[float]] = {way: [] for way in ways}

    def run_each(number: int) -> None:
        for place, (way, options) in enumerate(ways.items()):
            imported = run_import(bed, f"import-{number}-{place}", fleet, path, *options)
            seconds[way].append(imported.seconds)
            bed.remove(imported.site)

    rounds(f"app fit of {_SERIES:,} series", run_each, _ROUNDS)
    path.unlink()
    for way in ways:
        median_s = statistics.median(seconds[way])
        figure = f"{median_s:.1f} s, {_SERIES / median_s:,.0f} series/s"
        yield Row(f"`app fit` of a Parquet file, {_SERIES:,} series of {POINTS} points, {way}", figure)
    if cluster is None:
        yield Row("`app fit --executor dask://...`", "not measured: `distributed` is not installed")
    else:
        cluster.close()


class _Cluster:
    """Dask with two worker processes."""

    def __init__(self) -> None:
        from distributed import LocalCluster

        self._cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=40
        )
        self.address: str = self._cluster.scheduler_address.removeprefix("tcp://")

    def close(self) -> None:
        self._cluster.close()


def _dask_cluster() -> _Cluster | None:
    try:
        return _Cluster()
    except ModuleNotFoundError:
        return None


def _run(site: Site, arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak MB of `python -m app`, its start included."""
    log = site.folder / "command.log"
    with log.open("w") as output:
        started = time.perf_counter()
        process = begin_tidemark(site.folder, *arguments, settings=site.settings, stdout=output, stderr=output)
        with _PeakMemory(process) as peak:
            process.wait()
        seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise RuntimeError(f"app {' '.join(arguments)} exits with {process.returncode}: {log.read_text()[-2000:]}")
    return seconds, peak.megabytes


class _PeakMemory:
    """Looks at a process until it ends: getrusage would count what this one had when it forked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.megabytes = 0.0
        self._pid = process.pid
        self._has_ended = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._has_ended.wait(_SAMPLE_S):
            try:
                self.megabytes = max(self.megabytes, peak_memory_mb(self._pid))
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                return
