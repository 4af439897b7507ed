"""API keys for the tests."""

from datetime import UTC, datetime

import httpx

from app.api_keys import ApiKey, Limits, digest_of, new_key, parse_patterns, parse_scopes
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


def with_key(url: str, key: str) -> httpx.Client:
    """A client that sends this key with each request."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
