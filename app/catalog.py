"""The rows of the registry: series, versions, aliases and the feed of changes. All SQL of the core is here."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Table,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError

from app.api_keys import ALL_SERIES, SeriesPatterns
from app.db import Database, aliases, changes, packs, series, versions
from app.errors import AliasInUse, AliasNotFound, SeriesNotFound, TidemarkError, VersionDeleted, VersionNotFound
from app.preconditions import Precondition
from app.rows import alias_of, alive, select_versions, summary_of, version_of, version_row
from app.versions import LATEST, Alias, Idempotency, Selector, SeriesSummary, Version

_SHOWN = 10
FEED_OVERLAP = 1_000
"""Ids of changes are given before they are committed: as many may still appear before the last one seen."""


class Entry(NamedTuple):
    """A version on its way in; `append` gives it its number."""

    version: Version
    idempotency: Idempotency | None


class IdempotencyKeyTaken(Exception):
    """A key of the batch is in use; nothing of the batch was stored."""


class Change(NamedTuple):
    """One row of the feed that replicas follow: one transaction."""

    id: int
    series_ids: Sequence[str]
    deleted: bool


class Catalog:
    """Reads and writes of the metadata. Each write is one transaction that ends before the method returns.

    Every method raises DatabaseUnavailable or SchemaOutdated when the database cannot serve it.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._take_numbers = _take_numbers(database)

    # ---- writing -----------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry], before_insert: Callable[[], None]) -> list[Version]:
        """Give each entry the next version number of its series and store all of them, or none.

        Entries that are in a pack are all in the same one. `before_insert` runs inside the transaction, when
        `pause_publishing` would have to wait for it. Raises IdempotencyKeyTaken.
        """
        now = datetime.now(UTC)
        counts = Counter(entry.version.series_id for entry in entries)
        # In order of their names, so that two batches never wait for each other's rows.
        ordered = orjson.dumps(counts, option=orjson.OPT_SORT_KEYS).decode()
        try:
            with self.database.write() as connection:
                taken = connection.execute(self._take_numbers, {"counts": ordered, "now": now})
                following = {row.series_id: row.last_version - counts[row.series_id] + 1 for row in taken}
                published = []
                for entry in entries:
                    name = entry.version.series_id
                    published.append(entry.version._replace(version=following[name]))
                    following[name] += 1
                before_insert()
                pack_id = _insert_pack(connection, entries, now)
                numbered = zip(published, entries, strict=True)
                self.database.insert_many(
                    connection, versions, [version_row(v, e.idempotency, pack_id) for v, e in numbered]
                )
                _record_change(connection, list(counts), now, is_bulk=pack_id is not None)
                return published
        except IntegrityError as error:
            if any(entry.idempotency for entry in entries):
                raise IdempotencyKeyTaken from error
            raise

    def delete_version(self, series_id: str, number: int, precondition: Precondition) -> None:
        """Delete one version for good. Raises SeriesNotFound, VersionDeleted, PreconditionFailed, AliasInUse."""
        now = datetime.now(UTC)
        with self.database.write() as connection:
            _lock_existing(connection, series_id)
            precondition.check(_get_version(connection, series_id, number).etag)
            if names := _alias_names(connection, series_id, number):
                shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
                advice = f"{shown} points at version {number} of {series_id}: move or delete it first."
                raise AliasInUse(advice)
            _mark_deleted(connection, _is(versions, series_id) & (versions.c.version == number), now)
            _refresh_latest(connection, series_id, now)
            _record_change(connection, [series_id], now, deleted=True)

    def delete_series(self, series_id: str) -> None:
        """Delete all versions and aliases of a series for good. Raises SeriesNotFound, VersionDeleted."""
        now = datetime.now(UTC)
        with self.database.write() as connection:
            _lock_existing(connection, series_id)
            _latest(connection, series_id)
            connection.execute(delete(aliases).where(_is(aliases, series_id)))
            _mark_deleted(connection, _is(versions, series_id), now)
            _refresh_latest(connection, series_id, now)
            _record_change(connection, [series_id], now, deleted=True)

    def set_alias(self, series_id: str, name: str, selector: Selector, precondition: Precondition) -> Alias:
        """Point an alias at a version, whether it exists already or not.

        Raises SeriesNotFound, VersionDeleted, PreconditionFailed.
        """
        now = datetime.now(UTC)
        with self.database.write() as connection:
            _lock_existing(connection, series_id)
            current = _find_alias(connection, series_id, name)
            precondition.check(current.etag if current else None)
            number = _get_version(connection, series_id, selector).version
            alias = Alias(series_id, name, number, secrets.token_hex(8), now)
            row = {
                "series_id": series_id,
                "name": name,
                "version": number,
                "revision": alias.revision,
                "updated_at": now,
            }
            upsert = self.database.insert(aliases).values(row)
            connection.execute(upsert.on_conflict_do_update(index_elements=["series_id", "name"], set_=row))
            _record_change(connection, [series_id], now)
            return alias

    def delete_alias(self, series_id: str, name: str, precondition: Precondition) -> None:
        """Remove an alias; its version stays. Raises SeriesNotFound, AliasNotFound, PreconditionFailed."""
        now = datetime.now(UTC)
        with self.database.write() as connection:
            _lock_existing(connection, series_id)
            precondition.check(_get_alias(connection, series_id, name).etag)
            connection.execute(delete(aliases).where(_is(aliases, series_id) & (aliases.c.name == name)))
            _record_change(connection, [series_id], now)

    def prune_changes(self, before: datetime) -> int:
        """Forget changes that every replica has long seen; how many there were."""
        with self.database.write() as connection:
            return connection.execute(delete(changes).where(changes.c.changed_at < before)).rowcount

    # ---- reading -----------------------------------------------------------------------------------------

    def get_version(self, series_id: str, selector: Selector) -> Version:
        """Raises SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted."""
        with self.database.read() as connection:
            return _get_version(connection, series_id, selector)

    def get_pointers(self, series_id: str) -> tuple[int, dict[str, int]]:
        """The latest version and the versions behind the aliases. Raises SeriesNotFound, VersionDeleted."""
        with self.database.read() as connection:
            latest = _latest(connection, series_id)
            rows = connection.execute(select(aliases.c.name, aliases.c.version).where(_is(aliases, series_id)))
            return latest, {row.name: row.version for row in rows}

    def list_versions(self, series_id: str, limit: int, before: int | None) -> list[Version]:
        """Versions that are not deleted, newest first, those below `before`. Raises SeriesNotFound, VersionDeleted."""
        query = select_versions().where(_is(versions, series_id), versions.c.deleted_at.is_(None))
        if before is not None:
            query = query.where(versions.c.version < before)
        with self.database.read() as connection:
            _latest(connection, series_id)
            rows = connection.execute(query.order_by(versions.c.version.desc()).limit(limit))
            return [version_of(row) for row in rows]

    def neighbours(self, series_id: str, number: int) -> tuple[int | None, int | None]:
        """The closest versions before and after this one that are not deleted."""
        alive = _is(versions, series_id) & versions.c.deleted_at.is_(None)
        before = select(func.max(versions.c.version)).where(alive, versions.c.version < number)
        after = select(func.min(versions.c.version)).where(alive, versions.c.version > number)
        with self.database.read() as connection:
            return connection.execute(before).scalar(), connection.execute(after).scalar()

    def list_series(
        self, limit: int, after: str | None, search: str | None, visible: SeriesPatterns = ALL_SERIES
    ) -> list[SeriesSummary]:
        """Series that have a version, by name, those behind `after`, whose name contains `search`, among `visible`."""
        latest = (versions.c.series_id == series.c.series_id) & (versions.c.version == series.c.latest_version)
        query = select_versions(series.c.created_at.label("first_at"), series.c.updated_at).join(series, latest)
        query = query.where(self._is_visible(visible))
        if after is not None:
            query = query.where(series.c.series_id > after)
        if search:
            query = query.where(series.c.series_id.icontains(search, autoescape=True))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(series.c.series_id).limit(limit))
            return [summary_of(row) for row in rows]

    def get_series(self, series_id: str) -> tuple[SeriesSummary, int]:
        """A series, and how many versions of it are not deleted. Raises SeriesNotFound, VersionDeleted."""
        count = select(func.count()).where(_is(versions, series_id), versions.c.deleted_at.is_(None))
        with self.database.read() as connection:
            latest = _get_version(connection, series_id, LATEST)
            row = connection.execute(select(series).where(_is(series, series_id))).one()
            summary = SeriesSummary(series_id, latest, row.created_at, row.updated_at)
            return summary, connection.execute(count).scalar_one()

    def count_series(self, search: str | None = None, visible: SeriesPatterns = ALL_SERIES) -> int:
        """How many series among `visible` have a version, and `search` in their name."""
        query = select(func.count()).where(series.c.latest_version.is_not(None), self._is_visible(visible))
        if search:
            query = query.where(series.c.series_id.icontains(search, autoescape=True))
        with self.database.read() as connection:
            return connection.execute(query).scalar_one()

    def _is_visible(self, visible: SeriesPatterns) -> ColumnElement[bool]:
        if visible.are_all:
            return true()
        return or_(*[self.database.is_like(series.c.series_id, glob) for glob in visible.globs])

    def list_aliases(self, series_id: str) -> list[Alias]:
        """The aliases of a series, by name. Raises SeriesNotFound, VersionDeleted."""
        with self.database.read() as connection:
            _latest(connection, series_id)
            rows = connection.execute(select(aliases).where(_is(aliases, series_id)).order_by(aliases.c.name))
            return [alias_of(row) for row in rows]

    def get_alias(self, series_id: str, name: str) -> Alias:
        """Raises SeriesNotFound, AliasNotFound, VersionDeleted."""
        with self.database.read() as connection:
            return _get_alias(connection, series_id, name)

    def find_by_key(self, series_id: str, key: str) -> tuple[Version, bytes] | None:
        """The version that was made under an idempotency key, and the digest of what came with it.

        Raises VersionDeleted.
        """
        where = _is(versions, series_id) & (versions.c.idempotency_key == key)
        with self.database.read() as connection:
            row = connection.execute(select_versions().where(where)).one_or_none()
        if row is None:
            return None
        return alive(row), row.request_digest

    def changes_after(self, position: int, missed: Sequence[int], limit: int) -> list[Change]:
        """The feed behind `position`, and whichever of the ids `missed` have appeared since."""
        where: ColumnElement[bool] = changes.c.id > position
        if missed:
            where |= changes.c.id.in_(missed)
        with self.database.poll() as connection:
            rows = connection.execute(select(changes).where(where).order_by(changes.c.id).limit(limit))
            return [Change(row.id, _names_of(row), bool(row.deleted)) for row in rows]

    def last_change(self) -> int:
        """The end of the feed."""
        with self.database.read() as connection:
            return connection.execute(select(func.max(changes.c.id))).scalar() or 0

    def named_digests(self) -> set[bytes]:
        """The digests of all artifacts that a version which is not deleted stands on."""
        with self.database.write() as connection:  # a server-side cursor needs a transaction
            return _digests(connection.execution_options(yield_per=10_000), true())

    @contextmanager
    def no_publishing(self, position: int) -> Iterator[set[bytes]]:
        """Make `append` wait during the block, and give the digests of versions made since `position` of the feed."""
        recent = select(changes).where(changes.c.id > position - FEED_OVERLAP, changes.c.series_id != "")
        with self.database.write() as connection:
            self.database.pause_publishing(connection)
            changed = {name: 0 for row in connection.execute(recent) for name in _names_of(row)}
            names = self.database.json_items("names", orjson.dumps(changed).decode())
            yield _digests(connection, versions.c.series_id.in_(select(names.c.key)))


