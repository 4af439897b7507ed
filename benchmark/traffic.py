"""Mixed traffic at a moderate rate: all that clients do to a service, mistakes and hang-ups among it.

Each client has series of its own and does one thing after the other, so it knows what every answer has to be.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.detectors import DETECTORS
from tests.streaming import ARROW, NDJSON, PARQUET, stream_of

SERIES = 8
"""Of each client: few, with ever more versions."""
_NEWEST_KEPT = 120
_LISTED_VERSIONS = 130
_KEPT_QUERIES = 300
_KEPT_REPORTS = 130
"""Of each client; there are four."""
_POINTS = 300
_STEP_S = 300
_REQUESTS_OF_A_CONNECTION = 50
_START_S = 1_700_000_000
_NEXT_S = _START_S + _POINTS * _STEP_S

_BAD: tuple[tuple[str, str, bytes, int], ...] = (
    ("POST", "/fit/{}", b'{"timestamps": [1, 2, 3], "values": [1, 2', 422),
    ("POST", "/fit/{}", b'{"timestamps": [1, 3, 2], "values": [1, NaN, "3"]}', 422),
    ("POST", "/fit/{}", b'{"timestamps": [1, 2, 3], "values": [1, 2, 4], "detector": "oracle"}', 422),
    ("POST", "/predict/{}", b"\xff\xfe{\x00}\x00", 422),
    ("POST", "/predict/{}?version=999999", b'{"timestamp": 1700000000, "value": 1}', 404),
    ("POST", "/predict/{}?version=@nobody", b'{"timestamp": 1700000000, "value": 1}', 404),
    ("POST", "/predict/{}?versoin=1", b'{"timestamp": 1700000000, "value": 1}', 422),
    ("POST", "/predict/{}.nobody", b'{"timestamp": 1700000000, "value": 1}', 404),
    ("PUT", "/series/{}/aliases/latest", b'{"version": 1}', 422),
    ("DELETE", "/series/{}/versions/999999", b"", 404),
    ("PATCH", "/series/{}", b"", 405),
    ("GET", "/nowhere/{}", b"", 404),
)


class Tally:
    """What was asked, and what went wrong."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.errors: list[str] = []

    def count(self, kind: str, found: object, wanted: object) -> None:
        """One request of this kind, and whether it was answered as it has to be."""
        self.requests[kind] += 1
        if found != wanted:
            self.errors.append(f"{kind}: {found}, not {wanted}")


class Action(NamedTuple):
    """Something that clients do, `weight` times as often as one of weight 1."""

    weight: int
    do: Callable[["Client"], Awaitable[None]]


