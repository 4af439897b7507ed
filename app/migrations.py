"""The schema of the database: brought up to date, and whether it is. Hides Alembic."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from alembic import command
from app.db import Database
from app.errors import SchemaOutdated

_INI = Path(__file__).parent.parent / "alembic.ini"


def migrate(database: Database, revision: str = "head", ini: Path = _INI) -> None:
    """Bring the schema to `revision`; nothing happens when it is there already, or further.

    Raises DatabaseUnavailable when others hold tables for long, rather than make everyone else wait behind us.
    """
    config = Config(ini)
    with database.write() as connection:
        database.lock_schema(connection)
        heads = MigrationContext.configure(connection).get_current_heads()
        if any(_only_adds(current) for current in heads):
            return
        if heads and ScriptDirectory.from_config(config).get_current_head() not in heads:
            database.pause_writing(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            message = f"The database is of a later release than this one ({error}): run that release, or a newer one."
            raise SchemaOutdated(message) from error


def check_schema(database: Database) -> None:
    """Raises SchemaOutdated when the schema is not that of this release, DatabaseUnavailable when unreachable."""
    with database.read() as connection:
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if _only_adds(current):
        return
    if current is not None and current not in _revisions():
        message = f"The schema is at {current}, which a later release made: run that release, or a newer one."
        raise SchemaOutdated(message)
    if current != _revisions()[0]:
        needed = _revisions()[0]
        message = f"The schema is at {current or 'nothing'}, this release needs {needed}: run `python -m app migrate`."
        raise SchemaOutdated(message)


def _only_adds(current: str | None) -> bool:
    """Whether a later release made this schema, and only added what this one need not know.

    Revisions have numbers of four digits, and one that breaks older releases begins the next thousand.
    """
    newest = _revisions()[0]
    return current is not None and current > newest and (len(current), current[0]) == (len(newest), newest[0])


@cache
def _revisions() -> list[str]:
    """All that this release knows, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(Config(_INI)).walk_revisions()]
