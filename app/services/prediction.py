"""Predicting: verdicts on points, by whichever version is meant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.alarms import AlarmBudget
from app.detectors.base import Verdict, Verdicts
from app.errors import Fault, InvalidInput, TidemarkError
from app.registry import ModelRegistry
from app.series import Series, is_time, parse_series_id
from app.series_batch import SeriesBatch
from app.versions import LoadedModel, Selector

_OK = 200


def _allow(_: str) -> None:
    """Every series."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchVerdicts:
    """What the models of many series say of n points.

    status, version: shape (n,); as an HTTP status, and 0 where it is not 200. Verdicts are meaningless there.
    """

    status: NDArray[np.int16]
    version: NDArray[np.int32]
    verdicts: Verdicts

    @classmethod
    def nothing(cls, n: int, status: int = InvalidInput.status) -> Self:
        """Of n points that are not judged so far."""
        return cls(np.full(n, status, np.int16), np.zeros(n, np.int32), Verdicts.unknown(n))

    def put(self, points: slice | NDArray[np.intp], version: int, verdicts: Verdicts) -> None:
        """Set what is said of these points."""
        self.status[points] = _OK
        self.version[points] = version
        for field in fields(Verdicts):
            getattr(self.verdicts, field.name)[points] = getattr(verdicts, field.name)

    def take(self, indices: NDArray[np.intp]) -> "BatchVerdicts":
        """The verdicts at these indices."""
        return BatchVerdicts(self.status[indices], self.version[indices], self.verdicts.take(indices))


class PredictionService:
    """Judges points with a version of their series' model.

    `predict` and `predict_one` raise SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted,
    ArtifactDamaged, and DatabaseUnavailable or ArtifactStoreUnavailable when the model is not in memory.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def predict_one(self, series_id: str, selector: Selector, timestamp_s: float, value: float) -> tuple[int, Verdict]:
        """The version that judged, and its verdict on one point."""
        model = self._registry.load(series_id, selector)
        return model.version, model.detector.score_one(timestamp_s, value)

    def predict(self, series_id: str, selector: Selector, points: Series) -> tuple[int, Verdicts]:
        """The version that judged, and its verdicts on many points, index-aligned."""
        model = self._registry.load(series_id, selector)
        return model.version, model.detector.score(points)

    def predict_batch(
        self,
        batch: SeriesBatch,
        selector: Selector,
        budget: AlarmBudget | None = None,
        lookahead_points: int = 0,
        *,
        check_series: Callable[[str], None] = _allow,
    ) -> BatchVerdicts:
        """Verdicts on the points of many series, aligned with the points of the batch; raises nothing for any of them.

        A point that is no point is 422, and so is every one of a series whose name is none or to which the budget
        means nothing. A series for which `check_series` raises has the status of that error.
        """
        judged = BatchVerdicts.nothing(len(batch.values))
        is_point = is_time(batch.timestamps_s) & np.isfinite(batch.values)
        bounds = batch.offsets.tolist()
        for model, start, end in zip(
            self._models(batch.series_ids, selector, check_series), bounds, bounds[1:], strict=False
        ):
            try:
                if isinstance(model, TidemarkError):
                    raise model
                rate = None if budget is None else budget.rate_for(model.detector)
                points = start + np.flatnonzero(is_point[start:end])
                chosen = slice(start, end) if len(points) == end - start else points
                series = Series(batch.timestamps_s[chosen], batch.values[chosen])
                verdicts = model.detector.score(series, None, rate, lookahead_points)
                judged.put(chosen, model.version, verdicts)
            except TidemarkError as error:
                judged.status[start:end][is_point[start:end]] = error.status
        return judged

    def _models(
        self, series_ids: Sequence[str], selector: Selector, check_series: Callable[[str], None]
    ) -> list[LoadedModel | TidemarkError]:
        names = [_parse_name(series_id, check_series) for series_id in series_ids]
        loaded = iter(self._registry.load_many([(name, selector) for name in names if isinstance(name, str)]))
        return [next(loaded) if isinstance(name, str) else name for name in names]


def _parse_name(raw: str, check_series: Callable[[str], None]) -> str | TidemarkError:
    faults: list[Fault] = []
    name = parse_series_id(raw, faults, "body")
    try:
        check_series(name)
    except TidemarkError as error:
        return error
    return InvalidInput(faults) if faults else name
