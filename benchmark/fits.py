"""Start-up, and fits over HTTP: small, large, and many series in one request."""

import json
import statistics
import time
from collections.abc import Callable, Iterator

import httpx

from app.simulation import simulate_sensor
from benchmark.exchange import post_lines
from benchmark.fleets import ARROW, NDJSON, PARQUET, POINTS, Fleet
from benchmark.load import Load, post
from benchmark.measures import (
    CONNECTIONS,
    MB,
    ROUNDS,
    SECONDS,
    Row,
    median_load,
    peak_memory_mb,
    rate,
    rounds,
)
from benchmark.testbed import Testbed
from tests.servers import Tidemark, serve_tidemark

_SERIES = 500
_SIX_POINTS = (
    '{"detector":"mean_std","timestamps":[1705000000,1705000001,1705000002,1705000003,1705000004,1705000005],'
    '"values":[10.0,10.5,9.5,10.0,10.2,{n}.5]}'
)
_BULK_SERIES = 20_000
_BULK_FORMATS: dict[str, tuple[str, Callable[[Fleet], bytes], str]] = {
    "NDJSON": (NDJSON, Fleet.ndjson, ">= 2,000 series/s"),
    "Parquet": (PARQUET, Fleet.parquet, ">= 10,000 series/s"),
    "Arrow": (ARROW, Fleet.arrow, ""),
}


def fit(client: httpx.Client, body: str | bytes) -> None:
    """A new version of `s0`. Raises httpx.HTTPStatusError when the service makes none."""
    client.post("/fit/s0", content=body).raise_for_status()


def measure_start_up(bed: Testbed) -> Iterator[Row]:
    """The service by itself, on nothing."""

    def start(number: int) -> float:
        started = time.perf_counter()
        with serve_tidemark(bed.folder / f"start-{number}", {"WARM_UP": "on"}):
            return time.perf_counter() - started

    seconds = statistics.median(rounds("start-up", start))
    yield Row("`python -m app serve` with an empty `DATA_DIR`, until ready", f"{seconds:.2f} s", "< 5 s")


def measure_small_fits(bed: Testbed) -> Iterator[Row]:
    """Fits of six points, as fast as they are taken."""
    site = bed.site("small")

    def load(_: int) -> Load:
        return post(
            service.url,
            "/fit/s{n}",
            _SIX_POINTS,
            connections=CONNECTIONS,
            seconds=SECONDS,
            folder=site.folder,
            series=_SERIES,
        )

    with serve_tidemark(site.folder, site.settings) as service:
        loads = rounds("fit of 6 points", load)
    what = f"fit of 6 points, new data each time, {_SERIES} series, {CONNECTIONS} connections"
    yield Row(what, rate(median_load(loads)), ">= 600/s, aim 1,000/s")


def measure_large_fits(bed: Testbed) -> Iterator[Row]:
    """Fits of one long series, each length on a service of its own, whose memory is measured too."""
    for points, seconds in ((100_000, "0.12"), (2_000_000, "3")):
        site = bed.site(f"fit-{points}")
        with serve_tidemark(site.folder, site.settings) as service:
            yield from _large_fits(service, points, seconds)
        bed.remove(site)


def measure_bulk_fits(bed: Testbed) -> Iterator[Row]:
    """Many series in one request, new ones each time."""
    site = bed.site("bulk")
    series_per_s: dict[str, list[float]] = {name: [] for name in _BULK_FORMATS}

    def fit_each(number: int) -> None:
        for name, (media_type, encode, _) in _BULK_FORMATS.items():
            body = encode(Fleet(f"{name}-{number}", _BULK_SERIES, seed=number))
            started = time.perf_counter()
            lines = post_lines(service.url, "/fit", media_type, body)
            series_per_s[name].append(lines / (time.perf_counter() - started))
            if lines != _BULK_SERIES:
                raise RuntimeError(f"{lines} of {_BULK_SERIES} series were answered")

    with serve_tidemark(site.folder, site.settings) as service:
        rounds(f"bulk fits of {_BULK_SERIES:,} series", fit_each)
    bed.remove(site)
    for name, (_, _, target) in _BULK_FORMATS.items():
        what = f"`POST /fit` of {_BULK_SERIES:,} series of {POINTS} points, {name}"
        yield Row(what, f"{statistics.median(series_per_s[name]):,.0f} series/s", target)


def _large_fits(service: Tidemark, points: int, most_seconds: str) -> Iterator[Row]:
    bodies = [_body(points, seed) for seed in range(ROUNDS)]

    def fit_one(number: int) -> float:
        started = time.perf_counter()
        fit(service.client, bodies[number])
        return time.perf_counter() - started

    seconds = statistics.median(rounds(f"fit of {points:,} points", fit_one))
    size_mb = len(bodies[0]) / MB
    yield Row(f"fit of {points:,} points ({size_mb:.1f} MB of JSON)", f"{seconds:.3f} s", f"< {most_seconds} s")
    memory = f"{peak_memory_mb(service.process.pid):.0f} MB"
    yield Row(f"peak memory of the server after {ROUNDS} of them", memory, "< 700 MB" if points > MB else "")


def _body(points: int, seed: int) -> bytes:
    series = simulate_sensor(points, seed=seed, interval_s=60.0).series
    body = {"detector": "mean_std", "timestamps": series.timestamps_s.tolist(), "values": series.values.tolist()}
    return json.dumps(body).encode()
