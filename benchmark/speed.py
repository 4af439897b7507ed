"""How fast the service is, on PostgreSQL and Redis, against what FastAPI itself costs. `make bench` runs it.

Everything runs on this machine, the load included, so the ratios count and not the absolute figures. What is
compared is measured in turns, and each figure is the median of its rounds. The results go to benchmark/RESULTS.md.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import fastapi
import httpx
import uvicorn

from app import __version__
from app.db import Database
from app.migrations import migrate
from app.simulation import simulate_sensor
from benchmark.load import Load, post
from tests.servers import RedisServer, Tidemark, create_database, free_port, serve_tidemark, start_postgres

ROUNDS = 5
SECONDS = 5.0
CONNECTIONS = 32
SERIES = 500
RESULTS = Path(__file__).parent / "RESULTS.md"
MB = 2**20

POINT = '{"timestamp":"1705000010","value":13.0}'
SIX_POINTS = (
    '{"timestamps":[1705000000,1705000001,1705000002,1705000003,1705000004,1705000005],'
    '"values":[10.0,10.5,9.5,10.0,10.2,{n}.5]}'
)

Measured = TypeVar("Measured")


class Row(NamedTuple):
    """One line of the results."""

    what: str
    figure: str
    target: str


def main() -> None:
    """Measure everything and write the results."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        report = _report(list(_measure(Path(folder))))
    RESULTS.write_text(report)
    print(f"\n{report}\nWritten to {RESULTS}.")


def _measure(folder: Path) -> Iterator[Row]:
    yield _start_up(folder)
    redis_server = RedisServer(folder)
    settings = {"DATABASE_URL": _migrated_database(folder), "REDIS_URL": redis_server.url}
    try:
        with serve_tidemark(folder / "small", settings) as service, _reference() as reference_url:
            yield from _predict(service, reference_url, folder)
            yield _fit_small(service, folder)
        for points, seconds in ((100_000, "0.12"), (2_000_000, "3")):
            with serve_tidemark(folder / f"fit-{points}", settings) as service:
                yield from _fit_large(service, points, seconds)
    finally:
        redis_server.stop()


def _start_up(folder: Path) -> Row:
    def start(number: int) -> float:
        started = time.perf_counter()
        with serve_tidemark(folder / f"start-{number}", {}):
            return time.perf_counter() - started

    seconds = statistics.median(_rounds("start-up", start))
    return Row("`python -m app serve` with an empty `DATA_DIR`, until ready", f"{seconds:.2f} s", "< 5 s")


def _predict(service: Tidemark, reference_url: str, folder: Path) -> Iterator[Row]:
    def load(url: str) -> Load:
        return post(url, "/predict/s0", POINT, connections=CONNECTIONS, seconds=SECONDS, folder=folder)

    _fit(service.client, SIX_POINTS.replace("{n}", "9"))
    pairs = _rounds("warm predict and no-op", lambda _: (load(service.url), load(reference_url)))
    ratio = statistics.median(ours.requests_per_s / theirs.requests_per_s for ours, theirs in pairs)
    ours, theirs = _median([pair[0] for pair in pairs]), _median([pair[1] for pair in pairs])
    what = f"{CONNECTIONS} connections"
    yield Row(f"FastAPI no-op with the same body and answer, {what}", _rate(theirs), "the reference")
    yield Row(f"warm predict of one point, {what}", _rate(ours), "")
    yield Row("**warm predict / no-op**, pair by pair", f"**{ratio:.2f}**", ">= 0.8")


def _fit_small(service: Tidemark, folder: Path) -> Row:
    def load(_: int) -> Load:
        path, connections = "/fit/s{n}", CONNECTIONS
        return post(
            service.url, path, SIX_POINTS, connections=connections, seconds=SECONDS, folder=folder, series=SERIES
        )

    loads = _rounds("fit of 6 points", load)
    what = f"fit of 6 points, new data each time, {SERIES} series, {CONNECTIONS} connections"
    return Row(what, _rate(_median(loads)), ">= 600/s, aim 1,000/s")


def _fit_large(service: Tidemark, points: int, most_seconds: str) -> Iterator[Row]:
    bodies = [_body(points, seed) for seed in range(ROUNDS)]

    def fit(number: int) -> float:
        started = time.perf_counter()
        _fit(service.client, bodies[number])
        return time.perf_counter() - started

    seconds = statistics.median(_rounds(f"fit of {points:,} points", fit))
    size_mb = len(bodies[0]) / MB
    yield Row(f"fit of {points:,} points ({size_mb:.1f} MB of JSON)", f"{seconds:.3f} s", f"< {most_seconds} s")
    memory = f"{_peak_memory_mb(service.process.pid):.0f} MB"
    yield Row(f"peak memory of the server after {ROUNDS} of them", memory, "< 700 MB" if points > MB else "")


def _fit(client: httpx.Client, body: str | bytes) -> None:
    client.post("/fit/s0", content=body).raise_for_status()


def _body(points: int, seed: int) -> bytes:
    series = simulate_sensor(points, seed=seed, interval_s=60.0).series
    return json.dumps({"timestamps": series.timestamps_s.tolist(), "values": series.values.tolist()}).encode()


def _rounds(what: str, measure: Callable[[int], Measured]) -> list[Measured]:
    results = []
    for number in range(ROUNDS):
        print(f"{what}: round {number + 1} of {ROUNDS}", file=sys.stderr)
        results.append(measure(number))
    return results


def _median(loads: list[Load]) -> Load:
    return Load(*(statistics.median(figures) for figures in zip(*loads, strict=True)))


def _rate(load: Load) -> str:
    return f"{load.requests_per_s:,.0f}/s, p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms"


def _peak_memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) / 1024


def _migrated_database(folder: Path) -> str:
    url = create_database(start_postgres(folder / "postgres"), "bench")
    database = Database(url, timeout_s=60)
    migrate(database)
    database.close()
    return url


@contextmanager
def _reference() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmark.reference", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(url)
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _report(rows: list[Row]) -> str:
    table = "\n".join(f"| {row.what} | {row.figure} | {row.target} |" for row in rows)
    return f"""# Results

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: Tidemark {__version__}, Python {platform.python_version()}, \
FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__}, {os.cpu_count()} cores, {platform.system()}.
One worker process, PostgreSQL, Redis; wrk on the same machine, {ROUNDS} rounds of {SECONDS:g} s, medians.

| what | measured | to reach |
|---|---|---|
{table}

The no-op is `benchmark/reference.py`: a FastAPI route that validates the same body, answers the same model and does
nothing else, on the same uvicorn. A fit writes its two artifacts and its row durably before it answers.
"""


if __name__ == "__main__":
    main()
