"""Sessions of browsers: a signed cookie that stands for a key, for reading only. Nothing is stored for it."""

import hashlib
import hmac
import time

from starlette.requests import cookie_parser

from app.api_keys import ApiKey
from app.keyring import Keyring

COOKIE = "tidemark_session"
LASTS_S = 12 * 3600


class Sessions:
    """Signs and verifies the cookie.

    It is signed with what is stored of its key, so that it ends with the key, in every replica at once; and with
    SESSION_SECRET, without which whoever reads the database could make one.
    """

    def __init__(self, keyring: Keyring, secret: str) -> None:
        self._keyring = keyring
        self._secret = secret.encode()

    def cookie(self, key: ApiKey) -> str:
        """The value of a cookie for this key, from now on."""
        claim = f"{key.key_id}.{int(time.time()) + LASTS_S}"
        return f"{claim}.{self._signature(key, claim)}"

    def key_of(self, cookies: str) -> ApiKey | None:
        """The valid key that a Cookie header stands for, if any."""
        claim, _, signature = cookie_parser(cookies).get(COOKIE, "").rpartition(".")
        key_id, _, ends_s = claim.partition(".")
        key = self._keyring.find_by_id(key_id)
        if key is None or not hmac.compare_digest(self._signature(key, claim).encode(), signature.encode()):
            return None
        return key if time.time() < int(ends_s) else None

    def _signature(self, key: ApiKey, claim: str) -> str:
        return hmac.new(self._secret + key.digest, claim.encode(), hashlib.sha256).hexdigest()
