"""What a key costs a warm prediction: the same requests to a service that asks for keys and to one that does not."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmark.fits import fit
from benchmark.load import Load, post_same
from benchmark.measures import CONNECTIONS, SECONDS, Row, median_load, median_ratio, rate, rounds
from benchmark.predictions import HISTORY, POINT
from benchmark.testbed import Testbed
from tests.servers import run_tidemark, serve_tidemark

_KEY_ROUNDS = 7
"""More than elsewhere: a difference of a few percent is looked for."""
_PLENTY = "1000000000"


def measure_keys(bed: Testbed) -> Iterator[Row]:
    """Warm predictions without keys, with one, and with one that has limits, in turns."""
    site = bed.site("keys")
    keys = {name: _create(site.folder, site.settings, name, *limits) for name, *limits in _KEYS}
    guarded = site.settings | {"AUTH": "on"}
    with (
        serve_tidemark(site.folder, site.settings | {"AUTH": "off"}) as open_service,
        serve_tidemark(site.folder, guarded) as service,
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
            options = {"connections": CONNECTIONS, "seconds": SECONDS, "folder": site.folder}
            return post_same(url, "/predict/s0", POINT.encode(), headers, **options)

        turns = rounds("warm predict without and with a key", lambda _: [load(*way) for way in ways], _KEY_ROUNDS)
    without, unread, with_key, limited = (list(loads) for loads in zip(*turns, strict=True))
    yield Row("warm predict, AUTH=off", rate(median_load(without)))
    yield Row("the same, a key sent with each request and not looked at", rate(median_load(unread)))
    yield Row("the same, a key checked on each request", rate(median_load(with_key)))
    yield Row("the same, and limits of requests and points counted", rate(median_load(limited)))
    yield Row("**with a key / without**, pair by pair", f"**{_ratio(with_key, without):.3f}**", ">= 0.95")
    yield Row("a key checked / sent and not looked at, pair by pair", f"{_ratio(with_key, unread):.3f}")
    yield Row("with a key that has limits / without, pair by pair", f"{_ratio(limited, without):.3f}")


_KEYS = (("plain",), ("limited", "--requests-per-minute", _PLENTY, "--points-per-minute", _PLENTY))


def _create(folder: Path, settings: Mapping[str, str], name: str, *limits: str) -> str:
    arguments = ("keys", "create", "--name", name, "--scope", "fit,predict,read", *limits)
    created = run_tidemark(folder, *arguments, settings=settings)
    if created.returncode:
        raise RuntimeError(created.stderr)
    return created.stdout.strip()


def _ratio(ours: list[Load], theirs: list[Load]) -> float:
    return median_ratio([load.requests_per_s for load in ours], [load.requests_per_s for load in theirs])
