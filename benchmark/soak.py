"""Whether the service stays as it is under hours of mixed traffic: `make soak`, on PostgreSQL and Redis.

Memory, open files, threads and connections of its process are sampled while clients do all that clients do. What a
process takes until it is warm (imports, compiled loops, the cache of models, which is kept small here) is not counted:
the first third of the run is left out.

The slope of memory is Theil and Sen's: the median of the slopes between all pairs of samples, which a single step does
not move. Samples follow one another closely, so its 90 % interval is that of a bootstrap of blocks: what the samples
differ from the line by, in blocks of an eighth of the run, is dealt out anew 500 times. Exit status 1 when the slope is
1 MB an hour or more, when any answer was not as it has to be, or when files or connections grow.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmark.measures import memory_mb, own_memory_mb, say
from benchmark.testbed import Site, Testbed
from benchmark.traffic import Client, Tally
from tests.servers import Tidemark, serve_tidemark

MOST_MB_PER_HOUR = 1.0
RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## Soak"

_CLIENTS = 4
_REQUESTS_PER_S = 24.0
_SAMPLE_S = 5.0
_PROGRESS_S = 60.0
_BLOCKS = 8
_DEALS = 500
_SHOWN_ERRORS = 20
_SETTINGS = {
    "MODEL_CACHE_MB": "2",  # full after the first minutes, as it would be after days otherwise
    "FIT_BUDGET_S": "0.3",
    "LOG_FORMAT": "json",
}


class Sample(NamedTuple):
    """What the process of the service takes at a moment."""

    elapsed_s: float
    resident_mb: float
    own_mb: float
    """Without the pages of files, such as libraries, which come and go with what else the machine does."""
    files: int
    connections: int
    threads: int
    database_connections: int


class Slope(NamedTuple):
    """A slope per hour, and between which it is in nine cases of ten."""

    per_hour: float
    lower: float
    upper: float

    @classmethod
    def of(cls, elapsed_s: NDArray[np.float64], values: NDArray[np.float64]) -> "Slope":
        """Theil and Sen's, with the interval of a bootstrap of blocks."""
        hours = elapsed_s / 3600
        slope = _theil_sen(hours, values)
        line = slope * (hours - hours.mean()) + np.median(values)
        off = values - line
        length = max(len(values) // _BLOCKS, 1)
        chance = np.random.default_rng(0)
        starts = chance.integers(0, len(values) - length + 1, (_DEALS, -(-len(values) // length)))
        dealt = (starts[:, :, None] + np.arange(length)).reshape(_DEALS, -1)[:, : len(values)]
        slopes = [_theil_sen(hours, line + off[places]) for places in dealt]
        return cls(slope, *np.quantile(slopes, (0.05, 0.95)).tolist())


def _theil_sen(hours: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    first, last = np.triu_indices(len(hours), 1)
    return float(np.median((values[last] - values[first]) / (hours[last] - hours[first])))


def main() -> None:
    """Run, and say whether all stayed as it was."""
    parser = argparse.ArgumentParser(description="Watch the service under mixed traffic.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--record", action="store_true", help=f"write the result to {RESULTS}")
    parser.add_argument("--samples", type=Path, help="write the samples to this file, as NDJSON")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        closing(Testbed(Path(folder), Path(folder))) as bed,
    ):
        site = bed.site("soak", **_SETTINGS)
        with serve_tidemark(site.folder, site.settings) as service:
            tally = Tally()
            samples = asyncio.run(_soak(service, site, tally, asked.minutes * 60))
            used_s = sum(psutil.Process(service.process.pid).cpu_times()[:2])
        tally.errors += _logged_errors(service.log)
    if asked.samples:
        asked.samples.write_text("".join(json.dumps(sample._asdict()) + "\n" for sample in samples))
    faults, report = _judge(samples, tally, asked.minutes, used_s)
    print(report)
    for fault in faults:
        print(f"NOT KEPT: {fault}")
    if asked.record:
        _record(report)
    sys.exit(1 if faults else 0)


async def _soak(service: Tidemark, site: Site, tally: Tally, duration_s: float) -> list[Sample]:
    end_s = time.monotonic() + duration_s
    clients = [Client(service.url, number, tally) for number in range(_CLIENTS)]
    going = [client.go(_REQUESTS_PER_S / _CLIENTS, lambda: time.monotonic() > end_s) for client in clients]
    traffic = asyncio.gather(*going)
    samples: list[Sample] = []
    started_s = said_s = time.monotonic()
    while not traffic.done():
        await asyncio.wait([traffic], timeout=_SAMPLE_S)
        if not traffic.done():
            samples.append(await asyncio.to_thread(_sample, service, site, time.monotonic() - started_s))
        if time.monotonic() - said_s >= _PROGRESS_S:
            said_s = time.monotonic()
            say(_progress(samples[-1], tally))
    await traffic
    return samples


def _sample(service: Tidemark, site: Site, elapsed_s: float) -> Sample:
    process = psutil.Process(service.process.pid)
    connections = site.ask("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") - 1
    return Sample(
        elapsed_s=round(elapsed_s, 1),
        resident_mb=memory_mb(process.pid),
        own_mb=own_memory_mb(process.pid),
        files=process.num_fds(),
        connections=len(process.net_connections()),
        threads=process.num_threads(),
        database_connections=connections,
    )


def _progress(sample: Sample, tally: Tally) -> str:
    return (
        f"{sample.elapsed_s / 60:5.1f} min  {sample.resident_mb:7.2f} MB resident  {sample.own_mb:7.2f} MB its own  "
        f"{sample.files} files  {sample.threads} threads  {tally.requests.total():,} requests  "
        f"{len(tally.errors)} errors"
    )


def _logged_errors(log: Path) -> list[str]:
    """What the service itself called an error, whether a client saw it or not."""
    return [f"logged: {line}" for line in log.read_text().splitlines() if '"level":"error"' in line.replace(" ", "")]


def _judge(samples: Sequence[Sample], tally: Tally, minutes: float, used_s: float) -> tuple[list[str], str]:
    """What was not kept, and the report."""
    warm = samples[len(samples) // 3 :]
    elapsed_s = np.array([sample.elapsed_s for sample in warm])
    columns = {name: np.array([getattr(sample, name) for sample in warm], float) for name in Sample._fields[1:]}
    own, resident = (Slope.of(elapsed_s, columns[name]) for name in ("own_mb", "resident_mb"))
    faults = tally.errors[:_SHOWN_ERRORS]
    faults += [
        f"{what} grows by {slope.per_hour:.2f} MB an hour"
        for what, slope in (("resident memory", resident), ("its own memory", own))
        if slope.per_hour >= MOST_MB_PER_HOUR
    ]
    steady = ("files", "connections", "threads", "database_connections")
    faults += [f"{name} grow: {_halves(columns[name])}" for name in steady if grows(columns[name])]
    rows = [
        ("requests, of all kinds", f"{tally.requests.total():,}"),
        ("answers that were not as they have to be, and errors in the log", f"{len(tally.errors)}"),
        ("processor time of the service", f"{100 * used_s / (60 * minutes):.0f} % of a core"),
        *((f"memory, {what}: slope", _slope(slope)) for what, slope in (("resident", resident), ("its own", own))),
        *(
            (f"memory, {what}: median", _halves(columns[name]))
            for what, name in (("resident", "resident_mb"), ("its own", "own_mb"))
        ),
        ("memory, its own: least in each quarter, MB", _floors(columns["own_mb"])),
        *((name.replace("_", " "), _halves(columns[name])) for name in steady),
    ]
    return faults, _section(rows, minutes, len(samples), len(warm))


def _floors(column: NDArray[np.float64]) -> str:
    """What stays when nothing is under way: a leak raises it, and what a moment needed does not."""
    floors = [f"{part.min():.1f}" for part in np.array_split(column, 4)]
    return ", ".join(floors)


def grows(counts: NDArray[np.float64]) -> bool:
    """Whether the last quarter has more at its quietest than the first at its median."""
    quarter = len(counts) // 4
    return bool(counts[-quarter:].min() > np.median(counts[:quarter]) + 2)


def _halves(column: NDArray[np.float64]) -> str:
    half = len(column) // 2
    before, after = np.median(column[:half]), np.median(column[half:])
    return f"{before:.4g}, then {after:.4g} (at most {column.max():.4g})"


def _slope(slope: Slope) -> str:
    return f"{slope.per_hour:+.2f} MB/h (90 % interval {slope.lower:+.2f} to {slope.upper:+.2f})"


def _section(rows: Sequence[tuple[str, str]], minutes: float, samples: int, warm: int) -> str:
    table = "\n".join(f"| {what} | {figure} |" for what, figure in rows)
    return f"""{HEADING}

By `make soak MINUTES={minutes:g}` on {datetime.now(UTC):%Y-%m-%d}: {_CLIENTS} clients, {_REQUESTS_PER_S:g} actions a \
second, {samples} samples, of which the last {warm} count.

| what | measured |
| --- | --- |
{table}

One step makes a slope, too. A leak raises the least of each quarter above that of the quarter before it.
"""


def soak_section(results: str) -> str:
    """What the last soak wrote, which `make bench` keeps; empty when there was none."""
    _, heading, section = results.partition(f"\n{HEADING}\n")
    return heading + section


def _record(report: str) -> None:
    results = RESULTS.read_text()
    RESULTS.write_text(f"{results.removesuffix(soak_section(results)).rstrip()}\n\n{report}")


if __name__ == "__main__":
    main()
