"""How a detector is run on a labelled series: on all of it at once, or on points that come later than those it fitted.

The regimes: *batch*, all points in view; *on arrival*, fitted to the prefix, and each later point judged by what came
before it; *settled*, the same with as many of the points after it as the detector has a use for.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.detectors import DETECTORS, find_detector
from app.detectors.base import Detector
from app.detectors.calibrated import CalibratedDetector
from app.detectors.calibration import Calibration
from app.detectors.judging import Assessment
from app.detectors.units import Unit
from app.series import Series
from benchmark.accuracy.datasets import LabelledSeries
from benchmark.measures import memory_mb, peak_memory_mb

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Result = TypeVar("Result")

BATCH, SETTLED, ARRIVAL, CURVE = "batch", "settled", "arrival", "curve"
REGIMES = (BATCH, SETTLED, ARRIVAL, CURVE)

_SMALLEST_THRESHOLD = 1e-9


class Cost(NamedTuple):
    """What something took."""

    seconds: float
    """Of the processor, in this process and its children: what else the machine does counts little."""
    memory_mb: float
    """At its peak, beyond what the process held before."""


class Outcome(NamedTuple):
    """What was said of a series of n points."""

    scores: Floats
    """Shape (n,), higher where a point is more anomalous."""
    is_anomaly: Bools | None
    """Shape (n - first,), at the default budget; None for what gives scores only."""
    first: int
    """The first point with a verdict: those before it were fitted."""
    cost: Cost
    lookahead_points: int | None = None


def load_detector(name: str) -> type[Detector]:
    """A detector of the table, or any other by its place, `module:Class`. Raises ValueError where there is none."""
    if name in DETECTORS:
        return find_detector(name)
    module, _, attribute = name.partition(":")
    try:
        detector: type[Detector] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        known = ", ".join(DETECTORS)
        raise ValueError(f"No detector {name!r}: give some of {known}, or the place of a class, module:Class") from None
    return detector


def metered(work: Callable[[], Result]) -> tuple[Result, Cost]:
    """A result, and what it took. The peak is that of Linux; elsewhere memory is NaN."""
    is_known = _forget_peak()
    before_mb, started = memory_mb(os.getpid()) if is_known else np.nan, _processor_s()
    result = work()
    seconds = _processor_s() - started
    return result, Cost(seconds, max(peak_memory_mb(os.getpid()) - before_mb, 0.0) if is_known else np.nan)


def judge_batch(detector: type[Detector], labelled: LabelledSeries) -> Outcome:
    """Verdicts with all points in view."""
    series = Series(labelled.timestamps_s, labelled.values)
    verdicts, cost = metered(lambda: detector.detect(series, detector.Params()))
    return Outcome(verdicts.score, verdicts.is_anomaly, 0, cost)


class Fitted:
    """A detector fitted to the prefix of a series, to judge what comes after it."""

    def __init__(self, detector: type[Detector], labelled: LabelledSeries) -> None:
        series, first = Series(labelled.timestamps_s, labelled.values), labelled.train_prefix
        if not 0 < first < len(series):
            raise ValueError(f"A prefix of {first} of {len(series)} points leaves nothing to fit or nothing to judge")
        self._history = series.first(first)
        self._later = series.last(len(series) - first)
        self._detector, self._cost = metered(lambda: detector.fit(self._history, detector.Params()))

    @property
    def lookaheads(self) -> list[int]:
        """The numbers of points after a point that make a difference to it, rising from 0."""
        return list(map(int, self._detector.state.get("lookaheads", np.zeros(1)).tolist()))

    def judge(self, lookahead_points: int) -> Outcome:
        """Verdicts on the later points, and scores of all: those of the prefix are left out of what judges them."""
        verdicts, cost = metered(lambda: self._detector.score(self._later, lookahead_points=lookahead_points))
        cost = Cost(self._cost.seconds + cost.seconds, max(self._cost.memory_mb, cost.memory_mb))
        scores = np.concatenate((self._prefix_scores(lookahead_points), verdicts.score))
        return Outcome(scores, verdicts.is_anomaly, len(self._history), cost, lookahead_points)

    @cached_property
    def _studied(self) -> tuple[Series, Mapping[int, Assessment]] | None:
        """The history in standard units, and what a fit finds on it before it sets anything aside."""
        detector = self._detector
        if not isinstance(detector, CalibratedDetector):
            return None
        state = detector.state
        standard = Unit(float(state["center"]), float(state["spread"])).series(self._history)
        return standard, detector.study_later(standard, detector.params)[1]

    def _prefix_scores(self, lookahead_points: int) -> Floats:
        if self._studied is None or not isinstance(self._detector, CalibratedDetector):
            nothing = self._history.first(0)
            return self._detector.score(self._history, nothing, lookahead_points=lookahead_points).score
        return left_out_scores(self._detector, *self._studied, lookahead_points)


def left_out_scores(
    detector: CalibratedDetector, standard: Series, assessed: Mapping[int, Assessment], lookahead_points: int
) -> Floats:
    """Scores of the points that a detector was fitted to: |deviation| / threshold, as `Verdict.score` has it.

    standard: the history, shape (n,), in the detector's standard units; assessed: what `study_later` expects of each
    point of it by the others, for each number of points to look ahead. The thresholds are those of the fit, which set
    gross outliers aside; the deviations are not, so that these outliers keep their scores. As `score` does, the most
    points are looked ahead for which a point has as many; 0 where nothing is expected.
    """
    params, state = detector.params, detector.state
    scores = np.full(len(standard), np.nan)
    places = state["lookaheads"].astype(int).tolist()
    for lookahead in reversed(list(assessed)):
        if lookahead > lookahead_points:
            continue
        # What is set aside may change the plan of a fit, and so the numbers of points that make a difference.
        place = max(index for index, points in enumerate(places) if points <= lookahead)
        calibration = Calibration(state["below"][place], state["above"][place], is_sided=detector.is_sided)
        below, above = calibration.thresholds(params.rate(detector.interval_s), params.direction)
        deviations = assessed[lookahead].deviations(standard.values)
        thresholds = np.maximum(np.where(deviations > 0, above, below), _SMALLEST_THRESHOLD)
        scores = np.where(np.isnan(scores), np.abs(deviations) / thresholds, scores)
    known: Floats = np.nan_to_num(scores).astype(np.float32).astype(np.float64)  # ties as those of verdicts
    return known


def _forget_peak() -> bool:
    """Let the peak of this process's memory count from now on; tell whether the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _processor_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
