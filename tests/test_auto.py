"""What a fit makes where no detector is named: `auto`, what it chooses and why, and how many alarms a spike is."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from app.detectors import find_detector
from app.detectors.base import Detector, Fitted
from app.detectors.choosing import A_HANDFUL, choose
from app.detectors.judging import CalibratedParams
from app.series import FloatArray, Series
from app.simulation import NORMAL_SERIES
from tests.streaming import send_lines

START_S = 1_755_820_800.0
PARAMS = CalibratedParams().model_dump()
AMPLE_S = 300.0
"""A budget that ends no choice on a machine that has other work, too."""


def noise(n: int, seed: int = 0) -> FloatArray:
    return 20.0 + np.random.default_rng(seed).standard_normal(n)


def daily(n: int, seed: int = 0) -> FloatArray:
    return noise(n, seed) + 8.0 * np.sin(2 * np.pi * np.arange(n) / 288)


def series(values: FloatArray) -> Series:
    return Series(START_S + 300.0 * np.arange(len(values)), values)


def body(values: FloatArray) -> dict[str, list[float]]:
    points = series(values)
    return {"timestamps": points.timestamps_s.tolist(), "values": points.values.tolist()}


def fit(client: httpx.Client, series_id: str, **fields: object) -> dict[str, Any]:
    answer = client.post(f"/fit/{series_id}", json=fields)
    assert answer.status_code == 200, answer.text
    fitted: dict[str, Any] = answer.json()
    return fitted


# ---- the default -----------------------------------------------------------------------------------------------


def test_a_fit_without_a_detector_chooses_one_and_says_why(client: httpx.Client, series_id: str) -> None:
    fitted = fit(client, series_id, **body(daily(300)))
    version = client.get(f"/series/{series_id}/versions/1").json()
    choice = version["report"]["choice"]
    assert version["detector"] == fitted["detector"] != "auto"
    assert choice["reason"].startswith("300 points with ")
    assert [candidate["detector"] for candidate in choice["candidates"]][:1] in ([], [fitted["detector"]])


def test_parameters_with_a_k_are_those_of_mean_std(client: httpx.Client, series_id: str) -> None:
    named = fit(client, series_id, **body(noise(300)), detector="mean_std", params={"k": 3})
    assert fit(client, series_id, **body(noise(300)), params={"k": 3})["model_digest"] == named["model_digest"]
    version = client.get(f"/series/{series_id}/versions/2").json()
    assert (version["detector"], version["params"]["k"], version["report"]["choice"]) == ("mean_std", 3.0, None)


def test_parameters_that_all_have_are_handed_on_to_what_is_chosen(client: httpx.Client, series_id: str) -> None:
    fitted = fit(client, series_id, **body(noise(50)), params={"direction": "above", "false_alarm_rate": 0.01})
    version = client.get(f"/series/{series_id}/versions/1").json()
    assert fitted["detector"] == "robust_z"
    assert (version["params"]["direction"], version["params"]["false_alarm_rate"]) == ("above", 0.01)


def test_many_fits_without_a_detector_are_of_mean_std(client: httpx.Client, series_id: str) -> None:
    lines = [{"series_id": f"{series_id}.{n}", **body(noise(300, n))} for n in range(2)]
    lines.append({"series_id": f"{series_id}.k", **body(noise(300)), "params": {"k": 2}})
    assert [answer["detector"] for answer in send_lines(client, "/fit", lines)] == ["mean_std"] * 3
    assert client.get(f"/series/{series_id}.0/versions/1").json()["report"]["choice"] is None


# ---- the choice ------------------------------------------------------------------------------------------------


def names(fitted: Fitted) -> list[str]:
    assert fitted.choice is not None
    return [candidate.detector for candidate in fitted.choice.candidates]


@pytest.mark.parametrize(
    ("points", "expected"), [(3, "mean_std"), (A_HANDFUL - 1, "mean_std"), (A_HANDFUL, "robust_z"), (99, "robust_z")]
)
def test_of_few_points_nothing_is_tried(points: int, expected: str) -> None:
    fitted = choose(series(noise(points)), PARAMS, AMPLE_S)
    assert fitted.detector.name == expected
    assert names(fitted) == []
    assert fitted.choice is not None
    assert fitted.choice.reason.startswith("Fewer than ")


def test_candidates_are_recorded_what_is_taken_first() -> None:
    fitted = choose(series(daily(2_000)), PARAMS, AMPLE_S)
    assert fitted.choice is not None
    taken, *others = fitted.choice.candidates
    assert taken.detector == fitted.detector.name
    assert sorted(names(fitted)) == ["autoregressive", "changepoint", "robust_z", "seasonal", "subsequence_knn"]
    assert "a period of 288 points" in fitted.choice.reason
    assert f"{taken.detector} finds {taken.recall:.0%}" in fitted.choice.reason
    for candidate in (taken, *others):
        assert 0 <= candidate.recall <= 1
        assert 0 <= candidate.false_alarm_rate <= 1
        assert candidate.seconds > 0


def test_what_is_taken_is_fitted_to_all_points() -> None:
    history = series(daily(2_000))
    fitted = choose(history, PARAMS, AMPLE_S)
    named = find_detector(fitted.detector.name)
    again = named.fit(history, named.Params())
    assert {name: array.tolist() for name, array in fitted.detector.state.items()} == {
        name: array.tolist() for name, array in again.state.items()
    }


def test_a_counter_is_left_to_a_detector_that_its_level_does_not_bother() -> None:
    fitted = choose(NORMAL_SERIES["counter"](3_000, 1), PARAMS, AMPLE_S)
    assert fitted.detector.name != "subsequence_knn"
    assert "subsequence_knn" in names(fitted)
    assert fitted.choice is not None
    assert "a level that drifts" in fitted.choice.reason


def test_a_lamp_is_left_to_a_detector_that_sees_how_its_states_follow_one_another() -> None:
    lamp = NORMAL_SERIES["binary"](3_000, 1)
    fitted = choose(lamp, PARAMS, AMPLE_S)
    assert fitted.detector.name == "subsequence_knn"
    assert fitted.choice is not None
    assert "two states" in fitted.choice.reason
    blinking = Series(lamp.timestamps_s[-1] + 60.0 * np.arange(1, 401), np.arange(400.0) % 2)
    assert fitted.detector.score(blinking).is_anomaly.mean() > 0.9


def test_a_new_process_has_its_whole_budget_for_the_choice() -> None:
    """Not what is left of it once the loops are loaded, which takes about as long as this budget."""
    script = (
        "import numpy as np; from app.detectors.choosing import choose; from app.series import Series;"
        "values = np.random.default_rng(0).standard_normal(150);"
        "print(len(choose(Series(np.arange(150.0), values), {}, 0.7).choice.candidates))"
    )
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(printed.stdout) > 0


def test_a_budget_that_leaves_no_time_takes_what_finds_most_untried() -> None:
    fitted = choose(series(daily(500)), PARAMS, 0.0)
    assert fitted.detector.name == "subsequence_knn"
    assert names(fitted) == []
    assert fitted.choice is not None
    assert "the budget of time left none for a trial" in fitted.choice.reason


# ---- how many alarms a spike is --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[noise, daily], ids=["noise", "daily"])
def chosen(request: pytest.FixtureRequest) -> tuple[Callable[..., FloatArray], Detector]:
    """Values of a kind, and what `auto` makes of them."""
    make = request.param
    auto = find_detector("auto")
    return make, auto.fit(series(make(3_000)), auto.Params())


@pytest.mark.parametrize("sigmas", [-40.0, -10.0, 10.0, 40.0, 400.0])
def test_a_spike_of_one_point_is_flagged_and_at_most_four_points_after_it(
    chosen: tuple[Callable[..., FloatArray], Detector], sigmas: float
) -> None:
    make, detector = chosen
    later = series(make(3_400)).last(400)
    spiked = later.values.copy()
    spiked[150] += sigmas
    plain, flagged = (
        detector.score(Series(later.timestamps_s, values)).is_anomaly for values in (later.values, spiked)
    )
    more = np.flatnonzero(flagged & ~plain)
    assert more[0] == 150
    assert more[-1] <= 154
    assert not math.isnan(detector.score(later).score.max())
