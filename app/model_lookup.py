"""Which versions are meant and where their models are: for many selectors at once, in two statements."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, select, tuple_

from app.artifacts.base import Address
from app.catalog import Catalog
from app.db import aliases, packs, series, versions
from app.errors import TidemarkError
from app.versions import LATEST, Selector


class Pointers(NamedTuple):
    """What the selectors of a series mean."""

    latest: int
    aliases: Mapping[str, int]


class FoundModel(NamedTuple):
    """A version that is meant, where its model is, and what else the selectors of its series mean."""

    number: int
    address: Address
    pointers: Pointers | None
    """None when they were changing."""


class ModelLookup:
    """Reads what a load of models needs, and nothing more of a row."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def find(self, wanted: Sequence[tuple[str, Selector]]) -> list[FoundModel | TidemarkError]:
        """For each series and selector the version that is meant, or why there is none.

        Raises DatabaseUnavailable, SchemaOutdated.
        """
        with self._catalog.database.read() as connection:
            pointers, rows = _read_series(connection, {series_id for series_id, _ in wanted})
            pairs = [(name, _number(pointers.get(name), selector)) for name, selector in wanted]
            if others := {pair for pair in pairs if pair[1] is not None} - rows.keys():
                rows |= _read_versions(connection, others)
        return [
            self._found(want, rows.get(pair), pointers.get(want[0])) for want, pair in zip(wanted, pairs, strict=True)
        ]

    def _found(
        self, want: tuple[str, Selector], row: Row[Any] | None, pointers: Pointers | None
    ) -> FoundModel | TidemarkError:
        if row is not None and pointers is not None:
            address = Address(row.model_digest, row.model_pack, row.model_offset or 0, row.model_length)
            return FoundModel(row.version, address, pointers)
        try:  # it is missing, or it changed between the two statements
            version = self._catalog.get_version(*want)
        except TidemarkError as error:
            return error
        return FoundModel(version.version, version.model_address, None)


_Rows = dict[tuple[str, int | None], Any]

_MODEL = (
    versions.c.series_id,
    versions.c.version,
    versions.c.model_digest,
    versions.c.model_offset,
    versions.c.model_length,
    packs.c.model_digest.label("model_pack"),
)
_SERIES = (
    select(series.c.series_id.label("name"), series.c.latest_version, aliases.c.name.label("alias"))
    .add_columns(aliases.c.version.label("behind"), *_MODEL)
    .select_from(series)
    .outerjoin(aliases, series.c.series_id == aliases.c.series_id)
    .outerjoin(
        versions,
        (versions.c.series_id == series.c.series_id)
        & (versions.c.version == series.c.latest_version)
        & versions.c.deleted_at.is_(None),
    )
    .outerjoin(packs, versions.c.pack_id == packs.c.pack_id)
    .where(series.c.series_id.in_(bindparam("names", expanding=True)), series.c.latest_version.is_not(None))
)
"""Series with their aliases, a row for each, and the model of their latest version."""
_VERSIONS = (
    select(*_MODEL)
    .outerjoin_from(versions, packs, versions.c.pack_id == packs.c.pack_id)
    .where(tuple_(versions.c.series_id, versions.c.version).in_(bindparam("pairs", expanding=True)))
    .where(versions.c.deleted_at.is_(None))
)


def _read_series(connection: Connection, names: Collection[str]) -> tuple[dict[str, Pointers], _Rows]:
    """What the selectors of series mean, of one moment, and the rows of their latest versions."""
    behind: dict[str, dict[str, int]] = {}
    rows: _Rows = {}
    latest: dict[str, int] = {}
    for row in connection.execute(_SERIES, {"names": list(names)}).all():
        latest[row.name] = row.latest_version
        aliases_of = behind.setdefault(row.name, {})
        if row.alias is not None:
            aliases_of[row.alias] = row.behind
        if row.version is not None:
            rows[row.name, row.version] = row
    return {name: Pointers(latest[name], behind[name]) for name in latest}, rows


def _read_versions(connection: Connection, pairs: Collection[tuple[str, int | None]]) -> _Rows:
    rows = connection.execute(_VERSIONS, {"pairs": list(pairs)}).all()
    return {(row.series_id, row.version): row for row in rows}


def _number(pointers: Pointers | None, selector: Selector) -> int | None:
    if isinstance(selector, str):
        return pointers.aliases.get(selector) if pointers else None
    if selector == LATEST:
        return pointers.latest if pointers else None
    return selector
