"""The pages, the data of the plot, and the static files."""

import gzip
import math
from typing import Annotated, NoReturn

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from app.alarms import plain_number
from app.api.callers import Caller, CallerOf
from app.api.documentation import READING, Responses, answer, problems
from app.api.parameters import (
    SELECTOR_DESCRIPTION,
    SELECTOR_PATTERN,
    SERIES_ID_DESCRIPTION,
    SERIES_ID_PATTERN,
    Faults,
    SelectedVersion,
    refuse,
)
from app.api.schemas import Timestamp
from app.api.sessions import Sessions
from app.bootstrap import Services
from app.dashboard import plot_data, sign_in
from app.dashboard.assets import accepts_gzip
from app.dashboard.rendering import Fields, Pages
from app.detectors.judging import HIGHEST_RATE
from app.errors import ArtifactDamaged, Fault
from app.series import parse_series_id, parse_timestamp
from app.services.inspection import MAX_POINTS
from app.versions import Selector, parse_selector

SERIES_ON_A_PAGE = 50
VERSIONS_IN_THE_MENU = 100

_SEARCH_CHARACTERS = 200
_FAST = 1  # a level of gzip
_RATE_DESCRIPTION = "Share of normal points that may be flagged; default the model's own."
_SHOWING = READING | problems(ArtifactDamaged)
_SEE_HOME: Responses = {307: {"description": "Without a series_id: to the list of series."}}

_SeriesId = Annotated[
    str,
    Query(description=SERIES_ID_DESCRIPTION, json_schema_extra={"pattern": SERIES_ID_PATTERN}, examples=["sensor_01"]),
]
_SeriesIdOrNone = Annotated[
    str, Query(description=SERIES_ID_DESCRIPTION, json_schema_extra={"pattern": f"{SERIES_ID_PATTERN}|^$"})
]
_Selector = Annotated[
    str, Query(description=SELECTOR_DESCRIPTION, json_schema_extra={"pattern": f"{SELECTOR_PATTERN}|^$"})
]


def _select_version(faults: Faults, caller: CallerOf, series_id: _SeriesId, version: _Selector = "") -> SelectedVersion:
    found: list[Fault] = []
    selected = SelectedVersion(parse_series_id(series_id, found), _parse_selector(version, found))
    caller.check_series(selected.series_id)
    faults += [fault._replace(location="query") for fault in found]
    return selected


def _cut_out(
    faults: Faults,
    start: Annotated[Timestamp | None, Query(description="Nothing before it; default the first point.")] = None,
    end: Annotated[Timestamp | None, Query(description="Nothing behind it; default the last point.")] = None,
) -> tuple[float | None, float | None]:
    return _parse_time("start", start, faults), _parse_time("end", end, faults)


_ShownVersion = Annotated[SelectedVersion, Depends(_select_version)]
_Stretch = Annotated[tuple[float | None, float | None], Depends(_cut_out)]


def router(services: Services, sessions: Sessions, pages: Pages) -> APIRouter:
    """The routes that people open in a browser."""
    routes = APIRouter(tags=["pages"])
    catalog = services.registry.catalog
    sign_in.add_routes(routes, pages, services.keyring, sessions)

    @routes.head("/", include_in_schema=False)
    @routes.get("/", include_in_schema=False)
    def home(request: Request, caller: CallerOf, search: str = "", cursor: str = "") -> Response:
        return pages.answer(request, "home.html", lambda: list_series(request, caller, search.strip(), cursor))

    def list_series(request: Request, caller: Caller, search: str, cursor: str) -> Fields:
        _check_texts(search=search, cursor=cursor)
        found = catalog.list_series(SERIES_ON_A_PAGE + 1, cursor or None, search or None, caller.series)
        page, rest = found[:SERIES_ON_A_PAGE], found[SERIES_ON_A_PAGE:]
        trained = catalog.count_series(visible=caller.series)
        return {
            "page": page,
            "next_cursor": page[-1].series_id if rest else None,
            "cursor": cursor,
            "search": search,
            "trained": trained,
            "matches": catalog.count_series(search, caller.series) if search else trained,
            "base_url": str(request.base_url).rstrip("/"),
        }

    @routes.get(
        "/plot",
        summary="A version's training data in a browser, as its model judges it",
        response_class=HTMLResponse,
        responses=_SEE_HOME | _SHOWING,
    )
    def plot(request: Request, caller: CallerOf, series_id: _SeriesIdOrNone = "", version: _Selector = "") -> Response:
        if series_id == "" and _is_selector(version):
            return RedirectResponse("./")
        return pages.answer(request, "plot.html", lambda: show_version(caller, series_id, version))

    def show_version(caller: Caller, series_id: str, raw_version: str) -> Fields:
        faults: list[Fault] = []
        selected = _select_version(faults, caller, series_id, raw_version)
        refuse(faults)
        version = catalog.get_version(*selected)
        older, newer = catalog.neighbours(version.series_id, version.version)
        latest, aliases = catalog.get_pointers(version.series_id)
        return {
            "version": version,
            "older": older,
            "newer": newer,
            "latest": latest,
            "aliases": aliases,
            "versions": catalog.list_versions(version.series_id, VERSIONS_IN_THE_MENU, None),
        }

    @routes.get(
        "/plot/data",
        summary="What the plot of a version draws",
        response_model=None,
        responses=answer(plot_data.PlotData, "The training data and the verdicts on it.") | _SHOWING,
    )
    def data(
        request: Request,
        version: _ShownVersion,
        stretch: _Stretch,
        faults: Faults,
        *,
        max_points: Annotated[int, Query(ge=10, le=50_000, description="Points in the answer at most.")] = MAX_POINTS,
        false_alarm_rate: Annotated[float | None, Query(gt=0, le=HIGHEST_RATE, description=_RATE_DESCRIPTION)] = None,
    ) -> Response:
        refuse(faults)
        view = services.inspection.view(*version, *stretch, max_points=max_points, false_alarm_rate=false_alarm_rate)
        content = plot_data.encode(view)
        headers = {"Vary": "Accept-Encoding"}
        if accepts_gzip(request):
            content = gzip.compress(content, _FAST)
            headers["Content-Encoding"] = "gzip"
        return Response(content, headers=headers, media_type="application/json")

    @routes.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        return pages.answer(request, "docs.html", dict)

    @routes.get("/static/{fingerprint}/{name}", include_in_schema=False)
    def static(request: Request, fingerprint: str, name: str) -> Response:
        return pages.assets.answer(request, fingerprint, name) or _no_such_file()

    return routes


def _no_such_file() -> NoReturn:
    raise HTTPException(404)


def _is_selector(raw: str) -> bool:
    faults: list[Fault] = []
    _parse_selector(raw, faults)
    return not faults


def _parse_selector(raw: str, faults: list[Fault]) -> Selector:
    return parse_selector(raw.strip() or None, faults)


def _parse_time(name: str, raw: float | str | None, faults: list[Fault]) -> float | None:
    if raw is None or raw == "":
        return None
    number = plain_number(str(raw))
    try:
        return parse_timestamp(raw if math.isnan(number) else number)
    except ValueError as error:
        faults.append(Fault(f"/{name}", str(error), "query"))
        return None


def _check_texts(**texts: str) -> None:
    advice = f"must have at most {_SEARCH_CHARACTERS} characters, none of them the character 0"
    refuse(
        [
            Fault(f"/{name}", advice, "query")
            for name, text in texts.items()
            if len(text) > _SEARCH_CHARACTERS or "\0" in text
        ]
    )
