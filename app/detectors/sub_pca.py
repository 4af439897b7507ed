"""Principal components of windows: how far a window is from what the others have in common."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from app.detectors.base import State
from app.detectors.windows import WindowDetector, WindowParams, cut_windows, thin
from app.series import FloatArray

_MOST_WINDOWS = 5000
_MOST_COMPONENTS = 16
_EXPLAINED = 0.9
_TRIMMED_SHARE = 0.05
_TRIMMINGS = 2
_FLOOR_SHARE = 1e-3
_FLOOR = 1e-9


class SubPca(WindowDetector):
    """An anomaly ends a window that the principal components of the others do not explain.

    The distance is that of Mahalanobis, squared: squared parts along the leading components, up to 16 that explain
    nine tenths, and the squared rest, each by its variance. The components are refitted without the worst windows. Of
    the windows' means a share counts, and nothing where the level of the series wanders.
    Source: C. C. Aggarwal, Outlier Analysis, 2nd edition, 2017, 3.3 (soft PCA); P. J. Rousseeuw, K. Van Driessen, A
    Fast Algorithm for the Minimum Covariance Determinant Estimator, Technometrics 41, 1999 (the refits).
    Cost: O(n w^2 + w^3) to fit and O(q w) a point, for q components of w points; 8 q w bytes of state. Context: 2 w - 2
    points. Finds: deviations from a smooth or repeated course that are small beside its swing, spikes, misshapen and
    turned beats. Misses: beats that are missing, but for their edges, as nothing is the middle of its ellipsoid; series
    that do very different things in turn, as it knows one ellipsoid only.
    """

    __slots__ = ()

    name: ClassVar[str] = "sub_pca"

    @override
    @staticmethod
    def learn_windows(values: FloatArray, starts: NDArray[np.intp], shared: State, params: WindowParams) -> State:
        starts = thin(starts, _MOST_WINDOWS)
        windows = cut_windows(values, starts, int(shared["window_points"]), float(shared["level"]))
        learnt = _components(windows)
        for _ in range(_TRIMMINGS):
            distances = _distances(windows, learnt)
            learnt = _components(windows[distances <= np.quantile(distances, 1.0 - _TRIMMED_SHARE)])
        return learnt

    @override
    @staticmethod
    def distances(learnt: State, past: FloatArray, values: FloatArray) -> FloatArray:
        from app.detectors.kernels_windows import component_distances

        known = learnt["center"], learnt["components"], learnt["weights"]
        return component_distances(past, values, float(learnt["level"]), *known)


def _components(windows: FloatArray) -> State:
    """Centre, leading components (w, q) and the weights of their squares and of the squared rest, of m windows."""
    center = windows.mean(axis=0)
    off = windows - center
    variances, vectors = np.linalg.eigh(off.T @ off / len(windows))
    variances, vectors = np.maximum(variances[::-1], 0.0), vectors[:, ::-1]
    total = float(variances.sum())
    q = int(np.searchsorted(np.cumsum(variances), _EXPLAINED * total)) + 1
    q = min(q, _MOST_COMPONENTS, len(variances))
    rest = float(variances[q:].mean()) if q < len(variances) else 0.0
    floor = _FLOOR_SHARE * total / len(variances) + _FLOOR
    weights = 1.0 / (np.append(variances[:q], rest) + floor)
    return {"center": center, "components": np.ascontiguousarray(vectors[:, :q]), "weights": weights}


def _distances(windows: FloatArray, learnt: State) -> FloatArray:
    """As the compiled ones, of windows that are cut already; squared."""
    off = windows - learnt["center"]
    parts = off @ learnt["components"]
    rest = np.maximum((off**2).sum(axis=1) - (parts**2).sum(axis=1), 0.0)
    squares: FloatArray = parts**2 @ learnt["weights"][:-1] + learnt["weights"][-1] * rest
    return squares
