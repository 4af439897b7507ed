"""How long another process goes on with the version before, once a fit is answered."""

import random
import time
from collections.abc import Iterator

import httpx
import numpy as np

from benchmark.measures import Row, say
from benchmark.testbed import Testbed
from tests.servers import Tidemark, serve_tidemark

_FITS = 300
_LONGEST_PAUSE_S = 0.2
_GIVEN_UP_S = 10.0
_POINT = '{"timestamp":1705000010,"value":13.0}'


def measure_freshness(bed: Testbed) -> Iterator[Row]:
    """Fits by one process, predictions by another on the same database and folder."""
    site = bed.site("freshness")
    settings = site.settings | {"DATA_DIR": str(site.data)}
    with serve_tidemark(site.folder / "a", settings) as fitting, serve_tidemark(site.folder / "b", settings) as judging:
        delays_ms = [delay_s * 1000 for delay_s in _delays_s(fitting, judging)]
    p50, p99, longest = np.percentile(delays_ms, [50, 99, 100])
    what = f"a fit by one process until another judges by it, {_FITS} fits"
    yield Row(what, f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {longest:.0f} ms", "p99 <= 250 ms")


def _delays_s(fitting: Tidemark, judging: Tidemark) -> Iterator[float]:
    pauses = random.Random(0)
    for number in range(_FITS):
        if number % 50 == 0:
            say(f"freshness: fit {number + 1} of {_FITS}")
        history = {
            "detector": "mean_std",
            "timestamps": [1705000000, 1705000001, 1705000002],
            "values": [number, 10.0, 11.5],
        }
        version = fitting.client.post("/fit/s0", json=history).raise_for_status().json()["version"]
        answered = time.perf_counter()
        while _judged_by(judging.client) != version:
            if time.perf_counter() - answered > _GIVEN_UP_S:
                raise RuntimeError(f"version {version} is not used by the other process after {_GIVEN_UP_S:g} s")
        yield time.perf_counter() - answered
        time.sleep(pauses.uniform(0.0, _LONGEST_PAUSE_S))


def _judged_by(client: httpx.Client) -> str:
    answer = client.post("/predict/s0", content=_POINT).raise_for_status().json()
    version: str = answer["model_version"]
    return version
