"""The database schema, before a command needs it."""

from app.config import Settings
from app.db import Database
from app.migrations import migrate

PATIENT_S = 3600
"""For statements that may take long, and that nobody waits for on the other side of a connection."""


def migrate_embedded(settings: Settings) -> None:
    """Bring the embedded database up to date; any other is its operator's, with `migrate`."""
    if settings.is_embedded:
        migrate_now(settings)


def migrate_now(settings: Settings) -> None:
    """Bring the database up to date. Raises DatabaseUnavailable."""
    database = Database(settings.sqlalchemy_url, PATIENT_S)
    migrate(database)
    database.close()
