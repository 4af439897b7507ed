"""Periods: after how long a series repeats itself, found in the series alone.

Candidates are the peaks of the periodogram and of the autocorrelation, and the periods of clocks and calendars. Each
is put to the same test: folded at the right period, all stretches of the series agree on the harmonics.

Sources: M. Vlachos, P. Yu, V. Castelli, On Periodicity Detection and Structural Periodic Similarity, SDM 2005
(candidates of the periodogram, checked elsewhere); D. J. Thomson, Spectrum Estimation and Harmonic Analysis,
Proceedings of the IEEE 70, 1982 (the F test of a harmonic); R. A. Fisher, Statistical Methods for Research Workers,
1925 (the sum of logarithms of p-values).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.detectors.units import Unit
from app.series import FloatArray, Series

CALENDAR_S = (60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 21_600.0, 28_800.0, 43_200.0, 86_400.0, 604_800.0)
"""Seconds after which what people and their machines do tends to come round."""

DAY_S, WEEK_S = 86_400.0, 604_800.0

_FEWEST_CYCLES = 3
_SHORTEST_POINTS = 3.0
_MOST_POINTS = 1 << 17
_FEWEST_POINTS = 12
_HARMONICS = 4
_MOST_BLOCKS = 32
_FINE_POINTS = 16
"""A longer period is looked at in steps of 1/16 to 1/32 of it."""
_FALSE_FINDS = 0.005
_HOPELESS = -2.0
_LEAST_EXPLAINED = 0.1
_AS_GOOD = 0.6
"""A shorter period that explains this share of what the best one does is the period."""
_AS_GOOD_DAY = 0.35
_AS_GOOD_SNAPPED = 0.97
_PADDING = 2
_NEGLIGIBLE = 1e-12
_MOST_GAPS = 4


ComplexArray = NDArray[np.complex128]


class _Fold(NamedTuple):
    """What a series looks like, folded at a period."""

    period: float
    log_p_value: float
    explained: float
    """Variance of the mean profile."""
    share: float
    """The same as a share of the variance that is left when the trend is taken away."""


def find_period(series: Series) -> float | None:
    """The period of a series in seconds, None if it has none; for increasing timestamps, with gaps or without.

    Finds: every shape that comes back three times or more, the better the more often; of a daily and a weekly season
    the daily one. Noise, trends and random walks have a period in one case of a hundred.
    Misses: periods of less than 3 points, and seasons that wander off. Cost: O(n log n), 4 ms for 10,000 points.
    """
    grid = _Grid.of(series)
    if grid is None:
        return None
    longest = len(grid.values) / _FEWEST_CYCLES
    agreed = [grid.agreed(period) for period in grid.candidates(longest)]
    folds = [grid.fold(period) for period in agreed if period is not None]
    calendar = [seconds / grid.interval_s for seconds in CALENDAR_S]
    folds += [grid.fold(period) for period in calendar if _SHORTEST_POINTS <= period <= longest]
    found = [fold for fold in folds if grid.is_significant(fold)]
    if not found:
        return None
    return _rounded(_choose(found, grid.interval_s), grid).period * grid.interval_s


def find_period_points(series: Series) -> int | None:
    """The period of a series in points, rounded; None if it has none. For points at regular intervals."""
    period_s = find_period(series)
    return None if period_s is None else round(period_s / float(np.median(np.diff(series.timestamps_s))))


def _choose(found: list[_Fold], interval_s: float) -> _Fold:
    """The shortest period of those that explain nearly as much as the best."""
    best = max(found, key=lambda fold: fold.explained)
    if math.isclose(best.period * interval_s, WEEK_S, rel_tol=0.02):
        days = [fold for fold in found if math.isclose(fold.period * interval_s, DAY_S, rel_tol=0.005)]
        if days and days[0].explained > _AS_GOOD_DAY * best.explained:
            return max(days, key=lambda fold: fold.explained)
    as_good = [fold for fold in found if fold.explained >= _AS_GOOD * best.explained]
    shortest = min(fold.period for fold in as_good)
    return max((fold for fold in as_good if fold.period < 1.05 * shortest), key=lambda fold: fold.explained)


def _rounded(best: _Fold, grid: "_Grid") -> _Fold:
    """The same at the nearest period of the calendar, or the nearest whole number of points, if that fits as well."""
    near = [s / grid.interval_s for s in CALENDAR_S if math.isclose(s / grid.interval_s, best.period, rel_tol=0.05)]
    for period in (*near, float(round(best.period))):
        if period < _SHORTEST_POINTS:
            continue
        fold = grid.fold(period)
        if fold.explained >= _AS_GOOD_SNAPPED * best.explained:
            return fold
    return best


class _Grid:
    """A series at regular intervals: the mean of what falls on each, and 0 with a weight of 0 where nothing does.

    values: robustly scaled about 0, outliers clipped. levels: the same, every two, four, ... neighbours as one.
    """

    def __init__(self, values: FloatArray, weights: FloatArray, interval_s: float) -> None:
        self.values, self.interval_s = values, interval_s
        self.levels = [(values, weights)]
        self._residuals: dict[tuple[int, int], FloatArray] = {}
        while len(self.levels[-1][0]) >= 8 * _FINE_POINTS:
            self.levels.append(_halved(*self.levels[-1]))

    @classmethod
    def of(cls, series: Series) -> "_Grid | None":
        """None where there are too few points, or they tell nothing."""
        times, values = series.timestamps_s[-_MOST_POINTS:], series.values[-_MOST_POINTS:]
        if len(values) < _FEWEST_POINTS or np.ptp(values) == 0:
            return None
        span = float(times[-1] - times[0])
        interval_s = max(float(np.median(np.diff(times))), span / (_MOST_GAPS * len(values)))
        if interval_s <= 0:
            return None
        index = np.rint((times - times[0]) / interval_s).astype(np.intp)
        counts = np.bincount(index).astype(np.float64)
        clipped = _clipped(Unit.of(values).standard(values))
        sums = np.bincount(index, weights=clipped)
        return cls(sums / np.maximum(counts, 1.0), np.minimum(counts, 1.0), interval_s)

    def candidates(self, longest: float) -> list[float]:
        """Periods, in points, that the periodogram or the autocorrelation suggest: some ten."""
        values, weights = self.levels[0]
        n = len(values)
        detrended = _without_line(values, weights)
        size = _fast_size(_PADDING * n)
        power = np.square(np.abs(np.fft.rfft(detrended, size)))
        first = max(int(size / longest * 0.9), 1)
        bins = np.arange(first, int(size / _SHORTEST_POINTS) + 1)
        found: list[float] = []
        for exponent in (0.0, 1.0, 2.0):
            found += (size / peak for peak in _peaks(power, bins, exponent))
        found += [multiple * period for period in found[:2] + found[3:5] for multiple in (2.0, 3.0)]
        found += _peaks_of_autocorrelation(power, weights, size, int(longest))
        return _distinct([period for period in found if _SHORTEST_POINTS <= period <= longest], n)

    def fold(self, period: float) -> _Fold:
        """What the series looks like, folded at a period in points."""
        from app.detectors.kernels_spectrum import explained_share, log_p_value

        residuals, weights, fine = self._detrended(period)
        variance = float(np.square(residuals).sum() / weights.sum())
        if not variance > _NEGLIGIBLE:
            return _Fold(period, 0.0, 0.0, 0.0)
        coefficients, _ = _coefficients(residuals, weights, fine)
        logarithm = log_p_value(coefficients)
        if logarithm > _HOPELESS:
            return _Fold(period, logarithm, 0.0, 0.0)
        share = explained_share(residuals, weights, fine)
        return _Fold(period, logarithm, share * variance, share)

    def is_significant(self, fold: _Fold) -> bool:
        """Whether chance would hardly make the stretches agree so well."""
        cycles = len(self.values) / fold.period
        return fold.share > _LEAST_EXPLAINED and fold.log_p_value < math.log(_FALSE_FINDS / cycles**2)

    def agreed(self, period: float) -> float | None:
        """The period near this one, in points, at which all stretches are in phase; None if they hardly can be."""
        from app.detectors.kernels_spectrum import log_p_value

        residuals, weights, fine = self._detrended(period)
        coefficients, block = _coefficients(residuals, weights, fine)
        if log_p_value(coefficients) > _HOPELESS:
            return None
        lag = max(coefficients.shape[1] // 2, 1)
        products = (coefficients[:, lag:] * coefficients[:, :-lag].conj()).sum(axis=1)
        harmonic = int(np.abs(products).argmax())
        drift = float(np.angle(products[harmonic])) / (2.0 * math.pi * lag * block * (harmonic + 1))
        better = period / (1.0 + drift * fine)
        within = period / max(len(self.values) / period, 1.0)
        return better if abs(better - period) < 0.5 * within else period

    def _detrended(self, period: float) -> tuple[FloatArray, FloatArray, float]:
        """Values without the mean of the period around each, their weights, and the period, all in coarser steps."""
        from app.detectors.kernels_spectrum import detrended

        level = min(max(int(math.log2(period / _FINE_POINTS)), 0), len(self.levels) - 1)
        values, weights = self.levels[level]
        fine = period / 2**level
        window = 2 * int(fine / 2) + 1
        if (level, window) not in self._residuals:
            self._residuals[level, window] = detrended(values, weights, window)
        return self._residuals[level, window], weights, fine


def _fast_size(least: int) -> int:
    """A power of 2, or 5/4 or 3/2 of one: for these the Fourier transform is quick."""
    power = 1 << (least - 1).bit_length()
    return next(size for size in (power * 5 // 8, power * 3 // 4, power) if size >= least)


def _halved(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    n = len(values) // 2 * 2
    total = weights[0:n:2] + weights[1:n:2]
    sums = values[0:n:2] * weights[0:n:2] + values[1:n:2] * weights[1:n:2]
    return sums / np.maximum(total, 1e-9), total / 2.0


def _clipped(standard: FloatArray) -> FloatArray:
    """Values about 0, outliers clipped: beyond both 6 spreads and 98 % of the others."""
    limit = max(6.0, float(np.quantile(np.abs(standard), 0.98)))
    return np.clip(standard, -limit, limit)


def _without_line(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Values without the line that fits them best; 0 where there are none."""
    times = np.arange(len(values)) - float((np.arange(len(values)) * weights).sum() / weights.sum())
    centered = values - float((values * weights).sum() / weights.sum())
    slope = float((times * centered * weights).sum() / max(float((times * times * weights).sum()), 1e-9))
    residuals: FloatArray = (centered - slope * times) * weights
    return residuals


