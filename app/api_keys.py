"""API keys: who may do what, on which series."""

import hashlib
import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from app.errors import ConfigurationError

Scope = Literal["fit", "predict", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

ID_CHARACTERS = 12
_MARK = "tm_"
_ID = slice(len(_MARK), len(_MARK) + ID_CHARACTERS)
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,200}", re.ASCII)


class Limits(NamedTuple):
    """How much a key may ask for; None for no limit."""

    requests_per_minute: int | None = None
    points_per_minute: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class SeriesPatterns:
    """Which series are meant: globs with commas between them, where `*` is any text and `?` any character."""

    text: str

    @property
    def globs(self) -> list[str]:
        """Each of them."""
        return self.text.split(",")

    @cached_property
    def are_all(self) -> bool:
        """Whether every series is meant."""
        return "*" in self.globs

    def match(self, series_id: str) -> bool:
        """Whether this series is meant."""
        return self.are_all or self._expression.fullmatch(series_id) is not None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_expression_of, self.globs)))


def _expression_of(glob: str) -> str:
    """A regular expression that never goes back on what a `*` took: the first place where the rest fits will do."""
    first, *others = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>.*?{part})" for part in middle) + f".*{last}"


ALL_SERIES = SeriesPatterns("*")


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored: without its text, of which only the SHA-256 is kept.

    A fast hash is enough, as the text has 256 random bits: nobody can try them.
    """

    key_id: str
    """Public: the beginning of its text. Empty for the one of the environment."""
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    series: SeriesPatterns
    limits: Limits
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def is_valid(self) -> bool:
        """Whether it is neither revoked nor expired."""
        is_over = self.expires_at is not None and time.time() >= self.expires_at.timestamp()
        return self.revoked_at is None and not is_over


class NewKey(NamedTuple):
    """The text of a key, which is shown once, and its public beginning."""

    text: str
    key_id: str


def new_key() -> NewKey:
    """A key that nobody has."""
    key_id = secrets.token_hex(ID_CHARACTERS // 2)
    return NewKey(f"{_MARK}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}", key_id)


def id_of(text: str) -> str:
    """The public beginning of a key's text, or what stands in its place."""
    return text[_ID]


def digest_of(text: str) -> bytes:
    """What is stored of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def parse_scopes(raw: str) -> frozenset[Scope]:
    """Scopes with commas between them. Raises ConfigurationError."""
    named = {name.strip() for name in raw.split(",")}
    scopes = frozenset(scope for scope in SCOPES if scope in named)
    if len(scopes) < len(named) or not scopes:
        unknown = ", ".join(sorted(named.difference(SCOPES))) or "nothing"
        raise ConfigurationError(f"{unknown} is no scope: name some of {', '.join(SCOPES)}, with commas between them.")
    return scopes


def parse_patterns(raw: str) -> SeriesPatterns:
    """Globs with commas between them. Raises ConfigurationError."""
    globs = [glob.strip() for glob in raw.split(",")]
    for glob in globs:
        if not _PATTERN.fullmatch(glob):
            advice = "write names of series with * for any text and ? for any character, such as plant1.*"
            raise ConfigurationError(f'"{glob}" is no pattern of series: {advice}, and commas between several.')
    return SeriesPatterns(",".join(globs))


def parse_name(raw: str) -> str:
    """The name of a key. Raises ConfigurationError."""
    if not _NAME.fullmatch(raw):
        advice = "1 to 100 letters, digits, '.', '_', '-' and '@', a letter or digit first"
        raise ConfigurationError(f'"{raw}" is no name for a key: take {advice}.')
    return raw


def describe_scopes(scopes: Collection[Scope]) -> str:
    """As `parse_scopes` reads them."""
    return ",".join(scope for scope in SCOPES if scope in scopes)
