"""`lookahead_points`: how many of the points after it, in the same request, a point is judged with."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from app.detectors import find_detector
from app.detectors.base import KINDS, Detector
from app.series import Series
from tests.streaming import AS_ARROW, NUMBERS, VERDICT, Answer, batch_of, fit, send_lines, stream_of, table_of
from tests.test_fast_lane import ask_three_ways

FIRST, LAST = 400, 480
TIMES = 1_705_000_000.0 + 60.0 * np.arange(LAST)
VALUES = 10 * np.sin(np.arange(LAST) / 8) + np.random.default_rng(3).normal(0, 1, LAST)
VALUES[FIRST + 30 : FIRST + 45] = VALUES[FIRST + 30]
REFUSED = ("-1", "100001", "1000000000000", "1.5", "1e3", "", "+1", " 1", "1_000", "0x10", "many", "nan")

Points = dict[str, list[float]]


def points(first: int, last: int) -> Points:
    """[first, last) of the series."""
    return {"timestamps": TIMES[first:last].tolist(), "values": VALUES[first:last].tolist()}


HISTORY, FOLLOWING = points(0, FIRST), points(FIRST, LAST)
POINT = {"timestamp": TIMES[FIRST].item(), "value": VALUES[FIRST].item()}


@pytest.fixture(scope="module")
def knn() -> Detector:
    """A detector that looks ahead."""
    kind = find_detector("subsequence_knn")
    return kind.fit(Series(TIMES[:FIRST], VALUES[:FIRST]), kind.Params())


@pytest.fixture
def fitted(client: httpx.Client, series_id: str) -> str:
    """A series whose model it is."""
    fit(client, series_id, **HISTORY, detector="subsequence_knn")
    return series_id


def predict(client: httpx.Client, series_id: str, body: object, **query: object) -> Answer:
    answer = client.post(f"/predict/{series_id}", json=body, params={name: str(raw) for name, raw in query.items()})
    assert answer.status_code == 200, answer.text
    judged: Answer = answer.json()
    return judged


def verdicts(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in VERDICT}


def own(detector: Detector, lookahead_points: int, context: Series | None = None, rate: float | None = None) -> object:
    """What the detector itself says of the points that follow."""
    series = Series(np.array(FOLLOWING["timestamps"]), np.array(FOLLOWING["values"]))
    said = detector.score(series, context, rate, lookahead_points)
    columns = {name: getattr(said, name).tolist() for name in NUMBERS}
    numbers = {name: [n if np.isfinite(n) else None for n in column] for name, column in columns.items()}
    return {"anomaly": said.is_anomaly.tolist(), "kind": [KINDS[kind] for kind in said.kind.tolist()]} | numbers


# ---- what it does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead_points", [0, 1, 8, 40, 79, 80, 100_000])
def test_the_verdicts_are_those_of_the_detector(
    client: httpx.Client, fitted: str, knn: Detector, lookahead_points: int
) -> None:
    judged = predict(client, fitted, FOLLOWING, lookahead_points=lookahead_points)
    assert verdicts(judged) == own(knn, lookahead_points)
    if lookahead_points == 0:
        assert judged == predict(client, fitted, FOLLOWING)


def test_later_points_tell_more_of_those_before(client: httpx.Client, fitted: str) -> None:
    soon, late = (predict(client, fitted, FOLLOWING, lookahead_points=number) for number in (0, 64))
    assert soon["score"] != late["score"]
    assert soon["score"][-1] == late["score"][-1], "the last has none after it"


def test_each_point_depends_on_so_many_after_it_and_no_more(client: httpx.Client, fitted: str) -> None:
    whole = predict(client, fitted, FOLLOWING, lookahead_points=16)
    part = predict(client, fitted, points(FIRST, FIRST + 50), lookahead_points=16)
    assert part["score"][: 50 - 16] == whole["score"][: 50 - 16]


def test_context_and_alarm_budget_count_as_ever(client: httpx.Client, fitted: str, knn: Detector) -> None:
    body = FOLLOWING | {"context": points(FIRST - 300, FIRST)}
    judged = predict(client, fitted, body, lookahead_points=40, false_alarm_rate=0.2)
    assert verdicts(judged) == own(knn, 40, Series(TIMES[FIRST - 300 : FIRST], VALUES[FIRST - 300 : FIRST]), 0.2)


def test_a_single_point_has_none_after_it(client: httpx.Client, fitted: str) -> None:
    assert predict(client, fitted, POINT, lookahead_points=100) == predict(client, fitted, POINT)


def test_a_detector_that_never_looks_ahead_says_the_same(client: httpx.Client, series_id: str) -> None:
    for detector in ("mean_std", "robust_z"):
        fit(client, series_id, **HISTORY, detector=detector)
        assert predict(client, series_id, FOLLOWING, lookahead_points=50) == predict(client, series_id, FOLLOWING)


# ---- by every way in -----------------------------------------------------------------------------------------


def test_the_fast_lane_answers_as_the_ordinary_route(client: httpx.Client, fitted: str) -> None:
    predict(client, fitted, POINT)  # in memory from here on
    statuses = [
        ask_three_ways(client, f"/predict/{fitted}?lookahead_points={number}", json.dumps(body).encode()).status
        for number in ("0", "8", "064", "100000", "100001", "-1", "x", "8&lookahead_points=8")
        for body in (POINT, FOLLOWING)
    ]
    assert statuses == [200] * 8 + [422] * 8


def test_points_of_many_series_are_judged_as_those_of_one(client: httpx.Client, fitted: str, series_id: str) -> None:
    names = [fitted, f"{series_id}.other"]
    fit(client, names[1], **points(100, FIRST), detector="subsequence_knn")
    expected = {name: predict(client, name, FOLLOWING, lookahead_points=40) for name in names}
    assert expected[fitted] != predict(client, fitted, FOLLOWING)
    lines = [{"series_id": name} | FOLLOWING for name in names]
    answers = send_lines(client, "/predict", lines, lookahead_points="40")
    assert answers == [{"series_id": name, "status": 200} | expected[name] for name in names]

    interleaved = batch_of(
        series_id=names * 80, timestamp=np.repeat(FOLLOWING["timestamps"], 2), value=np.repeat(FOLLOWING["values"], 2)
    )
    answer = client.post("/predict?lookahead_points=40", content=stream_of(interleaved), headers=AS_ARROW)
    rows = table_of(answer).to_pylist()
    for place, name in enumerate(names):
        for column, judged in verdicts(expected[name]).items():
            assert [row[column] for row in rows[place::2]] == judged


def test_it_counts_for_a_body_in_arrow_and_for_a_large_one(client: httpx.Client, fitted: str) -> None:
    expected = predict(client, fitted, FOLLOWING, lookahead_points=40)
    rows = batch_of(timestamp=FOLLOWING["timestamps"], value=FOLLOWING["values"])
    answer = client.post(f"/predict/{fitted}?lookahead_points=40", content=stream_of(rows), headers=AS_ARROW)
    assert verdicts(table_of(answer).to_pydict()) == verdicts(expected)
    large = json.dumps(FOLLOWING).encode() + b" " * 20_000
    assert client.post(f"/predict/{fitted}?lookahead_points=40", content=large).json() == expected


# ---- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", REFUSED)
def test_what_is_no_integer_in_range_is_refused(client: httpx.Client, fitted: str, raw: str) -> None:
    for path in (f"/predict/{fitted}", "/predict"):
        answer = client.post(path, json={"series_id": fitted} | POINT, params={"lookahead_points": raw})
        assert answer.status_code == 422, answer.text
        faults = answer.json()["errors"]
        assert [(fault["in"], fault["pointer"]) for fault in faults] == [("query", "/lookahead_points")]
        assert faults[0]["detail"] == "must be an integer, 0 to 100000"


def test_it_is_given_once(client: httpx.Client, fitted: str) -> None:
    answer = client.post(f"/predict/{fitted}?lookahead_points=1&lookahead_points=2", json=POINT)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/lookahead_points"]
