"""API keys for the tests."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import httpx
from typer.testing import CliRunner, Result

from app.api_keys import ApiKey, Limits, digest_of, new_key, parse_patterns, parse_scopes
from app.cli.commands import cli
from app.db import Database
from app.key_catalog import KeyCatalog

EVERY_SCOPE = "fit,predict,read,admin"


def add_key(
    database_url: str,
    name: str,
    scope: str = EVERY_SCOPE,
    series: str = "*",
    *,
    limits: Limits = Limits(),  # noqa: B008  immutable
    expires_at: datetime | None = None,
) -> str:
    """The text of a new key, made as `keys create` makes it, but without a process of its own."""
    text, key_id = new_key()
    scopes, patterns = parse_scopes(scope), parse_patterns(series)
    key = ApiKey(key_id, name, digest_of(text), scopes, patterns, limits, datetime.now(UTC), expires_at)
    database = Database(database_url, timeout_s=10)
    KeyCatalog(database).add(key)
    database.close()
    return text


def run_keys(folder: Path, *arguments: str, settings: Mapping[str, str] = MappingProxyType({})) -> Result:
    """`python -m app keys ...` on the data in `folder`, without a process of its own."""
    environment = {"DATA_DIR": str(folder / "data"), "DATABASE_URL": ""} | settings
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        return CliRunner().invoke(cli, ["keys", *arguments], env=environment)
    finally:  # a command has the log to itself
        root.handlers = handlers
        root.setLevel(level)


def with_key(url: str, key: str) -> httpx.Client:
    """A client that sends this key with each request."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
