"""All versions that can be asked for, one after another; and where the rows of the database contradict each other."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, and_, case, func, or_, select

from app.db import Database, aliases, packs, series, versions
from app.rows import select_versions, version_of
from app.versions import Version

_AT_ONCE = 1_000


class Contradiction(NamedTuple):
    """Rows that cannot all be true."""

    series_id: str
    version: int | None
    fault: str
    advice: str


class Inventory:
    """Reads of the whole database, in memory that does not grow with it. They hold up nobody who writes.

    Each raises DatabaseUnavailable or SchemaOutdated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self) -> int:
        """How many versions are not deleted."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).where(versions.c.deleted_at.is_(None))).scalar_one()

    def live_versions(self) -> Iterator[Version]:
        """Every version that is not deleted; those of one pack one after another, as they stand in it."""
        query = select_versions().where(versions.c.deleted_at.is_(None))
        query = query.where(or_(versions.c.pack_id.is_(None), packs.c.pack_id.is_not(None)))
        order = versions.c.pack_id, versions.c.model_offset, versions.c.series_id, versions.c.version
        with self._database.snapshot() as connection:
            for row in connection.execution_options(yield_per=_AT_ONCE).execute(query.order_by(*order)):
                yield version_of(row)

    def contradictions(self) -> Iterator[Contradiction]:
        """Each statement sees one state of the database, so that what is written meanwhile is none."""
        with self._database.snapshot() as connection:
            for query, describe in _CHECKS:
                for row in connection.execution_options(yield_per=_AT_ONCE).execute(query):
                    yield describe(row)


def _dangling(row: Row[Any]) -> Contradiction:
    fault = f"The alias {row.name} points at version {row.version}, which does not exist."
    advice = f"Move it with PUT /series/{row.series_id}/aliases/{row.name}, or delete it."
    return Contradiction(row.series_id, row.version, fault, advice)


def _miscounted_series(row: Row[Any]) -> Contradiction:
    given = f"Versions 1 to {row.last_version} were given, of which the latest is {row.latest_version or 'none'}"
    found = f"there are {row.known or 0} rows up to {row.highest or 0}, and the latest is {row.alive or 'none'}"
    fault = f"Its row says: {given}. In truth {found}."
    return Contradiction(row.series_id, None, fault, "Restore the database from a backup.")


def _miscounted_pack(row: Row[Any]) -> Contradiction:
    fault = f"The row of pack {row.pack_id} counts {row.versions} versions, and there are {row.alive or 0}."
    advice = "Restore the database from a backup, and sweep only then: a sweep removes packs that count none."
    return Contradiction("", None, fault, advice)


def _without_pack(row: Row[Any]) -> Contradiction:
    fault = f"It is in pack {row.pack_id}, which has no row."
    return Contradiction(row.series_id, row.version, fault, "Restore the database from a backup.")


_IS_ALIVE = versions.c.deleted_at.is_(None)
_DANGLING = (
    select(aliases.c.series_id, aliases.c.name, aliases.c.version)
    .outerjoin(
        versions,
        and_(versions.c.series_id == aliases.c.series_id, versions.c.version == aliases.c.version, _IS_ALIVE),
    )
    .where(versions.c.version.is_(None))
)
_KNOWN = (
    select(
        versions.c.series_id,
        func.count().label("known"),
        func.max(versions.c.version).label("highest"),
        func.max(case((_IS_ALIVE, versions.c.version))).label("alive"),
    )
    .group_by(versions.c.series_id)
    .subquery()
)
_MISCOUNTED_SERIES = (
    select(series, _KNOWN.c.known, _KNOWN.c.highest, _KNOWN.c.alive)
    .outerjoin(_KNOWN, _KNOWN.c.series_id == series.c.series_id)
    .where(
        or_(
            func.coalesce(_KNOWN.c.known, 0) != series.c.last_version,
            func.coalesce(_KNOWN.c.highest, 0) != series.c.last_version,
            _KNOWN.c.alive.is_distinct_from(series.c.latest_version),
        )
    )
)
"""Numbers are unique, so that as many as the highest of them are all of them, those of deleted versions too."""
_PACKED = (
    select(versions.c.pack_id, func.count().label("alive"))
    .where(versions.c.pack_id.is_not(None), _IS_ALIVE)
    .group_by(versions.c.pack_id)
    .subquery()
)
_MISCOUNTED_PACKS = (
    select(packs, _PACKED.c.alive)
    .outerjoin(_PACKED, _PACKED.c.pack_id == packs.c.pack_id)
    .where(func.coalesce(_PACKED.c.alive, 0) != packs.c.versions)
)
_WITHOUT_PACK = (
    select(versions.c.series_id, versions.c.version, versions.c.pack_id)
    .outerjoin(packs, packs.c.pack_id == versions.c.pack_id)
    .where(versions.c.pack_id.is_not(None), packs.c.pack_id.is_(None), _IS_ALIVE)
)
_CHECKS: Sequence[tuple[Select[Any], Callable[[Row[Any]], Contradiction]]] = (
    (_DANGLING, _dangling),
    (_MISCOUNTED_SERIES, _miscounted_series),
    (_MISCOUNTED_PACKS, _miscounted_pack),
    (_WITHOUT_PACK, _without_pack),
)
