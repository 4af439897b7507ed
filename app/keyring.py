"""The API keys in memory, so that a request is let in without a query."""

import hashlib
import ipaddress
import time
from hmac import compare_digest
from threading import Lock

import structlog

from app.api_keys import ALL_SERIES, ID_CHARACTERS, NO_LIMITS, SCOPES, ApiKey
from app.background import BackgroundLoop
from app.config import Settings
from app.errors import ConfigurationError, Unavailable
from app.key_catalog import KeyCatalog, KeyCounts

POLL_INTERVAL_S = 0.25
"""A revoked key is refused after it."""
FEWEST_CHARACTERS = 16
_ENVIRONMENT = "API_KEY"
_ID = slice(3, 3 + ID_CHARACTERS)
_HOW_TO_GO_ON = (
    "Make a key (python -m app keys create --name me --scope fit,predict,read,admin), or set API_KEY, or say AUTH=off "
    "when nobody else can reach it"
)

log = structlog.get_logger()


class Keyring:
    """All keys, read anew whenever one was made or revoked; and whether the service asks for one at all.

    Keys are asked for unless AUTH is off; by default also not on loopback, as long as there is none.
    """

    def __init__(self, catalog: KeyCatalog, settings: Settings) -> None:
        self._catalog = catalog
        self._auth = settings.auth
        self._host = settings.host
        self._own = _key_of_environment(settings)
        self._keys: dict[bytes, ApiKey] = {}
        self._texts: dict[str, bytes] = {}
        """Of the keys that were used, so that each is hashed once and not at each request."""
        self._counts: KeyCounts | None = None
        self._has_any = False
        self._read_at = 0.0
        self._reading = Lock()
        self.edition = object()
        """Another one whenever keys were read that are not those of before."""
        self.is_required: bool | None = None
        """None until it is known, which takes the database unless the settings say it."""
        if self._auth == "off":
            self.is_required = False
        elif self._auth == "on" or self._own is not None:
            self.is_required = True
        self._loop = BackgroundLoop(
            self.read,
            interval_s=POLL_INTERVAL_S,
            failed="API keys cannot be read: those that are known stay valid",
            recovered="API keys are read again",
        )

    def open(self) -> None:
        """Before anybody can send a request. Raises ConfigurationError when it would be open to more than this machine.

        When the database is away, nobody is let in until it is back.
        """
        if self._auth == "off" and self._own is not None:
            raise ConfigurationError("API_KEY is set, and AUTH=off: take one of them away, as they exclude each other.")
        try:
            self.read()
        except Unavailable as error:
            log.warning("API keys cannot be read: nobody is let in yet", reason=error.detail)
            return
        if self._auth == "off" and self._keys:
            log.warning("API keys are not asked for, as AUTH is off", keys=len(self._keys), host=self._host)
        if self._auth == "auto" and self._own is None and not self._has_valid() and not _is_loopback(self._host):
            raise ConfigurationError(f"HOST is {self._host}, which others reach, and there is no key. {_HOW_TO_GO_ON}.")

    def start(self) -> None:
        """Begin to follow what keys are made and revoked, unless none is asked for."""
        if self.is_required is not False:
            self._loop.start()

    def stop(self) -> None:
        """End it."""
        self._loop.stop()

    def read(self) -> None:
        """Read the keys if any is new or revoked. Raises DatabaseUnavailable, SchemaOutdated."""
        asked_at = time.monotonic()
        with self._reading:
            if self._read_at > asked_at:  # by someone else, while this one waited
                return
            started_at = time.monotonic()
            counts = self._catalog.count()
            if counts != self._counts:
                found = self._catalog.list()
                self._keys = {key.key_id.encode(): key for key in found if key.revoked_at is None}
                self._has_any = bool(found)
                self.edition = object()
                self._counts = counts
            if self.is_required is None:
                self.is_required = self._has_any or not _is_loopback(self._host)
            self._read_at = started_at

    def find(self, text: bytes) -> ApiKey | None:
        """The valid key with this text, as far as is known in memory."""
        key = self._keys.get(text[_ID], self._own)
        if key is None:
            return None
        if not compare_digest(self._texts.get(key.key_id, b""), text):
            if not compare_digest(key.digest, hashlib.sha256(text).digest()):
                return None
            self._texts[key.key_id] = text
        return key if key.expires_at is None or key.is_valid else None

    def find_by_id(self, key_id: str) -> ApiKey | None:
        """The valid key with this public beginning."""
        own = self._own
        key = own if own is not None and own.key_id == key_id else self._keys.get(key_id.encode())
        return key if key is not None and key.is_valid else None

    def _has_valid(self) -> bool:
        return any(key.is_valid for key in self._keys.values())


def _key_of_environment(settings: Settings) -> ApiKey | None:
    text = settings.api_key.get_secret_value() if settings.api_key else ""
    if not text:
        return None
    if len(text) < FEWEST_CHARACTERS:
        log.warning("API_KEY is short enough to be guessed", characters=len(text), needed=FEWEST_CHARACTERS)
    digest = hashlib.sha256(text.encode()).digest()
    return ApiKey(_ENVIRONMENT, _ENVIRONMENT, digest, frozenset(SCOPES), ALL_SERIES, NO_LIMITS)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
