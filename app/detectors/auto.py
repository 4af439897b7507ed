"""The choice among the detectors, made by the series itself."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from app.detectors.base import Detector, DetectorParams, Fitted, Verdicts
from app.detectors.calibrated import CalibratedDetector
from app.detectors.choosing import A_HANDFUL, choose
from app.detectors.in_view import LEVEL, POINTS, SHAPE, Member, member_scores, standing_out
from app.detectors.judging import Assessment, CalibratedParams
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.detectors.robust_z import RobustZ
from app.series import FloatArray, Series

_BUDGET_S = 4.0
_MOST_LEARNT_FROM = 100_000
_FEWEST_POINTS = 256

_SHORT = (Member(8, LEVEL, 5), Member(16, LEVEL, 5))
_MIDDLE = tuple(Member(length, metric, 5) for length in (32, 64) for metric in (LEVEL, SHAPE))
_LONG = tuple(Member(length, metric, 5) for length in (128, 256) for metric in (LEVEL, SHAPE))
_WIDE = (Member(512, LEVEL, 5), Member(512, SHAPE, 5))
_POINTWISE = tuple(Member(length, POINTS, 5) for length in (128, 256, 512))
_DISCORD = tuple(Member(length, SHAPE, 1) for length in (32, 64, 128))

_SLOW = (_SHORT, _POINTWISE, _MIDDLE)
"""For a period of more than 512 points, which anomalies are short against."""
_OTHER = (_DISCORD, _MIDDLE, _LONG, _WIDE)
"""For beats and shapes that return sooner, or for no clear period."""

_SLOWER_THAN = 512
_CLEAR = 0.3
_TRUST = 0.3
_FEWEST_WINDOWS = 16
_HIGHEST = 0.95
_FAINTEST = 0.1
_NEGLIGIBLE = 1e-9


class Auto(CalibratedDetector):
    """The detector that suits a series. It is none itself: a fit makes one of the others.

    With fewer than 20 points, `mean_std`, with fewer than 100, `robust_z`. Else those that suit the history are fitted
    to the first four fifths of it and tried on anomalies injected into the rest: `subsequence_knn` is taken, or what
    finds clearly more, within a budget of seconds. With all points in view, the distances of windows of several
    lengths, chosen by whether the series has a slow period or not, and weighted by how far each agrees with all of
    them together and how clearly its first event stands out.

    Source: the weights, in the manner of Y. Zhao and others, LSCP, SDM 2019 (agreement with a pseudo ground truth).
    Cost: at most about 4 s to fit, `FIT_BUDGET_S`, to the last 100,000 points; then that of what it chose. Finds: what
    that finds. Misses: what that misses.
    """

    __slots__ = ()

    name: ClassVar[str] = "auto"
    is_sided: ClassVar[bool] = False
    widened_points: ClassVar[int] = 13

    @override
    @classmethod
    def fit(cls, history: Series, params: DetectorParams) -> Detector:  # type: ignore[override]
        return cls.fit_within(history, params, _BUDGET_S).detector

    @override
    @classmethod
    def fit_within(cls, history: Series, params: DetectorParams, budget_s: float) -> Fitted:
        return choose(history.last(_MOST_LEARNT_FROM), params.model_dump(), budget_s)

    @override
    @classmethod
    def detect(cls, series: Series, params: DetectorParams) -> Verdicts:
        shared = params.model_dump()
        if len(series) < A_HANDFUL:
            return MeanStd.detect(series, MeanStdParams(**shared))
        if len(series) < _FEWEST_POINTS:
            return RobustZ.detect(series, CalibratedParams(**shared))
        return super().detect(series, params)

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        from app.detectors.kernels_joins import on_grid

        groups = _choose(series.values)
        fitting = [[m for m in group if m.length * _FEWEST_WINDOWS <= len(series)] for group in groups]
        if len(fitting[-1]) < len(groups[-1]):  # too short a series for the longest windows
            fitting = [list(_SHORT), *fitting]
        fitting = [group for group in fitting if group]
        members = [member for group in fitting for member in group]
        shares = np.array([1.0 / len(group) for group in fitting for _ in group])
        scores, expected = member_scores(on_grid(_by_deviation(series.values)), members)
        loud = np.square(standing_out(scores))
        weights = shares * np.exp(_TRUST * _trust(scores, shares @ loud))
        return Assessment.of_distances(series.values, expected, np.sqrt(weights @ loud))


def _choose(values: FloatArray) -> tuple[tuple[Member, ...], ...]:
    period, clear = find_long_period(values)
    return _SLOW if clear > _CLEAR and period > _SLOWER_THAN else _OTHER


def find_long_period(values: FloatArray) -> tuple[int, float]:
    """The first lag whose autocorrelation is nearly the highest after it has crossed 0, and that; 0 for none.

    Up to a third of the series.
    """
    n = len(values)
    deviation = float(values.std())
    clipped = np.clip(values, np.median(values) - 5 * deviation, np.median(values) + 5 * deviation)
    spectrum = np.fft.rfft(clipped - clipped.mean(), 1 << (2 * n - 1).bit_length())
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:n]
    if correlation[0] <= 0:
        return 0, 0.0
    correlation = (correlation / correlation[0] * n / (n - np.arange(n)))[: n // 3]
    below = np.flatnonzero(correlation < 0)
    peaks = np.flatnonzero((correlation[1:-1] >= correlation[:-2]) & (correlation[1:-1] > correlation[2:])) + 1
    peaks = peaks[peaks >= max(4, int(below[0]) if len(below) else 4)]
    if not len(peaks) or correlation[peaks].max() < _FAINTEST:
        return 0, 0.0
    first = int(peaks[correlation[peaks] >= _HIGHEST * correlation[peaks].max()][0])
    return first, float(correlation[first])


def _trust(scores: FloatArray, consensus: FloatArray) -> FloatArray:
    """What tells a good member without labels: shape (members,), each part standardised over the members and added.

    Its agreement with the consensus, on all points and where that is highest, and how far its largest event stands out
    of the usual ones.
    """
    n = len(consensus)
    centred = _standardised(scores)
    agreed = _standardised(consensus[None])[0]
    top = np.argsort(-consensus, kind="stable")[: max(10, n // 50)]
    peaks = np.maximum.reduceat(centred, np.arange(0, n, max(50, n // 100)), axis=1)
    middle = np.median(centred, axis=1)
    gap = (peaks.max(axis=1) - middle) / (np.median(peaks, axis=1) - middle + _NEGLIGIBLE)
    parts = np.stack([centred @ agreed / n, centred[:, top].mean(axis=1), np.log(gap + _NEGLIGIBLE)])
    trust: FloatArray = _standardised(np.nan_to_num(parts)).sum(axis=0)
    return trust


def _standardised(rows: FloatArray) -> FloatArray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    standard: FloatArray = centred / np.where(deviation > 0, deviation, 1.0)
    return standard


def _by_deviation(values: FloatArray) -> FloatArray:
    """Values that are in units of a robust spread, in units of the standard deviation."""
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 0 else values * 0.0
