"""Alarm budgets: how many false alarms a caller can live with, at a fit and at a prediction."""

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from tests.streaming import AS_ARROW, NUMBERS, Answer, batch_of, body_of, fit, pointers, send_lines, stream_of, table_of
from tests.test_fast_lane import ask_three_ways

INTERVAL_S = 60.0
TIMES = 1_705_000_000.0 + INTERVAL_S * np.arange(3_000)
VALUES = np.random.default_rng(8).normal(10, 2, 3_000)
HISTORY = {"timestamps": TIMES[:1_000].tolist(), "values": VALUES[:1_000].tolist()}
FOLLOWING = {"timestamps": TIMES[1_000:].tolist(), "values": VALUES[1_000:].tolist()}
FEW = {name: column[:40] for name, column in FOLLOWING.items()}
POINT = {"timestamp": TIMES[1_000], "value": 15.0}
RATES = ("1e-4", "0.01", "0.2")
WEEKLY = 100.8
SAME_RATE = repr(WEEKLY * INTERVAL_S / 604_800)
QUERIES = (
    "false_alarm_rate=0.01", "false_alarm_rate=0.5", "false_alarm_rate=1e-300", "max_false_alarms_per_week=1",
    "max_false_alarms_per_week=1e9", "version=1&false_alarm_rate=.2", "false_alarm_rate=2e-1&version=v1",
    "version=2&false_alarm_rate=0.01", "version=@none&max_false_alarms_per_week=3",
)  # fmt: skip
REFUSED = {
    "false_alarm_rate=0": "/false_alarm_rate",
    "false_alarm_rate=-0.1": "/false_alarm_rate",
    "false_alarm_rate=0.51": "/false_alarm_rate",
    "false_alarm_rate=nan": "/false_alarm_rate",
    "false_alarm_rate=inf": "/false_alarm_rate",
    "false_alarm_rate=few": "/false_alarm_rate",
    "false_alarm_rate=0_1": "/false_alarm_rate",
    "false_alarm_rate=1e-0_3": "/false_alarm_rate",
    "false_alarm_rate=%200.1": "/false_alarm_rate",
    "false_alarm_rate=0.1%0A": "/false_alarm_rate",
    "false_alarm_rate=.": "/false_alarm_rate",
    "false_alarm_rate=%D9%A0.%D9%A1": "/false_alarm_rate",
    "max_false_alarms_per_week=1_0": "/max_false_alarms_per_week",
    "false_alarm_rate=": "/false_alarm_rate",
    "false_alarm_rate=0,01": "/false_alarm_rate",
    "max_false_alarms_per_week=0": "/max_false_alarms_per_week",
    "max_false_alarms_per_week=1e10": "/max_false_alarms_per_week",
    "max_false_alarms_per_week=one": "/max_false_alarms_per_week",
    "false_alarm_rate=0.1&max_false_alarms_per_week=1": "/max_false_alarms_per_week",
    "max_false_alarms_per_week=1&false_alarm_rate=0.1": "/false_alarm_rate",
    "false_alarm_rate=0.1&false_alarm_rate=0.1": "/false_alarm_rate",
    "False_Alarm_Rate=0.1": "/False_Alarm_Rate",
}


@pytest.fixture
def robust(client: httpx.Client, series_id: str) -> str:
    """A series whose model is calibrated, and knows how far its points are apart."""
    name = f"{series_id}.robust"
    fit(client, name, **HISTORY, detector="robust_z")
    return name


@pytest.fixture
def plain(client: httpx.Client, series_id: str) -> str:
    """A series whose model has mean and standard deviation alone."""
    name = f"{series_id}.plain"
    fit(client, name, **HISTORY, detector="mean_std")
    return name


def predict(client: httpx.Client, series_id: str, body: Mapping[str, object], **query: object) -> Answer:
    answer = client.post(f"/predict/{series_id}", json=body, params={name: str(raw) for name, raw in query.items()})
    assert answer.status_code == 200, answer.text
    judged: Answer = answer.json()
    return judged


def faults(answer: Answer) -> list[tuple[str, str]]:
    return [(fault["in"], fault["pointer"]) for fault in answer["errors"]]


def verdicts(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("anomaly", *NUMBERS, "kind")}


