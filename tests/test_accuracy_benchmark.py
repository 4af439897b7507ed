"""The accuracy benchmark runs from a folder of series to a table, and hides no failure."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.detectors.judging import CalibratedParams
from app.detectors.mean_std import MeanStd
from app.detectors.robust_z import RobustZ
from app.detectors.units import Unit
from app.series import Series
from benchmark.accuracy.datasets import LabelledSeries
from benchmark.accuracy.false_alarms import Rate
from benchmark.accuracy.processes import in_processes
from benchmark.accuracy.regimes import Fitted, judge_batch, left_out_scores
from benchmark.accuracy.report import delay_curves
from benchmark.accuracy.runs import Row

ROOT = Path(__file__).parents[1]
N, TRAIN = 300, 150


class Failing(MeanStd):
    """Detects nothing, and falls over when it is fitted."""

    @classmethod
    def fit(cls, history, params):  # noqa: ARG003
        raise ArithmeticError("no | way")


def labelled(seed, spikes=(), name="a"):
    values = np.random.default_rng(seed).normal(10, 1, N)
    labels = np.zeros(N, dtype=np.bool_)
    for place in spikes:
        values[place : place + 3] += 30
        labels[place : place + 3] = True
    return LabelledSeries(name, "TINY", 60.0 * np.arange(N), values, labels, TRAIN, None, 10)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder that the command wrote to, and what it said."""
    folder = tmp_path_factory.mktemp("series")
    for number, spikes in enumerate(((200,), (180, 250), ())):
        series = labelled(number, spikes)
        lines = [f"{value},{label:d}" for value, label in zip(series.values, series.labels, strict=True)]
        name = f"{number:03}_TINY_id_{number}_Sensor_tr_{TRAIN}_1st_{spikes[0] if spikes else N}.csv"
        (folder / name).write_text("Data,Label\n" + "\n".join(lines) + "\n")
    output = tmp_path_factory.mktemp("results")
    return output, benchmark(folder, output)


def benchmark(folder, output):
    detectors = "robust_z,mean_std,tests.test_accuracy_benchmark:Failing"
    command = [sys.executable, "-m", "benchmark.accuracy", str(folder), "--detectors", detectors]
    told = subprocess.run(
        [*command, "--output", str(output), "--regimes", "batch,arrival", "--workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return told.stderr


def test_the_command_writes_what_was_measured_of_each_series(measured):
    output, _ = measured
    kept = json.loads((output / "accuracy.json").read_bytes())
    rows = {(row["detector"], row["regime"], row["series"][:3]): row for row in kept["rows"]}
    assert len(rows) == len(kept["rows"]) == 3 * 2 * 3
    of_spike = rows["robust_z", "arrival", "000"]
    assert (of_spike["source"], of_spike["points"], of_spike["normal_points"]) == ("TINY", N, N - TRAIN - 3)
    assert of_spike["auc_pr"] == 1
    assert min(of_spike["vus_pr"], of_spike["vus_roc"], of_spike["event_f1"]) > 0.3
    without_anomalies = rows["robust_z", "batch", "002"]
    assert without_anomalies.keys() & {"vus_pr", "vus_roc", "auc_pr", "event_f1"} == set()
    assert without_anomalies["normal_points"] == N


def test_the_report_has_a_table_for_each_regime(measured):
    report = (measured[0] / "ACCURACY.md").read_text()
    for title in ("## Batch", "## On arrival"):
        section = report.partition(title)[2].partition("\n## ")[0]
        assert "| `robust_z` | " in section
        assert "| `mean_std` | " in section
        assert "TINY (3)" in section
    assert "## Settled" not in report


def test_a_detector_that_fails_is_counted_and_named(measured):
    output, _ = measured
    report = (output / "ACCURACY.md").read_text()
    failed = report.partition("## Failed")[2]
    assert "ArithmeticError: no \\| way" in failed
    on_arrival = report.partition("## On arrival")[2]
    line = next(line for line in on_arrival.splitlines() if ":Failing" in line)
    assert line.split(" | ")[-2:] == ["0", "3 |"]


def test_a_task_that_takes_its_process_down_fails_and_no_other():
    tasks = ["1 + 1", "__import__('os')._exit(3)", "2 + 2"]
    results = in_processes(eval, lambda _, error: type(error).__name__, tasks, 1)
    assert list(results) == [2, "BrokenProcessPool", 4]


def test_scores_of_the_prefix_are_in_the_units_of_verdicts():
    history = Series(60.0 * np.arange(N), labelled(1, (200,)).values)
    detector = RobustZ.fit(history, CalibratedParams())
    standard = Unit(float(detector.state["center"]), float(detector.state["spread"])).series(history)
    learnt = {name[6:]: array for name, array in detector.state.items() if name.startswith("model.")}
    scores = left_out_scores(detector, standard, {0: RobustZ.assess(learnt, standard)}, 0)
    verdicts = detector.score(history, history.first(0))
    assert scores == pytest.approx(verdicts.score, rel=1e-7)  # rounded to float32


def test_gross_outliers_of_the_prefix_keep_their_scores():
    series = labelled(2, (60, 200))
    scores = Fitted(RobustZ, series).judge(0).scores
    assert scores[series.labels].min() > 1 > np.quantile(scores[~series.labels], 0.99)


def test_a_series_is_judged_from_its_first_point_in_batch_and_after_its_prefix_on_arrival():
    series = labelled(3, (200,))
    assert len(judge_batch(RobustZ, series).is_anomaly) == N
    assert len(Fitted(RobustZ, series).judge(0).is_anomaly) == N - TRAIN


def test_a_series_that_settles_sooner_counts_as_settled_in_the_curve():
    rows = [
        Row("TINY", series, "a", "curve", N, lookahead_points=ahead, vus_pr=ahead / 10)
        for series, most in (("one", 2), ("two", 5))
        for ahead in (0, 1, 2, 4, 5)
        if ahead <= most
    ]
    curve = delay_curves(rows)["a"]
    assert {ahead: [row.vus_pr for row in of_it] for ahead, of_it in curve.items()} == {
        0: [0, 0], 1: [0.1, 0.1], 2: [0.2, 0.2], 4: [0.2, 0.4], 5: [0.2, 0.5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "is_discrete", "shown"),
    [
        ((0.012,), False, "1.20"),
        ((0.03,), True, "**3.00**"),
        ((0.001,), False, "**0.10**"),
        ((0.001,), True, "<= 0.10"),
        ((0.03, 0.002), False, "1.60"),
    ],
)
def test_rates_outside_of_half_to_twice_the_asked_one_are_marked(measured, is_discrete, shown):
    assert Rate("a", "counts", "arrival", 0.01, measured, is_discrete).shown == shown


def test_a_detector_of_one_level_is_not_for_series_that_leave_it():
    static, other = (Rate(name, "trending", "arrival", 0.01, (0.9, 0.005)) for name in ("robust_z", "ewma"))
    assert (static.shown, other.shown) == ("not for: 45.25", "**45.25**")
    assert (static.is_no_task, other.is_no_task) == (True, False)
    assert other.right == [False, True]
