"""Compiled loops of the isolation forest: what is looked at of a window, and how deep it falls in the trees."""

import numba
import numpy as np

from app.detectors.kernels_windows import cut, expect_one
from app.series import FloatArray

FEATURES = 8


@numba.njit(cache=True, nogil=True)
def window_features(
    past: FloatArray, values: FloatArray, points: int, level: float, coefficients: FloatArray, limit: float
) -> FloatArray:
    """What is looked at of each window: shape (n - points + 1, 8).

    Its level, spread and roughness; how far the lowest and the highest value, and the newest, are from the mean; the
    newest step; how far the newest value is from what was expected.
    """
    features = np.empty((len(values) - points + 1, FEATURES))
    window = np.empty(points)
    for i in range(len(features)):
        newest = i + points - 1
        cut(past, values, i, 1.0, window)
        mean = window.mean()
        spread, roughness = 0.0, 0.0
        for j in range(points):
            spread += (window[j] - mean) ** 2
            roughness += abs(window[j] - window[max(j - 1, 0)])
        features[i, 0] = mean if level > 0 else 0.0
        features[i, 1] = np.sqrt(spread / points)
        features[i, 2] = roughness / points
        features[i, 3] = window.min() - mean
        features[i, 4] = window.max() - mean
        features[i, 5] = window[points - 1] - mean
        features[i, 6] = window[points - 1] - window[max(points - 2, 0)]
        features[i, 7] = values[newest] - expect_one(past, newest, coefficients, limit)
    return features


@numba.njit(cache=True, nogil=True)
def mean_depths(features: FloatArray, nodes: FloatArray, roots: FloatArray) -> FloatArray:
    """How deep each of m rows of features falls, on average over the trees: shape (m,).

    nodes: shape (k, 3), of each node the feature that it asks for, -1 for a leaf; the threshold up to which a row goes
    to the next node, or the depth that a leaf stands for; the node to which the others go. roots: of each tree.
    Features are rounded to single precision first, as in scikit-learn, where the thresholds come from.
    """
    depths = np.empty(len(features))
    for i in range(len(features)):
        total = 0.0
        for root in roots:
            node = int(root)
            while nodes[node, 0] >= 0:
                value = np.float64(np.float32(features[i, int(nodes[node, 0])]))
                node = node + 1 if value <= nodes[node, 1] else int(nodes[node, 2])
            total += nodes[node, 1]
        depths[i] = total / len(roots)
    return depths


@numba.njit(cache=True, nogil=True)
def beyond(features: FloatArray, lowest: FloatArray, highest: FloatArray, width: FloatArray) -> FloatArray:
    """How far each row of features is outside of a box, in units of its widths, summed, as log(1 + x): shape (m,)."""
    distances = np.empty(len(features))
    for i in range(len(features)):
        total = 0.0
        for j in range(features.shape[1]):
            outside = max(lowest[j] - features[i, j], features[i, j] - highest[j], 0.0)
            total += outside / width[j]
        distances[i] = np.log1p(total)
    return distances