# ---- what it does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", ["robust_z", "mean_std"])
def test_exactly_the_points_that_are_rarer_than_the_rate_are_flagged(
    client: httpx.Client, series_id: str, detector: str
) -> None:
    fit(client, series_id, **HISTORY, detector=detector)
    asked = predict(client, series_id, FOLLOWING)
    flagged = []
    for rate in RATES:
        judged = predict(client, series_id, FOLLOWING, false_alarm_rate=rate)
        assert judged["anomaly"] == [p_value < float(rate) for p_value in judged["p_value"]]
        assert [kind is not None for kind in judged["kind"]] == judged["anomaly"]
        assert (judged["p_value"], judged["expected"]) == (asked["p_value"], asked["expected"])
        flagged.append(sum(judged["anomaly"]) / len(judged["anomaly"]))
    assert flagged[0] < 0.002
    assert 0.003 < flagged[1] < 0.03
    assert 0.15 < flagged[2] < 0.25
    assert predict(client, series_id, FOLLOWING) == asked, "a budget is that of its request alone"


def test_a_number_a_week_is_the_rate_that_it_is_at_the_usual_interval(client: httpx.Client, robust: str) -> None:
    weekly = predict(client, robust, FOLLOWING, max_false_alarms_per_week=WEEKLY)
    assert weekly == predict(client, robust, FOLLOWING, false_alarm_rate=SAME_RATE)
    assert weekly != predict(client, robust, FOLLOWING)


@pytest.mark.parametrize("budget", [{"false_alarm_rate": 0.02}, {"max_false_alarms_per_week": WEEKLY}], ids=str)
def test_a_budget_of_the_request_is_as_good_as_one_of_the_fit(
    client: httpx.Client, robust: str, budget: dict[str, float]
) -> None:
    fit(client, robust, **HISTORY, detector="robust_z", params=budget)
    fitted = predict(client, robust, FOLLOWING, version=2)
    assert verdicts(predict(client, robust, FOLLOWING, version=1, **budget)) == verdicts(fitted)
    assert verdicts(predict(client, robust, FOLLOWING, version=2, false_alarm_rate=0.3)) != verdicts(fitted)


@pytest.mark.parametrize("detector", ["robust_z", "mean_std"])
def test_a_budget_leaves_a_side_open_that_the_direction_leaves_open(
    client: httpx.Client, series_id: str, detector: str
) -> None:
    fit(client, series_id, **HISTORY, detector=detector, params={"direction": "above"})
    judged = predict(client, series_id, FOLLOWING, false_alarm_rate=0.1)
    assert set(judged["lower"]) == {None}
    assert 0.07 < sum(judged["anomaly"]) / 2_000 < 0.13
    assert set(judged["kind"]) == {None, "spike"}


def test_mean_std_with_a_budget_is_calibrated_in_place_of_k(client: httpx.Client, series_id: str) -> None:
    for params in ({"false_alarm_rate": 0.05}, {"false_alarm_rate": 0.05, "k": 9}, {}):
        fit(client, series_id, **HISTORY, detector="mean_std", params=params)
    first, other_k, plain = (verdicts(predict(client, series_id, FOLLOWING, version=n)) for n in (1, 2, 3))
    assert first == other_k
    assert first["upper"] != plain["upper"]
    assert 0.03 < sum(first["anomaly"]) / 2_000 < 0.08
    kept = client.get(f"/series/{series_id}/versions/1").json()["params"]
    assert (kept["false_alarm_rate"], kept["max_false_alarms_per_week"], kept["k"]) == (0.05, None, 3.0)


def test_a_fit_takes_one_budget_and_not_two(client: httpx.Client, series_id: str) -> None:
    params = {"false_alarm_rate": 0.05, "max_false_alarms_per_week": 1}
    answer = client.post(f"/fit/{series_id}", json=HISTORY | {"params": params})
    assert answer.status_code == 422
    assert pointers(answer.json()) == ["/params"]
    assert "not both" in answer.json()["errors"][0]["detail"]


# ---- by every way in -----------------------------------------------------------------------------------------


def test_the_fast_lane_answers_as_the_ordinary_route(client: httpx.Client, robust: str, plain: str) -> None:
    statuses = {}
    for name in (robust, plain):
        predict(client, name, POINT)  # in memory from here on
        for body in (POINT, FEW):
            answers = [
                ask_three_ways(client, f"/predict/{name}?{query}", *body_of([body]).splitlines()) for query in QUERIES
            ]
            statuses[name] = [answer.status for answer in answers]
    assert statuses[robust] == [200] * 7 + [404] * 2
    assert statuses[plain] == [200, 200, 200, 422, 422, 200, 200, 404, 404]


