"""Context: the points before those to judge. They come with the request, else they are the end of the training data."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.detectors import DETECTORS, find_detector
from app.series import Series, format_timestamp
from tests.servers import Tidemark, serve_tidemark
from tests.streaming import ARROW, AS_ARROW, VERDICT, Answer, batch_of, fit, send_lines, stream_of, table_of
from tests.test_fast_lane import ask_three_ways

INTERVAL_S = 60.0
FIRST = 400
"""Points of training data; what follows is to be judged."""
TIMES = 1_705_000_000.0 + INTERVAL_S * np.arange(460)
VALUES = 100 + np.random.default_rng(11).uniform(-5, 5, 460)
VALUES[[FIRST + 12, FIRST + 37]] += (90, -90)
VALUES[FIRST + 45 :] += 60

Points = dict[str, list[float]]


def points(first: int, last: int) -> Points:
    """[first, last) of the series."""
    return {"timestamps": TIMES[first:last].tolist(), "values": VALUES[first:last].tolist()}


HISTORY, FOLLOWING = points(0, FIRST), points(FIRST, 460)
SHIFTED = (101.0, 99.5, 100.4, 160.0, 161.5, 159.0, 160.7, 162.0)
"""A level and another: the fourth point of the new one tells that it lasts."""


def needed(detector: str) -> int:
    """The context that a model of HISTORY needs."""
    kind = find_detector(detector)
    return kind.fit(Series(TIMES[:FIRST], VALUES[:FIRST]), kind.Params()).context_points


NEEDED = needed("robust_z")


@pytest.fixture
def fitted(client: httpx.Client, series_id: str) -> str:
    """A series whose model looks back."""
    fit(client, series_id, **HISTORY, detector="robust_z")
    return series_id


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service that takes few points."""
    with serve_tidemark(tmp_path_factory.mktemp("small"), {"MAX_POINTS": "500"}) as running:
        fit(running.client, "s", **HISTORY, detector="robust_z")
        yield running


def predict(client: httpx.Client, series_id: str, body: object, **query: str) -> Answer:
    answer = client.post(f"/predict/{series_id}", json=body, params=query)
    assert answer.status_code == 200, answer.text
    judged: Answer = answer.json()
    return judged


def one(place: int) -> dict[str, float]:
    return {"timestamp": TIMES[place].item(), "value": VALUES[place].item()}


def at(answer: Answer, place: int) -> list[Any]:
    """The verdict on one of many."""
    return [answer[name][place] for name in VERDICT]


def alone(answer: Answer) -> list[Any]:
    return [answer[name] for name in VERDICT]


def refused(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]]


# ---- the same verdict ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_point_judged_alone_with_its_context_gets_the_verdict_that_it_gets_in_a_list(
    client: httpx.Client, series_id: str, detector: str
) -> None:
    fit(client, series_id, **HISTORY, detector=detector)
    listed = predict(client, series_id, FOLLOWING)
    least = needed(detector)
    assert least < FIRST
    for place in (0, 1, 12, 13, 30, 37, 45, 48, 59):
        for length in (least, least + 7, FIRST):
            context = points(FIRST + place - length, FIRST + place)
            judged = predict(client, series_id, one(FIRST + place) | {"context": context})
            # JSON carries a float in as many digits as it takes to tell it from all others.
            assert json.dumps(alone(judged)) == json.dumps(at(listed, place)), (place, length)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_end_of_the_training_data_is_the_context_where_none_is_sent(
    client: httpx.Client, series_id: str, detector: str
) -> None:
    fit(client, series_id, **HISTORY, detector=detector)
    for body in (FOLLOWING, one(FIRST)):
        expected = predict(client, series_id, body)
        assert predict(client, series_id, body | {"context": HISTORY}) == expected
        assert predict(client, series_id, body | {"context": None}) == expected


def test_a_list_in_parts_each_the_context_of_the_next_gets_the_same_verdicts(client: httpx.Client, fitted: str) -> None:
    whole = predict(client, fitted, FOLLOWING)
    edges = range(FIRST, 460, 20)
    parts = [predict(client, fitted, points(a, a + 20) | {"context": points(a - 20, a)}) for a in edges]
    for name in VERDICT:
        assert [verdict for part in parts for verdict in part[name]] == whole[name]


@pytest.mark.parametrize("detector", DETECTORS)
def test_points_of_a_request_are_context_for_those_later_in_time_in_whatever_order_they_come(
    client: httpx.Client, series_id: str, detector: str
) -> None:
    fit(client, series_id, **HISTORY, detector=detector)
    listed = predict(client, series_id, FOLLOWING)
    order = np.random.default_rng(0).permutation(60).tolist()
    mixed = {name: [column[place] for place in order] for name, column in FOLLOWING.items()}
    judged = predict(client, series_id, mixed)
    assert all(at(judged, row) == at(listed, place) for row, place in enumerate(order))


