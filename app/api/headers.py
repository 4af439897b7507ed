"""Headers: one of a request, and those that make every answer safe in a browser."""

from collections.abc import Iterable, Sequence
from itertools import product

from starlette.types import Scope

RawHeader = tuple[bytes, bytes]

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""What a page may load and do: only what is ours, none of it written into the HTML."""
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"

_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser names no origin in forms, and they are refused
    "Cross-Origin-Resource-Policy": "same-origin",
}
_UNLESS_CACHED = {"Cache-Control": "private, no-cache"}
_ON_DATA = {"Content-Security-Policy": DATA_POLICY}
_ON_PAGES = {
    "Content-Security-Policy": PAGE_POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_ON_TRUSTED_PAGES = {"Cross-Origin-Opener-Policy": "same-origin"}
_OVER_TLS = {"Strict-Transport-Security": "max-age=31536000"}
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


def find_header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this name, in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def security_headers(scope: Scope, headers: Iterable[RawHeader]) -> Sequence[RawHeader]:
    """What an answer with these headers needs besides them."""
    is_page = says_cached = False
    for name, value in headers:
        if name == b"content-type":
            is_page = value.startswith(b"text/html")
        elif name == b"cache-control":
            says_cached = True
    return _SETS[is_page, says_cached, scope["scheme"] == "https", _is_on_loopback(scope)]


def _is_on_loopback(scope: Scope) -> bool:
    server = scope.get("server")
    return server is not None and server[0] in _LOOPBACK


def _set(*, is_page: bool, says_cached: bool, is_tls: bool, is_on_loopback: bool) -> tuple[RawHeader, ...]:
    headers = _EVERYWHERE | (_ON_PAGES if is_page else _ON_DATA)
    if not says_cached:
        headers |= _UNLESS_CACHED
    if is_page and (is_tls or is_on_loopback):  # elsewhere browsers ignore it, and complain of it
        headers |= _ON_TRUSTED_PAGES
    if is_tls:
        headers |= _OVER_TLS
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


_FLAGS = ("is_page", "says_cached", "is_tls", "is_on_loopback")
_SETS = {flags: _set(**dict(zip(_FLAGS, flags, strict=True))) for flags in product((False, True), repeat=len(_FLAGS))}
