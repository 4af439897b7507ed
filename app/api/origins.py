"""Who may call through a browser: pages of which origins, and under which names of this host."""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from app.api.headers import find_header
from app.api.problems import answer_error
from app.errors import CrossSiteRequest, HostNotAllowed

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_SENT = ("Authorization", "Idempotency-Key", "If-Match", "If-None-Match", "X-API-Key", "X-Request-ID")
_READ = ("ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID")
_OK = 200
_MONITORED = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by address, whatever the name is, and silent on what is stored."""
_NEVER_PUBLIC = (".localhost", ".internal")


class RefuseOtherSites:
    """Refuses what the page of another site sends through its visitor's browser, unless it only reads.

    A service on loopback has no other guard: any page that its operator opens could fit models. Pages of listed origins
    pass, without cookies: whoever shows a session comes from our own.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        origin = find_header(scope, b"origin") if scope["type"] == "http" else None
        if origin is None or _is_own_site(scope, origin):  # browsers name it with what is not a GET; nobody else does
            await self._app(scope, receive, send)
        elif scope["method"] in _READING or origin in self._origins or b"*" in self._origins:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
            await self._app(scope, receive, send)
        else:
            error = CrossSiteRequest(
                "The request comes from a page of another site: send it from this one or without a browser, "
                "or add the other to CORS_ORIGINS."
            )
            await answer_error(Request(scope), error)(scope, receive, send)


def _is_own_site(scope: Scope, origin: bytes) -> bool:
    site = find_header(scope, b"sec-fetch-site")
    if site is not None:
        return site in {b"same-origin", b"none"}
    return origin.rpartition(b"//")[2] == find_header(scope, b"host")


class ShareWithOrigins(CORSMiddleware):
    """Lets scripts of these origins call and read, `*` for those of any; with keys in headers, never with cookies."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_SENT, expose_headers=_READ, max_age=600
        )

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it; a preflight that fails gets a problem document, like every other."""
        if scope["type"] == "http" and _is_preflight(scope):
            response = self.preflight_response(Headers(scope=scope))
            if response.status_code != _OK:
                failed = bytes(response.body).decode()
                error = CrossSiteRequest(f"{failed}: CORS_ORIGINS lists the origins, docs/API.md methods and headers.")
                vary = {"Vary": response.headers["Vary"]}
                response = answer_error(Request(scope), error)
                response.headers.update(vary)
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _is_preflight(scope: Scope) -> bool:
    asks = find_header(scope, b"access-control-request-method") is not None
    return scope["method"] == "OPTIONS" and asks and find_header(scope, b"origin") is not None


class Hosts:
    """The names under which the service may be called."""

    def __init__(self, patterns: Sequence[str] | None, listening_on: str) -> None:
        """Of these patterns; without any, on loopback, names that no web site can have."""
        match = partial(_matches, patterns) if patterns is not None else partial(_is_private, listening_on)
        self._allows = lru_cache(1000)(lambda host: match(_name(host)))

    def allow(self, scope: Scope) -> bool:
        """Whether the request is meant for us."""
        return self._allows(find_header(scope, b"host") or b"") or scope["path"] in _MONITORED


def _name(host: bytes) -> str:
    """The name or address, without a port."""
    name, _, port = host.decode("latin-1").lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.decode("latin-1").lower()
    return name.strip("[]").rstrip(".")


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(name == pattern or (pattern[0] == "*" and name.endswith(pattern[1:])) for pattern in patterns)


def _is_private(listening_on: str, name: str) -> bool:
    """Whether no stranger's page can have this name: his would resolve to his server first, and to us then."""
    return "." not in name or name == listening_on or name.endswith(_NEVER_PUBLIC) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class RefuseOtherHosts:
    """Refuses requests for other hosts, as long as that is asked for."""

    def __init__(self, app: ASGIApp, hosts: Hosts, is_needed: Callable[[], bool]) -> None:
        self._app = app
        self._hosts = hosts
        self._is_needed = is_needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http" or self._hosts.allow(scope) or not self._is_needed():
            await self._app(scope, receive, send)
            return
        error = HostNotAllowed(
            "The request's Host is no name of this service: use another, or add this one to ALLOWED_HOSTS."
        )
        await answer_error(Request(scope), error)(scope, receive, send)


class LeaveOutOtherHosts:
    """Takes requests for other hosts past the fast lane, to where they are refused."""

    def __init__(self, fast: ASGIApp, ordinary: ASGIApp, hosts: Hosts) -> None:
        self._fast = fast
        self._ordinary = ordinary
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        is_ours = scope["type"] != "http" or self._hosts.allow(scope)
        await (self._fast if is_ours else self._ordinary)(scope, receive, send)
