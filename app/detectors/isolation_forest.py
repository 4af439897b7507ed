"""An isolation forest over features of windows: how few random cuts set a window apart."""

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from app.detectors.base import DetectorParams, State
from app.detectors.windows import WindowDetector, WindowParams, thin
from app.series import FloatArray

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest as Forest

_MOST_WINDOWS = 5000
_WINDOWS_A_TREE = 128
_USUAL_QUANTILES = (0.005, 0.995)
_LEAST_WIDTH = 1e-3
_PAIR = 2
_EULER = 0.5772156649015329


class IsolationForestParams(WindowParams):
    """Parameters of `IsolationForest`."""

    trees: int = Field(64, ge=1, le=1000, description="Trees of the forest.")


class IsolationForest(WindowDetector):
    """An anomaly ends a window that few random cuts set apart from the others.

    What is cut is a space of eight features of a window: level, spread, roughness, lowest and highest value, newest
    value, newest step, and how far the newest value is from what was expected. The forest's score, between 0 and 1,
    knows no distances beyond what it has seen; the logarithm of how far features are outside of their usual
    range is added to it.
    Source: F. T. Liu, K. M. Ting, Z.-H. Zhou, Isolation Forest, ICDM 2008; its trees are scikit-learn's.
    Cost: O(t s log s) for t trees of s = 128 windows, some 0.2 s, for each of four fits; O(t log s + w) a point; about
    0.3 MB of state. Context: 2 (w - 1) points. Finds: spikes, level shifts, changes of variance, missing beats,
    flatlines. Misses: changes of shape that leave all of these features usual.
    """

    __slots__ = ()

    name: ClassVar[str] = "isolation_forest"
    Params: ClassVar[type[DetectorParams]] = IsolationForestParams
    folds: ClassVar[int] = 3

    @override
    @staticmethod
    def learn_windows(values: FloatArray, starts: NDArray[np.intp], shared: State, params: WindowParams) -> State:
        from sklearn.ensemble import IsolationForest as Forest

        assert isinstance(params, IsolationForestParams)
        features = _features(values, values, shared)[thin(starts, _MOST_WINDOWS)]
        lowest, highest = np.quantile(features, _USUAL_QUANTILES, axis=0)
        samples = min(_WINDOWS_A_TREE, len(features))
        forest = Forest(n_estimators=params.trees, max_samples=samples, random_state=params.seed)
        return {
            **plain_trees(forest.fit(features)),
            "lowest": lowest,
            "highest": highest,
            "width": np.maximum(highest - lowest, _LEAST_WIDTH),
        }

    @override
    @staticmethod
    def distances(learnt: State, past: FloatArray, values: FloatArray) -> FloatArray:
        from app.detectors.kernels_forest import beyond

        features = _features(past, values, learnt)
        outside = beyond(features, learnt["lowest"], learnt["highest"], learnt["width"])
        return forest_scores(learnt, features) + outside


def plain_trees(forest: "Forest") -> State:
    """The trees of a fitted forest as arrays: feature, threshold or depth, and right child of all nodes; the roots."""
    nodes: list[FloatArray] = []
    roots: list[float] = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        roots.append(float(sum(len(part) for part in nodes)))
        is_leaf = tree.children_left < 0
        depths = np.zeros(tree.node_count)
        for node in np.flatnonzero(~is_leaf):  # a parent comes before its children, the left one right after it
            depths[tree.children_left[node]] = depths[tree.children_right[node]] = depths[node] + 1.0
        stands_for = depths + np.array([_usual_depth(size) for size in tree.n_node_samples.tolist()])
        nodes.append(
            np.column_stack(
                (
                    np.where(is_leaf, -1.0, tree.feature),
                    np.where(is_leaf, stands_for, tree.threshold),
                    np.where(is_leaf, -1.0, roots[-1] + tree.children_right),
                )
            )
        )
    usual = np.array(max(_usual_depth(int(forest.max_samples_)), 1.0))
    return {"nodes": np.concatenate(nodes), "roots": np.array(roots), "usual_depth": usual}


def forest_scores(learnt: State, features: FloatArray) -> FloatArray:
    """The scores of the paper, between 0 and 1, of m rows of features: shape (m,)."""
    from app.detectors.kernels_forest import mean_depths

    depths = mean_depths(features, learnt["nodes"], learnt["roots"])
    return np.array([2.0**-depth for depth in (depths / float(learnt["usual_depth"])).tolist()])


def _usual_depth(size: int) -> float:
    """How deep a random search tree of so many points is on average, up to a miss."""
    if size <= _PAIR:
        return float(size - 1)
    return 2.0 * (math.log(size - 1.0) + _EULER) - 2.0 * (size - 1.0) / size


def _features(past: FloatArray, values: FloatArray, learnt: State) -> FloatArray:
    from app.detectors.kernels_forest import window_features

    points, level = int(learnt["window_points"]), float(learnt["level"])
    return window_features(past, values, points, level, learnt["coefficients"], float(learnt["limit"]))