def test_the_context_of_one_request_is_forgotten_in_the_next(client: httpx.Client, fitted: str) -> None:
    before = predict(client, fitted, one(FIRST + 50))
    shifted = predict(client, fitted, one(FIRST + 50) | {"context": points(FIRST, FIRST + 50)})
    assert (before["kind"], shifted["kind"]) == ("spike", "level_shift")
    assert predict(client, fitted, one(FIRST + 50)) == before


# ---- kinds ---------------------------------------------------------------------------------------------------


def kinds(client: httpx.Client, series_id: str, values: tuple[float, ...]) -> list[str | None]:
    body = {"timestamps": TIMES[FIRST : FIRST + len(values)].tolist(), "values": list(values)}
    judged = predict(client, series_id, body)
    assert [kind is not None for kind in judged["kind"]] == judged["anomaly"]
    found: list[str | None] = judged["kind"]
    return found


def test_an_anomaly_has_a_kind_and_a_normal_point_has_none(client: httpx.Client, fitted: str) -> None:
    assert kinds(client, fitted, (101.0, 190.0, 99.0, 12.0, 100.0)) == [None, "spike", None, "dip", None]


def test_the_kind_of_an_anomaly_depends_on_those_before_it(client: httpx.Client, fitted: str) -> None:
    assert kinds(client, fitted, SHIFTED) == [None] * 3 + ["spike"] * 3 + ["level_shift"] * 2
    assert kinds(client, fitted, (100.0, 160.0, 170.0, 180.0, 190.0))[-1] == "trend_change"
    assert kinds(client, fitted, (160.0, 40.0, 161.0, 39.0))[-1] == "variance_change"
    assert kinds(client, fitted, (160.0,) * 6)[-2:] == ["flatline"] * 2


def test_kinds_are_the_same_in_arrow_where_they_are_null_for_a_normal_point(client: httpx.Client, fitted: str) -> None:
    rows = batch_of(timestamp=TIMES[FIRST : FIRST + 8], value=SHIFTED)
    expected = kinds(client, fitted, SHIFTED)
    single = table_of(client.post(f"/predict/{fitted}", content=stream_of(rows), headers=AS_ARROW))
    assert single["kind"].to_pylist() == expected
    bulk = batch_of(series_id=[fitted] * 8, timestamp=TIMES[FIRST : FIRST + 8], value=SHIFTED)
    many = table_of(client.post("/predict", content=stream_of(bulk), headers=AS_ARROW))
    assert many["kind"].to_pylist() == expected
    assert many["kind"].null_count == 3


# ---- by every way in -----------------------------------------------------------------------------------------


def test_the_fast_lane_answers_as_the_ordinary_route(client: httpx.Client, fitted: str) -> None:
    predict(client, fitted, one(FIRST))  # in memory from here on
    contexts = [points(FIRST + 30, FIRST + 50), points(FIRST, FIRST + 3), {}, None, [1]]
    statuses = []
    for context in contexts:
        for body in (one(FIRST + 50), points(FIRST + 50, 460)):
            raw = json.dumps(body | {"context": context}).encode()
            statuses.append(ask_three_ways(client, f"/predict/{fitted}", raw).status)
    assert statuses == [200, 200, 422, 422, 422, 422, 200, 200, 422, 422]


def test_each_line_of_many_has_its_own_context(client: httpx.Client, fitted: str) -> None:
    context = points(FIRST + 20, FIRST + 50)
    right, short = {"context": context}, {"context": points(0, NEEDED - 1)}
    point, many = one(FIRST + 50), points(FIRST + 50, 460)
    lines = [point | right, point | short, point, many | right, many | {"context": {"timestamps": 1}}]
    answers = send_lines(client, "/predict", [{"series_id": fitted} | line for line in lines])
    assert [answer["status"] for answer in answers] == [200, 422, 200, 200, 422]
    for place in (0, 2, 3):
        assert answers[place] == {"series_id": fitted, "status": 200} | predict(client, fitted, lines[place])
    assert answers[0]["kind"] != answers[2]["kind"]
    faults = [[fault["pointer"] for fault in answers[place]["errors"]] for place in (1, 4)]
    assert faults == [["/context"], ["/context/timestamps", "/context/values"]]
    assert answers[1]["line"] == 2


def test_context_counts_for_an_answer_in_arrow_and_with_a_budget(client: httpx.Client, fitted: str) -> None:
    body = points(FIRST + 50, 460) | {"context": points(FIRST + 20, FIRST + 50)}
    expected = predict(client, fitted, body, false_alarm_rate="0.2")
    answer = client.post(f"/predict/{fitted}?false_alarm_rate=0.2", json=body, headers={"Accept": ARROW})
    assert {name: table_of(answer)[name].to_pylist() for name in VERDICT} == {name: expected[name] for name in VERDICT}
    assert expected["upper"] < predict(client, fitted, body)["upper"]


