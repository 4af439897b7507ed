"""Errors as answers: RFC 9457 problem documents, from one place."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.formats import PROBLEM
from app.api.request_ids import request_id
from app.api.request_log import REFUSED, escape_path
from app.errors import Fault, InvalidInput, Overloaded, TidemarkError, json_pointer

_CLIENT_CLOSED_REQUEST = 499
_LOCATIONS = ("path", "query", "header", "body")
_ADVICE = {
    404: "Nothing is served at this path: GET /docs lists what is.",
    405: "This path does not take this method: GET /docs lists what it takes.",
}

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem document."""
    app.add_exception_handler(TidemarkError, answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_unexpected)


def answer_error(request: Request, error: Exception) -> Response:
    """One of our own errors."""
    assert isinstance(error, TidemarkError)
    if isinstance(error, Overloaded):  # which says so itself
        request.scope[REFUSED] = True
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", path=escape_path(request.scope), error=error.kind, detail=error.detail)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"  # what of the body may still come is not to be taken for the next request
    return problem(request, error.status, error.kind, error.title, error.detail, faults=error.faults, headers=headers)


def problem(
    request: Request,
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem document."""
    content = _fields(status, kind, title, detail) | {
        "instance": quote(request.scope["path"]),
        "request_id": request_id(request.scope),
        "errors": _fault_fields(faults),
    }
    return Response(orjson.dumps(content), status, headers, PROBLEM)


def error_fields(error: TidemarkError) -> dict[str, object]:
    """The problem document of one line of a stream, which has no path of its own."""
    fields = _fields(error.status, error.kind, error.title, error.detail)
    return fields | {"errors": _fault_fields(error.faults)}


def _fields(status: int, kind: str, title: str, detail: str) -> dict[str, object]:
    return {"type": f"/problems/{kind}", "title": title, "status": status, "detail": clean(detail)}


def _fault_fields(faults: Sequence[Fault]) -> list[dict[str, str]]:
    return [{"in": fault.location, "pointer": clean(fault.pointer), "detail": clean(fault.detail)} for fault in faults]


def clean(text: str) -> str:
    """Without the halves of surrogate pairs, which a JSON text can smuggle in and UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()


def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults: list[Fault] = list(getattr(request.state, "faults", ()))
    for fault in error.errors():
        location, *path = fault["loc"]
        faults.append(Fault(json_pointer(path), fault["msg"], location))
    return answer_error(request, InvalidInput(faults))


def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    detail = _ADVICE.get(error.status_code, error.detail)
    kind = title.lower().replace(" ", "-")
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_of_path(request)):
        headers["Allow"] = ", ".join(sorted(methods))
    return problem(request, error.status_code, kind, title, detail, headers=headers)


def _methods_of_path(request: Request) -> set[str]:
    """What all routes of this path take together; the framework names the first one's only."""
    app: FastAPI = request.app
    methods: set[str] = set()
    for path, operations in app.openapi()["paths"].items():
        template = re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path))
        if re.fullmatch(template, request.scope["path"]):
            methods |= {method.upper() for method in operations}
    return methods


def _answer_nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """The client went away before its request was whole; the status is for our metrics only."""
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


def _answer_unexpected(request: Request, error: Exception) -> Response:
    # The server logs the traceback, with which it ends the connection.
    log.error("request failed unexpectedly", path=escape_path(request.scope), error=repr(error))
    detail = "This is a fault of Tidemark, not of your request; its log has the details."
    return problem(request, 500, "unexpected", TidemarkError.title, detail, headers={"Connection": "close"})
