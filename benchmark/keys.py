"""What a key costs a warm prediction: the same requests to a service that asks for keys and to one that does not."""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmark.fits import fit
from benchmark.load import Load, post_same
from benchmark.measures import CONNECTIONS, Row, median_load, rate, rounds
from benchmark.predictions import HISTORY, POINT
from benchmark.testbed import Site, Testbed
from tests.servers import run_tidemark, serve_tidemark

_STARTS = 3
"""Of both services: two processes of the same program differ by some percent, too."""
_ROUNDS = 10
_SECONDS = 1.0
"""Short and many, in an order that goes round, as a difference of a few percent is looked for."""
_PLENTY = "1000000000"


def measure_keys(bed: Testbed) -> Iterator[Row]:
    """Warm predictions without keys, with one, and with one that has limits, in turns."""
    site = bed.site("keys")
    keys = {name: _create(site.folder, site.settings, name, *limits) for name, *limits in _KEYS}
    turns = [turn for start in range(_STARTS) for turn in _turns(site, keys, start)]
    without, unread, with_key, limited = (list(loads) for loads in zip(*turns, strict=True))
    yield Row("warm predict, AUTH=off", rate(median_load(without)))
    yield Row("the same, a key sent with each request and not looked at", rate(median_load(unread)))
    yield Row("the same, a key checked on each request", rate(median_load(with_key)))
    yield Row("the same, and limits of requests and points counted", rate(median_load(limited)))
    yield Row("**with a key / without**, pair by pair", f"**{_ratio(with_key, without)}**", ">= 0.95")
    yield Row("a key checked / sent and not looked at, pair by pair", _ratio(with_key, unread))
    yield Row("with a key that has limits / without, pair by pair", _ratio(limited, without))


def _turns(site: Site, keys: Mapping[str, str], start: int) -> list[list[Load]]:
    """The loads of each round: of each way of asking, in the same order."""
    with (
        serve_tidemark(site.folder, site.settings | {"AUTH": "off"}) as open_service,
        serve_tidemark(site.folder, site.settings | {"AUTH": "on"}) as service,
    ):
        fit(open_service.client, HISTORY)
        ways = [
            (open_service.url, {}),
            (open_service.url, {"Authorization": f"Bearer {keys['plain']}"}),
            (service.url, {"Authorization": f"Bearer {keys['plain']}"}),
            (service.url, {"Authorization": f"Bearer {keys['limited']}"}),
        ]

        def load(url: str, headers: Mapping[str, str]) -> Load:
            headers = {"Content-Type": "application/json", **headers}
            options = {"connections": CONNECTIONS, "seconds": _SECONDS, "folder": site.folder}
            return post_same(url, "/predict/s0", POINT.encode(), headers, **options)

        def turn(number: int) -> list[Load]:
            order = [(place + number) % len(ways) for place in range(len(ways))]
            loads = {place: load(*ways[place]) for place in order}
            return [loads[place] for place in range(len(ways))]

        return rounds(f"warm predict without and with a key, start {start + 1} of {_STARTS}", turn, _ROUNDS)


_KEYS = (("plain",), ("limited", "--requests-per-minute", _PLENTY, "--points-per-minute", _PLENTY))


def _create(folder: Path, settings: Mapping[str, str], name: str, *limits: str) -> str:
    arguments = ("keys", "create", "--name", name, "--scope", "fit,predict,read", *limits)
    created = run_tidemark(folder, *arguments, settings=settings)
    if created.returncode:
        raise RuntimeError(created.stderr)
    return created.stdout.strip()


def _ratio(ours: list[Load], theirs: list[Load]) -> str:
    ratios = [one.requests_per_s / other.requests_per_s for one, other in zip(ours, theirs, strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (half of the pairs: {lower:.3f} to {upper:.3f})"
