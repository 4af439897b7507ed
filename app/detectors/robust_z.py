"""Median and median absolute deviation: the baseline that anomalies in its training data do not move."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment
from app.series import Series


class RobustZ(CalibratedDetector):
    """An anomaly lies further from the median than normal points do, in units of the median absolute deviation.

    Source: P. J. Rousseeuw, C. Croux, Alternatives to the Median Absolute Deviation, JASA 88, 1993; B. Iglewicz,
    D. C. Hoaglin, How to Detect and Handle Outliers, 1993 (the modified z-score).
    Cost: O(n log n) to fit, O(1) a point, 1 kB of state. Finds: spikes, dips and level shifts of a series that is
    stationary; what it expects is not moved by anomalies in its training data. Misses: everything that stays within the
    overall range, such as a wrong season or a flatline; and many small anomalies in its training data widen its band.
    """

    __slots__ = ()

    name: ClassVar[str] = "robust_z"
    is_quick_to_judge: ClassVar[bool] = True

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        return {"median": np.array(np.median(history.values))}

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return 0

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        n = len(stretch)
        return Assessment(np.full(n, float(learnt["median"])), np.ones(n))

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        """Each point by the median of all others: a part of a series that wanders would have one of its own."""
        n, values = len(history), history.values
        if n == 1:
            return Assessment.unknown(1)
        places = [n // 2 - 1, n // 2, min(n // 2 + 1, n - 1)]
        low, middle, high = np.partition(values, places)[places].tolist()
        # Without a value below the middle, without the middle, and without a value above it.
        medians = [(middle + high) / 2, (low + high) / 2, (low + middle) / 2] if n % 2 else [middle, low, low]
        return Assessment(np.array(medians)[1 + np.sign(values - middle).astype(np.intp)], np.ones(n))
