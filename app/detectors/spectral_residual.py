"""The spectral residual: what catches the eye in a series, by its spectrum."""

from functools import cache
from typing import ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.periods import find_period_points
from app.detectors.windows import choose_level, expect, expect_in_view, learn_expected
from app.series import FloatArray, Series

_EXTENSION = 5
_SIZES = (64, 256)
_SMALLEST_SIZE = 8
_IN_VIEW = 4
_CYCLES = 3
_EXPECTED_POINTS = 16


class SpectralResidualParams(CalibratedParams):
    """Parameters of `SpectralResidual`."""

    window_points: int | None = Field(
        None,
        ge=_SMALLEST_SIZE,
        le=4096,
        description="Points whose spectrum is looked at, the newest and 5 estimated ones among them, taken up to a "
        "power of two; by default three periods of the series, from 64 to 256.",
    )


class SpectralResidual(CalibratedDetector):
    """An anomaly is salient: a window's spectrum, less what is smooth in its log-amplitudes, has it stick out in time.

    Saliency knows no scale, and finds something in the calmest window. So the distance is the geometric mean of the
    newest point's saliency, in units of the window's mean, and of how far the value is from what was expected, by a
    linear regression on the points before it.
    Source: H. Ren and others, Time-Series Anomaly Detection Service at Microsoft, KDD 2019; X. Hou, L. Zhang, Saliency
    Detection: A Spectral Residual Approach, CVPR 2007.
    Cost: O(w log w) a point, for w of 64 to 256 points; O(n w log w) to fit; below 1 kB of state and the context of w
    points. Finds: spikes, dips, and the first points of level shifts and of misshapen beats, also beside a season and
    a trend. Misses: what comes slowly, what lasts, calm stretches.
    """

    __slots__ = ()

    name: ClassVar[str] = "spectral_residual"
    Params: ClassVar[type[DetectorParams]] = SpectralResidualParams
    is_sided: ClassVar[bool] = False

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        assert isinstance(params, SpectralResidualParams)
        size = _choose_size(history, params.window_points)
        points = max(min(_EXPECTED_POINTS, size - _EXTENSION, len(history) // 8), 1)
        level = choose_level(history.values, points)
        return {"size": np.array(float(size)), **learn_expected(history.values, points, level)}

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        return int(learnt["size"]) - _EXTENSION - 1

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        from app.detectors.kernels_spectrum import newest_saliencies

        size = int(learnt["size"])
        saliencies = newest_saliencies(stretch.values, size, _EXTENSION, *_turns(size))
        values, expected = (part[-len(saliencies) :] for part in (stretch.values, expect(stretch.values, learnt)))
        return _assessment(values, expected, saliencies)

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        """Nothing of the saliency is learnt, and of what is expected a few numbers: each point by all that is."""
        learnt = cls.learn(history, params)
        before = min(cls.points_of_context(learnt), len(history))
        nothing = Assessment.unknown(before)
        if before == len(history):
            return nothing
        assessed = cls.assess(learnt, history)
        return Assessment(*(np.concatenate(pair) for pair in zip(nothing, assessed, strict=True)))

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        learnt = cls.learn(series, params)
        expected = expect_in_view(series.values, learnt)
        size = min(_IN_VIEW * int(learnt["size"]), 1 << (len(series).bit_length() - 1))
        if size < _SMALLEST_SIZE:
            return _assessment(series.values, expected, np.ones(len(series)))
        from app.detectors.kernels_spectrum import saliencies_in_view

        return _assessment(series.values, expected, saliencies_in_view(series.values, size, *_turns(size)))


def _choose_size(history: Series, asked: int | None) -> int:
    """How many points are transformed at once, a power of two, with the estimated ones; at most a quarter of all."""
    most = max(len(history) // 4, _SMALLEST_SIZE)
    if asked is None:
        period = find_period_points(history) or 1 if most > _SIZES[0] else 1
        asked = min(max(_CYCLES * period, _SIZES[0]), _SIZES[1])
    size = 1 << (asked - 1).bit_length()
    return min(size, 1 << (most.bit_length() - 1))


@cache
def _turns(size: int) -> tuple[FloatArray, FloatArray]:
    """Cosines and sines of the angles that are a multiple of a turn by `size`, half a turn of them."""
    angles = 2.0 * np.pi * np.arange(max(size // 2, 1)) / size
    return np.cos(angles), np.sin(angles)


def _assessment(values: FloatArray, expected: FloatArray, saliencies: FloatArray) -> Assessment:
    """What is expected, and so far off as the saliency and the deviation are together."""
    return Assessment.of_distances(values, expected, np.sqrt(saliencies * np.abs(values - expected)))
