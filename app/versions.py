"""The nouns of the registry: a version of a model, an alias, and how a request names either."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app import __version__
from app.artifacts.base import Address
from app.detectors.base import Choice, Detector
from app.errors import Fault

LATEST = 0
"""The selector of whatever version is the highest that is not deleted."""

Selector = int | str
"""Which version is meant: a number, LATEST, or the name of an alias."""

_NUMBER = re.compile(r"[vV]?([0-9]{1,9})", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)


class PackPlace(NamedTuple):
    """Where a version of a bulk fit is within the two packs of its batch, each named by its SHA-256."""

    model_pack: bytes
    model_offset: int
    model_length: int
    """Bytes."""
    data_pack: bytes
    first_row: int


class Version(NamedTuple):
    """One immutable version of a series' model, with its provenance."""

    series_id: str
    version: int
    detector: str
    params: Mapping[str, object]
    points: int
    first_timestamp_s: float
    last_timestamp_s: float
    model_digest: bytes
    data_digest: bytes
    libraries: Mapping[str, str]
    created_at: datetime
    place: PackPlace | None = None
    """None when each artifact is a file of its own."""
    choice: Choice | None = None
    """Why its detector was taken; None when the user named it."""
    created_by: str | None = None
    """Name of the API key that made it; None when none was asked for."""

    @property
    def model_address(self) -> Address:
        """Where its model is stored."""
        if self.place is None:
            return Address(self.model_digest)
        return Address(self.model_digest, self.place.model_pack, self.place.model_offset, self.place.model_length)

    @property
    def data_address(self) -> Address:
        """The file that its training data is in."""
        return Address(self.data_digest) if self.place is None else Address(self.place.data_pack, self.place.data_pack)

    @property
    def etag(self) -> str:
        """A strong entity tag: a version never changes, and what is said of it only with the release."""
        return f'"{self.version}-{self.model_digest.hex()[:16]}-{self.data_digest.hex()[:16]}-{__version__}"'


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that points at one version of a series and may be moved."""

    series_id: str
    name: str
    version: int
    revision: str
    updated_at: datetime

    @property
    def etag(self) -> str:
        """A strong entity tag, new at each move."""
        return f'"{self.revision}"'


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """A series and its latest version."""

    series_id: str
    latest: Version
    created_at: datetime
    updated_at: datetime


class Idempotency(NamedTuple):
    """An Idempotency-Key and the SHA-256 of what came with it."""

    key: str
    request_digest: bytes


class LoadedModel(NamedTuple):
    """A version in memory, ready to predict."""

    version: int
    detector: Detector


def parse_selector(raw: str | None, faults: list[Fault], location: str = "query") -> Selector:
    """The version that a request names; appends to `faults` what cannot be one."""
    text = "latest" if raw is None else raw.strip()
    if text == "latest":
        return LATEST
    if number := _NUMBER.fullmatch(text):
        return int(number[1])
    if text.startswith("@") and _ALIAS.fullmatch(text[1:]):
        return text[1:]
    faults.append(Fault("/version", "must be latest, a number like 3 or v3, or an alias like @prod", location))
    return LATEST


def parse_number(raw: str, faults: list[Fault]) -> int:
    """The number of one version in a path, where `latest` and aliases are not taken."""
    number = _NUMBER.fullmatch(raw.strip())
    if number and int(number[1]) > 0:
        return int(number[1])
    faults.append(Fault("/version", "must be the number of a version like 3 or v3", "path"))
    return LATEST


def parse_idempotency_key(raw: str | None, faults: list[Fault]) -> str | None:
    """The Idempotency-Key of a request, None when it has none."""
    if raw is None or _KEY.fullmatch(raw):
        return raw
    faults.append(Fault("/Idempotency-Key", "must be 1 to 255 visible ASCII characters without blanks", "header"))
    return None


def parse_alias_name(raw: str, faults: list[Fault]) -> str:
    """The name of an alias in a path, with or without its @."""
    name = raw.strip().removeprefix("@")
    if not _ALIAS.fullmatch(name) or name == "latest":
        advice = "must be 1 to 100 letters, digits, '.', '_' or '-', and not latest: for example prod"
        faults.append(Fault("/name", advice, "path"))
    return name
