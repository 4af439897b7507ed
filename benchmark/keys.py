"""What a key costs a warm prediction: the same requests to a service that asks for keys and to one that does not."""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmark.fits import fit
from benchmark.load import Load, post_same
from benchmark.measures import CONNECTIONS, Row, median_load, rate, rounds
from benchmark.predictions import HISTORY, POINT
from benchmark.testbed import Site, Testbed
from tests.servers import Tidemark, run_tidemark, serve_tidemark

_STARTS = 8
"""Of both services: two processes of the same program differ by some percent, too."""
_ROUNDS = 5
_SECONDS = 1.0
"""Short and many, in an order that goes round, as a difference of a few percent is looked for."""
_PLENTY = "1000000000"


def measure_keys(bed: Testbed) -> Iterator[Row]:
    """Warm predictions without keys, with one, and with one that has limits, in turns."""
    site = bed.site("keys")
    with serve_tidemark(site.folder, site.settings) as fitting:  # by neither of the two
        fit(fitting.client, HISTORY)
    keys = {name: _create(site.folder, site.settings, name, *limits) for name, *limits in _KEYS}
    turns = [turn for start in range(_STARTS) for turn in _turns(site, keys, start)]
    without, unread, with_key, limited = (list(turn) for turn in zip(*turns, strict=True))
    yield Row("warm predict, AUTH=off", _figures(without))
    yield Row("the same, a key sent with each request and not looked at", _figures(unread))
    yield Row("the same, a key checked on each request", _figures(with_key))
    yield Row("the same, and limits of requests and points counted", _figures(limited))
    yield Row("**rate with a key / without**, pair by pair", f"**{_by_rate(with_key, without)}**", ">= 0.95")
    yield Row("the same, by the processor time of a request", _by_processor(with_key, without), ">= 0.95")
    yield Row("by processor time, sent and not looked at / without", _by_processor(unread, without))
    yield Row("by processor time, with a key that has limits / without", _by_processor(limited, without))


class _Turn(NamedTuple):
    """One run of wrk, and what it cost."""

    load: Load
    processor_us: float
    """Of the process of the service, its background threads included, for each request."""


def _turns(site: Site, keys: Mapping[str, str], start: int) -> list[list[_Turn]]:
    """Each round: each way of asking, in the same order."""
    with (
        serve_tidemark(site.folder, site.settings | {"AUTH": "off"}) as open_service,
        serve_tidemark(site.folder, site.settings | {"AUTH": "on"}) as service,
    ):
        ways = [
            (open_service, {}),
            (open_service, {"Authorization": f"Bearer {keys['plain']}"}),
            (service, {"Authorization": f"Bearer {keys['plain']}"}),
            (service, {"Authorization": f"Bearer {keys['limited']}"}),
        ]

        def ask(server: Tidemark, headers: Mapping[str, str]) -> _Turn:
            headers = {"Content-Type": "application/json", **headers}
            options = {"connections": CONNECTIONS, "seconds": _SECONDS, "folder": site.folder}
            before_s = _used_s(server)
            load = post_same(server.url, "/predict/s0", POINT.encode(), headers, **options)
            return _Turn(load, (_used_s(server) - before_s) / load.requests * 1e6)

        def go_round(number: int) -> list[_Turn]:
            order = [(place + number) % len(ways) for place in range(len(ways))]
            turns = {place: ask(*ways[place]) for place in order}
            return [turns[place] for place in range(len(ways))]

        return rounds(f"warm predict without and with a key, start {start + 1} of {_STARTS}", go_round, _ROUNDS)


def _used_s(server: Tidemark) -> float:
    return sum(psutil.Process(server.process.pid).cpu_times()[:2])


_KEYS = (("plain",), ("limited", "--requests-per-minute", _PLENTY, "--points-per-minute", _PLENTY))


def _create(folder: Path, settings: Mapping[str, str], name: str, *limits: str) -> str:
    arguments = ("keys", "create", "--name", name, "--scope", "fit,predict,read", *limits)
    created = run_tidemark(folder, *arguments, settings=settings)
    if created.returncode:
        raise RuntimeError(created.stderr)
    return created.stdout.strip()


def _figures(turns: list[_Turn]) -> str:
    processor_us = [turn.processor_us for turn in turns]
    processor = f"{statistics.median(processor_us):.1f} us of processor time, at least {min(processor_us):.1f}"
    return f"{rate(median_load([turn.load for turn in turns]))}, {processor}"


def _by_rate(ours: list[_Turn], theirs: list[_Turn]) -> str:
    return _middle(one.load.requests_per_s / other.load.requests_per_s for one, other in zip(ours, theirs, strict=True))


def _by_processor(ours: list[_Turn], theirs: list[_Turn]) -> str:
    """As a ratio of rates, too: how many more requests fit into a second of a processor."""
    return _middle(other.processor_us / one.processor_us for one, other in zip(ours, theirs, strict=True))


def _middle(ratios: Iterable[float]) -> str:
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (half of the pairs: {lower:.3f} to {upper:.3f})"
