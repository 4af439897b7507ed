"""Which versions are meant and where their models are: for many selectors at once, in two statements."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select, tuple_

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
            pointers = _pointers(connection, {series_id for series_id, _ in wanted})
            numbers = [(name, _number(pointers.get(name), selector)) for name, selector in wanted]
            rows = _models(connection, {pair for pair in numbers if pair[1] is not None})
        return [
            self._found(want, rows.get(pair), pointers.get(want[0])) for want, pair in zip(wanted, numbers, strict=True)
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


def _pointers(connection: Connection, names: Collection[str]) -> dict[str, Pointers]:
    """Of the series that have a version: one statement, so that they are of the same moment."""
    query = (
        select(series.c.series_id, series.c.latest_version, aliases.c.name, aliases.c.version)
        .outerjoin_from(series, aliases, series.c.series_id == aliases.c.series_id)
        .where(series.c.series_id.in_(names), series.c.latest_version.is_not(None))
    )
    found: dict[str, tuple[int, dict[str, int]]] = {}
    for series_id, latest, name, version in connection.execute(query):
        behind = found.setdefault(series_id, (latest, {}))[1]
        if name is not None:
            behind[name] = version
    return {series_id: Pointers(*pointers) for series_id, pointers in found.items()}


def _number(pointers: Pointers | None, selector: Selector) -> int | None:
    if isinstance(selector, str):
        return pointers.aliases.get(selector) if pointers else None
    if selector == LATEST:
        return pointers.latest if pointers else None
    return selector


def _models(connection: Connection, pairs: Collection[tuple[str, int | None]]) -> dict[tuple[str, int | None], Any]:
    """The rows of these versions that are not deleted, as far as a model is found by them."""
    columns = versions.c.series_id, versions.c.version, versions.c.model_digest, versions.c.pack_id
    place = versions.c.model_offset, versions.c.model_length, packs.c.model_digest.label("model_pack")
    query = select(*columns, *place).outerjoin_from(versions, packs, versions.c.pack_id == packs.c.pack_id)
    meant = tuple_(versions.c.series_id, versions.c.version).in_(list(pairs))
    rows = connection.execute(query.where(meant, versions.c.deleted_at.is_(None)))
    return {(row.series_id, row.version): row for row in rows.all()}
