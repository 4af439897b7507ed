"""What is trained: series and their versions."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from app.api.documentation import CHANGING, DELETED, NOT_MODIFIED, READING
from app.api.parameters import Conditions, Limit, NumberedPath, SelectedPath, SeriesPath
from app.api.schemas import SeriesDetail, SeriesItem, SeriesPage, VersionItem, VersionPage
from app.bootstrap import Services
from app.errors import Fault, InvalidInput

_NO_CONTENT = 204
_NOT_MODIFIED = 304


def router(services: Services) -> APIRouter:
    """The routes that list, show and delete series and versions."""
    routes = APIRouter(prefix="/series", tags=["series"])
    registry, catalog = services.registry, services.registry.catalog

    @routes.get("", summary="What is trained", responses=READING)
    def list_series(
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)] = None,
        search: Annotated[str | None, Query(description="Part of a series' name.", max_length=200)] = None,
    ) -> SeriesPage:
        found = catalog.list_series(limit + 1, cursor, search)
        page, rest = found[:limit], found[limit:]
        next_cursor = page[-1].series_id if rest else None
        return SeriesPage(series=[SeriesItem.of(summary) for summary in page], next_cursor=next_cursor)

    @routes.get("/{series_id}", summary="A series and its aliases", responses=READING)
    def get_series(series_id: SeriesPath) -> SeriesDetail:
        summary, count = catalog.get_series(series_id)
        aliases = {alias.name: str(alias.version) for alias in catalog.list_aliases(series_id)}
        return SeriesDetail(**SeriesItem.of(summary).model_dump(), versions=count, aliases=aliases)

    @routes.delete(
        "/{series_id}", summary="Delete a series for good", status_code=_NO_CONTENT, responses=DELETED | CHANGING
    )
    def delete_series(series_id: SeriesPath) -> None:
        registry.delete_series(series_id)

    @routes.get("/{series_id}/versions", summary="The versions of a series, newest first", responses=READING)
    def list_versions(
        series_id: SeriesPath,
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    ) -> VersionPage:
        found = catalog.list_versions(series_id, limit + 1, _before(cursor))
        page, rest = found[:limit], found[limit:]
        next_cursor = str(page[-1].version) if rest else None
        return VersionPage(versions=[VersionItem.of(version) for version in page], next_cursor=next_cursor)

    @routes.get(
        "/{series_id}/versions/{version}",
        summary="A version with all its provenance",
        response_model=VersionItem,
        responses=NOT_MODIFIED | READING,
    )
    def get_version(version: SelectedPath, conditions: Conditions, response: Response) -> VersionItem | Response:
        found = catalog.get_version(*version)
        if conditions.names_current(found.etag):
            return Response(status_code=_NOT_MODIFIED, headers={"ETag": found.etag})
        response.headers["ETag"] = found.etag
        return VersionItem.of(found)

    @routes.delete(
        "/{series_id}/versions/{version}",
        summary="Delete a version for good; its number is never given again",
        status_code=_NO_CONTENT,
        responses=DELETED | CHANGING,
    )
    def delete_version(version: NumberedPath, conditions: Conditions) -> None:
        registry.delete_version(*version, conditions)

    return routes


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > len("999999999"):
        raise InvalidInput([Fault("/cursor", "must be the next_cursor of the page before", "query")])
    return int(cursor)
