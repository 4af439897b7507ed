"""Predicting: verdicts on points, by whichever version is meant."""

from app.detectors.base import Verdict, Verdicts
from app.registry import ModelRegistry
from app.series import Series
from app.versions import Selector


class PredictionService:
    """Judges points with a version of their series' model.

    `predict` and `predict_one` raise SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted,
    ArtifactDamaged, and DatabaseUnavailable or ArtifactStoreUnavailable when the model is not in memory.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def is_warm(self, series_id: str, selector: Selector) -> bool:
        """Whether the model is in memory, so that a prediction does no I/O."""
        return self._registry.find_loaded(series_id, selector) is not None

    def predict_one(self, series_id: str, selector: Selector, timestamp_s: float, value: float) -> tuple[int, Verdict]:
        """The version that judged, and its verdict on one point."""
        model = self._registry.load(series_id, selector)
        return model.version, model.detector.score_one(timestamp_s, value)

    def predict(self, series_id: str, selector: Selector, points: Series) -> tuple[int, Verdicts]:
        """The version that judged, and its verdicts on many points, index-aligned."""
        model = self._registry.load(series_id, selector)
        return model.version, model.detector.score(points)