def test_a_large_context_is_taken_like_a_small_one(client: httpx.Client, fitted: str) -> None:
    long = {"timestamps": list(range(5_000)), "values": [100.5] * 5_000}
    short = {name: column[-NEEDED:] for name, column in long.items()}
    body = {"timestamp": 5_000, "value": 190.0}
    assert predict(client, fitted, body | {"context": long}) == predict(client, fitted, body | {"context": short})


# ---- faults --------------------------------------------------------------------------------------------------


def test_too_few_points_are_refused_with_how_many_it_takes(client: httpx.Client, fitted: str) -> None:
    for length in (0, 1, NEEDED - 1):
        for body in (one(FIRST), FOLLOWING):
            answer = client.post(f"/predict/{fitted}", json=body | {"context": points(FIRST - length, FIRST)})
            assert refused(answer) == [("body", "/context")]
            detail = answer.json()["errors"][0]["detail"]
            assert f"has {length} points, version 1 (robust_z) needs {NEEDED}: send more" in detail
    predict(client, fitted, one(FIRST) | {"context": points(FIRST - NEEDED, FIRST)})


def test_a_model_that_needs_no_context_takes_any_and_none(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, **HISTORY, detector="mean_std")
    expected = predict(client, series_id, FOLLOWING)
    for context in (points(0, 0), points(0, 1), HISTORY):
        assert predict(client, series_id, FOLLOWING | {"context": context}) == expected


@pytest.mark.parametrize(
    ("context", "places"),
    [
        ([1, 2], ["/context"]),
        ("none", ["/context"]),
        (True, ["/context"]),
        (0, ["/context"]),
        ({}, ["/context/timestamps", "/context/values"]),
        ({"timestamps": [1, 2, 3]}, ["/context/values"]),
        ({"timestamps": [1, 2, 3], "values": [1, 2]}, ["/context/values"]),
        ({"timestamps": [1, 3, 2], "values": [1, 2, 3]}, ["/context/timestamps/2"]),
        ({"timestamps": [1, 1, 2], "values": [1, 2, 3]}, ["/context/timestamps/1"]),
        (
            {"timestamps": [1, "soon", -2], "values": [1, 2, "3"]},
            ["/context/timestamps/1", "/context/timestamps/2", "/context/values/2"],
        ),
        ({"timestamps": {}, "values": None}, ["/context/timestamps", "/context/values"]),
    ],
    ids=str,
)
def test_a_context_that_is_none_is_refused_with_the_place(
    client: httpx.Client, fitted: str, context: object, places: list[str]
) -> None:
    for body in (one(FIRST), FOLLOWING):
        answer = client.post(f"/predict/{fitted}", json=body | {"context": context})
        assert refused(answer) == [("body", place) for place in places]


@pytest.mark.parametrize("last", [0, 1, 30])
def test_a_context_that_does_not_end_before_the_first_point_is_refused(
    client: httpx.Client, fitted: str, last: int
) -> None:
    context = points(FIRST - 20, FIRST + 1 + last)
    mixed = {name: column[::-1] for name, column in FOLLOWING.items()}
    for body in (one(FIRST), FOLLOWING, mixed):
        for headers in ({}, {"Accept": ARROW}):
            answer = client.post(f"/predict/{fitted}", json=body | {"context": context}, headers=headers)
            assert refused(answer) == [("body", "/context/timestamps/20")]
            detail = answer.json()["errors"][0]["detail"]
            assert detail.startswith(f"is not before {format_timestamp(TIMES[FIRST])}, the first point to judge: ")
    (line,) = send_lines(client, "/predict", [{"series_id": fitted, "context": context} | one(FIRST)])
    assert (line["status"], line["errors"][0]["pointer"]) == (422, "/context/timestamps/20")
    nothing = {"timestamps": [], "values": []}
    assert predict(client, fitted, nothing | {"context": context})["anomaly"] == []


def test_faults_of_points_context_and_query_are_named_at_once(client: httpx.Client, fitted: str) -> None:
    body = {"timestamp": "soon", "value": 1, "context": {"timestamps": [2, 1], "values": [1, 1]}}
    answer = client.post(f"/predict/{fitted}?false_alarm_rate=2", json=body)
    assert refused(answer) == [
        ("query", "/false_alarm_rate"),
        ("body", "/timestamp"),
        ("body", "/context/timestamps/1"),
    ]


def test_a_context_has_at_most_max_points(small: Tidemark) -> None:
    context = {"timestamps": list(range(501)), "values": [1] * 501}
    answer = small.client.post("/predict/s", json=one(FIRST) | {"context": context})
    assert ("body", "/context/timestamps") in refused(answer)
    assert "MAX_POINTS" in answer.json()["errors"][0]["detail"]
    least = {name: column[1:] for name, column in context.items()}
    predict(small.client, "s", one(FIRST) | {"context": least})
