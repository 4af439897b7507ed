"""Predictions by a model in memory: one point at a time, and many in one call."""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pyarrow as pa

from app.simulation import simulate_sensor
from benchmark.fits import fit
from benchmark.fleets import ARROW, arrow_bytes
from benchmark.load import Load, post, post_same
from benchmark.measures import CONNECTIONS, SECONDS, Row, median_load, median_ratio, rate, rounds
from benchmark.testbed import Testbed, reference
from tests.servers import serve_tidemark

POINT = '{"timestamp":"1705000010","value":13.0}'
HISTORY = (
    '{"detector":"mean_std","timestamps":[1705000000,1705000001,1705000002,1705000003],"values":[9.5,10.5,10.0,10.0]}'
)
_MANY = 100_000
_CALLS = 25
_AT_ONCE = 4
_JSON = "application/json"


def measure_predictions(bed: Testbed) -> Iterator[Row]:
    """One point by a model in memory, beside what FastAPI and uvicorn cost."""
    site = bed.site("predictions")
    with serve_tidemark(site.folder, site.settings) as service, reference("noop") as noop, reference("wire") as wire:
        fit(service.client, HISTORY)
        urls = (noop, wire, service.url)
        _check_answers(urls)

        def load(url: str) -> Load:
            return post(url, "/predict/s0", POINT, connections=CONNECTIONS, seconds=SECONDS, folder=site.folder)

        turns = rounds("no-op, wire and warm predict", lambda _: [load(url) for url in urls])
    noops, wires, ours = (list(loads) for loads in zip(*turns, strict=True))
    by_noop, by_wire = (median_ratio(_rates(ours), _rates(theirs)) for theirs in (noops, wires))
    what = f"{CONNECTIONS} connections"
    yield Row(f"FastAPI no-op with the same body and answer, {what}", rate(median_load(noops)), "a reference")
    yield Row(f"wire: uvicorn alone, same body and answer, {what}", rate(median_load(wires)), "a reference")
    yield Row(f"warm predict of one point, {what}", rate(median_load(ours)), "p99 < 10 ms")
    yield Row("**warm predict / no-op**, pair by pair", f"**{by_noop:.2f}**", ">= 1.25")
    yield Row("**warm predict / wire**, pair by pair", f"**{by_wire:.2f}**", ">= 0.33")


def measure_many_points(bed: Testbed) -> Iterator[Row]:
    """Many points in one call, as JSON and as Arrow: one call after the other, and several at once."""
    site = bed.site("points")
    ways = {
        "JSON": ({"Content-Type": _JSON}, _many_as_json()),
        "Arrow": ({"Content-Type": ARROW}, _many_as_arrow()),
        "Arrow, LZ4 both ways": ({"Content-Type": ARROW, "Accept": f"{ARROW};compression=lz4"}, _many_as_arrow("lz4")),
    }
    with serve_tidemark(site.folder, site.settings) as service:
        fit(service.client, _many_as_json(detector="mean_std"))  # so that, as in life, few of the points are anomalies
        calls = [_caller(service.url, headers, body) for headers, body in ways.values()]
        alone = rounds(f"{_MANY:,} points in one call", lambda _: [call() for call in calls], _CALLS)

        def load(headers: Mapping[str, str], body: bytes) -> Load:
            options = {"connections": _AT_ONCE, "seconds": SECONDS, "folder": site.folder}
            return post_same(service.url, "/predict/s0", body, headers, **options)

        turns = rounds(f"{_AT_ONCE} calls at once", lambda _: [load(*way) for way in ways.values()])
    for place, name in enumerate(ways):
        seconds = [times[place] for times in alone]
        what = f"predict of {_MANY:,} points in one call, {name}"
        yield Row(what, _milliseconds(seconds), "< 60 ms" if name == "JSON" else "")
    for place, name in enumerate(ways):
        points_s = statistics.median(loads[place].requests_per_s for loads in turns) * _MANY
        yield Row(f"the same, {_AT_ONCE} calls at once, {name}", f"{points_s:,.0f} points/s")
    for place, name in list(enumerate(ways))[1:]:
        one = median_ratio([times[0] for times in alone], [times[place] for times in alone])
        many = median_ratio(*(_rates([loads[which] for loads in turns]) for which in (place, 0)))
        figure = f"**{many:.1f}** ({one:.1f} one call at a time)"
        yield Row(f"**points per second, {name} / JSON**, {_AT_ONCE} calls at once", figure, ">= 10")


def _check_answers(urls: tuple[str, ...]) -> None:
    """What is compared must be the same work. Raises RuntimeError when an answer differs."""
    request = {"content": POINT, "headers": {"Content-Type": _JSON}}
    answers = {httpx.post(f"{url}/predict/s0", **request).raise_for_status().content for url in urls}
    if len(answers) > 1:
        raise RuntimeError(f"the references answer something else: {answers}")


def _rates(loads: list[Load]) -> list[float]:
    return [load.requests_per_s for load in loads]


def _milliseconds(seconds: list[float]) -> str:
    median_s = statistics.median(seconds)
    return f"{median_s * 1000:.1f} ms, {_MANY / median_s:,.0f} points/s"


def _many_as_json(**choice: str) -> bytes:
    series = simulate_sensor(_MANY, seed=1, interval_s=60.0).series
    points = {"timestamps": series.timestamps_s.tolist(), "values": series.values.round(3).tolist()}
    return json.dumps(choice | points).encode()


def _many_as_arrow(compression: str | None = None) -> bytes:
    series = simulate_sensor(_MANY, seed=1, interval_s=60.0).series
    return arrow_bytes(
        pa.table({"timestamp": pa.array(series.timestamps_s), "value": pa.array(series.values.round(3))}), compression
    )


def _caller(url: str, headers: Mapping[str, str], body: bytes) -> Callable[[], float]:
    """A function that sends the body over a connection that stays open, and gives the seconds until the whole answer.

    It raises RuntimeError when that is not a success in the same format.
    """
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)

    def call() -> float:
        started = time.perf_counter()
        connection.request("POST", "/predict/s0", body, headers)
        response = connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - started
        if response.status != httpx.codes.OK or response.headers.get_content_type() != headers["Content-Type"]:
            raise RuntimeError(f"{response.status} {response.headers.get_content_type()}: {answer[:500]!r}")
        return seconds

    return call
