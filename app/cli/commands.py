"""The commands: serve, migrate, fit, sweep, verify, simulate."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.bootstrap import build
from app.cli.keys import keys
from app.cli.schema import PATIENT_S, migrate_embedded, migrate_now
from app.cli.serving import serve_alone
from app.config import read_settings
from app.errors import TidemarkError
from app.logs import configure_logs
from app.simulation import simulate_sensor

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tidemark: anomaly detection as a service.",
)
cli.add_typer(keys, name="keys")


def run() -> None:
    """Run the command line; one of our errors ends it with its message and exit status 1."""
    try:
        cli()
    except TidemarkError as error:
        typer.secho(f"{error.title}: {error.detail}", fg=typer.colors.RED, err=True)
        sys.exit(1)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on; default PORT.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that serve; default WORKERS.")] = None,
) -> None:
    """Serve the API and the pages. The embedded database is migrated first."""
    settings = read_settings()
    options = {"host": host, "port": port, "workers": workers}
    settings = settings.model_copy(update={k: v for k, v in options.items() if v is not None})
    configure_logs(settings.log_level, settings.log_format)
    migrate_embedded(settings)
    if settings.workers == 1:
        serve_alone(settings)
        return
    from app.cli.workers import serve_with_workers

    serve_with_workers(settings)


@cli.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    settings = read_settings()
    configure_logs(settings.log_level, settings.log_format)
    migrate_now(settings)
    typer.echo("The database schema is up to date.")


@cli.command()
def fit(
    files: Annotated[
        list[Path], typer.Argument(help="CSV, Parquet or NDJSON, in long or wide form.", metavar="FILE...")
    ],
    *,
    series_column: Annotated[str | None, typer.Option(help="Column of the series' names, in long form.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Column of the times.")] = None,
    value_column: Annotated[str | None, typer.Option(help="Column of the values, in long form.")] = None,
    detector: Annotated[str | None, typer.Option(help="Detector of every series.")] = None,
    params: Annotated[str | None, typer.Option(help='Its parameters, JSON: {"k": 4}.')] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that fit.")] = 1,
    executor: Annotated[str | None, typer.Option(help="A Dask cluster that fits: dask://host:port.")] = None,
) -> None:
    """Fit every series of the files, each to its next version.

    A table with a column of series is in long form: a row for each point. Without one, but with a column named value,
    it is one series, named like the file; otherwise each column of numbers is a series. Times without a zone are UTC.
    NDJSON has a series a line, as POST /fit takes it.
    """
    from app.cli.fit import Choice, fit_files  # what reads files, and no other command needs
    from app.sources.base import Columns

    columns = Columns(series_column, time_column, value_column)
    if not fit_files(files, columns, Choice(detector, params, workers, executor)):
        raise typer.Exit(1)


@cli.command()
def sweep(
    grace_minutes: Annotated[
        int, typer.Option(min=1, help="Keep artifacts younger than this; more than the longest fit takes.")
    ] = 60,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on although the database names no artifact.")] = False,
) -> None:
    """Remove stored artifacts that no version names."""
    settings = read_settings().model_copy(update={"database_timeout_s": PATIENT_S})
    configure_logs(settings.log_level, settings.log_format)
    services = build(settings)
    swept = services.registry.sweep(timedelta(minutes=grace_minutes), dry_run=dry_run, force=force)
    services.close()
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{swept.artifacts} artifacts {verb}, {swept.size_bytes:,} bytes.")


@cli.command()
def verify(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each finding.")] = False
) -> None:
    """Check every stored artifact and what the database says; exit with 1 when something is wrong."""
    from app.cli.verify import verify_all

    if not verify_all(as_json=as_json):
        raise typer.Exit(1)


@cli.command()
def simulate(
    points: Annotated[int, typer.Option(min=2, max=2_000_000, help="Length of the series.")] = 2016,
    anomalies: Annotated[int, typer.Option(min=0, help="Spikes and dips to plant.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same series.")] = 0,
    interval_s: Annotated[float, typer.Option(min=0.001, help="Seconds between two points.")] = 300.0,
) -> None:
    """Print a simulated sensor's series as a body for POST /fit."""
    series = simulate_sensor(points, seed=seed, interval_s=interval_s, anomalies=min(anomalies, points)).series
    body = {"timestamps": series.timestamps_s.tolist(), "values": series.values.round(3).tolist()}
    typer.echo(json.dumps(body, separators=(",", ":")))


@cli.command()
def version() -> None:
    """Print the release."""
    typer.echo(__version__)
