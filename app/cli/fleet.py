"""Fitting fleets of series from files, on as many processes or machines as there are."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from typing import Any, NamedTuple

from app.api import lines
from app.api.lines import Asked, FitDefaults
from app.api.streams import LineCutter
from app.bootstrap import Services, build
from app.config import Settings
from app.errors import ConfigurationError, MissingDependency, TidemarkError, Unavailable
from app.services.training import FitJob
from app.sources.base import Chunk, JsonLines, Source

_DASK = "dask://"
_AHEAD = 2
"""Chunks that wait for each worker."""
_MB = 2**20


class Refused(NamedTuple):
    """A series that was not fitted."""

    line: int | None
    series_id: str | None
    reason: str


class Report(NamedTuple):
    """What became of some series."""

    fitted: int = 0
    points: int = 0
    refused: Sequence[Refused] = ()
    bytes_done: int = 0
    """Of the file that is being read."""


@contextmanager
def open_executor(address: str | None, workers: int, settings: Settings) -> Iterator[tuple[Executor, int]]:
    """Where chunks are fitted, and how many at a time: in this process, in `workers` of its own, or in a cluster's.

    Raises ConfigurationError, MissingDependency.
    """
    if address is not None:
        with _cluster(address, settings) as cluster:
            yield cluster
    elif workers == 1:
        with ThreadPoolExecutor(2) as threads:  # one computes while the other waits for database and disk
            yield threads, 2
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), _leave_interrupts) as processes:
            yield processes, workers


def _leave_interrupts() -> None:
    """Ctrl+C reaches every process of a terminal; the one that has the workers ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _cluster(address: str, settings: Settings) -> Iterator[tuple[Executor, int]]:
    if not address.startswith(_DASK):
        raise ConfigurationError(f"--executor {address} is not known: use dask://host:port, or --workers.")
    if settings.sqlalchemy_url.startswith("sqlite"):
        raise ConfigurationError("A cluster needs a database that its workers can reach: set DATABASE_URL.")
    try:
        distributed: Any = import_module("distributed")
    except ModuleNotFoundError as error:
        message = f"--executor {address} needs {error.name}: pip install -r requirements-cluster.txt"
        raise MissingDependency(message) from error
    try:
        client = distributed.Client(f"tcp://{address.removeprefix(_DASK)}", timeout="10s")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"There is no Dask scheduler at {address}: {error}.") from error
    with client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise ConfigurationError(f"The Dask scheduler at {address} has no workers.")
        yield client.get_executor(), workers


def fit_source(
    source: Source, settings: Settings, defaults: FitDefaults, executor: Executor, at_once: int
) -> Iterator[Report]:
    """Fit every series of a file; a report for each chunk, in the order in which they end.

    What a report counts is durable. Raises SourceUnreadable, DatabaseUnavailable, ArtifactStoreUnavailable.
    """
    running: dict[Future[Report], int] = {}
    try:
        for chunk, bytes_done in source.chunks():
            running[executor.submit(fit_chunk, chunk, settings, defaults)] = bytes_done
            if len(running) >= at_once * _AHEAD:
                yield from _ended(running)
        while running:
            yield from _ended(running)
    finally:
        for future in running:
            future.cancel()


def _ended(running: dict[Future[Report], int]) -> Iterator[Report]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield future.result()._replace(bytes_done=running.pop(future))


def fit_chunk(chunk: Chunk, settings: Settings, defaults: FitDefaults) -> Report:
    """Fit the series of a chunk; runs wherever the executor runs it."""
    services = _services(settings)
    asked = _read(chunk, settings, defaults)
    outcomes = services.training.publish(services.training.prepare([ask.wanted for ask in asked]))
    refused = []
    fitted = points = 0
    for ask, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, Unavailable):
            raise outcome
        if isinstance(outcome, TidemarkError):
            refused.append(Refused(ask.line, ask.series_id, _reason(outcome)))
        else:
            fitted += 1
            points += outcome.points
    return Report(fitted, points, refused)


def _read(chunk: Chunk, settings: Settings, defaults: FitDefaults) -> list[Asked[FitJob]]:
    if not isinstance(chunk, JsonLines):
        return lines.read_table(chunk, settings, defaults)
    cutter = LineCutter(settings.max_body_mb * _MB, first=chunk.first_line)
    return lines.read_fits([*cutter.cut(chunk.data), *cutter.end()], settings, defaults)


def _reason(error: TidemarkError) -> str:
    return "; ".join(f"{fault.pointer} {fault.detail}".strip() for fault in error.faults) or error.detail


@cache
def _services(settings: Settings) -> Services:
    """One set of them in each process, however many chunks it fits."""
    return build(settings)
