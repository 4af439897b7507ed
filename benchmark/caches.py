"""Predictions by many models: all of them in memory, and none."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.exchange import post_lines
from benchmark.fleets import NDJSON, Fleet
from benchmark.imports import import_fleet
from benchmark.load import Load, post
from benchmark.measures import (
    CONNECTIONS,
    MB,
    SECONDS,
    Row,
    median_load,
    median_ratio,
    memory_mb,
    metric,
    rate,
    rounds,
    say,
)
from benchmark.testbed import Testbed
from tests.servers import Tidemark, serve_tidemark

_WARM = 100_000
_FIRST_FEW = 1_000
"""Loaded before memory is measured: what the first loads take is not the models'."""
_COLD = 1_000_000
_STRIDE = 611_953
"""Without a common factor with `_COLD`, so that each series comes once, and neighbours do not come together."""
_POINT = '{"timestamp":1705010000,"value":13.0}'


def point_lines(fleet: Fleet, start: int, end: int) -> bytes:
    """Lines for POST /predict, a point each of the series `start` .. `end` - 1."""
    names = (fleet.name(number) for number in range(start, end))
    return "".join(f'{{"series_id":"{name}","timestamp":1705010000,"value":13.0}}\n' for name in names).encode()


def measure_variety(bed: Testbed) -> Iterator[Row]:
    """Many series picked at random beside one, all in memory, and the memory that they take."""
    fleet, site, *_ = import_fleet(bed, _WARM)
    with serve_tidemark(site.folder, site.settings | {"MODEL_CACHE_MB": "1024"}) as service:
        yield from _cache_memory(service, fleet)

        def load(path: str, number: int) -> Load:
            options = {"connections": CONNECTIONS, "seconds": SECONDS, "folder": site.folder}
            return post(service.url, path, _POINT, series=fleet.series, seed=number + 1, **options)

        paths = [f"/predict/{fleet.prefix}-{series}" for series in ("0", "{random}")]
        turns = rounds("one series and many", lambda number: [load(path, number) for path in paths])
    one, many = ([pair[place] for pair in turns] for place in (0, 1))
    ratio = median_ratio([load.requests_per_s for load in many], [load.requests_per_s for load in one])
    yield Row(f"warm predict, {_WARM:,} series at random, {CONNECTIONS} connections", rate(median_load(many)))
    yield Row(f"**{_WARM:,} series at random / one series**, pair by pair", f"**{ratio:.2f}**", ">= 0.85")


def measure_cold(bed: Testbed) -> Iterator[Row]:
    """A service with a million series: its start, and predictions by models that it has never read."""
    fleet, site, *_ = import_fleet(bed, _COLD)

    def start(_: int) -> float:
        started = time.perf_counter()
        with serve_tidemark(site.folder, site.settings) as service:
            service.client.get("/readyz").raise_for_status()
            return time.perf_counter() - started

    seconds = statistics.median(rounds(f"start-up on {_COLD:,} versions", start))
    yield Row(f"start-up on {_COLD:,} versions, until ready", f"{seconds:.2f} s", "< 5 s")
    with serve_tidemark(site.folder, site.settings) as service:
        loads = _cold_loads(service, fleet, site.folder)
        misses = metric(service.client, "tidemark_model_cache_misses_total")
    if misses < sum(load.requests for load in loads):
        raise RuntimeError(f"only {misses:,.0f} of the predictions were cold")
    what = f"cold predict, another series of {_COLD:,} each time, {CONNECTIONS} connections"
    yield Row(what, rate(median_load(loads)), ">= 1,500/s")


def _cache_memory(service: Tidemark, fleet: Fleet) -> Iterator[Row]:
    say(f"{_WARM:,} models into memory")
    for _ in range(2):  # what is loaded while the service begins to follow the feed is not kept
        post_lines(service.url, "/predict", NDJSON, point_lines(fleet, 0, _FIRST_FEW))
    before_mb = memory_mb(service.process.pid)
    lines = point_lines(fleet, _FIRST_FEW, _WARM)
    started = time.perf_counter()
    post_lines(service.url, "/predict", NDJSON, lines)
    seconds = time.perf_counter() - started
    models = _WARM - _FIRST_FEW
    bytes_each = (memory_mb(service.process.pid) - before_mb) * MB / models
    held = metric(service.client, "tidemark_model_cache_models")
    if held != _WARM:
        raise RuntimeError(f"{held:,.0f} models are in memory")
    own_count = metric(service.client, "tidemark_model_cache_bytes") / _WARM
    yield Row("first predict of each series by one NDJSON stream", f"{models / seconds:,.0f} series/s")
    figure = f"{bytes_each:,.0f} B of the process, {own_count:,.0f} B by its own count"
    yield Row(f"memory of a model kept ready, {_WARM:,} of them", figure, "< 1 KB")


def _cold_loads(service: Tidemark, fleet: Fleet, folder: Path) -> list[Load]:
    asked = 0

    def load(_: int) -> Load:
        nonlocal asked
        result = post(
            service.url,
            f"/predict/{fleet.prefix}-{{n}}",
            _POINT,
            connections=CONNECTIONS,
            seconds=SECONDS,
            folder=folder,
            series=fleet.series,
            first=asked,
            stride=_STRIDE,
        )
        asked += int(result.requests) + 2 * CONNECTIONS  # those under way at the end were not counted
        return result

    loads = rounds("cold predict", load)
    if asked > fleet.series:
        raise RuntimeError(f"{asked:,} predictions on {fleet.series:,} series: some were not cold")
    return loads
