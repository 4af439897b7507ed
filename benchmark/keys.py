"""What a key costs a warm prediction: the same requests to a service that asks for keys and to one that does not."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
_ROUNDS = 6
_SECONDS = 1.0
_PLENTY = "1000000000"


def measure_keys(bed: Testbed) -> Iterator[Row]:
    """Warm predictions without keys beside those with a key, and with a key that has limits, at the same moment."""
    site = bed.site("keys")
    with serve_tidemark(site.folder, site.settings) as fitting:  # by neither of the two
        fit(fitting.client, HISTORY)
    keys = {name: _create(site.folder, site.settings, name, *limits) for name, *limits in _KEYS}
    pairs: dict[str, list[_Pair]] = {name: [] for name in keys}
    for start in range(_STARTS):
        _measure(site, keys, start, pairs)
    plain, limited = pairs["plain"], pairs["limited"]
    yield Row("warm predict, AUTH=off", _figures([pair.without for pair in plain]))
    yield Row("at the same moment, a key checked on each request", _figures([pair.with_key for pair in plain]))
    yield Row("**rate with a key / without**, pair by pair", f"**{_by_rate(plain)}**", ">= 0.95")
    yield Row("the same, by the processor time of a request", _by_processor(plain), ">= 0.95")
    yield Row("rate with a key that has limits / without", _by_rate(limited))
    yield Row("the same, by the processor time of a request", _by_processor(limited))


class _Turn(NamedTuple):
    """One run of wrk, and what it cost."""

    load: Load
    processor_us: float
    """Of the process of the service, its background threads included, for each request."""


class _Pair(NamedTuple):
    """Two runs at the same moment: what slows the machine slows both."""

    without: _Turn
    with_key: _Turn


def _measure(site: Site, keys: Mapping[str, str], start: int, pairs: Mapping[str, list[_Pair]]) -> None:
    with (
        serve_tidemark(site.folder, site.settings | {"AUTH": "off"}) as open_service,
        serve_tidemark(site.folder, site.settings | {"AUTH": "on"}) as service,
        ThreadPoolExecutor(2) as both,
    ):

        def ask_both(number: int) -> None:
            for name, key in keys.items():
                asked = [
                    (open_service, {}, _folder(site, "without")),
                    (service, {"Authorization": f"Bearer {key}"}, _folder(site, "with_key")),
                ]
                turn_round = 1 if number % 2 else -1  # neither is always first
                turns = list(both.map(_ask, *zip(*asked[::turn_round], strict=True)))
                pairs[name].append(_Pair(*turns[::turn_round]))

        rounds(f"warm predict without and with a key, start {start + 1} of {_STARTS}", ask_both, _ROUNDS)


def _ask(server: Tidemark, headers: Mapping[str, str], folder: Path) -> _Turn:
    headers = {"Content-Type": "application/json", **headers}
    options = {"connections": CONNECTIONS // 2, "seconds": _SECONDS, "folder": folder}
    before_s = _used_s(server)
    load = post_same(server.url, "/predict/s0", POINT.encode(), headers, **options)
    return _Turn(load, (_used_s(server) - before_s) / load.requests * 1e6)


def _folder(site: Site, name: str) -> Path:
    folder = site.folder / name
    folder.mkdir(exist_ok=True)
    return folder


def _used_s(server: Tidemark) -> float:
    return sum(psutil.Process(server.process.pid).cpu_times()[:2])


_KEYS = (("plain",), ("limited", "--requests-per-minute", _PLENTY, "--points-per-minute", _PLENTY))


def _create(folder: Path, settings: Mapping[str, str], name: str, *limits: str) -> str:
    arguments = ("keys", "create", "--name", name, "--scope", "fit,predict,read", *limits)
    created = run_tidemark(folder, *arguments, settings=settings)
    if created.returncode:
        raise RuntimeError(created.stderr)
    return created.stdout.strip()


def _figures(turns: Sequence[_Turn]) -> str:
    processor_us = statistics.median(turn.processor_us for turn in turns)
    return f"{rate(median_load([turn.load for turn in turns]))}, {processor_us:.1f} us of processor time"


def _by_rate(pairs: Sequence[_Pair]) -> str:
    return _middle(pair.with_key.load.requests_per_s / pair.without.load.requests_per_s for pair in pairs)


def _by_processor(pairs: Sequence[_Pair]) -> str:
    """As a ratio of rates, too: how many more requests fit into a second of a processor."""
    return _middle(pair.without.processor_us / pair.with_key.processor_us for pair in pairs)


def _middle(ratios: Iterable[float]) -> str:
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (half of the pairs: {lower:.3f} to {upper:.3f})"
