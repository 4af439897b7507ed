"""The measures of accuracy against the numbers of their reference implementation and against slow, obvious oracles."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmark.accuracy.metrics import auc_pr, auc_roc, event_f1, false_alarm_points, vus

patient = settings(deadline=None)  # the first example of a process imports and allocates


class Case(NamedTuple):
    """A series made from noise, and the volumes that the reference implementation gives for it."""

    what: str
    n: int  # and the seed of the noise, which has a standard deviation of 1
    window: int
    segments: list[tuple[int, int]]  # start and length of each
    vus_roc: float
    vus_pr: float
    signal: float = 2  # how far anomalous points stand out of the noise
    late: int = 0  # points by which they do so later
    decimals: int = 9  # that the scores are rounded to


# The volumes are those of TSB-AD 1.5 from PyPI: RangeAUC_volume_opt of TSB_AD.evaluation.basic_metrics.basic_metricor,
# with thre=250, called as its generate_curve does.
CASES = [
    Case("one anomaly, no buffer", 300, 0, [(120, 15)], 0.9207017543859649, 0.5468297459289181),
    Case("one anomaly", 301, 20, [(120, 15)], 0.9351766781543509, 0.5452006584799796),
    Case(
        "many anomalies",
        2500,
        125,
        [(200, 30), (420, 5), (1300, 1), (1750, 100), (2200, 12)],
        0.9119004194992822,
        0.3840968109939961,
        signal=1.5,
    ),
    Case("at the start", 1000, 50, [(0, 12), (600, 20)], 0.9716306663221487, 0.6068364875236235),
    Case("at the end", 1001, 50, [(400, 20), (989, 12)], 0.9641584576907934, 0.5720378751771039),
    Case(
        "single points",
        800,
        30,
        [(50, 1), (200, 1), (203, 1), (799, 1)],
        0.9508887355712687,
        0.09810475183399399,
        signal=1.5,
    ),
    Case(
        "meeting buffers",
        1200,
        61,
        [(500, 10), (515, 10), (530, 1), (570, 8)],
        0.902445244264998,
        0.1684228579012977,
        signal=1.5,
    ),
    Case("tied scores", 900, 40, [(100, 25), (450, 25), (880, 20)], 0.9396805046370537, 0.5544463344048475, decimals=0),
    Case(
        "constant scores",
        500,
        25,
        [(100, 10), (300, 40)],
        0.5116460991823406,
        0.14059643810652206,
        signal=0,
        decimals=-2,
    ),
    Case("late scores", 700, 100, [(200, 20), (500, 10)], 0.926333942698453, 0.6059348500747529, signal=3, late=12),
    Case("pure noise", 120, 1, [(30, 4), (80, 2)], 0.5599415204678362, 0.07281850178136409, signal=0),
]


def make_labels(n, segments):
    labels = np.zeros(n, dtype=bool)
    for start, length in segments:
        labels[start : start + length] = True
    return labels


def make_series(case):
    labels = make_labels(case.n, case.segments)
    scores = np.random.default_rng(case.n).normal(size=case.n) + case.signal * np.roll(labels, case.late)
    return labels, np.round(scores, case.decimals)


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_vus_is_that_of_the_reference(case):
    volumes = vus(*make_series(case), case.window)
    assert volumes == pytest.approx((case.vus_roc, case.vus_pr), rel=0, abs=1e-12)  # the order of the sums differs


@st.composite
def scored_series(draw):
    """Short series with few distinct scores and segments close enough for their buffers to meet."""
    n = draw(st.integers(2, 40))
    labels = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda flags: 0 < sum(flags) < len(flags)))
    scores = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    return np.array(labels), np.array(scores, dtype=float)


def slow_segments(flags):
    """First and last position of each run, by walking along."""
    segments = []
    for i, flag in enumerate(flags):
        if flag and i > 0 and flags[i - 1]:
            segments[-1][1] = i
        elif flag:
            segments.append([i, i])
    return segments


def soft_labels(labels, width):
    soft = [float(label) for label in labels]
    for start, end in slow_segments(labels):
        for distance in range(1, width // 2 + 1):
            for i in (start - distance, end + distance):
                if 0 <= i < len(soft):
                    soft[i] = min(1.0, soft[i] + math.sqrt(1 - distance / width))
    return soft


def regions(labels, reach):
    """The positions of each segment and its buffers; segments whose buffers share a position are one."""
    merged = []
    for start, end in slow_segments(labels):
        region = set(range(start - reach, end + reach + 1))
        if merged and merged[-1] & region:
            merged[-1] |= region
        else:
            merged.append(region)
    return merged


def curve_point(labels, width, flagged):
    """Recall, false alarm rate and precision at one threshold, which flags these positions."""
    soft = soft_labels(labels, width)
    hits = sum(soft[i] for i in flagged)
    positives = sum(labels) + sum(soft[i] for i in flagged if not labels[i]) / 2
    found = [bool(region & flagged) for region in regions(labels, width // 2)]
    recall = min(hits / positives, 1) * sum(found) / len(found)
    return recall, (len(flagged) - hits) / (len(labels) - positives), hits / len(flagged)


def slow_vus(labels, scores, window):
    """For series with fewer points than thresholds, so that each score is a threshold."""
    roc = pr = 0.0
    for width in range(window + 1):
        recall, alarms = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            flagged = {i for i, score in enumerate(scores) if score >= threshold}
            next_recall, next_alarms, precision = curve_point(labels, width, flagged)
            roc += (next_alarms - alarms) * (next_recall + recall) / 2
            pr += (next_recall - recall) * precision
            recall, alarms = next_recall, next_alarms
        roc += (1 - alarms) * (1 + recall) / 2
    return roc / (window + 1), pr / (window + 1)


@patient
@given(scored_series(), st.integers(0, 9))
def test_vus_is_that_of_a_slow_oracle(series, window):
    labels, scores = series
    assert vus(labels, scores, window) == pytest.approx(slow_vus(labels.tolist(), scores.tolist(), window), abs=1e-12)


def test_the_right_way_up_is_near_1_and_upside_down_near_0():
    labels = make_labels(2000, [(500, 40), (1500, 40)])
    scores = labels.astype(float)
    assert min(auc_pr(labels, scores), auc_roc(labels, scores), *vus(labels, scores, 0)) > 0.97
    assert max(auc_pr(labels, -scores), auc_roc(labels, -scores), *vus(labels, -scores, 0)) < 0.05


def test_only_the_order_of_the_scores_counts():
    labels, scores = make_series(CASES[2])
    assert vus(labels, np.exp(scores) * 1e6, 50) == vus(labels, scores, 50)


def test_scores_that_come_late_lose_less_in_a_wider_window():
    labels = make_labels(1000, [(500, 20)])
    late = np.roll(labels, 15).astype(float)
    assert vus(labels, late, 60).vus_pr > 2 * vus(labels, late, 0).vus_pr


def test_a_score_may_be_infinite():
    labels = np.array([False, True, False, False])
    largest = float(np.finfo(np.float64).max)
    infinite, finite = (np.array([0.0, top, -top, 1.0]) for top in (math.inf, largest))
    assert auc_pr(labels, infinite) == auc_roc(labels, infinite) == 1
    assert vus(labels, infinite, 2) == vus(labels, finite, 2)


@patient
@given(scored_series())
def test_auc_pr_is_precision_weighted_by_the_gain_in_recall(series):
    labels, scores = series
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        flagged = scores >= threshold
        hits = (flagged & labels).sum()
        expected += (hits / labels.sum() - recall) * hits / flagged.sum()
        recall = hits / labels.sum()
    assert auc_pr(labels, scores) == pytest.approx(expected, abs=1e-12)


@patient
@given(scored_series())
def test_auc_roc_is_the_share_of_pairs_in_the_right_order(series):
    labels, scores = series
    pairs = [float(a > b) + float(a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert auc_roc(labels, scores) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def slow_event_f1(labels, flags):
    segments = [set(range(a, b + 1)) for a, b in slow_segments(labels)]
    runs = [set(range(a, b + 1)) for a, b in slow_segments(flags)]
    found = sum(any(segment & run for run in runs) for segment in segments)
    false_alarms = sum(not any(segment & run for segment in segments) for run in runs)
    return 2 * found / (2 * found + (len(segments) - found) + false_alarms)


flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@patient
@given(flags.filter(lambda pairs: any(label for label, _ in pairs)))
@example([(True, True)])
@example([(True, False)])
@example([(True, True), (False, True), (True, True)])
def test_event_f1_is_that_of_a_slow_oracle(pairs):
    labels, is_anomaly = np.array(pairs).T
    assert event_f1(labels, is_anomaly) == pytest.approx(slow_event_f1(labels.tolist(), is_anomaly.tolist()))


def test_an_event_is_found_once_and_a_run_beside_it_is_a_false_alarm():
    labels = make_labels(100, [(10, 20), (50, 20)])
    is_anomaly = make_labels(100, [(12, 1), (20, 1), (31, 2), (80, 3)])
    assert event_f1(labels, is_anomaly) == 2 * 1 / (2 * 1 + 2 + 1)
    assert false_alarm_points(labels, is_anomaly) == 5


@patient
@given(flags)
def test_false_alarm_points_are_flagged_and_normal(pairs):
    labels, is_anomaly = np.array(pairs).T
    assert false_alarm_points(labels, is_anomaly) == pairs.count((False, True))


@pytest.mark.parametrize("labels", [np.zeros(9, dtype=bool), np.ones(9, dtype=bool)], ids=["normal", "anomalous"])
@pytest.mark.parametrize("measure", [auc_pr, auc_roc, lambda labels, scores: vus(labels, scores, 3)])
def test_a_curve_needs_points_of_both_kinds(measure, labels):
    with pytest.raises(ValueError, match="anomalous points and normal ones"):
        measure(labels, np.arange(9.0))


def test_a_series_without_anomalies_has_no_event_f1_but_false_alarm_points():
    labels, is_anomaly = np.zeros(9, dtype=bool), make_labels(9, [(2, 3)])
    with pytest.raises(ValueError, match="no events to find"):
        event_f1(labels, is_anomaly)
    assert false_alarm_points(labels, is_anomaly) == 3


def test_what_cannot_be_measured_is_refused():
    labels = make_labels(9, [(2, 3)])
    with pytest.raises(ValueError, match="no order"):
        auc_pr(labels, np.full(9, np.nan))
    with pytest.raises(ValueError, match="9 labels do not fit"):
        auc_roc(labels, np.zeros(8))
    with pytest.raises(ValueError, match="one row of bools, not int64"):
        event_f1(labels.astype(np.int64), labels)
    with pytest.raises(ValueError, match="0 points or more, not -1"):
        vus(labels, np.zeros(9), -1)
