"""Other people's detectors, on the same series: each installs by itself, and is left out where it is not installed.

What works on windows takes them as long as the widest buffer of the VUS, which is the period of the series where there
is one: the same advantage that the published comparisons of these methods give them. With all points in view the score
of a window counts for its middle, on arrival for its last point.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark.accuracy.datasets import LabelledSeries
from benchmark.accuracy.regimes import ARRIVAL, BATCH, Bools, Floats, Outcome, metered

MICROSOFT_PYTHON = "ANOMALY_DETECTOR_PYTHON"
"""The interpreter that has time-series-anomaly-detector, whose pins exclude those of Tidemark."""

_MOST_FITTED = 10_000
_MOST_POINTS_OF_MICROSOFT = 8_640
_LAGS = 8


class Said(NamedTuple):
    """What a peer says of n points: scores of shape (n,), and verdicts where it gives any."""

    scores: Floats
    is_anomaly: Bools | None = None


class Peer(NamedTuple):
    """A detector of another library: how it is installed, what it is imported as, and how it is run by regime."""

    install: str
    module: str
    run: Mapping[str, Callable[[LabelledSeries], Said]]

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return find_spec(self.module) is not None or (self.module == "anomaly_detector" and bool(_other_python()))


def judge_peer(name: str, regime: str, labelled: LabelledSeries) -> Outcome:
    """What a peer says of a series."""
    said, cost = metered(lambda: PEERS[name].run[regime](labelled))
    first = labelled.train_prefix if regime == ARRIVAL else 0
    verdicts = None if said.is_anomaly is None else said.is_anomaly[first:]
    return Outcome(np.nan_to_num(said.scores), verdicts, first, cost)


def _pyod_batch(name: str, params: Mapping[str, object], labelled: LabelledSeries) -> Said:
    windows = _windows(labelled.values, labelled.vus_window)
    model = _pyod(name, params, windows)
    return Said(_spread_out(model.decision_function(windows), len(labelled.values)))


def _pyod_arrival(name: str, params: Mapping[str, object], labelled: LabelledSeries) -> Said:
    window = min(labelled.vus_window, max(labelled.train_prefix // 4, 1))
    windows = _windows(labelled.values, window)
    model = _pyod(name, params, windows[: labelled.train_prefix - window + 1])
    return Said(_at_the_end(model.decision_function(windows), len(labelled.values)))


def _pyod(name: str, params: Mapping[str, object], windows: Floats) -> Any:
    """A model fitted to the windows, or to 10,000 of them evenly spaced, as some take time in squares."""
    model = getattr(import_module(f"pyod.models.{name.lower()}"), name)(**params)
    chosen = np.unique(np.linspace(0, len(windows) - 1, _MOST_FITTED).astype(np.intp))
    model.fit(windows[chosen])
    return model


def _stumpy_batch(labelled: LabelledSeries) -> Said:
    stumpy = import_module("stumpy")
    window = max(min(labelled.vus_window, len(labelled.values) // 4), 3)
    profile = stumpy.stump(labelled.values, window)
    return Said(_spread_out(profile[:, 0].astype(np.float64), len(labelled.values)))


def _stumpy_arrival(labelled: LabelledSeries) -> Said:
    stumpy = import_module("stumpy")
    window = max(min(labelled.vus_window, labelled.train_prefix // 4), 3)
    prefix = labelled.values[: labelled.train_prefix]
    later = labelled.values[labelled.train_prefix - window + 1 :]
    of_prefix = stumpy.stump(prefix, window)[:, 0].astype(np.float64)
    of_later = stumpy.stump(later, window, prefix, ignore_trivial=False)[:, 0].astype(np.float64)
    return Said(_at_the_end(np.concatenate((of_prefix, of_later)), len(labelled.values)))


def _river_arrival(labelled: LabelledSeries) -> Said:
    scaler = import_module("river.preprocessing").MinMaxScaler()
    trees = import_module("river.anomaly").HalfSpaceTrees(seed=0)
    scores = np.zeros(len(labelled.values))
    values = labelled.values.tolist()
    for place in range(len(values)):
        features = {str(lag): values[max(place - lag, 0)] for lag in range(_LAGS)}
        scaler.learn_one(features)
        scaled = scaler.transform_one(features)
        scores[place] = trees.score_one(scaled)
        trees.learn_one(scaled)
    return Said(scores)


def _statsmodels_batch(labelled: LabelledSeries) -> Said:
    seasonal = import_module("statsmodels.tsa.seasonal")
    period = max(min(labelled.period_points or labelled.vus_window, len(labelled.values) // 2), 2)
    return Said(np.abs(seasonal.STL(labelled.values, period=period, robust=True).fit().resid))


def _microsoft_batch(labelled: LabelledSeries) -> Said:
    """By its EntireAnomalyDetector, in equal parts of at most 8,640 points, which is the most that it takes."""
    parts = np.array_split(labelled.values, -(-len(labelled.values) // _MOST_POINTS_OF_MICROSOFT))
    told = subprocess.run(
        [_other_python() or sys.executable, "-c", _MICROSOFT_SCRIPT],
        input=json.dumps([part.tolist() for part in parts]),
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(told.stderr.strip().splitlines()[-1])
    scores, is_anomaly = json.loads(told.stdout.splitlines()[-1])
    return Said(np.array(scores, dtype=np.float64), np.array(is_anomaly, dtype=np.bool_))


# The package imports its multivariate half first, and with it torch and mlflow, which its univariate half has no use
# for. Its own folder on the path as `anomaly_detector` without that half's __init__ spares them.
_MICROSOFT_SCRIPT = """
import importlib.util, json, sys, types, warnings
warnings.simplefilter("ignore")
package = types.ModuleType("anomaly_detector")
package.__path__ = list(importlib.util.find_spec("anomaly_detector").submodule_search_locations)
sys.modules["anomaly_detector"] = package
for name in ("mlflow", "mlflow.pyfunc"):
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].PythonModel = object
        sys.modules["mlflow"].pyfunc = sys.modules[name]
