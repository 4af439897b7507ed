"""The id of each request: the client's own where it can be repeated anywhere without harm, else one of ours."""

import re
from random import getrandbits

from starlette.types import Scope

from app.api.headers import RawHeader, find_header
from app.logs import REQUEST_ID

HEADER = b"x-request-id"

_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id(scope: Scope) -> str:
    """The id of this request, the same whenever it is asked for."""
    known = scope.get(REQUEST_ID)
    if known is None:
        sent = find_header(scope, HEADER)
        ours = f"{getrandbits(64):016x}"  # names a request in a log and protects nothing
        known = scope[REQUEST_ID] = ours if sent is None or not _HARMLESS.fullmatch(sent) else sent.decode()
    return str(known)


def echo_header(sent: bytes) -> list[RawHeader]:
    """The answer's header for an id that a client sent; none for one that is better not repeated."""
    return [(HEADER, sent)] if _HARMLESS.fullmatch(sent) else []
