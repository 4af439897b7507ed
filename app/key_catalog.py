"""The rows of the API keys."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.api_keys import ApiKey, Limits, SeriesPatterns, describe_scopes, parse_scopes
from app.db import Database, api_keys
from app.errors import ConfigurationError


class KeyCounts(NamedTuple):
    """Whether two of them are equal tells whether any key was made or revoked between them."""

    made: int
    revoked: int


class KeyCatalog:
    """Reads and writes of the API keys. Every method raises DatabaseUnavailable or SchemaOutdated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: ApiKey) -> None:
        """Store a new key. Raises ConfigurationError when its name is taken, by a revoked key too."""
        row = {
            "key_id": key.key_id,
            "name": key.name,
            "digest": key.digest,
            "scopes": describe_scopes(key.scopes),
            "series": key.series.text,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
        }
        try:
            with self._database.write() as connection:
                connection.execute(insert(api_keys), row | key.limits._asdict())
        except IntegrityError:
            advice = "versions remember keys by their names, so each is given once: take another"
            raise ConfigurationError(f"There is or was a key named {key.name}: {advice}.") from None

    def revoke(self, name: str) -> ApiKey:
        """Make the key of this name, or of this public beginning, invalid for good; again is no error.

        Raises ConfigurationError when there is none.
        """
        is_meant = or_(api_keys.c.name == name, api_keys.c.key_id == name)
        with self._database.write() as connection:
            now = datetime.now(UTC)
            connection.execute(update(api_keys).where(is_meant, api_keys.c.revoked_at.is_(None)).values(revoked_at=now))
            row = connection.execute(select(api_keys).where(is_meant)).first()
        if row is None:
            raise ConfigurationError(f"There is no key named {name}: `python -m app keys list` shows all.")
        return _key_of(row)

    def list(self) -> list[ApiKey]:
        """All keys, revoked ones too, by age."""
        with self._database.read() as connection:
            return [_key_of(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created_at))]

    def count(self) -> KeyCounts:
        """How many keys there are, and how many of them are revoked."""
        query = select(func.count(), func.count(api_keys.c.revoked_at)).select_from(api_keys)
        with self._database.poll() as connection:
            return KeyCounts(*connection.execute(query).one())


def _key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        name=row.name,
        digest=row.digest,
        scopes=parse_scopes(row.scopes),
        series=SeriesPatterns(row.series),
        limits=Limits(row.requests_per_minute, row.points_per_minute),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
