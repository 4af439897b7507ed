"""How fast the detectors are: a fit, a point, and all points of a series in view."""

import statistics
import time
from collections.abc import Callable, Iterator

from app.detectors import find_detector
from app.series import Series
from app.simulation import NORMAL_SERIES, simulate_sensor
from benchmark.measures import Row, rounds
from benchmark.testbed import Testbed
from tests.servers import serve_tidemark

_HISTORY, _NEXT, _DAY_OF_TEN_SECONDS = 10_000, 10, 8_640
_TIMES = 30
_MILLISECOND = 1e-3
_FITS = {
    "mean_std": "< 5 ms",
    "robust_z": "< 5 ms",
    "ewma": "< 5 ms",
    "seasonal": "",
    "autoregressive": "",
    "subsequence_knn": "",
    "auto": "< 5 s",
}
_ONE_POINT = dict.fromkeys(("mean_std", "robust_z", "ewma", "seasonal", "autoregressive"), "< 50 us") | {
    "subsequence_knn": "< 1 ms"
}
_SERIES: dict[str, Callable[[int], Series]] = {
    "a daily swing": lambda points: simulate_sensor(points, seed=1).series,
    "noise": lambda points: NORMAL_SERIES["gaussian"](points, 1),
}


def measure_detectors(_: Testbed) -> Iterator[Row]:
    """Fits of 10,000 points, and one point by what they give."""
    for name, target in _FITS.items():
        yield Row(f"`{name}`: fit of {_HISTORY:,} points", _of_each(lambda make, n=name: _fit_s(n, make)), target)
    yield Row("`auto`: fit of 1,000 points", _of_each(lambda make: _fit_s("auto", make, 1_000)), "< 1 s")
    for name, target in _ONE_POINT.items():
        yield Row(f"`{name}`: one point", _of_each(lambda make, n=name: _point_s(n, make)), target)


def measure_detections(bed: Testbed) -> Iterator[Row]:
    """A day of points every ten seconds, all in view."""
    site = bed.site("detect")
    series = simulate_sensor(_DAY_OF_TEN_SECONDS, seed=1, anomalies=8).series
    points = {"timestamps": series.timestamps_s.tolist(), "values": series.values.tolist()}
    with serve_tidemark(site.folder, site.settings) as service:
        for name, target in {"seasonal": "< 30 ms", "auto": "< 3 s"}.items():

            def detect(_: int, detector: str = name) -> float:
                started = time.perf_counter()
                service.client.post("/detect", json={"detector": detector, **points}).raise_for_status()
                return time.perf_counter() - started

            detect(0)
            seconds = statistics.median(rounds(f"detection by {name}", detect))
            yield Row(f"`POST /detect` of {_DAY_OF_TEN_SECONDS:,} points by `{name}`", _told(seconds), target)
    bed.remove(site)


def _of_each(measure: Callable[[Callable[[int], Series]], float]) -> str:
    return ", ".join(f"{_told(measure(make))} ({what})" for what, make in _SERIES.items())


def _fit_s(name: str, make: Callable[[int], Series], points: int = _HISTORY) -> float:
    detector, history = find_detector(name), make(points)
    params = detector.Params()
    detector.fit(history, params)
    return statistics.median(_seconds(lambda: detector.fit(history, params)) for _ in range(5))


def _point_s(name: str, make: Callable[[int], Series]) -> float:
    series, detector = make(_HISTORY + _NEXT), find_detector(name)
    fitted = detector.fit(series.first(_HISTORY), detector.Params())
    following = series.last(_NEXT)
    points = list(zip(following.timestamps_s.tolist(), following.values.tolist(), strict=True))
    normal = [point for point in points if not fitted.score_one(*point).is_anomaly]
    return statistics.median(_seconds(lambda p=point: fitted.score_one(*p)) for point in normal * _TIMES)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _told(seconds: float) -> str:
    """In the unit that suits it."""
    if seconds < _MILLISECOND:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
