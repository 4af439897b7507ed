"""Aliases: names that point at versions. Moving one is a release, or a rollback."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api import bodies
from app.api.documentation import CHANGING, DELETED, NOT_MODIFIED, READING, problems, request_body
from app.api.parameters import AliasPath, Conditions, Faults, SeriesPath, refuse
from app.api.schemas import AliasItem, AliasList, AliasRequest
from app.bootstrap import Services
from app.errors import BodyTooLarge

_NO_CONTENT = 204
_NOT_MODIFIED = 304


def router(services: Services) -> APIRouter:
    """The routes that list, show, move and delete aliases."""
    routes = APIRouter(prefix="/series/{series_id}/aliases", tags=["aliases"])
    registry, catalog = services.registry, services.registry.catalog

    @routes.get("", summary="The aliases of a series", responses=READING)
    def list_aliases(series_id: SeriesPath, faults: Faults) -> AliasList:
        refuse(faults)
        return AliasList(aliases=[AliasItem.of(alias) for alias in catalog.list_aliases(series_id)])

    @routes.get("/{name}", summary="An alias", response_model=AliasItem, responses=NOT_MODIFIED | READING)
    def get_alias(alias: AliasPath, conditions: Conditions, faults: Faults, response: Response) -> AliasItem | Response:
        refuse(faults)
        found = catalog.get_alias(*alias)
        if conditions.names_current(found.etag):
            return Response(status_code=_NOT_MODIFIED, headers={"ETag": found.etag})
        response.headers["ETag"] = found.etag
        return AliasItem.of(found)

    @routes.put(
        "/{name}",
        summary="Point an alias at a version",
        responses=CHANGING | problems(BodyTooLarge),
        openapi_extra={"requestBody": request_body(AliasRequest)},
    )
    async def set_alias(
        alias: AliasPath, conditions: Conditions, faults: Faults, request: Request, response: Response
    ) -> AliasItem:
        selector = bodies.parse_alias(await request.body(), faults)
        moved = await run_in_threadpool(registry.set_alias, *alias, selector, conditions)
        response.headers["ETag"] = moved.etag
        return AliasItem.of(moved)

    @routes.delete(
        "/{name}",
        summary="Delete an alias; its version stays",
        status_code=_NO_CONTENT,
        response_class=Response,
        responses=DELETED | CHANGING,
    )
    def delete_alias(alias: AliasPath, conditions: Conditions, faults: Faults) -> None:
        refuse(faults)
        registry.delete_alias(*alias, conditions)

    return routes
