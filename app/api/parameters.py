"""What several routes take from path, query and headers, parsed together so that every fault is named at once."""

from typing import Annotated, NamedTuple

from fastapi import Depends, Header, Path, Query

from app.errors import Fault, InvalidInput
from app.preconditions import Precondition
from app.series import parse_series_id
from app.versions import Selector, parse_alias_name, parse_number, parse_selector

SERIES_ID_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9._-]{1,200}$"
SELECTOR_PATTERN = "^(latest|[vV]?[0-9]{1,9}|@[A-Za-z0-9][A-Za-z0-9._-]{0,99})$"
_NUMBER_PATTERN = "^[vV]?0*[1-9][0-9]{0,7}$"
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


def _series(series_id: _SeriesId) -> str:
    faults: list[Fault] = []
    parsed = parse_series_id(series_id, faults)
    _refuse(faults)
    return parsed


def _selected(series_id: _SeriesId, version: _Selector) -> SelectedVersion:
    faults: list[Fault] = []
    parsed = SelectedVersion(parse_series_id(series_id, faults), parse_selector(version, faults, "path"))
    _refuse(faults)
    return parsed


def _numbered(series_id: _SeriesId, version: _Number) -> NumberedVersion:
    faults: list[Fault] = []
    parsed = NumberedVersion(parse_series_id(series_id, faults), parse_number(version, faults))
    _refuse(faults)
    return parsed


def _alias(series_id: _SeriesId, name: _AliasName) -> NamedAlias:
    faults: list[Fault] = []
    parsed = NamedAlias(parse_series_id(series_id, faults), parse_alias_name(name, faults))
    _refuse(faults)
    return parsed


def _precondition(
    if_match: Annotated[str | None, Header(description="Change it only if its entity tag is one of these.")] = None,
    if_none_match: Annotated[str | None, Header(description="Only if its tag is none of these; * for new.")] = None,
) -> Precondition:
    return Precondition(if_match, if_none_match)


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise InvalidInput(faults)


SeriesPath = Annotated[str, Depends(_series)]
SelectedPath = Annotated[SelectedVersion, Depends(_selected)]
NumberedPath = Annotated[NumberedVersion, Depends(_numbered)]
AliasPath = Annotated[NamedAlias, Depends(_alias)]
Conditions = Annotated[Precondition, Depends(_precondition)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page at most.")]
