"""How Alembic reaches the database: over the connection that `app.migrations` gives, else by the settings."""

from alembic import context
from app.config import read_settings
from app.db import Database, metadata


def run(connection: object) -> None:
    """Run the migrations over this connection."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        render_as_batch=True,  # SQLite alters a table by copying it
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if "connection" in context.config.attributes:
    run(context.config.attributes["connection"])
else:
    settings = read_settings()
    database = Database(settings.sqlalchemy_url, settings.database_timeout_s)
    with database.write() as connection:
        run(connection)
    database.close()
