"""The report of a version: what was found in its training data, and what its detector would find there."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

import numpy as np

from app.batching import Batching
from app.detectors import find_detector
from app.detectors.base import Detector
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import WEEK_S, CalibratedParams, usual_interval_s
from app.detectors.mean_std import MeanStdParams
from app.detectors.periods import find_period
from app.detectors.trials import Trial, try_refitted
from app.quality import Quality, assess_quality
from app.registry import ModelRegistry
from app.series import FloatArray, Series
from app.versions import Version

FEWEST_POINTS_TRIED = 100
"""With fewer, a fifth of a history has no room for anomalies."""
MOST_POINTS_TRIED = 10_000
"""Of a longer history its end is tried, so that a report takes seconds."""

_ROUNDS = 3
_THREADS = 2
"""So that a long one does not hold up the short ones."""
_KEPT = 512

_Key = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What there is to know of a version beside its provenance; the same each time it is made."""

    quality: Quality
    period_s: float | None
    """After how long the training data repeats itself."""
    period_points: int | None
    set_aside: FloatArray
    """Stretches that the model was not fitted to: shape (k, 2), first and last Unix second of each."""
    context_points: int
    false_alarm_rate: float
    false_alarms_per_week: float | None
    """To be expected of points that are like the training data; None where their interval is not known."""
    detectability: Trial | None
    """Of the same detector, fitted to the first four fifths; None for fewer than 100 points."""


class ReportingService:
    """Makes reports when they are asked for, two at a time, each once, and keeps the last ones."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._making = Batching[Version, Report](self._make, most=1, name="report", threads=_THREADS)
        self._kept: OrderedDict[_Key, Future[Report]] = OrderedDict()
        self._lock = Lock()

    def begin(self, version: Version) -> Future[Report]:
        """The report, from memory or by a thread of its own; whoever asks meanwhile waits for the same one.

        The future raises SeriesNotFound, VersionDeleted, ArtifactDamaged, Unavailable; and the next call tries again.
        """
        key = version.model_digest, version.data_digest
        with self._lock:
            report = self._kept.get(key)
            if report is None or (report.done() and report.exception() is not None):
                report = self._kept[key] = self._making.submit(version)
            self._kept.move_to_end(key)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return report

    def _make(self, versions: Sequence[Version]) -> Sequence[Report]:
        return [self._make_one(version) for version in versions]

    def _make_one(self, version: Version) -> Report:
        history = self._registry.read_training_data(version)
        detector = self._registry.load(version.series_id, version.version).detector
        return make_report(detector, history)


def make_report(detector: Detector, history: Series) -> Report:
    """The report of a detector that was fitted to this history: a pure function of both."""
    interval_s = usual_interval_s(history.timestamps_s)
    period_s = find_period(history)
    period_points = None if period_s is None else round(period_s / interval_s)
    rate = _false_alarm_rate(detector)
    return Report(
        quality=assess_quality(history, period_points),
        period_s=period_s,
        period_points=period_points,
        set_aside=detector.set_aside if isinstance(detector, CalibratedDetector) else np.empty((0, 2)),
        context_points=detector.context_points,
        false_alarm_rate=rate,
        false_alarms_per_week=None if math.isnan(interval_s) else rate * WEEK_S / interval_s,
        detectability=_try(detector, history),
    )


def _false_alarm_rate(detector: Detector) -> float:
    """The share of normal points that a detector flags: as its budget has it, or as normally distributed values do."""
    params = detector.params
    assert isinstance(params, CalibratedParams)
    if isinstance(params, MeanStdParams) and not params.has_budget:
        beyond = math.erfc(params.k / math.sqrt(2.0))
        return beyond if params.direction == "both" else beyond / 2.0
    return params.rate(detector.interval_s)


def _try(detector: Detector, history: Series) -> Trial | None:
    if len(history) < FEWEST_POINTS_TRIED:
        return None
    kind = find_detector(detector.name)  # its own class may be one that a fit makes of another
    return try_refitted(kind, history.last(MOST_POINTS_TRIED), detector.params, rounds=_ROUNDS)
