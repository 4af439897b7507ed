"""Where the time of one warm prediction and of one small fit goes."""

import statistics
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import NamedTuple

import httpx
import numpy as np
import orjson
from starlette.types import ASGIApp, Message

from app import training_data
from app.api import answers, bodies
from app.api.bodies import PredictBody
from app.api.queries import PredictQuery
from app.bootstrap import Services, build
from app.catalog import Entry
from app.config import Settings
from app.detectors import codec
from app.detectors.base import Detector, Fitted
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.main import create_app
from app.packs import new_version
from app.series import Point, Series
from app.telemetry import Kind
from app.versions import LATEST, Version
from benchmark.fits import fit
from benchmark.load import post
from benchmark.measures import CONNECTIONS, SECONDS, Row, rounds, say
from benchmark.predictions import HISTORY, POINT
from benchmark.testbed import Site, Testbed, reference
from tests.servers import serve_tidemark

_REPEATS = 5
_LOAD_ROUNDS = 3
_PUBLISHED = 50
_TOGETHER = 32
"""Fits that are committed together when so many clients wait."""
_PATH = "/predict/s0"
_SCOPE: Mapping[str, object] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": _PATH,
    "raw_path": _PATH.encode(),
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"39")],
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 8_000),
}


class _Draft(NamedTuple):
    """A version on its way in, and its artifacts."""

    version: Version
    model: bytes
    data: bytes


def measure_stages(bed: Testbed) -> Iterator[Row]:
    """Each stage by itself in this process, beside what a request takes of the server in all."""
    site = bed.site("stages")
    settings = {name.lower(): value for name, value in site.settings.items()} | {"data_dir": site.data}
    services = build(Settings(**settings))  # type: ignore[arg-type]  # pydantic parses them
    services.keyring.read()  # else nobody is let in, as at the start of a service
    http_us, request_us = _by_load(site)
    say("stages of a prediction")
    yield from _prediction(services, http_us, request_us)
    say("stages of a fit")
    yield from _fit(services, http_us)
    services.database.close()


def _by_load(site: Site) -> tuple[float, float]:
    """What a request takes of a busy server, in microseconds: of uvicorn alone, and of the service."""

    def cost_us(url: str) -> float:
        load = post(url, _PATH, POINT, connections=CONNECTIONS, seconds=SECONDS, folder=site.folder)
        return 1e6 / load.requests_per_s

    with serve_tidemark(site.folder, site.settings) as service, reference("wire") as wire:
        fit(service.client, HISTORY)
        turns = rounds("wire and warm predict", lambda _: (cost_us(wire), cost_us(service.url)), _LOAD_ROUNDS)
    http_us, request_us = (statistics.median(costs) for costs in zip(*turns, strict=True))
    return http_us, request_us


