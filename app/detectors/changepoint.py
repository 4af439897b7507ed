"""Change points: whether the last points are, together, unlike all that came before."""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from app.detectors.autoregression import Autoregression, choose_lags, fit, scale_of
from app.detectors.base import KINDS, DetectorParams, State
from app.detectors.calibrated import CalibratedDetector
from app.detectors.judging import Assessment
from app.detectors.recent import assess_all, assess_beginning_too
from app.series import FloatArray, Series

_WIDTHS = (8, 16, 32, 64)
_ORDERS = (0, 1, 2, 3, 5, 8, 13, 25)
_STRETCHES = 100
_MANY = 2000
_FARTHER = 5.0
_OUTLYING = 4.0
_CLEARLY = 1.5
_FLOOR_SHARE, _FLOOR_SHARE_OF_STEPS, _SMALLEST_FLOOR = 1e-4, 0.05, 1e-6
_SHARE_OF_REPEATS = 0.1
_FLAT = 0.01
_NEAR = 16
_SMALLEST = {"mean": 0.05, "variance": 0.5, "one": 1.0}
_LEVEL, _LOUDER, _QUIETER, _ONE = range(4)


class Changepoint(CalibratedDetector):
    """An anomaly ends a stretch whose level or variance is unlike that of all other stretches as long.

    What an autoregression does not expect is looked at: means and logarithms of variances of the last 8, 16, 32 and 64
    points, if the history has a hundred stretches as long, each by how far it is from its usual value, in units of how
    far it hardly ever is; and the last point by itself. The largest of these is the deviation. Of each stretch the
    largest and the smallest are left out, so that a single outlier does not make one. Its anomalies are a level_shift,
    a variance_change, a flatline (a variance of nothing), or a spike or dip.

    Source: E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954; T. L. Lai, Sequential Changepoint Detection
    in Quality Control and Dynamical Systems, JRSS B 57, 1995 (moving windows of several lengths); C. Inclan, G. C.
    Tiao, Use of Cumulative Sums of Squares for Retrospective Detection of Changes of Variance, JASA 89, 1994. Cost:
    O(n) to fit, 100 ms for 10,000 points, 70 microseconds a point, 3 kB of state. Finds: level shifts of one usual
    deviation within some twenty points and as long as they last, changes of variance, flatlines. Misses: shifts of
    series that wander anyway, but for their first point; changes of shape or season.
    """

    __slots__ = ()

    name: ClassVar[str] = "changepoint"
    is_sided: ClassVar[bool] = False
    names_kinds: ClassVar[bool] = True

    @override
    @staticmethod
    def learn(history: Series, params: DetectorParams) -> State:
        values, n = history.values, len(history)
        lags, is_differenced = choose_lags(values, [tuple(range(1, p + 1)) for p in _ORDERS if 8 * p <= n])
        model = fit(values, lags, is_differenced=is_differenced)
        errors = model.errors(values) if n > model.longest else np.zeros(1)
        scale = scale_of(errors)
        errors = errors / scale
        fewest = min(_WIDTHS[0], max(len(errors) // _WIDTHS[0], 1))
        widths = [width for width in _WIDTHS if _STRETCHES * width <= len(errors)] or [fewest]
        usual = _usual(errors, widths)
        return {
            **usual,
            "lags": model.lags,
            "weights": model.weights,
            "intercept": np.array(model.intercept),
            "scale": np.array(scale),
            "widths": np.array(widths, np.float64),
        }

    @override
    @staticmethod
    def points_of_context(learnt: State) -> int:
        longest = int(learnt["lags"][-1]) if len(learnt["lags"]) else 0
        return longest + int(learnt["widths"][-1]) - 1

    @override
    @staticmethod
    def assess(learnt: State, stretch: Series) -> Assessment:
        looked_at = _look(learnt, stretch)
        return Assessment.of_distances(looked_at.values, looked_at.expected, looked_at.distances.max(axis=0))

    @override
    @staticmethod
    def own_kinds(learnt: State, stretch: Series) -> NDArray[np.int8]:
        looked_at = _look(learnt, stretch)
        is_high = looked_at.values > looked_at.expected
        one = np.where(is_high, KINDS.index("spike"), KINDS.index("dip"))
        stretches = looked_at.distances[:_ONE]
        which = np.where(stretches.max(axis=0) > _CLEARLY, stretches.argmax(axis=0), looked_at.distances.argmax(axis=0))
        which = np.where((which == _QUIETER) & (stretches[_LEVEL] > _CLEARLY), _LEVEL, which)
        named = np.full(len(which), KINDS.index("level_shift"), np.int8)
        named[(which == _LOUDER) | (which == _QUIETER)] = KINDS.index("variance_change")
        named[which == _ONE] = one[which == _ONE]
        named[looked_at.is_flat & (stretches[_QUIETER] > 1.0)] = KINDS.index("flatline")
        return named

    @override
    @classmethod
    def assess_left_out(cls, history: Series, params: DetectorParams) -> Assessment:
        return cls.study(history, params)[1]

    @override
    @classmethod
    def study(cls, history: Series, params: DetectorParams) -> tuple[State, Assessment]:
        learnt = cls.learn(history, params)
        if len(history) < _MANY:
            return learnt, super().assess_left_out(history, params)
        # What is learnt owes little to one point; of parts, equal values would not have quite equal deviations.
        return learnt, assess_all(cls, history, learnt)

    @override
    @classmethod
    def assess_in_view(cls, series: Series, params: DetectorParams) -> Assessment:
        return assess_beginning_too(cls.assess_left_out, series, params)

    @override
    @classmethod
    def _mended(cls, standard: Series, assessed: Assessment, set_aside: NDArray[np.bool_]) -> Series:
        """The series with the level of their surroundings, and the noise of other points, in stretches set aside.

        A line, as elsewhere, would be a flatline.
        """
        from scipy.ndimage import median_filter

        values = standard.values.copy()
        errors = np.nan_to_num(values - assessed.expected)
        usual = scale_of(errors[~set_aside])
        near = np.convolve(set_aside, np.ones(2 * _NEAR + 1), "same")[: len(values)] > 0
        aside = set_aside | (near & (np.abs(errors) > _OUTLYING * usual))  # a stretch begins before it is found
        good = np.flatnonzero(~aside)
        line = np.interp(np.arange(len(values)), good, values[good])
        level = median_filter(line, 2 * _NEAR + 1, mode="nearest")
        values[aside] = level[aside] + np.resize((line - level)[good], np.count_nonzero(aside))
        return Series(standard.timestamps_s, values)


class _LookedAt(NamedTuple):
    """Points, what was expected of them, and how unusual the stretches are that they end.

    values, expected, is_flat: shape (n,). distances: shape (4, n), of level, louder, quieter and the point by itself.
    is_flat: whether the shortest stretch has no variance.
    """

    values: FloatArray
    expected: FloatArray
    distances: FloatArray
    is_flat: NDArray[np.bool_]


def _look(learnt: State, stretch: Series) -> _LookedAt:
    from app.detectors.kernels_values import moments

    model = Autoregression(learnt["lags"], learnt["weights"], float(learnt["intercept"]), is_differenced=False)
    errors = model.errors(stretch.values)
    widths = learnt["widths"].astype(np.int64)
    floor = float(learnt["floor"])
    relative = errors / float(learnt["scale"])
    found = moments(relative, widths, float(learnt["limit"]), floor)
    last = int(widths[-1]) - 1
    means, variances = found[:, 0], found[:, 1] - learnt["usual_variance"]
    distances = np.stack(
        (
            (np.abs(means - learnt["usual_mean"]) / learnt["mean_limit"]).max(axis=1),
            (variances / learnt["louder_limit"]).max(axis=1),
            (-variances / learnt["quieter_limit"]).max(axis=1),
            np.abs(relative[last:]) / float(learnt["one_limit"]),
        )
    )
    values = stretch.values[model.longest + last :]
    rows = np.lib.stride_tricks.sliding_window_view(stretch.values, int(widths[0]))[-len(values) :]
    is_flat = np.ptp(rows, axis=1) <= _FLAT * float(learnt["scale"])
    return _LookedAt(values, values - errors[last:], distances, is_flat)


def _usual(errors: FloatArray, widths: list[int]) -> State:
    """What means and variances of stretches usually are, and how far from it they hardly ever are."""
    from app.detectors.kernels_values import moments

    distances = np.abs(errors)
    rarely = _rarely(distances)
    limit = max(_OUTLYING, rarely)
    variance = float(np.square(np.clip(errors, -limit, limit)).mean())
    has_steps = np.mean(np.diff(errors, append=0.0) == 0) > _SHARE_OF_REPEATS  # some stretches are flat by nature
    floor = max((_FLOOR_SHARE_OF_STEPS if has_steps else _FLOOR_SHARE) * variance, _SMALLEST_FLOOR)
    found = moments(errors, np.array(widths, np.int64), limit, floor)
    usual = np.median(found, axis=0)
    off = found - usual
    return {
        "limit": np.array(limit),
        "floor": np.array(floor),
        "usual_mean": usual[0],
        "usual_variance": usual[1],
        "mean_limit": np.maximum(_hardly_ever(np.abs(off[:, 0])), _SMALLEST["mean"]),
        "louder_limit": np.maximum(_hardly_ever(off[:, 1]), _SMALLEST["variance"]),
        "quieter_limit": np.maximum(_hardly_ever(-off[:, 1]), _SMALLEST["variance"]),
        "one_limit": np.array(max(rarely, _SMALLEST["one"])),
    }


def _hardly_ever(off: FloatArray) -> FloatArray:
    """What one in two hundred would exceed if the tail went on as it begins; a tenth may be outliers: each column."""
    beginning, middle, most = np.quantile(off, (0.75, 0.85, 0.9), axis=0)
    limits: FloatArray = np.maximum(beginning + (middle - beginning) * _FARTHER, most)
    return limits


def _rarely(distances: FloatArray) -> float:
    """What one in a thousand would exceed if the tail went on as it begins; two in a hundred may be outliers."""
    beginning, middle, most = np.quantile(distances, (0.9, 0.95, 0.98))
    return float(max(beginning + (middle - beginning) / np.log(2.0) * np.log(100.0), most))
