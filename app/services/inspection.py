"""Looking at a version: its training data as its own model judges it, reduced to what a screen can show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import Verdicts
from app.registry import ModelRegistry
from app.series import Series
from app.versions import Selector, Version


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A stretch of the training data of a version, with verdicts, index-aligned."""

    version: Version
    points: Series
    verdicts: Verdicts
    points_in_range: int
    """Points of the stretch before it was reduced."""
    anomalies_in_range: int


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
        max_points: int = 4000,
    ) -> View:
        """The training data within [start_s, end_s] and what the model says of it, reduced to about `max_points`.

        Raises SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted, ArtifactDamaged.
        """
        version = self._registry.catalog.get_version(series_id, selector)
        history = self._registry.read_training_data(version)
        first = 0 if start_s is None else int(np.searchsorted(history.timestamps_s, start_s, "left"))
        last = len(history) if end_s is None else int(np.searchsorted(history.timestamps_s, end_s, "right"))
        stretch = Series(history.timestamps_s[first:last], history.values[first:last])
        verdicts = self._registry.load(series_id, version.version).detector.score(stretch)
        kept = keep_extremes(stretch.values, max_points)
        return View(
            version=version,
            points=Series(stretch.timestamps_s[kept], stretch.values[kept]),
            verdicts=verdicts.take(kept),
            points_in_range=len(stretch),
            anomalies_in_range=int(np.count_nonzero(verdicts.is_anomaly)),
        )


def keep_extremes(values: NDArray[np.float64], max_points: int) -> NDArray[np.intp]:
    """Indices of at most `max_points` points (at least 4) to draw in place of all n.

    The points are cut into stretches of equal count, and each gives its lowest and its highest: min-max
    downsampling, so that no spike is lost. First and last are always kept. O(n).
    """
    n = len(values)
    if n <= max_points:
        return np.arange(n)
    stretches = max(1, (max_points - 2) // 2)
    size = -(-n // stretches)
    whole = n // size * size
    blocks = values[:whole].reshape(-1, size)
    starts = np.arange(len(blocks)) * size
    kept = [np.array([0, n - 1]), starts + blocks.argmin(axis=1), starts + blocks.argmax(axis=1)]
    if whole < n:
        rest = values[whole:]
        kept.append(whole + np.array([rest.argmin(), rest.argmax()]))
    return np.unique(np.concatenate(kept))