class Client:
    """One client with its series, its connection and its own chances."""

    def __init__(self, url: str, number: int, tally: Tally) -> None:
        self._url, self._number, self._tally = url, number, tally
        self._chance = random.Random(number)
        self._numbers = np.random.default_rng(number)
        self._http = httpx.AsyncClient(base_url=url, timeout=60.0)
        self._versions: dict[str, list[int]] = {f"soak.{number}.{n}": [] for n in range(SERIES)}
        self._fits = self._passed = 0

    async def go(self, requests_per_s: float, until: Callable[[], bool]) -> None:
        """Everything once; then by chance."""
        await self._warm_up()
        actions, weights = list(ACTIONS.values()), [action.weight for action in ACTIONS.values()]
        while not until():
            await asyncio.sleep(self._chance.expovariate(requests_per_s))
            if self._chance.random() < 1 / _REQUESTS_OF_A_CONNECTION:
                await self._reconnect()
            await self._chance.choices(actions, weights)[0].do(self)
        await self._http.aclose()

    async def _warm_up(self) -> None:
        """What is imported, compiled or kept at first use is; and what is kept of the last queries and reports is full,
        as are the pages that list versions.
        """
        for _ in range(_LISTED_VERSIONS):
            await self.fit_lines()
        for detector in DETECTORS:
            await self._fit(self._any_series(), detector)
        for action in ACTIONS.values():
            await action.do(self)
        for _ in range(_KEPT_QUERIES):
            await self.predict_within_budget()
        for place in range(_KEPT_REPORTS):
            series_id, versions = list(self._versions.items())[place % SERIES]
            await self._ask("report", "GET", f"/series/{series_id}/versions/{versions[place]}", 200)

    async def predict_one(self) -> None:
        """The latest version and a point."""
        await self._post("predict one", f"/predict/{self._any_series()}", self._point())

    async def predict_by_version(self) -> None:
        """Any version that there is, which may not be in memory."""
        series_id = self._any_series()
        version = self._chance.choice(self._versions[series_id])
        await self._post("predict by version", f"/predict/{series_id}?version={version}", self._point())

    async def predict_within_budget(self) -> None:
        """A budget that nobody asked for before."""
        rate = self._chance.uniform(1e-6, 0.1)
        await self._post(
            "predict within a budget", f"/predict/{self._any_series()}?false_alarm_rate={rate}", self._point()
        )

    async def predict_many(self) -> None:
        """Points as JSON."""
        await self._post("predict many", f"/predict/{self._any_series()}", self._history(_NEXT_S))

    async def predict_arrow(self) -> None:
        """Points as Arrow."""
        history = self._history(_NEXT_S)
        body = stream_of(pa.record_batch({"timestamp": history["timestamps"], "value": history["values"]}))
        await self._post("predict Arrow", f"/predict/{self._any_series()}", body, ARROW)

    async def predict_lines(self) -> None:
        """Many series, a line each."""
        lines = [{"series_id": series_id} | self._point() for series_id in self._versions] * 5
        await self._lines("predict lines", "/predict", lines)

    async def predict_rows(self) -> None:
        """Many series as an Arrow stream."""
        await self._post("predict rows", "/predict", stream_of(*self._long_form(_NEXT_S).to_batches()), ARROW)

    async def fit_baseline(self) -> None:
        """A version more of a series."""
        await self._fit(self._any_series(), "mean_std")

    async def fit_another(self) -> None:
        """The next detector of the table."""
        self._fits += 1
        await self._fit(self._any_series(), list(DETECTORS)[self._fits % len(DETECTORS)])

    async def fit_twice(self) -> None:
        """A fit with a key, and again: the same version."""
        series_id = self._any_series()
        body = json.dumps(self._history(_START_S)).encode()
        headers = {"Idempotency-Key": f"{series_id}-{self._chance.random()}"}
        answers = [await self._http.post(f"/fit/{series_id}", content=body, headers=headers) for _ in range(2)]
        self._tally.count("fit twice", [answer.status_code for answer in answers], [200, 200])
        self._tally.count("fit twice", answers[1].content, answers[0].content)
        self._versions[series_id].append(int(answers[0].json()["version"]))

    async def fit_lines(self) -> None:
        """All series of the client in one call, a line each."""
        lines = [{"series_id": series_id} | self._history(_START_S) for series_id in self._versions]
        self._take_versions(await self._lines("fit lines", "/fit", lines))

    async def fit_table(self) -> None:
        """All series of the client in one Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._long_form(_START_S), sink)
        answer = await self._post("fit Parquet", "/fit", sink.getvalue().to_pybytes(), PARQUET)
        self._take_versions(answer)

    async def detect(self) -> None:
        """Verdicts without a model."""
        await self._post("detect", "/detect?detector=robust_z", self._history(_START_S))

    async def look(self) -> None:
        """Lists and pages."""
        series_id = self._any_series()
        path = self._chance.choice(
            (
                "/series?limit=20",
                f"/series/{series_id}",
                f"/series/{series_id}/versions?limit=50",
                "/",
                "/docs",
                f"/plot?series_id={series_id}",
            )
        )
        await self._ask("look", "GET", path, 200)

    async def look_at_report(self) -> None:
        """The report of a version, and its plot."""
        series_id = self._any_series()
        version = self._chance.choice(self._versions[series_id])
        await self._ask("report", "GET", f"/series/{series_id}/versions/{version}", 200)
        await self._ask("plot", "GET", f"/plot/data?series_id={series_id}&version={version}", 200)

    async def watch(self) -> None:
        """What monitoring asks."""
        for path in ("/healthcheck", "/readyz", "/livez", "/metrics"):
            await self._ask("monitor", "GET", path, 200)

    async def release(self) -> None:
        """An alias is moved, used, moved on its tag, and deleted."""
        series_id = self._any_series()
        alias = f"/series/{series_id}/aliases/prod"
        moved = await self._ask("alias", "PUT", alias, 200, json={"version": self._versions[series_id][0]})
        await self._post("predict by alias", f"/predict/{series_id}?version=@prod", self._point())
        tag = {"If-Match": moved.headers.get("etag", "")}
        await self._ask("alias", "PUT", alias, 200, json={"version": "latest"}, headers=tag)
        await self._ask("alias", "PUT", alias, 412, json={"version": "latest"}, headers=tag)
        await self._ask("alias", "DELETE", alias, 204)

    async def forget(self) -> None:
        """The oldest versions of a series are deleted, but for the newest."""
        series_id = self._any_series()
        *old, _ = self._versions[series_id][: -_NEWEST_KEPT + 1] or [0]
        for version in old[:3]:
            await self._ask("delete version", "DELETE", f"/series/{series_id}/versions/{version}", 204)
            await self._post("predict deleted", f"/predict/{series_id}?version={version}", self._point(), status=410)
            self._versions[series_id].remove(version)

    async def pass_by(self) -> None:
        """A series that is fitted, asked and deleted."""
        self._passed += 1
        series_id = f"passing.{self._number}.{self._passed}"
        await self._post("fit passing", f"/fit/{series_id}", self._history(_START_S) | {"detector": "mean_std"})
        await self._post("predict passing", f"/predict/{series_id}", self._point())
        await self._ask("delete series", "DELETE", f"/series/{series_id}", 204)
        await self._post("predict gone", f"/predict/{series_id}", self._point(), status=410)

    async def err(self) -> None:
        """A request that has to be refused."""
        method, path, body, status = self._chance.choice(_BAD)
        await self._ask("mistake", method, path.format(self._any_series()), status, content=body)

    async def hang_up(self) -> None:
        """A connection that ends before its answer, at any of several moments."""
        head = b"POST /%b HTTP/1.1\r\nHost: soak\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        series_id = self._any_series().encode()
        lines = b"".join(b'{"series_id":"%b","timestamp":1800000000,"value":1}\n' % series_id for _ in range(50))
        said = self._chance.choice(
            (
                b"",
                b"POST /predict/",
                head % (b"predict/" + series_id, b"application/json", 1000) + b'{"timestamps": [1, 2',
                head % (b"fit/" + series_id, b"application/json", 100_000) + b'{"timestamps": [' + b"1," * 9_000,
                head % (b"predict", NDJSON.encode(), 10**6) + lines,
                head % (b"predict", ARROW.encode(), 10**6) + b"\xff\xff\xff\xff\x10\x00\x00\x00",
                head % (b"predict", NDJSON.encode(), len(lines)) + lines,
                b"GET /plot/data?series_id=%b HTTP/1.1\r\nHost: soak\r\n\r\n" % series_id,
            )
        )
        host = httpx.URL(self._url)
        _, writer = await asyncio.open_connection(host.host, host.port)
        writer.write(said)
        await writer.drain()
        await asyncio.sleep(self._chance.choice((0.0, 0.01, 0.2)))
        self._chance.choice((writer.transport.abort, writer.close))()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._tally.count("hang up", 1, 1)

    def _any_series(self) -> str:
        return self._chance.choice(list(self._versions))

    def _point(self) -> dict[str, object]:
        return {"timestamp": _NEXT_S + self._chance.randrange(10**6), "value": round(self._chance.gauss(10, 1), 3)}

    def _history(self, start_s: int) -> dict[str, list[float]]:
        n = self._chance.randrange(_POINTS // 2, _POINTS)
        values = 10 + np.sin(np.arange(n) * 0.26) + 0.1 * self._numbers.standard_normal(n)
        return {"timestamps": [start_s + _STEP_S * place for place in range(n)], "values": values.round(4).tolist()}

    def _long_form(self, start_s: int) -> pa.Table:
        histories = {series_id: self._history(start_s) for series_id in self._versions}
        parts = [
            pa.table({"timestamp": history["timestamps"], "value": history["values"]}).append_column(
                "series_id", pa.repeat(series_id, len(history["values"]))
            )
            for series_id, history in histories.items()
        ]
        return pa.concat_tables(parts)

    async def _fit(self, series_id: str, detector: str) -> None:
        answer = await self._post("fit", f"/fit/{series_id}", self._history(_START_S) | {"detector": detector})
        if answer.is_success:
            self._versions[series_id].append(int(answer.json()["version"]))

    def _take_versions(self, answer: httpx.Response) -> None:
        for line in answer.content.splitlines():
            fitted = json.loads(line)
            self._tally.count("fit of a bulk", fitted["status"], 200)
            if "version" in fitted:
                self._versions[fitted["series_id"]].append(int(fitted["version"]))

    async def _lines(self, kind: str, path: str, lines: list[Mapping[str, object]]) -> httpx.Response:
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        answer = await self._post(kind, path, body, NDJSON)
        statuses = [json.loads(line)["status"] for line in answer.content.splitlines()]
        self._tally.count(f"{kind}, whole", statuses, [200] * len(lines))
        return answer

    async def _post(
        self, kind: str, path: str, body: object, media_type: str = "application/json", status: int = 200
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._ask(kind, "POST", path, status, content=content, headers={"Content-Type": media_type})

    async def _ask(self, kind: str, method: str, path: str, status: int, **more: object) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, **more)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            answer = httpx.Response(599, text=repr(error))
        self._tally.count(kind, answer.status_code, status)
        if answer.status_code != status:
            self._tally.errors[-1] += f" {method} {path} {answer.text[:300]}"
        return answer

    async def _reconnect(self) -> None:
        await self._http.aclose()
        self._http = httpx.AsyncClient(base_url=self._url, timeout=60.0)


ACTIONS: Mapping[str, Action] = {
    "predict one": Action(60, Client.predict_one),
    "predict by version": Action(20, Client.predict_by_version),
    "predict within a budget": Action(10, Client.predict_within_budget),
    "predict many": Action(10, Client.predict_many),
    "predict Arrow": Action(10, Client.predict_arrow),
    "predict lines": Action(8, Client.predict_lines),
    "predict rows": Action(8, Client.predict_rows),
    "fit": Action(15, Client.fit_baseline),
    "fit another": Action(2, Client.fit_another),
    "fit twice": Action(5, Client.fit_twice),
    "fit lines": Action(3, Client.fit_lines),
    "fit Parquet": Action(3, Client.fit_table),
    "detect": Action(3, Client.detect),
    "look": Action(10, Client.look),
    "report": Action(3, Client.look_at_report),
    "monitor": Action(3, Client.watch),
    "release": Action(5, Client.release),
    "forget": Action(15, Client.forget),
    "pass by": Action(5, Client.pass_by),
    "mistake": Action(10, Client.err),
    "hang up": Action(10, Client.hang_up),
}
