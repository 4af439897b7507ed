"""Trials: what a detector finds of anomalies that are injected into data that it was not fitted to."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.base import Detector, DetectorParams
from app.injection import ANOMALY_KINDS, AnomalyKind
from app.series import FloatArray, Series

SIZES = (1.0, 2.0, 3.0, 4.0, 6.0)
"""Of injected anomalies, in sigmas, see `app.injection.noise_std`."""

SIZELESS: tuple[AnomalyKind, ...] = ("flatline", "missing_season")
"""Kinds that have no size: they are tried as the first of SIZES."""


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
    raise NotImplementedError


def try_refitted(detector: type[Detector], history: Series, params: DetectorParams, *, rounds: int) -> Trial:
    """The trial, on the last fifth of a history, of a detector that is fitted to what came before."""
    raise NotImplementedError
