"""The local outlier factor of windows: how much sparser it is around a window than around its neighbours."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.windows import WindowDetector, WindowParams, cut_windows, thin
from app.series import FloatArray

_MOST_WINDOWS = 1000
_MOST_NUMBERS = 65_536
_JITTER_SHARE = 0.02
_LEAST_JITTER = 1e-6


class LofParams(WindowParams):
    """Parameters of `Lof`."""

    neighbors: int = Field(20, ge=1, le=200, description="Nearest windows that tell how dense it is around one.")


class Lof(WindowDetector):
    """An anomaly ends a window around which normal windows are sparser than around its nearest neighbours.

    Windows are compared to at most 1,000 of the history, evenly taken, without their means, of which 0.3 of the
    squared difference is added, and nothing where the level of the series wanders. These are blurred by a fiftieth of
    their spread, so that equal windows, as counts and states have them, are not infinitely dense.
    Source: M. M. Breunig, H.-P. Kriegel, R. T. Ng, J. Sander, LOF: Identifying Density-Based Local Outliers, SIGMOD
    2000.
    Cost: O(m^2 w) to fit and O(m w) a point, for m <= min(1000, 65,536 / w) windows of w points; 8 m w bytes of state,
    at most 0.5 MB. Context: 2 (w - 1) points. Finds: windows between or off the usual ones, also where some kinds of
    normal windows vary more than others. Misses: anomalies that come often enough to be one another's neighbours, and
    small deviations of single points in long windows.
    """

    __slots__ = ()

    name: ClassVar[str] = "lof"
    Params: ClassVar[type[DetectorParams]] = LofParams

    @override
    @staticmethod
    def learn_windows(values: FloatArray, starts: NDArray[np.intp], shared: State, params: WindowParams) -> State:
        assert isinstance(params, LofParams)
        points = int(shared["window_points"])
        starts = thin(starts, min(_MOST_WINDOWS, _MOST_NUMBERS // points))
        windows = cut_windows(values, starts, points, float(shared["level"]))
        blur = _JITTER_SHARE * float(np.sqrt(windows.var(axis=0).mean())) + _LEAST_JITTER
        windows = windows + blur * np.random.default_rng(params.seed).standard_normal(windows.shape)
        return learn_densities(windows, params.neighbors)

    @override
    @staticmethod
    def distances(learnt: State, past: FloatArray, values: FloatArray) -> FloatArray:
        from app.detectors.kernels_windows import outlier_factors

        known = learnt["references"], learnt["reach"], learnt["density"]
        return outlier_factors(past, values, float(learnt["level"]), *known, int(learnt["neighbors"]))


def learn_densities(windows: FloatArray, neighbors: int) -> State:
    """The windows, shape (m, w), as references; how far each one's k-th neighbour is, and how dense it is around it."""
    from app.detectors.kernels_windows import neighbours

    if len(windows) == 1:
        windows = np.repeat(windows, 2, axis=0)
    k = min(neighbors, len(windows) - 1)
    references = np.ascontiguousarray(windows.T)
    distances, which = neighbours(references, k)
    reach = distances[:, -1].copy()
    density = 1.0 / (np.maximum(distances, reach[which.astype(np.intp)]).mean(axis=1) + 1e-10)
    return {"references": references, "reach": reach, "density": density, "neighbors": np.array(float(k))}
