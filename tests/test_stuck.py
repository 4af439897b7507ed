"""A value that does not change any more is an anomaly to all that look at more than the value."""

import numpy as np
import pytest

from app.detectors import find_detector
from app.detectors.base import KINDS
from app.detectors.stuck import are_stuck, stuck_points
from app.series import Series
from app.simulation import NORMAL_SERIES, simulate_sensor

WHO_LOOK_AT_STRETCHES = ["subsequence_knn", "ensemble", "changepoint", "kmeans_windows", "isolation_forest"]


def after(history: Series, values: np.ndarray) -> Series:
    step = history.timestamps_s[1] - history.timestamps_s[0]
    return Series(history.timestamps_s[-1] + step * np.arange(1, len(values) + 1), values)


def test_a_run_is_too_long_when_it_is_twice_the_longest_of_the_history() -> None:
    assert stuck_points(1) == 16
    assert stuck_points(300) == 600
    assert stuck_points(3_000) is None


def test_runs_are_counted_from_their_first_value_on() -> None:
    values = np.array([1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0])
    assert are_stuck(values, 3, 8).tolist() == [False, False, False, True, True, False, False, True]
    assert are_stuck(values, 3, 2).tolist() == [False, True]
    assert are_stuck(np.ones(4), 3, 4).tolist() == [False, False, True, True]


@pytest.mark.parametrize("name", WHO_LOOK_AT_STRETCHES)
@pytest.mark.parametrize("state", [0.0, 1.0])
def test_a_lamp_that_stays_as_it_is_is_stuck_in_the_end(name: str, state: float) -> None:
    lamp = NORMAL_SERIES["binary"](5_000, 1)
    detector = find_detector(name)
    fitted = detector.fit(lamp, detector.Params())
    points = stuck_points(int(fitted.state["longest_run"]))
    assert points is not None
    assert fitted.context_points >= points
    verdicts = fitted.score(after(lamp, np.full(2 * points, state)))
    assert verdicts.is_anomaly[points:].all()
    assert set(verdicts.kind[points:].tolist()) == {KINDS.index("flatline")}
    assert verdicts.is_anomaly[: points // 4].mean() < 0.1


@pytest.mark.parametrize("name", ["auto", *WHO_LOOK_AT_STRETCHES])
def test_a_sensor_that_hangs_at_a_usual_value_is_found(name: str) -> None:
    history = simulate_sensor(3_000, seed=2).series
    detector = find_detector(name)
    fitted = detector.fit(history, detector.Params())
    verdicts = fitted.score(after(history, np.full(60, np.median(history.values))))
    assert verdicts.is_anomaly[20:].all()


def test_what_is_stuck_is_so_at_any_budget_and_alone_as_in_bulk() -> None:
    history = simulate_sensor(3_000, seed=2).series
    detector = find_detector("subsequence_knn")
    fitted = detector.fit(history, detector.Params())
    later = after(history, np.full(40, 20.0))
    assert fitted.score(later, None, 1e-12).is_anomaly[16:].all()
    context = Series(np.append(history.timestamps_s, later.timestamps_s), np.append(history.values, later.values))
    alone = fitted.score_one(later.timestamps_s[39], 20.0, context.first(3_039))
    assert alone == fitted.score(later).take(np.array([39])).first()
