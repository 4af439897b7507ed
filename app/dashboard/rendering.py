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
from app.api.problems import answer_error
from app.dashboard.assets import Assets
from app.errors import AliasNotFound, TidemarkError, VersionDeleted, VersionNotFound

_UNITS_S = (("day", 86_400), ("hour", 3_600), ("minute", 60))
_HEADERS = {"Vary": "Accept"}

Fields = dict[str, object]


class Pages:
    """Renders the templates of this package."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"asset": assets.path, "plot_path": plot_path, "release": __version__}
        self._environment.filters |= {"moment": _moment, "instant": _instant, "duration": _duration}

    def answer(self, request: Request, template: str, make_fields: Callable[[], Fields]) -> Response:
        """The page; where making its fields fails, an error page for a browser and a problem document for others."""
        try:
            fields = make_fields()
        except TidemarkError as error:
            problem = answer_error(request, error)
            if "text/html" not in request.headers.get("accept", ""):
                return problem
            page = self._render("error.html", _error_fields(request, error))
            retry = {name: problem.headers[name] for name in ("retry-after",) if name in problem.headers}
            return HTMLResponse(page, error.status, _HEADERS | retry)
        return HTMLResponse(self._render(template, fields), headers=_HEADERS)

    def _render(self, template: str, fields: Fields) -> str:
        return self._environment.get_template(template).render(fields)


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