def _peaks(power: FloatArray, bins: NDArray[np.intp], exponent: float) -> list[float]:
    """The frequencies of the three highest peaks, as if the noise fell with this power of the frequency."""
    inner = bins[(bins > 0) & (bins < len(power) - 1)]
    weighted = power[inner] * inner**exponent
    is_peak = (power[inner] >= power[inner - 1]) & (power[inner] > power[inner + 1])
    weighted = np.where(is_peak, weighted, 0.0)
    found: list[float] = []
    for _ in range(3):
        if not len(weighted) or weighted.max() <= 0:
            break
        best = int(weighted.argmax())
        left, middle, right = power[inner[best] - 1 : inner[best] + 2].tolist()
        bend = left - 2.0 * middle + right
        found.append(float(inner[best]) + (0.5 * (left - right) / bend if bend else 0.0))
        weighted[max(best - 2 * _PADDING, 0) : best + 2 * _PADDING + 1] = 0.0
    return found


def _peaks_of_autocorrelation(power: FloatArray, weights: FloatArray, size: int, longest: int) -> list[float]:
    """The highest peak of the autocorrelation, and the first that is nearly as high."""
    pairs = np.fft.irfft(np.square(np.abs(np.fft.rfft(weights, size))), size)[: longest + 2]
    correlation = np.fft.irfft(power, size)[: longest + 2] / np.maximum(pairs, 1.0)
    lags = np.arange(3, len(correlation) - 1)
    if not len(lags):
        return []
    middle = correlation[lags]
    peaks = lags[(middle >= correlation[lags - 1]) & (middle > correlation[lags + 1]) & (middle > 0)]
    if not len(peaks):
        return []
    heights = correlation[peaks]
    return [float(peaks[heights.argmax()]), float(peaks[np.argmax(heights > 0.9 * heights.max())])]


def _distinct(periods: list[float], n: int) -> list[float]:
    """Periods that differ by more than n points can tell."""
    kept: list[float] = []
    for period in sorted(periods):
        if not kept or 1.0 / kept[-1] - 1.0 / period > 0.25 / n:
            kept.append(period)
    return kept


def _coefficients(residuals: FloatArray, weights: FloatArray, period: float) -> tuple[ComplexArray, float]:
    """The Fourier coefficients of up to 32 stretches of whole periods: shape (harmonics, stretches); their length."""
    from app.detectors.kernels_spectrum import harmonics_of

    n = len(residuals)
    cycles = max(int(n / period), 1)
    blocks = min(cycles, _MOST_BLOCKS)
    edges = np.minimum(np.ceil(np.arange(blocks + 1) * cycles // blocks * period).astype(np.int64), n)
    end = int(edges[-1])
    harmonics = min(_HARMONICS, max(int(period / 2), 1))
    return harmonics_of(residuals, weights, period, edges, harmonics), end / blocks
