"""Predictions for many series in one stream without an end."""

import statistics
import time
from collections.abc import Iterator

from benchmark.caches import point_lines
from benchmark.exchange import post_lines
from benchmark.fleets import NDJSON, Fleet
from benchmark.imports import import_fleet
from benchmark.measures import MB, Row, peak_memory_mb, rounds, say
from benchmark.testbed import Testbed
from tests.servers import Tidemark, serve_tidemark

_SERIES = 10_000
_LINES = 500_000
_POINTS = 40
"""In every other line of the long stream."""
_STREAM_BYTES = 2**30
_SETTLED_BYTES = 100 * MB


def measure_streaming(bed: Testbed) -> Iterator[Row]:
    """Lines per second, and the memory of the server while a long stream goes through it."""
    fleet, site, *_ = import_fleet(bed, _SERIES)
    block = point_lines(fleet, 0, _SERIES)
    with serve_tidemark(site.folder, site.settings) as service:
        post_lines(service.url, "/predict", NDJSON, block)

        def stream(_: int) -> float:
            started = time.perf_counter()
            lines = post_lines(service.url, "/predict", NDJSON, (block for _ in range(_LINES // _SERIES)))
            return lines / (time.perf_counter() - started)

        lines_per_s = statistics.median(rounds(f"stream of {_LINES:,} lines", stream))
        yield Row("`POST /predict`, NDJSON, a point a line, all models in memory", f"{lines_per_s:,.0f} lines/s")
    with serve_tidemark(site.folder, site.settings) as service:  # whose peak no other stream has raised
        post_lines(service.url, "/predict", NDJSON, block)
        yield _long_stream(service, _mixed_lines(fleet, block))


def _mixed_lines(fleet: Fleet, block: bytes) -> bytes:
    """The lines of `block`, each followed by one of the same series with more points."""
    timestamps = ",".join(str(1_705_010_000 + 60 * place) for place in range(_POINTS))
    values = ",".join(f"{13 + place / 8:.3f}" for place in range(_POINTS))
    points = f'"timestamps":[{timestamps}],"values":[{values}]'
    return b"".join(
        b'%b\n{"series_id":"%b",%b}\n' % (line, fleet.name(number).encode(), points.encode())
        for number, line in enumerate(block.splitlines())
    )


def _long_stream(service: Tidemark, block: bytes) -> Row:
    settled_mb = 0.0

    def blocks() -> Iterator[bytes]:
        nonlocal settled_mb
        for sent in range(0, _STREAM_BYTES, len(block)):
            if sent >= _SETTLED_BYTES and not settled_mb:
                settled_mb = peak_memory_mb(service.process.pid)
            if sent // _SETTLED_BYTES != (sent + len(block)) // _SETTLED_BYTES:
                say(f"a long stream: {sent / MB:,.0f} MB of {_STREAM_BYTES / MB:,.0f}")
            yield block

    lines = post_lines(service.url, "/predict", NDJSON, blocks())
    expected = -(-_STREAM_BYTES // len(block)) * block.count(b"\n")
    if lines != expected:
        raise RuntimeError(f"{lines:,} of {expected:,} lines were answered")
    peak_mb = peak_memory_mb(service.process.pid)
    figure = f"{peak_mb - settled_mb:.0f} MB, to {peak_mb:.0f} MB"
    what = f"growth of peak memory from 100 MB to 1 GB of one stream, {lines:,} lines of 1 and {_POINTS} points"
    return Row(what, figure, "< 50 MB")
