"""Measures of accuracy on one labelled series: VUS-PR and VUS-ROC, the areas under both curves, event-wise F1.

Every measure takes `labels`, true where a point is anomalous, and for each point either a score, higher where it is
more anomalous, or a verdict. Only the order of the scores counts. What a measure cannot be taken on, such as the area
under a curve of a series without anomalies, raises ValueError; `false_alarm_points` can be taken on every series.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

THRESHOLDS = 250  # as many as the reference takes, evenly spaced in rank


class Vus(NamedTuple):
    """Volumes under the surface, each at most about 1, higher where the scores are better."""

    vus_roc: float
    vus_pr: float


class Segments(NamedTuple):
    """Runs of true values: first and last position of each, in ascending order."""

    starts: Ints
    ends: Ints


def vus(labels: Bools, scores: Floats, window: int) -> Vus:
    """Volume under the surface of ROC and of precision and recall, over all buffers from 0 to `window` points.

    Each segment is surrounded by a buffer of w // 2 points on either side, in which a point at distance d counts as
    sqrt(1 - d / w) of an anomalous one. For each w of 0 to `window` the curve through 250 thresholds gives an area; the
    volume is the mean of these areas. Recall is multiplied by the share of segments found (existence).

    Source: Paparrizos et al., "Volume Under the Surface", PVLDB 15(11), 2022, doi:10.14778/3551793.3551830, with the
    details of the reference implementation, `RangeAUC_volume_opt` of TSB-AD 1.5.

    Cost: O(n log n + n * window + 250 * window^2), with a small constant before n * window. The reference labels the
    series anew for each window and threshold; here its points are counted once, by distance and threshold.

    Finds whether the scores rank anomalies first, and forgives scores that come a little early or late. Misses whether
    any one threshold works in practice.
    """
    _check_two_kinds(labels, scores)
    if window < 0:
        raise ValueError(f"A window has 0 points or more, not {window}.")
    segments = _segments(labels)
    ranks = _threshold_ranks(scores)
    hits = _histogram(ranks[labels]).cumsum()
    buffer_hits = _buffer_hits(labels, segments, ranks, window).cumsum(axis=1)
    found = _existence(segments, ranks, window // 2)[np.arange(window + 1) // 2]

    true_positives = hits + buffer_hits
    flagged = _histogram(ranks).cumsum()
    positives = labels.sum() + buffer_hits / 2  # the mean of the strict labels and of those that the buffers add
    recall = np.minimum(true_positives / positives, 1) * found
    false_alarm_rate = (flagged - true_positives) / (labels.size - positives)
    roc = np.trapezoid(_padded(recall, 0, 1), _padded(false_alarm_rate, 0, 1), axis=1)
    pr = (np.diff(recall, axis=1, prepend=0) * true_positives / flagged).sum(axis=1)
    return Vus(float(roc.mean()), float(pr.mean()))


def auc_pr(labels: Bools, scores: Floats) -> float:
    """Average precision: the sum over the distinct scores of precision, weighted by what each adds to recall.

    Source: Davis and Goadrich, ICML 2006, doi:10.1145/1143844.1143874, on why the curve is not interpolated; the same
    as scikit-learn's `average_precision_score`. Cost: O(n log n).
    """
    _check_two_kinds(labels, scores)
    hits, flagged = _counts_by_threshold(labels, scores)
    return float(np.sum(np.diff(hits, prepend=0) * hits / flagged) / hits[-1])


def auc_roc(labels: Bools, scores: Floats) -> float:
    """Probability that an anomalous point scores higher than a normal one, ties counting half.

    Source: Hanley and McNeil, Radiology 143(1), 1982, doi:10.1148/radiology.143.1.7063747. Cost: O(n log n).
    """
    _check_two_kinds(labels, scores)
    hits, flagged = _counts_by_threshold(labels, scores)
    false_alarms = flagged - hits
    area = np.trapezoid(np.append(0, hits), np.append(0, false_alarms))
    return float(area / (hits[-1] * false_alarms[-1]))


def event_f1(labels: Bools, is_anomaly: Bools) -> float:
    """F1 of events: 2 TP / (2 TP + FP + FN), counting segments of consecutive points and not the points.

    TP are the segments of `labels` of which any point is flagged, FN those of which none is, and FP the runs of flagged
    points that touch no segment. A run that touches two segments finds both, and several runs in one segment find it
    once, so a flag on everything finds all without a false alarm: read it together with `false_alarm_points`.

    Raises ValueError where nothing is anomalous. Cost: O(n).
    """
    _check_lengths(labels, is_anomaly)
    if not labels.any():
        raise ValueError("A series without anomalous points has no events to find: count its false_alarm_points.")
    found = _touched(_segments(labels), is_anomaly)
    right = _touched(_segments(is_anomaly), labels)
    missed, false_alarms = np.sum(~found), np.sum(~right)
    return float(2 * found.sum() / (2 * found.sum() + false_alarms + missed))


def false_alarm_points(labels: Bools, is_anomaly: Bools) -> int:
    """How many normal points are flagged."""
    _check_lengths(labels, is_anomaly)
    return int(np.sum(is_anomaly & ~labels))


def _check_lengths(labels: Bools, others: NDArray[np.generic]) -> None:
    if labels.dtype != np.bool_ or labels.ndim != 1:
        raise ValueError(f"Labels are one row of bools, not {labels.dtype} of shape {labels.shape}.")
    if labels.shape != others.shape:
        raise ValueError(f"{labels.size} labels do not fit the shape {others.shape}.")


def _check_two_kinds(labels: Bools, scores: Floats) -> None:
    _check_lengths(labels, scores)
    if np.isnan(scores).any():
        raise ValueError("Scores that are not a number have no order: give each point a score.")
    if not labels.any() or labels.all():
        raise ValueError("Curves need anomalous points and normal ones: leave this series out of the mean.")


def _segments(flags: Bools) -> Segments:
    changes = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return Segments(changes[::2], changes[1::2] - 1)


def _touched(segments: Segments, flags: Bools) -> Bools:
    """Tell of each segment whether any of its points is flagged."""
    before = np.append(0, np.cumsum(flags))
    return before[segments.ends + 1] > before[segments.starts]


def _counts_by_threshold(labels: Bools, scores: Floats) -> tuple[Ints, Ints]:
    """Give the anomalous points and all points at or above each distinct score, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    last_of_its_score = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    return np.cumsum(labels[order])[last_of_its_score], last_of_its_score + 1


