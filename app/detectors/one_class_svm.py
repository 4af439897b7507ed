"""A support vector machine of one class: the boundary around normal windows."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.windows import WindowDetector, WindowParams, cut_windows, thin
from app.series import FloatArray

_MOST_WINDOWS = 1000
_SMALLEST_SQUARE = 1e-6
_TO_MEASURE = 400
_NEIGHBOURS = 5
_LEAST_SHARE = 0.05


class OneClassSvmParams(WindowParams):
    """Parameters of `OneClassSvm`."""

    nu: float = Field(
        0.05, gt=0, lt=1, description="Share of the windows of the history that may lie outside the boundary."
    )


class OneClassSvm(WindowDetector):
    """An anomaly ends a window that lies far outside a boundary around normal windows.

    The boundary is where a weighted sum of radial kernels about the support vectors has one value. The distance is the
    root of its negative logarithm: it orders windows as the machine's decision function does, and goes on rising where
    that has reached its end. Windows are compared without their means, of which 0.3 of the squared difference is
    added, and nothing where the level of the series wanders.
    Source: B. Schoelkopf and others, Estimating the Support of a High-Dimensional Distribution, Neural Computation 13,
    2001.
    Cost: O(n) and up to 0.1 s to fit, O(s w) a point, for s support vectors of w points, some twentieth of at most
    1,000 windows; 8 s w bytes of state. Context: 2 (w - 1) points. Finds: spikes, level shifts, misshapen and missing
    beats of a series that repeats itself. Misses: what lies between kinds of normal windows that are near to one
    another, and small deviations of single points in long windows.
    """

    __slots__ = ()

    name: ClassVar[str] = "one_class_svm"
    Params: ClassVar[type[DetectorParams]] = OneClassSvmParams

    @override
    @staticmethod
    def learn_windows(values: FloatArray, starts: NDArray[np.intp], shared: State, params: WindowParams) -> State:
        assert isinstance(params, OneClassSvmParams)
        starts = thin(starts, _MOST_WINDOWS)
        return learn_boundary(
            cut_windows(values, starts, int(shared["window_points"]), float(shared["level"])), params.nu
        )

    @override
    @staticmethod
    def distances(learnt: State, past: FloatArray, values: FloatArray) -> FloatArray:
        from app.detectors.kernels_windows import kernel_distances

        known = learnt["vectors"], learnt["weights"], float(learnt["gamma"])
        return kernel_distances(past, values, float(learnt["level"]), *known)


def learn_boundary(windows: FloatArray, nu: float) -> State:
    """Support vectors (w, s), their weights, of sum 1, and the factor of squared distances, of m windows (m, w)."""
    from sklearn.svm import OneClassSVM

    gamma = 1.0 / max(_near_square(windows), _SMALLEST_SQUARE)
    machine = OneClassSVM(nu=nu, gamma=gamma).fit(windows)
    weights = machine.dual_coef_[0]
    return {
        "vectors": np.ascontiguousarray(machine.support_vectors_.T),
        "weights": weights / weights.sum(),
        "gamma": np.array(gamma),
    }


def _near_square(windows: FloatArray) -> float:
    """The usual squared distance of a window to the fifth nearest, at least a twentieth of the variance."""
    from app.detectors.kernels_windows import neighbours

    some = windows[thin(np.arange(len(windows)), _TO_MEASURE)]
    spread = float(some.var(axis=0).sum())
    if len(some) <= _NEIGHBOURS:
        return spread
    near = float(np.median(neighbours(np.ascontiguousarray(some.T), _NEIGHBOURS)[0][:, -1] ** 2))
    return max(near, _LEAST_SHARE * spread)
