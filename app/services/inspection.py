"""Looking at a version: its training data as its own model judges it, reduced to what a screen can show."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import Detector, Verdicts
from app.detectors.judging import usual_interval_s
from app.registry import ModelRegistry
from app.series import FloatArray, Series
from app.services.budgets import Budgets, weigh
from app.versions import Selector, Version

Indices = NDArray[np.intp]

MAX_POINTS = 6000
"""Points that a screen is given unless it asks for more or less."""

MOST_JUDGED_SLOWLY = 20_000
"""Points of a stretch that are judged where that takes about a tenth of a millisecond each: the last ones."""

_MARKED_SHARE = 4


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A stretch of the training data of a version, with verdicts, index-aligned."""

    version: Version
    points: Series
    verdicts: Verdicts
    points_in_range: int
    """Points of the stretch before it was reduced."""
    judged_in_range: int
    """How many of these the model has judged, the last ones; nothing is known of the others."""
    anomalies_in_range: int
    budgets: Budgets
    """What other budgets would flag of the stretch; its `scale` is that of `points`."""
    interval_s: float
    """Seconds between two points of the training data, typically; NaN for one point."""


class InspectionService:
    """Reads back what a version was fitted to."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def view(
        self,
        series_id: str,
        selector: Selector,
        start_s: float | None = None,
        end_s: float | None = None,
        *,
        max_points: int = MAX_POINTS,
        false_alarm_rate: float | None = None,
    ) -> View:
        """The training data within [start_s, end_s] and what the model says of it, reduced to `max_points` (>= 10).

        false_alarm_rate: the share of normal points that may be flagged, by default the model's own.
        A detector that takes its time judges the last `MOST_JUDGED_SLOWLY` points of the stretch.
        Raises SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted, ArtifactDamaged.
        """
        version = self._registry.catalog.get_version(series_id, selector)
        history = self._registry.read_training_data(version)
        first = 0 if start_s is None else int(np.searchsorted(history.timestamps_s, start_s, "left"))
        last = len(history) if end_s is None else int(np.searchsorted(history.timestamps_s, end_s, "right"))
        detector = self._registry.load(series_id, version.version).detector
        stretch = Series(history.timestamps_s[first:last], history.values[first:last])

        judged = last - first if detector.is_quick_to_judge else min(last - first, MOST_JUDGED_SLOWLY)

        def score(by: Detector) -> Verdicts:
            return _preceded(_score(by, history, last - judged, last, false_alarm_rate), last - first - judged)

        verdicts = score(detector)
        budgets = weigh(detector, stretch, verdicts, score, false_alarm_rate)
        kept = _reduce(stretch, verdicts, max_points)
        return View(
            version=version,
            points=Series(stretch.timestamps_s[kept], stretch.values[kept]),
            verdicts=verdicts.take(kept),
            points_in_range=len(stretch),
            judged_in_range=judged,
            anomalies_in_range=int(np.count_nonzero(verdicts.is_anomaly)),
            budgets=replace(budgets, scale=budgets.scale[kept]),
            interval_s=usual_interval_s(history.timestamps_s),
        )


def keep_extremes(values: FloatArray, score: FloatArray, max_points: int) -> Indices:
    """Indices of at most `max_points` points (at least 5) to draw in place of all n, increasing.

    The points are cut into stretches of equal count, and each gives its lowest, its highest and its most
    anomalous: min-max downsampling, so that no spike is lost and every stretch with an anomaly shows one.
    First and last are always kept. O(n).
    """
    n = len(values)
    if n <= max_points:
        return np.arange(n)
    size = -(-n // ((max_points - 2) // 3))
    whole = n // size * size
    starts = np.arange(0, whole, size)
    kept = [np.array([0, n - 1])]
    for extreme, column in ((np.argmin, values), (np.argmax, values), (np.argmax, score)):
        kept.append(starts + extreme(column[:whole].reshape(-1, size), axis=1))
        if whole < n:
            kept.append(np.array([whole + extreme(column[whole:])]))
    return np.unique(np.concatenate(kept))


def _score(detector: Detector, history: Series, first: int, last: int, false_alarm_rate: float | None) -> Verdicts:
    """The verdicts on [first, last), the same whatever stretch is looked at."""
    before = max(first - detector.context_points, 0)
    if last > len(history) - detector.remembered_points:
        before = max(min(before, len(history) - detector.remembered_points - detector.context_points), 0)
        whole = detector.score_history(history.last(len(history) - before), false_alarm_rate)
        return whole.take(np.arange(first - before, last - before))
    context = Series(history.timestamps_s[before:first], history.values[before:first])
    points = Series(history.timestamps_s[first:last], history.values[first:last])
    return detector.score(points, context, false_alarm_rate)


def _preceded(verdicts: Verdicts, n: int) -> Verdicts:
    """The verdicts behind those of n points that were not judged."""
    if n == 0:
        return verdicts
    unknown = Verdicts.unknown(n)
    unknown.expected[:] = np.median(verdicts.expected)  # some level, as for points that have too few before them
    return Verdicts.joined([unknown, verdicts])


def _reduce(points: Series, verdicts: Verdicts, max_points: int) -> Indices:
    """Extremes, and the anomalies besides: all of them, or the strongest when they are many."""
    if len(points) <= max_points:
        return np.arange(len(points))
    anomalies = np.flatnonzero(verdicts.is_anomaly)
    most = max_points // _MARKED_SHARE
    if len(anomalies) > most:
        anomalies = anomalies[np.argpartition(verdicts.score[anomalies], -most)[-most:]]
    return np.union1d(anomalies, keep_extremes(points.values, verdicts.score, max_points - len(anomalies)))
