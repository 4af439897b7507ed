"""Detectors that expect a value by the points before it: the first points of a series are judged by those after."""

from collections.abc import Callable

import numpy as np

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment
from app.series import Series


def assess_all(kind: type[CalibratedDetector], series: Series, learnt: State) -> Assessment:
    """What is expected of each point of a series by those before it; of the first ones nothing, index-aligned."""
    n = len(series)
    result = Assessment.unknown(n)
    context = kind.points_of_context(learnt)
    if context < n:
        assessed = kind.assess(learnt, series)
        result.expected[context:], result.scale[context:] = assessed.expected, assessed.scale
    return result


def assess_beginning_too(
    assess: Callable[[Series, DetectorParams], Assessment], series: Series, params: DetectorParams
) -> Assessment:
    """The same as `assess` says, and of points that it expects nothing of, what it expects backwards in time."""
    result = assess(series, params)
    unknown = np.isnan(result.expected)
    if not unknown.any():
        return result
    times = series.timestamps_s
    backwards = Series((times[0] + times[-1] - times)[::-1].copy(), series.values[::-1].copy())
    other = assess(backwards, params)
    return Assessment(
        np.where(unknown, other.expected[::-1], result.expected), np.where(unknown, other.scale[::-1], result.scale)
    )