def _threshold_ranks(scores: Floats) -> Ints:
    """Give the first of the thresholds, in descending order, that flags each point; the last flags all."""
    descending = -np.sort(-scores)
    thresholds = descending[np.linspace(0, scores.size - 1, THRESHOLDS).astype(np.int64)]
    return np.searchsorted(-thresholds, -scores)


def _histogram(ranks: Ints) -> Ints:
    return np.bincount(ranks, minlength=THRESHOLDS)


def _padded(curves: Floats, first: float, last: float) -> Floats:
    return np.pad(curves, ((0, 0), (1, 1)), constant_values=((0, 0), (first, last)))


def _buffer_hits(labels: Bools, segments: Segments, ranks: Ints, window: int) -> Floats:
    """Weigh the points outside of the segments by the buffers, for each window and the first threshold to flag them.

    A weight within a buffer is sqrt(1 - d / w) >= sqrt(1 / 2), so a point in the buffers of two segments counts whole.
    """
    nearest, second = _distances(np.flatnonzero(~labels), segments)
    ranks = ranks[~labels]
    near = nearest <= window // 2
    nearest, second, ranks = nearest[near], second[near], ranks[near]

    in_one = np.zeros((window // 2 + 1, THRESHOLDS))
    in_more = np.zeros(THRESHOLDS)
    weighted = np.zeros((window + 1, THRESHOLDS))
    for width in range(2, window + 1):
        reach = width // 2
        if width % 2 == 0:
            in_one[reach] = _histogram(ranks[nearest == reach])
            reached_again = second == reach
            np.subtract.at(in_one, (nearest[reached_again], ranks[reached_again]), 1)
            in_more += _histogram(ranks[reached_again])
        weighted[width] = np.sqrt(1 - np.arange(reach + 1) / width) @ in_one[: reach + 1] + in_more
    return weighted


def _distances(positions: Ints, segments: Segments) -> tuple[Ints, Ints]:
    """Give the distances from positions outside of the segments to the nearest segment and to the second nearest."""
    far = np.iinfo(np.int64).max // 2
    ends = np.concatenate(([-far, -far], segments.ends))
    starts = np.concatenate((segments.starts, [far, far]))
    before = np.searchsorted(segments.ends, positions)
    candidates = np.stack(
        (
            positions - ends[before + 1],
            positions - ends[before],
            starts[before] - positions,
            starts[before + 1] - positions,
        )
    )
    nearest, second = np.partition(candidates, 1, axis=0)[:2]
    return nearest, second


def _existence(segments: Segments, ranks: Ints, furthest: int) -> Floats:
    """Give the share of segments found, for each reach of 0 to `furthest` points and each threshold.

    Segments are taken with what lies within reach, and those that then overlap are one.
    """
    gaps = segments.starts[1:] - segments.ends[:-1]
    best = np.minimum.reduceat(np.append(ranks, THRESHOLDS), np.stack((segments.starts, segments.ends + 1)).T.ravel())
    best = best[::2]
    found = np.empty((furthest + 1, THRESHOLDS))
    for reach in range(furthest + 1):
        left = np.maximum(segments.starts - reach, 0)
        right = np.minimum(segments.ends + reach, ranks.size - 1)
        best = np.minimum(best, np.minimum(ranks[left], ranks[right]))
        firsts = np.append(0, np.flatnonzero(gaps > 2 * reach) + 1)
        merged = np.minimum.reduceat(best, firsts)
        found[reach] = _histogram(merged).cumsum() / merged.size
    return found
