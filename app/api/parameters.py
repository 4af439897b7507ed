"""What several routes take from path, query and headers.

What is wrong with any of it is collected, so that `refuse`, the first call of a route, names every fault at once.
"""

from typing import Annotated, NamedTuple

from fastapi import Depends, Header, Path, Query, Request

from app.errors import Fault, InvalidInput
from app.preconditions import Precondition
from app.series import parse_series_id
from app.versions import Selector, parse_alias_name, parse_number, parse_selector

SERIES_ID_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9._-]{1,200}$"
SELECTOR_PATTERN = "^(latest|[vV]?[0-9]{1,9}|@[A-Za-z0-9][A-Za-z0-9._-]{0,99})$"
_NUMBER_PATTERN = "^[vV]?(?!0+$)[0-9]{1,9}$"
_ALIAS_PATTERN = "^(?!latest$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

SERIES_ID_DESCRIPTION = "Name of the series: letters, digits, '.', '_' and '-', without '..'."
SELECTOR_DESCRIPTION = "latest (or 0), a number like 3 or v3, or an alias like @prod."

_SeriesId = Annotated[
    str,
    Path(description=SERIES_ID_DESCRIPTION, json_schema_extra={"pattern": SERIES_ID_PATTERN}, examples=["sensor_01"]),
]
_Selector = Annotated[
    str, Path(description=SELECTOR_DESCRIPTION, json_schema_extra={"pattern": SELECTOR_PATTERN}, examples=["latest"])
]
_Number = Annotated[
    str, Path(description="A number like 3 or v3.", json_schema_extra={"pattern": _NUMBER_PATTERN}, examples=["1"])
]
_AliasName = Annotated[
    str, Path(description="Name of the alias.", json_schema_extra={"pattern": _ALIAS_PATTERN}, examples=["prod"])
]
_IfMatch = Annotated[str | None, Header(min_length=1, description="Only if the entity tag is one of these.")]
_IfNoneMatch = Annotated[str | None, Header(min_length=1, description="Only if the tag is none of these; * for new.")]


class SelectedVersion(NamedTuple):
    """A version as a path names it."""

    series_id: str
    selector: Selector


class NumberedVersion(NamedTuple):
    """A version as a path names it where only a number will do."""

    series_id: str
    number: int


class NamedAlias(NamedTuple):
    """An alias as a path names it."""

    series_id: str
    name: str


def _faults(request: Request) -> list[Fault]:
    request.state.faults = []  # where the handler of FastAPI's own faults finds them
    return request.state.faults  # type: ignore[no-any-return]


Faults = Annotated[list[Fault], Depends(_faults)]
"""What is wrong with the request so far: one list a request, which `refuse` turns into the error."""


def refuse(faults: list[Fault]) -> None:
    """Raises InvalidInput when there are any."""
    if faults:
        raise InvalidInput(faults)


def _series(series_id: _SeriesId, faults: Faults) -> str:
    return parse_series_id(series_id, faults)


def _selected(series_id: _SeriesId, version: _Selector, faults: Faults) -> SelectedVersion:
    return SelectedVersion(parse_series_id(series_id, faults), parse_selector(version, faults, "path"))


def _numbered(series_id: _SeriesId, version: _Number, faults: Faults) -> NumberedVersion:
    return NumberedVersion(parse_series_id(series_id, faults), parse_number(version, faults))


def _alias(series_id: _SeriesId, name: _AliasName, faults: Faults) -> NamedAlias:
    return NamedAlias(parse_series_id(series_id, faults), parse_alias_name(name, faults))


def _precondition(
    if_match: _IfMatch = None,
    if_none_match: _IfNoneMatch = None,
) -> Precondition:
    return Precondition(if_match, if_none_match)


SeriesPath = Annotated[str, Depends(_series)]
SelectedPath = Annotated[SelectedVersion, Depends(_selected)]
NumberedPath = Annotated[NumberedVersion, Depends(_numbered)]
AliasPath = Annotated[NamedAlias, Depends(_alias)]
Conditions = Annotated[Precondition, Depends(_precondition)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page at most.")]
