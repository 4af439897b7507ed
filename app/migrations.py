"""The schema of the database: brought up to date, and whether it is. Hides Alembic."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from alembic import command
from app.db import Database
from app.errors import SchemaOutdated

_INI = Path(__file__).parent.parent / "alembic.ini"


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to `revision`; nothing happens when it is there already."""
    config = Config(_INI)
    with database.write() as connection:
        database.lock_schema(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def check_schema(database: Database) -> None:
    """Raises SchemaOutdated when the schema is not that of this release, DatabaseUnavailable when unreachable."""
    with database.read() as connection:
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if current != _head():
        message = f"The schema is at {current}, this release needs {_head()}: run `python -m app migrate`."
        raise SchemaOutdated(message)


@cache
def _head() -> str | None:
    return ScriptDirectory.from_config(Config(_INI)).get_current_head()
