"""The gate: lets a request in by its key, its scope and its series, before anything else looks at it."""

from collections.abc import Callable, Mapping
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import api_keys
from app.api.callers import ANYONE, CALLER, Caller
from app.api.problems import answer_error
from app.api.sessions import Sessions
from app.errors import KeyUnknown, TidemarkError, Unauthenticated
from app.keyring import Keyring
from app.rate_limits import RateLimiter

PUBLIC = frozenset({"livez", "readyz", "docs", "openapi.json", "static", "sign-in", "sign-out"})
"""First parts of the paths that need no key: they tell nothing of what is stored."""
PAGES = frozenset({"/", "/plot"})
_SCOPES: dict[str, api_keys.Scope] = {"fit": "fit", "predict": "predict", "detect": "predict"}
_OF_A_SERIES = frozenset({"fit", "predict", "series"})
_READING = frozenset({"GET", "HEAD"})
_ADMITTED = "tidemark.admitted"
_SEE_OTHER = 303
_AUTHORIZATION = b"authorization"
_BEARER = b"bearer "
_MOST_KEPT = 10_000
_SEND_ONE = "send one as `Authorization: Bearer tm_...` or `X-API-Key: tm_...`"


Headers = Mapping[bytes, bytes]
ShowError = Callable[[Request, TidemarkError], Response]
Wanted = tuple[api_keys.Scope | None, str | None]
"""The scope that a request needs, None where no key is needed; and the series in its path, if one is."""
_NOTHING: Wanted = (None, None)


def wanted(method: str, path: str) -> Wanted:
    """What this request needs. What is not known needs a key too: nothing is open because it was forgotten."""
    _, first, second, *_ = [*path.split("/", 3), "", ""]
    if first in PUBLIC:
        return None, None
    series_id = second.strip() if second and first in _OF_A_SERIES else None
    reading: api_keys.Scope = "read" if method in _READING or first != "series" else "admin"
    return _SCOPES.get(first, reading), series_id


def _bearer_of(headers: Headers) -> bytes:
    """The key that is sent as `Authorization: Bearer`, empty when none is."""
    authorization = headers.get(_AUTHORIZATION, b"")
    return authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else b""


class KeysUnread(Exception):
    """Whether keys are asked for at all is not known before they were read once."""


class Gate:
    """Says who calls, or why not."""

    def __init__(self, keyring: Keyring, limiter: RateLimiter, sessions: Sessions) -> None:
        self._keyring = keyring
        self._limiter = limiter
        self._sessions = sessions
        self._callers: dict[str, Caller] = {}
        self._by_header: dict[bytes | None, Caller] = {}
        """Who sent a key in which `Authorization`, in one edition of the keyring. A dict finds it by a hash with a
        secret seed, so that how long this takes tells nothing of what is in it.
        """
        self._edition = keyring.edition

    def admit(self, scope: Scope, asked: Wanted | None = None, headers: Headers | None = None) -> Caller:
        """Whoever calls, once for each request; no I/O. Who is known is in the scope, whether let in or not.

        `asked` is what `wanted` would say, and `headers` are those of the scope, from who knows them already.

        Raises Unauthenticated, KeyUnknown, ScopeMissing, SeriesNotAllowed, RateLimitExceeded, KeysUnread.
        """
        if _ADMITTED in scope:
            known: Caller = scope[CALLER]
            return known
        scope[CALLER] = caller = ANYONE
        is_required = self._keyring.is_required
        needed, series_id = _NOTHING if is_required is False else asked or wanted(scope["method"], scope["path"])
        if needed is not None:
            if is_required is None:
                raise KeysUnread
            headers = headers or dict(scope["headers"])
            caller = self._by_header.get(headers.get(_AUTHORIZATION), ANYONE)
            if caller is ANYONE or self._edition is not self._keyring.edition:
                caller = self._identify(scope, headers)
            scope[CALLER] = caller
            if caller.meter is not None:
                caller.meter.charge("requests", 1)
            if needed not in caller.open_scopes:
                caller.check(needed, series_id)
        scope[_ADMITTED] = True
        return caller

    def _identify(self, scope: Scope, headers: Headers) -> Caller:
        edition = self._keyring.edition  # before the key is looked for: it may be revoked meanwhile
        bearer = _bearer_of(headers)
        if text := bearer or headers.get(b"x-api-key", b"").strip():
            key = self._keyring.find(text)
        elif b"cookie" in headers and scope["method"] in _READING:
            key = self._sessions.key_of(headers[b"cookie"].decode("latin-1"))
        else:
            raise Unauthenticated(f"This service asks for an API key: {_SEND_ONE}.")
        if key is None:
            raise KeyUnknown(f"The API key is unknown, revoked or expired: {_SEND_ONE}.")
        caller = self._callers.get(key.key_id)
        if caller is None:
            caller = self._callers.setdefault(key.key_id, Caller(key, self._limiter.meter(key)))
        if edition is not self._edition:
            self._by_header.clear()
            self._edition = edition
        if bearer and key.expires_at is None and len(self._by_header) < _MOST_KEPT:
            self._by_header[headers[_AUTHORIZATION]] = caller
        return caller

    def look_again(self) -> None:
        """Learn of keys that were made just now. Raises DatabaseUnavailable, SchemaOutdated."""
        self._keyring.read()


class Authenticate:
    """Lets a request in, or answers why not; a browser that wants a page is led to sign in."""

    def __init__(self, app: ASGIApp, gate: Gate, show: ShowError) -> None:
        """`show` answers an error where a browser may have asked for a page."""
        self._app = app
        self._gate = gate
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._admit(scope)
        except TidemarkError as error:
            await self._refuse(Request(scope), error)(scope, receive, _with_limits(scope[CALLER], send))
        else:
            await self._app(scope, receive, _with_limits(caller, send))

    async def _admit(self, scope: Scope) -> Caller:
        try:
            return self._gate.admit(scope)
        except (KeyUnknown, KeysUnread):
            await run_in_threadpool(self._gate.look_again)  # it may have been made since the keys were read
        return self._gate.admit(scope)

    def _refuse(self, request: Request, error: TidemarkError) -> Response:
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        is_page = request.method in _READING and path in PAGES
        if is_page and isinstance(error, Unauthenticated) and "text/html" in request.headers.get("accept", ""):
            page = (path.lstrip("/") or "./") + (f"?{query}" if query else "")
            return Response(status_code=_SEE_OTHER, headers={"Location": f"sign-in?next={quote(page, safe='')}"})
        response = self._show(request, error) if is_page else answer_error(request, error)
        if isinstance(error, Unauthenticated):
            response.headers["WWW-Authenticate"] = 'Bearer realm="tidemark"'
        return response


def _with_limits(caller: Caller, send: Send) -> Send:
    meter = caller.meter
    if meter is None:
        return send

    async def send_with_limits(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *meter.headers()]
        await send(message)

    return send_with_limits