def _digests(connection: Connection, where: ColumnElement[bool]) -> set[bytes]:
    """The digests of the files that these versions have for themselves, and of all packs in use."""
    named = where & versions.c.deleted_at.is_(None)
    own = select(versions.c.model_digest, versions.c.data_digest).where(named, versions.c.pack_id.is_(None))
    shared = select(packs.c.model_digest, packs.c.data_digest).where(packs.c.versions > 0)
    return {digest for query in (own, shared) for row in connection.execute(query) for digest in row}


def _take_numbers(database: Database) -> Any:
    """Take the next version numbers of series, new or old, under their row locks.

    Parameters: `counts`, a JSON object with how many each takes, and `now`. The rows are locked in its order.
    """
    counts = database.json_items("counts")
    now = bindparam("now", type_=series.c.updated_at.type)
    taken = cast(counts.c.value, Integer)
    rows = select(counts.c.key, taken, taken, now, now).where(true())  # without WHERE, SQLite takes ON for a join
    columns = ["series_id", "last_version", "latest_version", "created_at", "updated_at"]
    statement = database.insert(series).from_select(columns, rows)
    number = series.c.last_version + statement.excluded.last_version
    return statement.on_conflict_do_update(
        index_elements=["series_id"],
        set_={"last_version": number, "latest_version": number, "updated_at": statement.excluded.updated_at},
    ).returning(series.c.series_id, series.c.last_version)


