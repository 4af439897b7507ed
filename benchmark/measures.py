"""What measurements are made of: rounds, medians, rows of the report, and what a process takes of the machine."""

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx

from benchmark.load import Load

ROUNDS = 5
SECONDS = 5.0
"""Of wrk, in each round."""
CONNECTIONS = 32
MB = 2**20

Measured = TypeVar("Measured")


class Row(NamedTuple):
    """One line of the results."""

    what: str
    figure: str
    target: str = ""


def rounds(what: str, measure: Callable[[int], Measured], number: int = ROUNDS) -> list[Measured]:
    """What `measure` gives for each round's number, from 0."""
    results = []
    for count in range(number):
        say(f"{what}: round {count + 1} of {number}")
        results.append(measure(count))
    return results


def say(progress: str) -> None:
    """Tell whoever waits what happens."""
    print(progress, file=sys.stderr, flush=True)


def median_load(loads: Sequence[Load]) -> Load:
    """The median of each figure."""
    return Load(*(statistics.median(figures) for figures in zip(*loads, strict=True)))


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios pair by pair: what slows the machine for a while slows both of a pair."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def rate(load: Load) -> str:
    """A load as the results have it."""
    return f"{load.requests_per_s:,.0f}/s, p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms"


def peak_memory_mb(pid: int) -> float:
    """The most memory that a process has taken so far, in MB."""
    return _memory_mb(pid, "VmHWM")


def memory_mb(pid: int) -> float:
    """The memory that a process takes now, in MB."""
    return _memory_mb(pid, "VmRSS")


def own_memory_mb(pid: int) -> float:
    """The memory that a process takes now without the pages of files, in MB."""
    return _memory_mb(pid, "RssAnon")


def metric(client: httpx.Client, name: str) -> float:
    """One number without labels from the service's /metrics. Raises RuntimeError when it is not there."""
    answer = client.get("/metrics").raise_for_status().text
    found = re.search(rf"^{name} (\S+)$", answer, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/metrics has no {name}")
    return float(found[1])


def _memory_mb(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith(field)), "0")
    return int(kilobytes) / 1024  # a process that has ended, and is not waited for yet, has none
