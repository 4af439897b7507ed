"""Tables, engine and transactions. What differs between PostgreSQL and SQLite stands here and nowhere else."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Double,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    cast,
    create_engine,
    event,
    func,
    insert,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from app.errors import ConfigurationError, DatabaseUnavailable, SchemaOutdated
from app.watchdog import Watchdog


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which forgets the zone, gets it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


metadata = MetaData()

_Name = String(200).with_variant(String(200, collation="C"), "postgresql")
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

series = Table(
    "series",
    metadata,
    Column("series_id", _Name, primary_key=True),
    Column("last_version", Integer, nullable=False, comment="Highest number ever given; never given again."),
    Column("latest_version", Integer, comment="Highest version that is not deleted; NULL when all are."),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(
        "ix_series_trained",
        "series_id",
        postgresql_where=text("latest_version IS NOT NULL"),
        sqlite_where=text("latest_version IS NOT NULL"),
    ),
)

packs = Table(
    "packs",
    metadata,
    Column("pack_id", _RowNumber, primary_key=True, autoincrement=True),
    Column("model_digest", LargeBinary(32), nullable=False, comment="SHA-256 of the file of models."),
    Column("data_digest", LargeBinary(32), nullable=False, comment="SHA-256 of the file of training data."),
    Column("versions", Integer, nullable=False, comment="Versions in it that are not deleted."),
    Column("created_at", UtcDateTime, nullable=False),
    comment="One row for each batch of a bulk fit, whose artifacts share two files.",
)

versions = Table(
    "versions",
    metadata,
    Column("series_id", _Name, ForeignKey("series.series_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("detector", String(50), nullable=False),
    Column("params", Text, nullable=False, comment="JSON object."),
    Column("points", Integer, nullable=False),
    Column("first_timestamp_s", Double, nullable=False),
    Column("last_timestamp_s", Double, nullable=False),
    Column("model_digest", LargeBinary(32), nullable=False, comment="SHA-256 of the model artifact."),
    Column("data_digest", LargeBinary(32), nullable=False, comment="SHA-256 of the training data artifact."),
    Column("libraries", Text, nullable=False, comment="JSON object: name to version."),
    Column("created_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),
    Column("idempotency_key", String(255)),
    Column("request_digest", LargeBinary(32), comment="SHA-256 of what came with the idempotency key."),
    Column("pack_id", _RowNumber, comment="NULL when its artifacts are files of their own."),
    Column("model_offset", Integer, comment="Of its model in the pack, bytes."),
    Column("model_length", Integer, comment="Bytes."),
    Column("first_row", Integer, comment="Of its training data in the pack."),
    Column("choice", Text, comment="JSON object: why its detector was taken; NULL when the user named it."),
    Column("created_by", _Name, comment="Name of the API key that made it; NULL when none was asked for."),
    Index(
        "uq_versions_idempotency_key",
        "series_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
        sqlite_where=text("idempotency_key IS NOT NULL"),
    ),
)

aliases = Table(
    "aliases",
    metadata,
    Column("series_id", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("revision", String(32), nullable=False, comment="New at each move; the entity tag."),
    Column("updated_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["series_id", "version"], ["versions.series_id", "versions.version"]),
)

changes = Table(
    "changes",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("series_id", _Name, nullable=False, comment="Empty for a bulk fit, which leaves no file of one series."),
    Column("others", Text, comment="The other series that changed, a name a line."),
    Column("deleted", Integer, nullable=False, comment="1 when versions were deleted, 0 otherwise."),
    Column("changed_at", UtcDateTime, nullable=False),
    comment="One row for each transaction that changed what is the latest or behind an alias; followed by replicas.",
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(12), primary_key=True, comment="Public: the beginning of the key's text."),
    Column("name", _Name, nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False, comment="SHA-256 of the key's text."),
    Column("scopes", String(100), nullable=False, comment="With commas between them."),
    Column("series", Text, nullable=False, comment="Globs of the series that it is for, with commas between them."),
    Column("requests_per_minute", Integer),
    Column("points_per_minute", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    comment="Rows are never removed and change once, when a key is revoked: their counts tell whether anything is new.",
)

_UNDEFINED = ("UndefinedTable", "UndefinedColumn")
_DAMAGED = ("file is not a database", "database disk image is malformed")
_READ_ONLY = ("ReadOnlySqlTransaction",)
_WAL_PATIENCE_S = 5.0
_WAL_PAUSE_S = 0.05
_COPY_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_LIKE_OF_GLOB = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_"})
_POLLERS = 2
"""Threads of a process that ask again and again: the follower and the keyring."""
_SCHEMA_LOCK = int.from_bytes(b"tidemark")
_LOCK_TIMEOUT_S = 3
_NO_SUCH = ("no such table", "no such column")


class Database:
    """Connections to the metadata database.

    Raises ConfigurationError when `url` is not one of PostgreSQL or SQLite.
    """

    def __init__(self, url: str, timeout_s: int) -> None:
        self.url = _supported(url)
        self.is_postgres = self.url.drivername.startswith("postgresql")
        if not self.is_postgres and self.url.database:
            _make_folder(Path(self.url.database).parent)
        connect = partial(
            create_engine,
            self.url,
            pool_timeout=timeout_s,
            connect_args=_connect_args(timeout_s, is_postgres=self.is_postgres),
        )
        self.engine = self._polling = connect(pool_size=8, max_overflow=8, pool_pre_ping=self.is_postgres)
        self._watchdog = Watchdog(timeout_s)
        if self.is_postgres:
            self._polling = connect(
                pool_size=_POLLERS,
                max_overflow=0,
                pool_reset_on_return=None,
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
            )
            event.listen(self.engine, "do_connect", self._connect)
            event.listen(self._polling, "do_connect", self._connect)
        else:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self.insert = postgresql.insert if self.is_postgres else sqlite.insert
        """An INSERT that knows ON CONFLICT."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection whose statements each see the latest state.

        Raises DatabaseUnavailable or SchemaOutdated, here and in `write`.
        """
        options = {"isolation_level": "AUTOCOMMIT"} if self.is_postgres else {}
        with self._connected(options) as connection:
            yield connection

    @contextmanager
    def poll(self) -> Iterator[Connection]:
        """The same for one small question that is asked again and again, for half of what `read` costs.

        Nobody sees first whether its connection is still there: after an outage a question may fail once more.
        """
        with self._connected({}, self._polling) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, undone by any exception."""
        with self._connected({"tidemark_writes": True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection for statements with more rows than fit into memory (`yield_per`); it holds up no writer."""
        with self._connected({}) as connection, connection.begin():  # a server-side cursor needs a transaction
            yield connection

    def pause_publishing(self, connection: Connection) -> None:
        """Make other writers of `series` wait until the transaction of `connection` ends.

        On SQLite they wait already: it takes one writer at a time.
        """
        if self.is_postgres:
            connection.execute(text("LOCK TABLE series IN SHARE MODE"))

    def pause_writing(self, connection: Connection) -> None:
        """Make everyone else wait who begins to write, and wait for those who have begun.

        All of them begin with `series`: whoever takes another table first and wants this one then, as a migration may,
        and they would wait for each other.
        """
        if self.is_postgres:
            connection.execute(text("LOCK TABLE series IN ACCESS EXCLUSIVE MODE"))

    def is_like(self, column: ColumnElement[str], glob: str) -> ColumnElement[bool]:
        """Whether a name is like a glob of `*` and `?`, by case."""
        if not self.is_postgres:
            return column.op("GLOB", is_comparison=True)(glob)
        return column.like(glob.translate(_LIKE_OF_GLOB), escape="\\")

    def json_items(self, parameter: str, text: str | None = None) -> TableValuedAlias:
        """The items of a JSON object, in its order, as rows of `key` and `value`: of `text`, or of a parameter."""
        source = bindparam(parameter, type_=Text) if text is None else literal(text, Text)
        if self.is_postgres:
            return func.json_each_text(cast(source, postgresql.JSON)).table_valued("key", "value")
        return func.json_each(source).table_valued("key", "value")

    def insert_many(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows that have the same columns, by the fastest way that the database has."""
        if self.is_postgres:
            _copy(connection, table, rows)
        else:
            connection.execute(insert(table), rows)

    def lock_schema(self, connection: Connection) -> None:
        """Let one process at a time migrate, until the transaction of `connection` ends.

        On PostgreSQL it waits for tables only for a moment: whoever comes later waits behind it.
        """
        if self.is_postgres:
            connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))

    def check_writable(self) -> None:
        """Raises DatabaseUnavailable when nothing can be written, SchemaOutdated when there is no schema.

        SQLite is written to, as its disk is ours to watch. PostgreSQL is asked whether it is one to write to: a write
        would wait for a migration, or leave a gap in the feed, and a standby or a full disk make themselves known.
        """
        if self.is_postgres:
            with self.read() as connection:
                if connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on":
                    raise DatabaseUnavailable("The database takes no writes: DATABASE_URL must name the primary.")
        else:
            with self.write() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self._polling.dispose()
        self._watchdog.close()

    @contextmanager
    def _connected(self, options: Mapping[str, Any], engine: Engine | None = None) -> Iterator[Connection]:
        self._watchdog.check()
        with self._failing_clearly():
            with self._watchdog.connecting():
                engine = engine or self.engine
                connection = (engine.execution_options(**options) if options else engine).connect()
            with connection:
                yield connection

    def _connect(self, _: Dialect, __: object, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        return self._watchdog.connect(*arguments, **parameters)

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise DatabaseUnavailable("All connections to the database are busy. Try again in a moment.") from error
        except DBAPIError as error:
            raise _translate(error) from error
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:  # as a connection is given back
            raise _away(str(error)) from error


def _copy(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """COPY FROM STDIN, whose errors come from the driver itself and are turned into SQLAlchemy's."""
    columns = [_copy_texts([row[name] for row in rows]) for name in rows[0]]
    lines = StringIO("".join(["\t".join(texts) + "\n" for texts in zip(*columns, strict=True)]))
    statement = f"COPY {table.name} ({', '.join(rows[0])}) FROM STDIN"
    cursor: Any = connection.connection.cursor()
    try:
        cursor.copy_expert(statement, lines)
    except psycopg2.Error as error:
        is_away = connection.dialect.is_disconnect(error, None, cursor)
        if is_away:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement, None, error, psycopg2.Error, connection_invalidated=is_away, dialect=connection.dialect
        ) from error
    finally:
        cursor.close()


def _copy_texts(values: Sequence[object]) -> Sequence[str]:
    """A column in the text format of COPY. Most columns of a batch hold one and the same object."""
    first = values[0]
    if all(value is first for value in values):
        return [_copy_text(first)] * len(values)
    return [_copy_text(value) for value in values]


def _copy_text(value: object) -> str:
    match value:
        case None:
            return r"\N"
        case bytes():
            return r"\\x" + value.hex()
        case str():
            return value.translate(_COPY_ESCAPES)
        case _:
            return str(value)


def _translate(error: DBAPIError) -> Exception:
    reason = _first_line(str(error.orig if error.orig is not None else error))
    if type(error.orig).__name__ in _UNDEFINED or reason.startswith(_NO_SUCH):
        return SchemaOutdated(f"It lacks something ({reason}): run `python -m app migrate`.")
    is_away = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    is_away = is_away or error.statement is None  # it was while connecting
    is_away = is_away or type(error.orig) is psycopg2.DatabaseError  # of the client: no server said what is wrong
    if is_away or type(error.orig).__name__ in _READ_ONLY or reason in _DAMAGED:
        return _away(reason)
    return error


def _away(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"The database cannot be used right now ({_first_line(reason)}). Try again in a moment.")


def _first_line(reason: str) -> str:
    """Of what a driver says, which may be nothing when a connection breaks."""
    return next(iter(reason.strip().splitlines()), "it gave no reason")


def _supported(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise ConfigurationError("DATABASE_URL is not a URL like postgresql://user:password@host/name.") from None
    match parsed.drivername:
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg2")
        case "postgresql+psycopg2":
            return parsed
        case "sqlite" if parsed.database not in {None, "", ":memory:"}:
            return parsed
        case "sqlite":
            raise ConfigurationError("DATABASE_URL must name a file, which all processes share: sqlite:///tidemark.db")
    message = f"DATABASE_URL starts with {parsed.drivername}://; use postgresql:// or sqlite:///"
    raise ConfigurationError(message)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder {folder} of the database cannot be made ({error.strerror}): check DATA_DIR."
        raise ConfigurationError(message) from error


def _connect_args(timeout_s: int, *, is_postgres: bool) -> dict[str, Any]:
    if not is_postgres:
        return {"timeout": timeout_s, "check_same_thread": False}
    timeout_ms = timeout_s * 1000
    limits = f"-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout={timeout_ms}"
    # Neither ends a COPY whose client is gone without a word, and which holds locks on its series: the server looks.
    limits += f" -c tcp_keepalives_idle={timeout_s} -c tcp_keepalives_interval={timeout_s} -c tcp_keepalives_count=2"
    return {
        "tcp_user_timeout": timeout_ms,
        "application_name": "tidemark",
        "options": f"{limits} -c timezone=UTC",
    }


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")  # an acknowledged fit survives a power cut
    connection.execute("PRAGMA foreign_keys = ON")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Write-ahead log, which lasts for the file. Of several who set it on a new one at once, all but one fail."""
    deadline = time.monotonic() + _WAL_PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("tidemark_writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
