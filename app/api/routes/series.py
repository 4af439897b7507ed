"""What is trained: series and their versions."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api.callers import CallerOf
from app.api.documentation import CHANGING, DELETED, LISTING, NOT_MODIFIED, READING, problems
from app.api.parameters import Conditions, Faults, Limit, NumberedPath, SelectedPath, SeriesPath, refuse
from app.api.reports import VersionDetail
from app.api.schemas import SeriesDetail, SeriesItem, SeriesPage, VersionItem, VersionPage
from app.bootstrap import Services
from app.errors import AliasInUse, ArtifactDamaged, CrossSiteRequest, Unavailable

_NO_CONTENT = 204
_NOT_MODIFIED = 304
_NO_NUL = r"^[^\x00]*$"
"""PostgreSQL has no text with a NUL."""

_CURSOR = "`next_cursor` of the page before."
_SeriesCursor = Annotated[str | None, Query(description=_CURSOR, max_length=200, pattern=_NO_NUL)]
_VersionCursor = Annotated[str | None, Query(description=_CURSOR, pattern="^[0-9]{1,9}$")]


def router(services: Services) -> APIRouter:
    """The routes that list, show and delete series and versions."""
    routes = APIRouter(prefix="/series", tags=["series"])
    registry, catalog = services.registry, services.registry.catalog

    @routes.get("", summary="What is trained", responses=LISTING)
    def list_series(
        caller: CallerOf,
        limit: Limit = 100,
        cursor: Annotated[
            str | None, Query(description="`next_cursor` of the page before.", max_length=200, pattern=_NO_NUL)
        ] = None,
        search: Annotated[
            str | None, Query(description="Part of a series' name.", max_length=200, pattern=_NO_NUL)
        ] = None,
    ) -> SeriesPage:
        found = catalog.list_series(limit + 1, cursor, search, caller.series)
        page, rest = found[:limit], found[limit:]
        next_cursor = page[-1].series_id if rest else None
        return SeriesPage(series=[SeriesItem.of(summary) for summary in page], next_cursor=next_cursor)

    @routes.get("/{series_id}", summary="A series and its aliases", responses=READING)
    def get_series(series_id: SeriesPath, faults: Faults) -> SeriesDetail:
        refuse(faults)
        summary, count = catalog.get_series(series_id)
        aliases = {alias.name: str(alias.version) for alias in catalog.list_aliases(series_id)}
        return SeriesDetail(**SeriesItem.of(summary).model_dump(), versions=count, aliases=aliases)

    @routes.delete(
        "/{series_id}",
        summary="Delete a series for good",
        status_code=_NO_CONTENT,
        response_class=Response,
        responses=DELETED | READING | problems(CrossSiteRequest),
    )
    def delete_series(series_id: SeriesPath, faults: Faults) -> None:
        refuse(faults)
        registry.delete_series(series_id)

    @routes.get("/{series_id}/versions", summary="The versions of a series, newest first", responses=READING)
    def list_versions(
        series_id: SeriesPath,
        faults: Faults,
        limit: Limit = 100,
        cursor: _VersionCursor = None,
    ) -> VersionPage:
        refuse(faults)
        found = catalog.list_versions(series_id, limit + 1, None if cursor is None else int(cursor))
        page, rest = found[:limit], found[limit:]
        next_cursor = str(page[-1].version) if rest else None
        return VersionPage(versions=[VersionItem.of(version) for version in page], next_cursor=next_cursor)

    @routes.get(
        "/{series_id}/versions/{version}",
        summary="A version with all its provenance and its report",
        response_model=VersionDetail,
        responses=NOT_MODIFIED | READING,
    )
    async def get_version(
        version: SelectedPath, conditions: Conditions, faults: Faults, response: Response
    ) -> VersionDetail | Response:
        refuse(faults)
        found = await run_in_threadpool(catalog.get_version, *version)
        if conditions.names_current(found.etag):
            return Response(status_code=_NOT_MODIFIED, headers={"ETag": found.etag})
        try:  # shielded, since others may wait for the same report
            report = await asyncio.shield(asyncio.wrap_future(services.reporting.begin(found)))
        except (ArtifactDamaged, Unavailable) as error:
            response.headers["Cache-Control"] = "no-store"  # and no tag: the next answer may have a report
            return VersionDetail.unreported(found, error.detail)
        response.headers["ETag"] = found.etag
        return VersionDetail.reported(found, report)

    @routes.delete(
        "/{series_id}/versions/{version}",
        summary="Delete a version for good; its number is never given again",
        status_code=_NO_CONTENT,
        response_class=Response,
        responses=DELETED | CHANGING | problems(AliasInUse),
    )
    def delete_version(version: NumberedPath, conditions: Conditions, faults: Faults) -> None:
        refuse(faults)
        registry.delete_version(*version, conditions)

    return routes
