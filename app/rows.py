"""Rows of the catalog to nouns, and back."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, Select, select

from app.db import packs, versions
from app.detectors.base import Candidate, Choice
from app.errors import VersionDeleted
from app.versions import Alias, Idempotency, PackPlace, SeriesSummary, Version


def select_versions(*more: ColumnElement[Any]) -> Select[Any]:
    """Versions with the digests of their packs."""
    digests = packs.c.model_digest.label("model_pack"), packs.c.data_digest.label("data_pack")
    return select(*more, versions, *digests).outerjoin_from(versions, packs, versions.c.pack_id == packs.c.pack_id)


def version_row(version: Version, idempotency: Idempotency | None, pack_id: int | None) -> dict[str, object]:
    """The row of a version."""
    key, request_digest = idempotency or (None, None)
    place = version.place
    return {
        "series_id": version.series_id,
        "version": version.version,
        "detector": version.detector,
        "params": _json(version.params),
        "points": version.points,
        "first_timestamp_s": version.first_timestamp_s,
        "last_timestamp_s": version.last_timestamp_s,
        "model_digest": version.model_digest,
        "data_digest": version.data_digest,
        "libraries": _json(version.libraries),
        "created_at": version.created_at,
        "idempotency_key": key,
        "request_digest": request_digest,
        "pack_id": None if place is None else pack_id,
        "model_offset": None if place is None else place.model_offset,
        "model_length": None if place is None else place.model_length,
        "first_row": None if place is None else place.first_row,
        "choice": None if version.choice is None else _json_of_choice(version.choice),
        "created_by": version.created_by,
    }


def _json(mapping: Mapping[str, object]) -> str:
    return orjson.dumps(mapping, option=orjson.OPT_SORT_KEYS).decode()


def _json_of_choice(choice: Choice) -> str:
    return _json({"reason": choice.reason, "candidates": [candidate._asdict() for candidate in choice.candidates]})


def _choice_of(text: str | None) -> Choice | None:
    if text is None:
        return None
    choice = json.loads(text)
    return Choice(choice["reason"], tuple(Candidate(**candidate) for candidate in choice["candidates"]))


def version_of(row: Row[Any]) -> Version:
    """The version of a row of `select_versions`."""
    return Version(
        series_id=row.series_id,
        version=row.version,
        detector=row.detector,
        params=json.loads(row.params),
        points=row.points,
        first_timestamp_s=row.first_timestamp_s,
        last_timestamp_s=row.last_timestamp_s,
        model_digest=row.model_digest,
        data_digest=row.data_digest,
        libraries=json.loads(row.libraries),
        created_at=row.created_at,
        place=_place(row),
        choice=_choice_of(row.choice),
        created_by=row.created_by,
    )


def _place(row: Row[Any]) -> PackPlace | None:
    if row.pack_id is None:
        return None
    return PackPlace(row.model_pack, row.model_offset, row.model_length, row.data_pack, row.first_row)


def alive(row: Row[Any]) -> Version:
    """The same, unless it was deleted. Raises VersionDeleted."""
    if row.deleted_at is not None:
        raise VersionDeleted(f"Version {row.version} of {row.series_id} was deleted on {row.deleted_at:%Y-%m-%d}.")
    return version_of(row)


def alias_of(row: Row[Any]) -> Alias:
    """The alias of a row."""
    return Alias(row.series_id, row.name, row.version, row.revision, row.updated_at)


def summary_of(row: Row[Any]) -> SeriesSummary:
    """The summary of a row of a series and its latest version."""
    return SeriesSummary(row.series_id, version_of(row), row.first_at, row.updated_at)
