"""Templates to HTML. Everything is escaped; only the templates themselves are trusted."""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import __version__
from app.api.callers import ANYONE, CALLER, Caller
from app.api.problems import answer_error
from app.dashboard.assets import Assets
from app.errors import AliasNotFound, TidemarkError, VersionDeleted, VersionNotFound

_UNITS_S = (("day", 86_400), ("hour", 3_600), ("minute", 60))
_HEADERS = {"Vary": "Accept"}

Fields = dict[str, object]


class Pages:
    """Renders the templates of this package."""

    def __init__(self) -> None:
        self.assets = Assets()
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"asset": self.assets.path, "plot_path": plot_path, "release": __version__}
        self._environment.filters |= {"moment": _moment, "instant": _instant, "duration": _duration}

    def answer(
        self, request: Request, template: str, make_fields: Callable[[], Fields], status: int = HTTPStatus.OK
    ) -> Response:
        """The page; where making its fields fails, an error page for a browser and a problem document for others."""
        try:
            fields = make_fields()
        except TidemarkError as error:
            return self.fail(request, error)
        return self._respond(request, template, fields, status)

    def fail(self, request: Request, error: TidemarkError) -> Response:
        """An error page for a browser, a problem document for others."""
        problem = answer_error(request, error)
        if "text/html" not in request.headers.get("accept", ""):
            return problem
        response = self._respond(request, "error.html", _error_fields(request, error), error.status)
        if "retry-after" in problem.headers:
            response.headers["Retry-After"] = problem.headers["retry-after"]
        return response

    def _respond(self, request: Request, template: str, fields: Fields, status: int) -> Response:
        signed_in = _signed_in(request)
        page = self._environment.get_template(template).render(fields, signed_in=signed_in)
        kept = {} if signed_in is None else {"Cache-Control": "no-store"}  # nor shown again to who signed out
        return HTMLResponse(page, status, _HEADERS | kept)


def _signed_in(request: Request) -> str | None:
    """The name of the key that a browser has signed in with."""
    caller: Caller = request.scope.get(CALLER, ANYONE)
    return caller.name


def plot_path(series_id: str, version: int | None = None) -> str:
    """Path of the page of a version, relative to the pages; of the latest when there is none."""
    query: dict[str, object] = {"series_id": series_id}
    if version is not None:
        query["version"] = version
    return f"plot?{urlencode(query)}"


def _error_fields(request: Request, error: TidemarkError) -> Fields:
    series_id = request.query_params.get("series_id", "")
    is_of_version = isinstance(error, VersionNotFound | AliasNotFound | VersionDeleted)
    return {
        "error": error,
        "phrase": HTTPStatus(error.status).phrase,
        "other_version": plot_path(series_id) if is_of_version and request.query_params.get("version") else None,
    }


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M}"


def _instant(timestamp_s: float) -> str:
    when = datetime.fromtimestamp(timestamp_s, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}" + (f".{when.microsecond:06d}".rstrip("0") if when.microsecond else "")


def _duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length_s in _UNITS_S:
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:,.1f}".removesuffix(".0") + f" {unit}s"
    return f"{seconds:.6g} seconds"