def _lock_existing(connection: Connection, series_id: str) -> None:
    found = connection.execute(select(series.c.series_id).where(_is(series, series_id)).with_for_update())
    if found.one_or_none() is None:
        raise _no_series(series_id)


def _refresh_latest(connection: Connection, series_id: str, now: datetime) -> None:
    alive = _is(versions, series_id) & versions.c.deleted_at.is_(None)
    latest = select(func.max(versions.c.version)).where(alive).scalar_subquery()
    connection.execute(update(series).where(_is(series, series_id)).values(latest_version=latest, updated_at=now))


def _insert_pack(connection: Connection, entries: Sequence[Entry], now: datetime) -> int | None:
    places = [entry.version.place for entry in entries if entry.version.place is not None]
    if not places:
        return None
    digests = {"model_digest": places[0].model_pack, "data_digest": places[0].data_pack}
    row = digests | {"versions": len(places), "created_at": now}
    pack_id: int = connection.execute(insert(packs).returning(packs.c.pack_id), row).scalar_one()
    return pack_id


def _mark_deleted(connection: Connection, where: ColumnElement[bool], now: datetime) -> None:
    """Delete what is not deleted yet; a pack without versions is swept."""
    statement = update(versions).where(where, versions.c.deleted_at.is_(None)).values(deleted_at=now)
    deleted = Counter(connection.scalars(statement.returning(versions.c.pack_id)))
    for pack_id, count in sorted((pack_id, count) for pack_id, count in deleted.items() if pack_id is not None):
        connection.execute(update(packs).where(packs.c.pack_id == pack_id).values(versions=packs.c.versions - count))


