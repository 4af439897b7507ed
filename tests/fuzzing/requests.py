"""The target of whole requests: the application in this process, from the bytes of a request to those of its answer."""

import asyncio
import json
import tempfile
from collections.abc import MutableMapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pyarrow as pa
import structlog

from app.api.formats import ARROW, JSON, NDJSON, PARQUET, PROBLEM, names
from app.api_keys import new_key
from app.bootstrap import build
from app.config import Settings
from app.main import create_app
from app.migrations import migrate
from tests.fuzzing.contracts import Broken, check_message, promise
from tests.fuzzing.files import parquet_seeds, stream_seeds

_PIECE_BYTES = 1_000
_HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
_SHM = Path("/dev/shm")
_MOST_S = 5.0
_KEY = new_key().text.encode()
_OPEN = {"livez", "readyz", "docs", "openapi.json", "static", "sign-in", "sign-out"}
"""What the gate lets anyone see, written down again."""

Message = MutableMapping[str, Any]


class Site:
    """The application over an embedded database, with a series `s1` that has two versions and an alias."""

    def __init__(self, **more: object) -> None:
        structlog.configure(processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
        self._folder = tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None, prefix="tidemark-fuzz-")
        settings = Settings(
            _env_file=None, data_dir=Path(self._folder.name), max_points=1_000, max_body_mb=1, fit_budget_s=0.02, **more
        )
        services = build(settings)
        migrate(services.database)
        services.start()
        self._app = create_app(services)
        self._loop = asyncio.new_event_loop()
        fit = b"POST /fit/s1\nX-API-Key: %b\n\n%b" % (_KEY, orjson.dumps(_HISTORY | {"detector": "mean_std"}))
        alias = b'PUT /series/s1/aliases/prod\nX-API-Key: %b\n\n{"version": 1}' % _KEY
        for request in (fit, fit, alias):
            status, *_ = self.answer(request)
            promise(status == HTTPStatus.OK, f"{status} to {request!r}")

    def answer(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes, bool]:
        """Status, headers, body, and whether that is whole."""
        return self._loop.run_until_complete(asyncio.wait_for(self._answer(request), _MOST_S))

    async def _answer(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes, bool]:
        head, _, body = request.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        pieces = [body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES)] or [b""]
        coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        coming[-1]["more_body"] = False
        sent: list[Message] = []

        async def receive() -> Message:
            return coming.pop(0) if coming else await asyncio.get_running_loop().create_future()  # nobody hangs up

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(_scope(first, lines, len(body)), receive, send)
        status = next(message["status"] for message in sent if message["type"] == "http.response.start")
        headers = dict(sent[0]["headers"])
        return (
            status,
            headers,
            b"".join(message.get("body", b"") for message in sent[1:]),
            not sent[-1].get("more_body"),
        )


def _scope(first: bytes, lines: list[bytes], length: int) -> dict[str, Any]:
    """As the server makes it of the head of a request."""
    method, _, target = first.partition(b" ")
    target = b"".join(
        b"%c" % byte if 0x20 < byte < 0x7F else b"%%%02x" % byte for byte in target
    )  # else it answers 400
    path, _, query = target.partition(b"?")
    pairs = [line.partition(b":") for line in lines if b":" in line]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    headers = [
        (name, value) for name, value in headers if name != b"content-length" or value.isdigit()
    ]  # or it refuses
    if b"content-length" not in dict(headers):
        headers.append((b"content-length", b"%d" % length))
    raw_path = path if path.startswith(b"/") else b"/" + path
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper() or "GET",
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


@cache
def site() -> Site:
    """One for all requests of a process."""
    return Site()


@cache
def guarded_site() -> Site:
    """One that asks for keys, and knows one that no input has."""
    return Site(auth="on", api_key=_KEY.decode())


def check_request(data: bytes) -> object:
    """Never a fault of ours, and every refusal a problem document."""
    return _check(site(), data)


def check_stranger(data: bytes) -> object:
    """The same of a service that asks for keys; and who has none learns and changes nothing."""
    status, media_type = _check(guarded_site(), data)
    _, path = (*data.split(b"\n")[0].split(b" ", 1), b"")[:2]
    first = unquote(path.partition(b"?")[0].decode("latin-1")).lstrip("/").split("/")[0]
    promise(status >= HTTPStatus.MULTIPLE_CHOICES or first in _OPEN, f"{status} to {data[:300]!r}")
    return status, media_type, first in _OPEN


