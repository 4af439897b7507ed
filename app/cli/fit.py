"""`python -m app fit`: series from files, straight into the registry."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from app.api import lines
from app.api.lines import FitDefaults
from app.cli.fleet import Report, fit_source, open_executor
from app.cli.schema import migrate_embedded
from app.cli.tuning import tune
from app.config import read_settings
from app.errors import ConfigurationError, InvalidInput
from app.logs import configure_logs
from app.sources import open_source
from app.sources.base import Columns, Source

_SHOWN = 10

console = Console(stderr=True, highlight=False)


class Choice(NamedTuple):
    """How to fit."""

    detector: str | None
    params: str | None
    """JSON."""
    workers: int
    executor: str | None
    """`dask://host:port`."""


def fit_files(files: Sequence[Path], columns: Columns, choice: Choice) -> bool:
    """Fit every series of the files, with a bar for progress and a summary; whether none was refused.

    Raises SourceUnreadable, ConfigurationError, MissingDependency, DatabaseUnavailable, ArtifactStoreUnavailable.
    """
    settings = read_settings()
    settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})  # workers may run elsewhere
    configure_logs(settings.log_level, settings.log_format)
    defaults = _defaults(choice.detector, choice.params)
    sources = [open_source(path, columns) for path in files]  # all of them, before anything is fitted
    migrate_embedded(settings)
    tune()
    tally = _Tally()
    try:
        with open_executor(choice.executor, choice.workers, settings) as (pool, at_once), _progress() as progress:
            for path, source in zip(files, sources, strict=True):  # one after the other: the last is the latest
                task = progress.add_task(path.name, total=source.size, fitted=0)
                for report in fit_source(source, settings, defaults, pool, at_once):
                    tally.add(path, report)
                    progress.update(task, completed=report.bytes_done, fitted=tally.fitted)
                _say_left_out(path, source)
    finally:
        tally.say()
    return not tally.refused


class _Tally:
    """What became of all series so far."""

    def __init__(self) -> None:
        self.fitted = self.points = self.refused = 0
        self._started = time.perf_counter()

    def add(self, path: Path, report: Report) -> None:
        """Count a report, and name the first series that were refused."""
        self.fitted += report.fitted
        self.points += report.points
        for refused in report.refused:
            self.refused += 1
            if self.refused <= _SHOWN:
                where = f"{path}:{refused.line}" if refused.line else str(path)
                console.print(
                    f"{where}: {refused.series_id or 'a series'} is refused: {refused.reason}",
                    markup=False,
                    soft_wrap=True,
                )

    def say(self) -> None:
        """The summary, also of a run that was cut short: what it counts is durable."""
        seconds = time.perf_counter() - self._started
        rate = f"{self.fitted / seconds:,.0f}/s"
        refused = f"; {self.refused:,} refused" if self.refused else ""
        typer.echo(f"{self.fitted:,} series of {self.points:,} points fitted in {seconds:.1f} s ({rate}){refused}.")


def _defaults(detector: str | None, params: str | None) -> FitDefaults:
    given = {"detector": detector, "params": params}
    try:
        return lines.parse_defaults([(name, text) for name, text in given.items() if text is not None])
    except InvalidInput as error:
        faults = "; ".join(f"--{fault.pointer.strip('/')} {fault.detail}" for fault in error.faults)
        raise ConfigurationError(faults) from None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[fitted]:,} series"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _say_left_out(path: Path, source: Source) -> None:
    if source.left_out:
        names = ", ".join(source.left_out[:_SHOWN]) + (" ..." if len(source.left_out) > _SHOWN else "")
        console.print(f"{path}: left out, since not all of it is numbers: {names}", markup=False, soft_wrap=True)