def _record_change(
    connection: Connection, names: Sequence[str], now: datetime, *, deleted: bool = False, is_bulk: bool = False
) -> None:
    first, others = ("", names) if is_bulk else (names[0], names[1:])
    row = {"series_id": first, "others": "\n".join(others) or None, "deleted": int(deleted), "changed_at": now}
    connection.execute(insert(changes), row)


def _names_of(row: Row[Any]) -> list[str]:
    others = row.others.split("\n") if row.others else []
    return [row.series_id, *others] if row.series_id else others


def _latest(connection: Connection, series_id: str) -> int:
    row = connection.execute(select(series.c.latest_version).where(_is(series, series_id))).one_or_none()
    if row is None:
        raise _no_series(series_id)
    if row.latest_version is None:
        raise _all_deleted(series_id)
    latest: int = row.latest_version
    return latest


def _last(connection: Connection, series_id: str) -> int:
    """The highest number that was ever given."""
    last = connection.execute(select(series.c.last_version).where(_is(series, series_id))).scalar_one_or_none()
    if last is None:
        raise _no_series(series_id)
    return int(last)


def _get_version(connection: Connection, series_id: str, selector: Selector) -> Version:
    # One statement, so that what the selector means and whether it exists are of the same moment.
    query = select_versions().where(_is(versions, series_id))
    if isinstance(selector, str):
        names = (aliases.c.series_id == versions.c.series_id) & (aliases.c.version == versions.c.version)
        query = query.join(aliases, names).where(aliases.c.name == selector)
    elif selector == LATEST:
        latest = (series.c.series_id == versions.c.series_id) & (series.c.latest_version == versions.c.version)
        query = query.join(series, latest)
    else:
        query = query.where(versions.c.version == selector)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _missing(connection, series_id, selector)
    return alive(row)


def _missing(connection: Connection, series_id: str, selector: Selector) -> TidemarkError:
    """Why there is no such version."""
    last = _last(connection, series_id)
    if isinstance(selector, str):
        _latest(connection, series_id)
        return AliasNotFound(
            f"{series_id} has no alias {selector}. PUT /series/{series_id}/aliases/{selector} makes it."
        )
    if selector == LATEST:
        return _all_deleted(series_id)
    return VersionNotFound(f"{series_id} has no version {selector}: its versions go up to {last}.")


def _find_alias(connection: Connection, series_id: str, name: str) -> Alias | None:
    where = _is(aliases, series_id) & (aliases.c.name == name)
    row = connection.execute(select(aliases).where(where)).one_or_none()
    return alias_of(row) if row is not None else None


def _get_alias(connection: Connection, series_id: str, name: str) -> Alias:
    alias = _find_alias(connection, series_id, name)
    if alias is None:
        raise _missing(connection, series_id, name)
    return alias


def _alias_names(connection: Connection, series_id: str, number: int) -> list[str]:
    where = _is(aliases, series_id) & (aliases.c.version == number)
    return list(connection.scalars(select(aliases.c.name).where(where).order_by(aliases.c.name)))


def _is(table: Table, series_id: str) -> ColumnElement[bool]:
    return table.c.series_id == series_id


def _no_series(series_id: str) -> SeriesNotFound:
    return SeriesNotFound(f"No model was fitted for {series_id} yet: POST /fit/{series_id} makes version 1.")


def _all_deleted(series_id: str) -> VersionDeleted:
    return VersionDeleted(f"All versions of {series_id} were deleted: POST /fit/{series_id} makes the next one.")