def _prediction(services: Services, http_us: float, request_us: float) -> Iterator[Row]:
    body = POINT.encode()
    model = services.registry.load("s0", LATEST)  # the version that was fitted over HTTP
    asked = PredictBody(Point(1_705_000_010.0, 13.0)), PredictQuery(LATEST, None)
    fields = answers.judged_fields(model, *asked)
    parse_us = _microseconds(lambda: orjson.loads(body))
    encode_us = _microseconds(lambda: orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
    judge_us = _microseconds(lambda: answers.judge(model, *asked))
    stages = {
        "receive and HTTP, as the wire reference": http_us,
        "parse the JSON": parse_us,
        "validate the point": _microseconds(lambda: bodies.parse_prediction(body, 1000, [])) - parse_us,
        "look up the model": _microseconds(lambda: services.registry.find_loaded("s0", LATEST)),
        "score": judge_us - encode_us,
        "encode the answer": encode_us,
        "record metrics and latency": _record_us(services, "/predict/{series_id}", "inference"),
    }
    app = create_app(services)
    inside_us = _microseconds(lambda: _serve(app, body))
    stages["rest of the application: ASGI, headers, query"] = inside_us - (sum(stages.values()) - http_us)
    yield from _table("prediction of one point", stages, http_us + inside_us)
    yield Row("the same, measured under load: 1 / rate", f"{request_us:,.1f}")


def _fit(services: Services, http_us: float) -> Iterator[Row]:
    points = b'"timestamps":[1705000000,1705000001,1705000002,1705000003,1705000004,1705000005],"values":[9,8,7,6,5,4]'
    body = b'{"detector":"mean_std",%b}' % points
    history, kind, params = bodies.parse_fit(body, services.settings, [])
    detector = kind.fit(history, params)
    numbers = count()
    draft = _draft(next(numbers))

    def publish_us(step: Callable[[Services, Sequence[_Draft]], None], together: int) -> float:
        return _publish_us(services, step, together, numbers)

    stages = {
        "receive and HTTP, as the wire reference": http_us,
        "parse and validate": _microseconds(lambda: bodies.parse_fit(body, services.settings, [])),
        "fit": _microseconds(lambda: kind.fit(history, params)),
        "model to bytes": _microseconds(lambda: codec.encode(detector)),
        "training data to bytes": _microseconds(lambda: training_data.encode(history)),
        "describe the version, digests": _microseconds(
            lambda: _describe(detector, history, "s0", draft.model, draft.data)
        ),
        f"store the two files durably, {_TOGETHER} fits at once": publish_us(_store, _TOGETHER),
        f"write the row durably, {_TOGETHER} fits at once": publish_us(_append, _TOGETHER),
        "encode the answer": _microseconds(lambda: answers.fit_answer(draft.version)),
        "record metrics and latency": _record_us(services, "/fit/{series_id}", "training"),
    }
    yield from _table("fit of 6 points", stages, sum(stages.values()))
    yield Row("store the two files durably, one fit by itself", f"{publish_us(_store, 1):,.1f}")
    yield Row("write the row durably, one fit by itself", f"{publish_us(_append, 1):,.1f}")


def _table(what: str, stages: Mapping[str, float], sum_us: float) -> Iterator[Row]:
    yield Row(f"**{what}**", f"**{sum_us:,.1f}**", "**100%**")
    for stage, cost_us in stages.items():
        yield Row(stage, f"{cost_us:,.1f}", f"{cost_us / sum_us:.0%}")


def _microseconds(call: Callable[[], object]) -> float:
    """The median of some repeats, each long enough for the clock."""
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    return statistics.median(timer.repeat(_REPEATS, number)) / number * 1e6


def _serve(app: ASGIApp, body: bytes) -> None:
    """One request through the application without a server. Raises RuntimeError when it has to wait for anything."""
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    try:
        app(dict(_SCOPE), receive, send).send(None)  # type: ignore[attr-defined]  # it is a coroutine
    except StopIteration:
        if statuses[0] == httpx.codes.OK:
            return
    raise RuntimeError(f"a warm prediction waits, or answers {statuses}")


def _record_us(services: Services, route: str, kind: Kind) -> float:
    def record() -> None:
        services.metrics.observe("POST", route, 200, 0.0001)
        services.latencies.record(kind, 0.1)

    return _microseconds(record)


def _draft(number: int) -> _Draft:
    """A fit of six points; another number, other artifacts."""
    history = Series(1_705_000_000.0 + np.arange(6.0), np.array([9.0, 8.0, 7.0, 6.0, 5.0, number + 0.5]))
    detector = MeanStd.fit(history, MeanStdParams())
    model, data = codec.encode(detector), training_data.encode(history)
    return _Draft(_describe(detector, history, f"s{number}", model, data), model, data)


def _describe(detector: Detector, history: Series, series_id: str, model: bytes, data: bytes) -> Version:
    return new_version(series_id, Fitted(detector, None), history, (sha256(model).digest(), sha256(data).digest()))


def _store(services: Services, drafts: Sequence[_Draft]) -> None:
    models, training = services.stores
    models.put({draft.version.model_digest: draft.model for draft in drafts})
    training.put({draft.version.data_digest: draft.data for draft in drafts})


def _append(services: Services, drafts: Sequence[_Draft]) -> None:
    services.registry.catalog.append([Entry(draft.version, None) for draft in drafts], lambda: None)


def _publish_us(
    services: Services, step: Callable[[Services, Sequence[_Draft]], None], together: int, numbers: Iterator[int]
) -> float:
    """What one step of publishing takes for each fit, when `together` of them are published at once."""
    seconds = []
    for _ in range(_PUBLISHED):
        drafts = [_draft(next(numbers)) for _ in range(together)]
        started = time.perf_counter()
        step(services, drafts)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / together * 1e6