def _check(asked: Site, data: bytes) -> tuple[int, str]:
    try:
        status, headers, body, is_whole = asked.answer(data)
    except TimeoutError:
        raise Broken(f"no answer within {_MOST_S:g} s") from None
    media_type = headers.get(b"content-type", b"").decode()
    promise(status < 500, f"{status}: {body[:300]!r}")
    if status >= 400:
        is_form = status == HTTPStatus.FORBIDDEN and b"<form" in body  # of the page to sign in on, shown again
        promise(
            is_form or names(PROBLEM, media_type) or data[:5].upper() == b"HEAD ",
            f"{status} as {media_type!r}: {body[:200]!r}",
        )
        promise(is_whole, "half a problem")
        if body and not is_form:
            _check_problem(_json(body), status)
    elif names(JSON, media_type) and b"content-encoding" not in headers and body:
        _json(body)
    elif names(NDJSON, media_type):
        for line in body.splitlines():
            answer = _json(line)
            promise(isinstance(answer, dict) and answer["status"] < 500, f"the line {line[:300]!r}")
    elif names(ARROW, media_type) and is_whole:
        pa.ipc.open_stream(body).read_all().validate(full=True)
    return status, media_type


def _check_problem(problem: Any, status: int) -> None:
    promise(problem["status"] == status and problem["title"] and problem["type"], f"the problem {problem}")
    check_message(problem["detail"])
    for fault in problem["errors"]:
        promise(len(fault["detail"]) >= 10, f"the fault {fault}")


def _json(body: bytes) -> Any:
    def no_constant(name: str) -> object:
        raise Broken(f"{name} in an answer")

    try:
        return json.loads(body.decode(), parse_constant=no_constant)
    except ValueError as error:
        raise Broken(f"an answer that is no JSON: {error}: {body[:200]!r}") from None


def request_seeds() -> tuple[bytes, ...]:
    """One for each route that takes a body, and some that take none."""
    history, point = orjson.dumps(_HISTORY | {"detector": "mean_std"}), b'{"timestamp": 5, "value": 10.1}'
    line = (
        b'{"series_id": "s1", "timestamp": 5, "value": 10.1}\n{"series_id": "s2", "timestamps": [5], "values": [1]}\n'
    )
    fit_line = b'{"series_id": "s2", "timestamps": [1, 2, 3], "values": [1, 2, 4]}\n'
    points, rows, *_ = stream_seeds()

    def typed(kind: str, request: bytes, body: bytes) -> bytes:
        return b"%b\nContent-Type: %b\n\n%b" % (request, kind.encode(), body)

    return (
        typed(JSON, b"POST /fit/s1", history),
        typed(JSON, b"POST /fit/s1", b'{"timestamps": [1, 2, 3], "values": [1, 2, 4], "params": {"k": 2}}'),
        typed(JSON, b"POST /fit/s1\nIdempotency-Key: k1", history),
        typed(JSON, b"POST /predict/s1?version=1&false_alarm_rate=0.01", point),
        typed(
            JSON,
            b"POST /predict/s1?version=%40prod",
            b'{"timestamps": [5, 6], "values": [1, 2], "context": {"timestamps": [1], "values": [1]}}',
        ),
        typed(ARROW, b"POST /predict/s1?max_false_alarms_per_week=1", points),
        typed(NDJSON, b"POST /predict", line),
        typed(ARROW, b"POST /predict", rows),
        typed(NDJSON, b"POST /fit", fit_line),
        typed(ARROW, b"POST /fit", rows),
        typed(PARQUET, b"POST /fit?detector=mean_std", parquet_seeds()[0]),
        typed(JSON, b"POST /detect?detector=mean_std&params=%7B%22k%22%3A3%7D", history),
        typed(NDJSON, b"POST /detect?detector=mean_std", fit_line),
        typed(ARROW, b"POST /detect?detector=mean_std", points),
        typed(JSON, b"PUT /series/s1/aliases/prod\nIf-Match: *", b'{"version": "latest"}'),
        b"DELETE /series/s1/aliases/no\nIf-Match: *\n\n",
        b"DELETE /series/s2/versions/1\n\n",
        b"GET /series/s1/versions/v1\n\n",
        b"GET /series?limit=5&cursor=s&search=s\n\n",
        b"GET /plot/data?series_id=s1&version=1&start=1&end=1e9&max_points=10&false_alarm_rate=0.1\n\n",
        b"GET /plot?series_id=s1&version=latest\n\n",
        b"GET /?search=s&cursor=s1\n\n",
    )
