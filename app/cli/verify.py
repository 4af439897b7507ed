"""`python -m app verify`: everything that is stored, against what the database says of it."""

import time

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from app.bootstrap import build
from app.cli.schema import PATIENT_S
from app.config import read_settings
from app.logs import configure_logs
from app.migrations import check_schema
from app.verification import Finding, Verification

console = Console(stderr=True, highlight=False)


def verify_all(*, as_json: bool) -> bool:
    """Check all rows and artifacts, with a bar, a line for each finding and a summary; whether all is well.

    Raises DatabaseUnavailable, SchemaOutdated, ArtifactStoreUnavailable.
    """
    settings = read_settings().model_copy(update={"database_timeout_s": PATIENT_S})
    configure_logs(settings.log_level, settings.log_format)
    services = build(settings)
    check_schema(services.database)
    verification = Verification(services.registry.catalog, *services.stores)
    started = time.perf_counter()
    checked = wrong = 0
    with _progress() as progress:
        for finding in verification.check_rows():
            wrong += 1
            _say(finding, as_json=as_json)
        task = progress.add_task("versions", total=verification.count())
        for step in verification.check_artifacts():
            checked += step.versions
            wrong += len(step.findings)
            for finding in step.findings:
                _say(finding, as_json=as_json)
            progress.update(task, advance=step.versions)
    services.close()
    verdict = f"{wrong:,} things are wrong" if wrong else "all is well"
    summary = f"{checked:,} versions checked in {time.perf_counter() - started:.1f} s: {verdict}."
    typer.echo(summary, err=as_json)
    return not wrong


def _say(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(finding._asdict()).decode())
        return
    which = [finding.series_id, finding.version and f"version {finding.version}", finding.path]
    where = ", ".join(str(part) for part in which if part)
    typer.echo(f"{where}{': ' if where else ''}{finding.fault} {finding.advice}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
