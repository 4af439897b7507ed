"""The commands about API keys: create, list, revoke."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.api_keys import (
    SCOPES,
    ApiKey,
    Limits,
    describe_scopes,
    digest_of,
    new_key,
    parse_name,
    parse_patterns,
    parse_scopes,
)
from app.cli.schema import migrate_embedded
from app.config import read_settings
from app.db import Database
from app.errors import ConfigurationError
from app.key_catalog import KeyCatalog
from app.logs import configure_logs

_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdwy])")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}
_FURTHEST = timedelta(days=100 * 365)

keys = typer.Typer(no_args_is_help=True, help="API keys: who may do what, on which series.")


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Names the key, for ever: versions remember it.")],
    *,
    scope: Annotated[str, typer.Option(help=f"What it may do: some of {','.join(SCOPES)}.")],
    series: Annotated[str, typer.Option(help="Series it is for: globs, such as 'plant1.*,pump?'.")] = "*",
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d from now, or a date.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests at most.")] = None,
    points_per_minute: Annotated[int | None, typer.Option(min=1, help="Points at most.")] = None,
) -> None:
    """Make a key and show it, once: only its SHA-256 is stored."""
    text, key_id = new_key()
    now = datetime.now(UTC)
    key = ApiKey(
        key_id=key_id,
        name=parse_name(name),
        digest=digest_of(text),
        scopes=parse_scopes(scope),
        series=parse_patterns(series),
        limits=Limits(requests_per_minute, points_per_minute),
        created_at=now,
        expires_at=None if expires is None else _parse_end(expires, now),
    )
    with _catalog() as catalog:
        catalog.add(key)
    typer.echo(text)
    until = f" until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    typer.echo(f"Key {name} may {describe_scopes(key.scopes)} on {key.series.text}{until}.", err=True)
    typer.echo("It is shown this once: keep it now.", err=True)


@keys.command(name="list")
def list_keys() -> None:
    """List all keys, without their texts."""
    with _catalog() as catalog:
        found = catalog.list()
    if not found:
        typer.echo("There is no key: python -m app keys create makes one.")
        return
    rows = [("NAME", "KEY", "SCOPES", "SERIES", "LIMITS A MINUTE", "CREATED", "STATE"), *[_row(key) for key in found]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="Name of the key, or the 12 characters behind tm_.")]) -> None:
    """Make a key invalid for good, in every process within a second."""
    with _catalog() as catalog:
        key = catalog.revoke(name)
    typer.echo(f"Key {key.name} (tm_{key.key_id}) is revoked.")


@contextmanager
def _catalog() -> Iterator[KeyCatalog]:
    settings = read_settings()
    configure_logs(settings.log_level, settings.log_format)
    migrate_embedded(settings)
    database = Database(settings.sqlalchemy_url, settings.database_timeout_s)
    yield KeyCatalog(database)
    database.close()


def _row(key: ApiKey) -> tuple[str, ...]:
    requests, points = key.limits
    limits = [f"{requests:,} requests"] if requests else []
    limits += [f"{points:,} points"] if points else []
    made = f"{key.created_at:%Y-%m-%d}"
    named = (key.name, f"tm_{key.key_id}", describe_scopes(key.scopes), key.series.text)
    return (*named, ", ".join(limits) or "none", made, _state(key))


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.is_valid else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}"


def _parse_end(raw: str, now: datetime) -> datetime:
    advice = "say how long, like 90d, 12h or 1y, or a date like 2027-01-31"
    if match := _DURATION.fullmatch(raw):
        lasts = int(match[1]) * _UNITS[match[2]]
        if lasts > _FURTHEST:
            raise ConfigurationError(f"--expires {raw} is more than 100 years: leave it out for a key without end.")
        return now + lasts
    try:
        end = datetime.fromisoformat(raw)
    except ValueError:
        raise ConfigurationError(f"--expires {raw} is no end: {advice}.") from None
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    if end <= now:
        raise ConfigurationError(f"--expires {raw} is in the past: {advice}.")
    return end
