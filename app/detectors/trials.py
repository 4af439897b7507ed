"""Trials: what a detector finds of anomalies that are injected into data that it was not fitted to."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import Detector, DetectorParams
from app.detectors.periods import find_period_points
from app.injection import ANOMALY_KINDS, AnomalyKind, plant
from app.series import FloatArray, Series

SIZES = (1.0, 2.0, 3.0, 4.0, 6.0)
"""Of injected anomalies, in sigmas, see `app.injection.noise_std`."""

SIZELESS: tuple[AnomalyKind, ...] = ("flatline", "missing_season")
"""Kinds that have no size: they are tried as the first of SIZES."""


_GROUPS: tuple[tuple[AnomalyKind, ...], ...] = (
    ("spike", "level_shift", "flatline", "shape"),
    ("dip", "drift", "variance_change", "missing_season"),
)
"""Kinds that are injected together: few at a time, so that each has room for its length."""

_MOST_POINTS = 2000


class Trial(NamedTuple):
    """found, tried: shape (kinds, sizes), anomalies by ANOMALY_KINDS and SIZES. flagged, points: without any."""

    found: NDArray[np.int64]
    tried: NDArray[np.int64]
    flagged: int
    points: int

    @property
    def recall(self) -> FloatArray:
        """Share of the anomalies that were found: shape (kinds, sizes), NaN where none was tried."""
        with np.errstate(invalid="ignore"):
            shares: FloatArray = self.found / self.tried
        return shares


def try_out(detector: Detector, before: Series, held_out: Series, *, rounds: int, seed: int = 0) -> Trial:
    """A trial of a detector on data that it was not fitted to.

    before: what came before `held_out`, `context_points` or more where there are as many. rounds: anomalies of each
    kind and size, where there is room for as many. An anomaly is found when one of its points is flagged that is not
    flagged without it.
    """
    period_points = find_period_points(before) or None
    groups = [[kind for kind in group if _is_possible(kind, held_out, period_points)] for group in _GROUPS]
    is_flagged = detector.score(held_out, before).is_anomaly
    found, tried = np.zeros((2, len(ANOMALY_KINDS), len(SIZES)), np.int64)
    for column, size in enumerate(SIZES):
        for group in groups:
            kinds = [kind for kind in group if column == 0 or kind not in SIZELESS]
            for _ in range(rounds):
                seed += 1
                planted = plant(held_out, kinds, size, seed=seed, count=len(kinds), period_points=period_points)
                is_found = detector.score(planted.series, before).is_anomaly & ~is_flagged
                for kind, (start, end) in zip(kinds, _stretches(planted.is_anomaly), strict=False):
                    row = ANOMALY_KINDS.index(kind)
                    tried[row, column] += 1
                    found[row, column] += is_found[start:end].any()
    return Trial(found, tried, int(np.count_nonzero(is_flagged)), len(held_out))


def try_refitted(detector: type[Detector], history: Series, params: DetectorParams, *, rounds: int) -> Trial:
    """The trial, on the last fifth of a history, of a detector that is fitted to what came before."""
    held_out = history.last(min(len(history) // 5, _MOST_POINTS))
    before = history.first(len(history) - len(held_out))
    return try_out(detector.fit(before, params), before, held_out, rounds=rounds)


def _is_possible(kind: AnomalyKind, series: Series, period_points: int | None) -> bool:
    """Whether a series has what such an anomaly takes away."""
    return kind != "missing_season" or (period_points is not None and len(series) >= 2 * period_points)


def _stretches(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The first point of each run of chosen points, and the first after it."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