import pandas
from anomaly_detector.univariate.univariate_anomaly_detection import EntireAnomalyDetector
scores, is_anomaly = [], []
for values in json.load(sys.stdin):
    said = EntireAnomalyDetector().predict(None, pandas.DataFrame({"value": values}), {})
    for value, point in zip(values, said):
        result = point["result"]
        off = value - result["expected_value"]
        margin = result["upper_margin"] if off > 0 else result["lower_margin"]
        scores.append(abs(off) / max(margin, 1e-12))
        is_anomaly.append(bool(result["is_anomaly"]))
print(json.dumps([scores, is_anomaly]))
"""


def _other_python() -> str | None:
    python = os.environ.get(MICROSOFT_PYTHON)
    return python if python and Path(python).is_file() else None


def _windows(values: Floats, window: int) -> Floats:
    """All windows of this length, or a quarter of the series where that is shorter, one a row."""
    return np.lib.stride_tricks.sliding_window_view(values, max(min(window, len(values) // 4), 1))


def _spread_out(scores: Floats, n: int) -> Floats:
    """Scores of windows as those of their middles; the first and the last ones reach to the ends."""
    before = (n - len(scores)) // 2
    return np.pad(scores, (before, n - len(scores) - before), mode="edge")


def _at_the_end(scores: Floats, n: int) -> Floats:
    """Scores of windows as those of their last points; nothing is known of the points before."""
    return np.pad(scores, (n - len(scores), 0), constant_values=scores.min(initial=np.inf))


def _of_pyod(name: str, **params: object) -> Peer:
    batch, arrival = partial(_pyod_batch, name, params), partial(_pyod_arrival, name, params)
    return Peer("pyod", "pyod", {BATCH: batch, ARRIVAL: arrival})


PEERS: Mapping[str, Peer] = {
    "pyod_iforest": _of_pyod("IForest", random_state=0),
    "pyod_lof": _of_pyod("LOF"),
    "pyod_knn": _of_pyod("KNN"),
    "pyod_pca": _of_pyod("PCA", random_state=0),
    "stumpy_profile": Peer("stumpy", "stumpy", {BATCH: _stumpy_batch, ARRIVAL: _stumpy_arrival}),
    "river_trees": Peer("river", "river", {ARRIVAL: _river_arrival}),
    "statsmodels_stl": Peer("statsmodels", "statsmodels", {BATCH: _statsmodels_batch}),
    "microsoft": Peer("time-series-anomaly-detector", "anomaly_detector", {BATCH: _microsoft_batch}),
}
