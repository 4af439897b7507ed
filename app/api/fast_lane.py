"""The fast lane: plain predictions, answered before routing, validation models and the like look at them.

Plain is one JSON body in one piece, without a fault, whose model is in memory and judges a point in no time. Whatever
is not plain goes on to the application as it came, so what a fault or a cold model means is said in one place, and not
here.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import answers, bodies, formats
from app.api.callers import CALLER
from app.api.gate import Gate, Headers
from app.api.queries import PredictQuery, parse_predict_query
from app.api.request_ids import HEADER as REQUEST_ID
from app.api.request_ids import echo_header
from app.config import Settings
from app.errors import Fault
from app.registry import ModelRegistry
from app.telemetry import LatencyHistory, Metrics

INLINE_BODY_BYTES = 16_384
"""A smaller body takes less time than handing it to a thread; a larger one would hold up other requests."""

_LENGTH_DIGITS = len(str(INLINE_BODY_BYTES))
_LONGEST_QUERY_BYTES = 500
"""Those that are plain are remembered, so their size is bounded."""
_UNKNOWN_LENGTH = bytes(_LENGTH_DIGITS + 1)
_PREFIX = "/predict/"
_ROUTE = "/predict/{series_id}"
_CONTENT_TYPE = (b"content-type", formats.JSON.encode())


class PredictionFastLane:
    """Answers plain predictions, and measures them as `MeasureRequests` does the others."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        registry: ModelRegistry,
        *,
        gate: Gate,
        metrics: Metrics,
        latencies: LatencyHistory,
    ) -> None:
        self._app = app
        self._max_points = settings.max_points
        self._registry = registry
        self._gate = gate
        self._metrics = metrics
        self._latencies = latencies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        is_prediction = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(_PREFIX)
        headers = dict(scope["headers"]) if is_prediction else {}
        if not _is_plain(headers) or len(headers) < len(scope["headers"]):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        message = await receive()
        answer = self._answer(scope, headers, message)
        if answer is None:
            await self._app(scope, _again(message, receive), send)
            return
        answered = [(b"content-length", b"%d" % len(answer)), _CONTENT_TYPE]
        if (meter := scope[CALLER].meter) is not None:
            answered += meter.headers()
        if REQUEST_ID in headers:
            answered += echo_header(headers[REQUEST_ID])
        await send({"type": "http.response.start", "status": 200, "headers": answered})
        await send({"type": "http.response.body", "body": answer})
        duration_s = time.perf_counter() - started
        self._metrics.observe("POST", _ROUTE, 200, duration_s)
        self._latencies.record("inference", duration_s * 1000.0)

    def _answer(self, scope: Scope, headers: Headers, message: Message) -> bytes | None:
        """The answer to a plain prediction; None to any other request."""
        if message.get("more_body") or len(scope["query_string"]) > _LONGEST_QUERY_BYTES:
            return None
        query = _query(scope["query_string"])
        series_id = scope["path"][len(_PREFIX) :]
        model = None if query is None else self._registry.find_loaded(series_id, query.selector)
        if model is None or query is None or not model.detector.is_quick_to_judge:
            return None
        try:
            caller = self._gate.admit(scope, ("predict", series_id), headers)
            body = bodies.parse_prediction(message.get("body", b""), self._max_points, [])
            caller.charge_points(body.points_count)
            return answers.judge(model, body, query)
        except Exception:  # noqa: BLE001  faults, ours too, are answered in one place, and not here
            return None


def _is_plain(headers: Headers) -> bool:
    """Whether the body is small and JSON, as far as the headers say, and no browser sent it."""
    length = headers.get(b"content-length", _UNKNOWN_LENGTH)
    if len(length) > _LENGTH_DIGITS or int(length) > INLINE_BODY_BYTES or b"origin" in headers:
        return False
    return (
        b"arrow" not in headers.get(b"content-type", b"").lower()
        and b"arrow" not in headers.get(b"accept", b"").lower()
    )


@lru_cache(maxsize=1000)
def _query(raw: bytes) -> PredictQuery | None:
    """What a query string asks for; None when it has a fault."""
    faults: list[Fault] = []
    query = parse_predict_query(parse_qsl(raw.decode("latin-1"), keep_blank_values=True), faults)
    return None if faults else query


def _again(message: Message, receive: Receive) -> Receive:
    """`receive`, with a message before it that was taken from it."""
    waiting: list[Mapping[str, object]] = [message]

    async def take() -> Message:
        return dict(waiting.pop()) if waiting else await receive()

    return take