def test_points_of_many_series_are_judged_as_those_of_one(client: httpx.Client, robust: str, plain: str) -> None:
    names = [plain, robust]
    expected = {name: predict(client, name, FEW, false_alarm_rate=0.2) for name in names}
    assert all(any(answer["anomaly"]) for answer in expected.values())
    lines = [{"series_id": name} | FEW for name in names]
    answers = send_lines(client, "/predict", lines, false_alarm_rate="0.2")
    assert answers == [{"series_id": name, "status": 200} | expected[name] for name in names]

    interleaved = batch_of(
        series_id=names * 40, timestamp=np.repeat(FEW["timestamps"], 2), value=np.repeat(FEW["values"], 2)
    )
    rows = judge_rows(client, interleaved, false_alarm_rate="0.2")
    for place, name in enumerate(names):
        assert [row["status"] for row in rows[place::2]] == [200] * 40
        for column, judged in verdicts(expected[name]).items():
            assert [row[column] for row in rows[place::2]] == judged


def test_a_budget_counts_for_a_body_in_arrow_and_for_a_large_one(client: httpx.Client, robust: str) -> None:
    expected = predict(client, robust, FOLLOWING, false_alarm_rate=0.2)
    rows = batch_of(timestamp=FOLLOWING["timestamps"], value=FOLLOWING["values"])
    answer = client.post(
        f"/predict/{robust}", content=stream_of(rows), params={"false_alarm_rate": "0.2"}, headers=AS_ARROW
    )
    assert verdicts(table_of(answer).to_pydict()) == verdicts(expected)
    few = predict(client, robust, FEW, false_alarm_rate=0.2)
    assert verdicts(few) == {name: column[:40] for name, column in verdicts(expected).items()}


def judge_rows(client: httpx.Client, batch: object, **query: str) -> list[Answer]:
    answer = client.post("/predict", content=stream_of(batch), params=query, headers=AS_ARROW)
    rows: list[Answer] = table_of(answer).to_pylist()
    return rows


# ---- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", REFUSED)
def test_any_other_budget_is_refused_by_every_way_in(client: httpx.Client, robust: str, query: str) -> None:
    expected = [("query", REFUSED[query])]
    point = {"series_id": robust} | POINT
    rows = stream_of(batch_of(**{name: [field] for name, field in point.items()}))
    for answer in (
        client.post(f"/predict/{robust}?{query}", json=POINT),
        client.post(f"/predict/{robust}?{query}", content=rows, headers=AS_ARROW),
        client.post(f"/predict?{query}", content=body_of([point])),
        client.post(f"/predict?{query}", content=rows, headers=AS_ARROW),
    ):
        assert answer.status_code == 422, answer.text
        assert faults(answer.json()) == expected


def test_every_fault_of_a_query_is_named_at_once(client: httpx.Client, robust: str) -> None:
    query = "version=one&x=1&false_alarm_rate=2"
    answer = client.post(f"/predict/{robust}?{query}", json={"timestamp": 1}).json()
    assert {place for _, place in faults(answer)} == {"/x", "/version", "/false_alarm_rate", "/value"}
    said = {fault["pointer"]: fault["detail"] for fault in answer["errors"]}
    assert said["/false_alarm_rate"] == "must be a number like 0.001 or 1e-3, above 0 and at most 0.5"
    assert "version, false_alarm_rate, max_false_alarms_per_week" in said["/x"]


def test_a_number_a_week_means_nothing_to_a_model_that_does_not_know_its_sampling(
    client: httpx.Client, robust: str, plain: str
) -> None:
    refused = client.post(f"/predict/{plain}?max_false_alarms_per_week=1", json=POINT)
    assert refused.status_code == 422
    assert faults(refused.json()) == [("query", "/max_false_alarms_per_week")]
    assert "give false_alarm_rate" in refused.json()["errors"][0]["detail"]

    lines = [{"series_id": name} | POINT for name in (plain, robust, plain)]
    answers = send_lines(client, "/predict", lines, max_false_alarms_per_week="1")
    assert [answer["status"] for answer in answers] == [422, 200, 422]
    assert [answer.get("line") for answer in answers] == [1, None, 3]
    assert answers[0]["errors"] == refused.json()["errors"]

    columns = {name: [line[name] for line in lines] for name in lines[0]}
    rows = judge_rows(client, batch_of(**columns), max_false_alarms_per_week="1")
    assert [row["status"] for row in rows] == [422, 200, 422]
    assert set(rows[0].values()) == {422, None}
    assert verdicts(rows[1]) == verdicts(answers[1])
