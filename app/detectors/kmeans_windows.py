"""Distance to the nearest of a few typical windows, found by k-means."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.windows import WindowDetector, WindowParams, cut_windows, thin
from app.series import FloatArray

_MOST_WINDOWS = 2000
_WINDOWS_A_CENTER = 10
_ROUNDS = 12
_TRIMMED_SHARE = 0.05
_CAPPED_QUANTILE = 0.95
_SMALLEST_SHARE = 0.01


class KMeansWindowsParams(WindowParams):
    """Parameters of `KMeansWindows`."""

    clusters: int = Field(20, ge=1, le=256, description="Typical windows; fewer where there are few windows.")


class KMeansWindows(WindowDetector):
    """An anomaly ends a window that is far from all typical ones: the centres of k-means, found without the worst.

    Windows are compared without their means, of which 0.3 of the squared difference is added, and nothing where the
    level of the series wanders. They are not brought to one amplitude, so it counts.
    Source: T. Yairi, Y. Kato, K. Hori, Fault Detection by Mining Association Rules from House-keeping Data, i-SAIRAS
    2001; Q. Liu, J. Paparrizos, The Elephant in the Room: Towards A Reliable Time-Series Anomaly Detection Benchmark,
    NeurIPS 2024 (KMeansAD); D. Arthur, S. Vassilvitskii, k-means++, SODA 2007 (the first centres);
    J. A. Cuesta-Albertos and others, Trimmed k-means, Annals of Statistics 25, 1997.
    Cost: O(n k w) to fit and O(k w) a point, for k centres of w points; 8 k w bytes of state. Context: 2 (w - 1).
    Finds: beats that are missing, turned over or misshapen in a series that repeats itself, spikes, level shifts,
    changes of amplitude. Misses: small deviations of single points in long windows, and an order of normal windows
    that is not normal.
    """

    __slots__ = ()

    name: ClassVar[str] = "kmeans_windows"
    Params: ClassVar[type[DetectorParams]] = KMeansWindowsParams

    @override
    @staticmethod
    def learn_windows(values: FloatArray, starts: NDArray[np.intp], shared: State, params: WindowParams) -> State:
        assert isinstance(params, KMeansWindowsParams)
        starts = thin(starts, _MOST_WINDOWS)
        windows = cut_windows(values, starts, int(shared["window_points"]), float(shared["level"]))
        k = max(min(params.clusters, len(windows) // _WINDOWS_A_CENTER), 1)
        centers = trimmed_centers(windows, first_centers(windows, k, np.random.default_rng(params.seed)))
        return {"centers": np.ascontiguousarray(centers.T)}

    @override
    @staticmethod
    def distances(learnt: State, past: FloatArray, values: FloatArray) -> FloatArray:
        from app.detectors.kernels_windows import center_distances

        return center_distances(past, values, float(learnt["level"]), learnt["centers"])


def first_centers(windows: FloatArray, k: int, rng: np.random.Generator) -> FloatArray:
    """Of m windows k that are far from one another, by k-means++: shape (k, w).

    The squared distances are capped, so that the farthest windows, which may be anomalies, are not the likeliest.
    """
    from app.detectors.kernels_windows import nearest

    chosen = [int(rng.integers(len(windows)))]
    squares = np.full(len(windows), np.inf)
    for _ in range(k - 1):
        newest = np.ascontiguousarray(windows[chosen[-1:]].T)
        squares = np.minimum(squares, nearest(windows, newest)[1] ** 2)
        capped = np.minimum(squares, np.quantile(squares, _CAPPED_QUANTILE))
        total = np.cumsum(capped)
        if total[-1] <= 0:
            break
        chosen.append(min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(windows) - 1))
    return windows[chosen]


def trimmed_centers(windows: FloatArray, centers: FloatArray) -> FloatArray:
    """The centres after some rounds, each without the farthest windows, but for those of hardly any windows."""
    from app.detectors.kernels_windows import group_sums, nearest

    for is_last in [False] * _ROUNDS + [True]:
        labels, distances = nearest(windows, np.ascontiguousarray(centers.T))
        keep = distances <= np.quantile(distances, 1.0 - _TRIMMED_SHARE)
        sums, sizes = group_sums(windows, np.where(keep, labels, -1.0), len(centers))
        fewest = _SMALLEST_SHARE * len(windows) if is_last else 0.5
        is_used = sizes >= min(fewest, sizes.max())
        centers = sums[is_used] / sizes[is_used, None]
    return centers
