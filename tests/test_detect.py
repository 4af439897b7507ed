"""POST /detect: points in, verdicts out, each with all the other points in view. No model is stored."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from app.detectors import DETECTOR_IN_VIEW, DETECTORS, find_detector
from app.detectors.base import KINDS
from app.series import Series
from app.simulation import simulate_sensor
from tests.servers import Tidemark, serve_tidemark
from tests.streaming import (
    ARROW,
    AS_ARROW,
    KIND,
    NDJSON,
    NUMBERS,
    VERDICT,
    Answer,
    batch_of,
    pointers,
    send_lines,
    stream_of,
    table_of,
)

SENSOR = simulate_sensor(1_000, anomalies=5)
PLANTED = np.flatnonzero(SENSOR.is_anomaly).tolist()
TIMES = SENSOR.series.timestamps_s
NOISE = np.random.default_rng(4).normal(10, 1, 1_000)
NOISE[[100, 400, 600]] += (15, -15, 15)
COLUMNS = ["status", "anomaly", "score", "expected", "lower", "upper", "severity", "p_value", "kind"]

Points = dict[str, list[float]]


def points(values: Any = SENSOR.series.values, first: int = 0, last: int = 1_000) -> Points:
    """[first, last) of values at the times of the sensor."""
    return {"timestamps": TIMES[first:last].tolist(), "values": np.asarray(values, dtype=float)[first:last].tolist()}


FEW = points(NOISE, 0, 150)


def detect(client: httpx.Client, body: Mapping[str, object], **query: str) -> Answer:
    answer = client.post("/detect", json=body, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: Answer = answer.json()
    return found


def refused(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]]


def verdicts(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in VERDICT}


def flagged(answer: Answer) -> list[int]:
    return np.flatnonzero(answer["anomaly"]).tolist()


def own(name: str, body: Points, **params: object) -> dict[str, Any]:
    """What the detector itself says; an open bound is null."""
    detector = find_detector(name)
    series = Series(np.array(body["timestamps"]), np.array(body["values"]))
    said = detector.detect(series, detector.Params.model_validate(params))
    numbers = {
        column: [number if np.isfinite(number) else None for number in getattr(said, column).tolist()]
        for column in NUMBERS
    }
    return {"anomaly": said.is_anomaly.tolist(), "kind": [KINDS[kind] for kind in said.kind.tolist()]} | numbers


def detect_rows(client: httpx.Client, *batches: pa.RecordBatch, **query: str) -> pa.Table:
    """The answer to an Arrow stream."""
    return table_of(client.post("/detect", content=stream_of(*batches), params=query, headers=AS_ARROW))


def rows_of(series: Mapping[str, Points], order: list[int] | None = None) -> pa.RecordBatch:
    """Points of many series in long form, by default one series after the other."""
    rows = [(name, *row) for name, one in series.items() for row in zip(one["timestamps"], one["values"], strict=True)]
    rows = rows if order is None else [rows[place] for place in order]
    names, times, values = zip(*rows, strict=True)
    return batch_of(series_id=names, timestamp=times, value=values)


# ---- what it does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_verdicts_are_those_of_the_detector_with_all_points_in_view(client: httpx.Client, detector: str) -> None:
    body = points(last=300)
    answer = detect(client, body, detector=detector)
    assert verdicts(answer) == own(detector, body)
    assert (answer["detector"], answer["points"], answer["anomalies"]) == (detector, 300, len(flagged(answer)))
    assert list(answer) == ["detector", "points", "anomalies", *VERDICT]


def test_the_default_detector_chooses_by_itself(client: httpx.Client) -> None:
    assert detect(client, FEW) == detect(client, FEW, detector=DETECTOR_IN_VIEW)
    assert detect(client, FEW)["detector"] == "auto"
    assert detect(client, FEW | {"detector": None, "params": None}) == detect(client, FEW)
    assert detect(client, FEW | {"params": {"direction": "below"}})["detector"] == "auto"


def test_spikes_that_stand_out_of_noise_are_found_by_default(client: httpx.Client) -> None:
    assert set(flagged(detect(client, points(NOISE)))) >= {100, 400, 600}
    assert flagged(detect(client, FEW)) == [100]


def test_planted_spikes_of_a_sensor_are_found_by_default(client: httpx.Client) -> None:
    found = flagged(detect(client, points()))
    assert set(found) >= set(PLANTED)
    assert all(min(abs(place - planted) for planted in PLANTED) < 60 for place in found)


def test_planted_spikes_of_a_sensor_are_found_where_the_detector_knows_its_day(client: httpx.Client) -> None:
    answer = detect(client, points(), detector="seasonal")
    assert flagged(answer) == PLANTED
    assert [place for place in range(1_000) if answer["kind"][place] is not None] == PLANTED


def test_a_detector_and_its_parameters_come_by_query_or_by_body(client: httpx.Client) -> None:
    params = {"k": 2.5, "direction": "above"}
    expected = own("mean_std", FEW, **params)
    answers = [
        detect(client, FEW, detector="mean_std", params=json.dumps(params)),
        detect(client, FEW | {"detector": "mean_std", "params": params}),
        detect(client, FEW | {"detector": "mean_std", "params": params}, detector="seasonal", params='{"seed": 1}'),
    ]
    assert [verdicts(answer) for answer in answers] == [expected] * 3
    assert {answer["detector"] for answer in answers} == {"mean_std"}
    assert set(expected["lower"]) == {None}


def test_an_alarm_budget_among_the_parameters_counts(client: httpx.Client) -> None:
    shares = []
    for rate in (0.001, 0.05, 0.3):
        answer = detect(client, points(NOISE), detector="robust_z", params=json.dumps({"false_alarm_rate": rate}))
        assert verdicts(answer) == own("robust_z", points(NOISE), false_alarm_rate=rate)
        shares.append(answer["anomalies"] / 1_000)
    assert shares[0] < 0.01
    assert 0.02 < shares[1] < 0.08
    assert 0.2 < shares[2] < 0.4
    weekly = detect(client, points(NOISE), detector="robust_z", params='{"max_false_alarms_per_week": 100.8}')
    same = detect(client, points(NOISE), detector="robust_z", params='{"false_alarm_rate": 0.05}')
    assert verdicts(weekly) == verdicts(same), "the points are 300 s apart"


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("length", [3, 19, 20, 300])
def test_a_constant_is_a_series_without_anomalies(client: httpx.Client, detector: str, length: int) -> None:
    constant = points([7.25] * length, last=length)
    assert client.post("/fit/constant", json=constant).status_code == 422
    answer = detect(client, constant, detector=detector)
    assert (answer["anomalies"], set(answer["kind"])) == (0, {None})


def test_nothing_is_stored(client: httpx.Client, series_id: str) -> None:
    before = client.get("/healthcheck").json()["series_trained"]
    lines = [{"series_id": series_id} | FEW]
    detect(client, FEW)
    detect(client, lines[0])
    assert send_lines(client, "/detect", lines)[0]["status"] == 200
    assert set(detect_rows(client, rows_of({series_id: FEW}))["status"].to_pylist()) == {200}
    assert client.get(f"/series/{series_id}").status_code == 404
    assert client.get("/healthcheck").json()["series_trained"] == before


# ---- lines ---------------------------------------------------------------------------------------------------


def test_each_line_has_its_own_detector_and_its_own_status(client: httpx.Client) -> None:
    params = {"k": 2.0}
    lines: list[object] = [
        {"series_id": "a"} | FEW,
        {"series_id": "b"} | FEW | {"detector": "mean_std", "params": params},
        b"no JSON",
        {"series_id": "c", "timestamps": [1, 2], "values": [1, 2]},
        FEW,
        {"series_id": "d"} | FEW | {"detector": "magic"},
        {"series_id": "e"} | FEW | {"params": {"k": -1}},
        {"series_id": "f"} | points([3] * 9, last=9),
        {"series_id": "a"} | points(last=30),
    ]
    answers = send_lines(client, "/detect", lines, detector="robust_z", params='{"seed": 1}')
    assert [answer["status"] for answer in answers] == [200, 200, 422, 422, 422, 422, 422, 200, 200]
    assert [answer["series_id"] for answer in answers] == ["a", "b", None, "c", None, "d", "e", "f", "a"]
    assert [answer.get("line") for answer in answers] == [None, None, 3, 4, 5, 6, 7, None, None]
    assert [pointers(answer) for answer in answers if "errors" in answer] == [
        [""], ["/values"], ["/series_id"], ["/detector"], ["/params/k"],
    ]  # fmt: skip
    assert verdicts(answers[0]) == own("robust_z", FEW)
    assert verdicts(answers[1]) == own("mean_std", FEW, **params)
    assert answers[7]["anomalies"] == 0
    assert answers[8] == {"series_id": "a", "status": 200} | detect(client, points(last=30), detector="robust_z")


def test_a_line_with_a_k_and_no_detector_is_of_mean_std_as_a_body_is(client: httpx.Client) -> None:
    body = FEW | {"params": {"k": 2.0}}
    alone = detect(client, body)
    assert alone["detector"] == "mean_std"
    line = send_lines(client, "/detect", [{"series_id": "a"} | body])[0]
    assert verdicts(line) == verdicts(alone)


def test_no_lines_are_no_answers(client: httpx.Client) -> None:
    assert send_lines(client, "/detect", []) == []


def test_a_line_that_is_too_large_does_not_stop_the_others(small: Tidemark) -> None:
    lines = [b" " * 1_100_000 + b"{}", {"series_id": "a"} | points(last=30)]
    answers = send_lines(small.client, "/detect", lines)
    assert [answer["status"] for answer in answers] == [413, 200]


# ---- rows ----------------------------------------------------------------------------------------------------


def test_rows_of_one_series_are_judged_row_for_row_in_any_order(client: httpx.Client) -> None:
    expected = own("seasonal", points())
    for order in (np.arange(1_000), np.random.default_rng(0).permutation(1_000)):
        rows = batch_of(timestamp=TIMES[order], value=SENSOR.series.values[order])
        table = detect_rows(client, rows.slice(0, 300), rows.slice(300), detector="seasonal")
        assert table.column_names == COLUMNS
        assert (table.schema.field("status").type, table.schema.field("kind").type) == (pa.int16(), KIND)
        assert set(table["status"].to_pylist()) == {200}
        for name in VERDICT:
            assert table[name].to_pylist() == [expected[name][place] for place in order]


def test_rows_of_many_series_are_judged_row_for_row_in_any_order(client: httpx.Client) -> None:
    series = {"a": points(last=300), "b": FEW, "c": points([2.0] * 50, last=50)}
    expected = {name: own("robust_z", one, direction="above") for name, one in series.items()}
    for order in (list(range(500)), np.random.default_rng(1).permutation(500).tolist()):
        table = detect_rows(client, rows_of(series, order), detector="robust_z", params='{"direction": "above"}')
        assert set(table["status"].to_pylist()) == {200}
        for name in VERDICT:
            listed = [verdict for one in expected.values() for verdict in one[name]]
            assert table[name].to_pylist() == [listed[place] for place in order]


@pytest.mark.parametrize(
    "bad",
    [
        {"timestamps": [1.0, 2.0], "values": [1.0, 2.0]},
        {"timestamps": [1.0, 2.0, 2.0, 3.0], "values": [1.0, 2.0, 3.0, 4.0]},
        {"timestamps": [1.0, 2.0, 3.0], "values": [1.0, float("nan"), 2.0]},
        {"timestamps": [-1.0, 2.0, 3.0], "values": [1.0, 3.0, 2.0]},
    ],
    ids=["too few", "twice the same time", "no value", "no time"],
)
def test_a_bad_series_is_422_in_its_rows_while_the_others_are_judged(client: httpx.Client, bad: Points) -> None:
    size = 150 + len(bad["values"])
    order = np.random.default_rng(2).permutation(size)
    rows = detect_rows(client, rows_of({"good": FEW, "bad": bad}, order.tolist()), detector="robust_z").to_pylist()
    expected = own("robust_z", FEW)
    for row, place in zip(rows, order.tolist(), strict=True):
        if place < 150:
            assert row == {"status": 200} | {name: expected[name][place] for name in VERDICT}
        else:
            assert (row.pop("status"), set(row.values())) == (422, {None})
    answer = client.post("/detect", content=stream_of(rows_of({"bad": bad})), headers=AS_ARROW)
    assert refused(answer), "alone it is a problem that says what is wrong"
    alone = batch_of(timestamp=bad["timestamps"], value=bad["values"])
    assert refused(client.post("/detect", content=stream_of(alone), headers=AS_ARROW)) == refused(answer)


def test_a_name_that_is_none_is_422_in_its_rows(client: httpx.Client) -> None:
    table = detect_rows(client, rows_of({"good": FEW, "a..b": FEW, "": FEW}))
    assert table["status"].to_pylist() == [200] * 150 + [422] * 300
    answer = client.post("/detect", content=stream_of(rows_of({"a..b": FEW})), headers=AS_ARROW)
    assert refused(answer) == [("body", "/series_id")]


def test_a_table_without_rows_has_no_verdicts(client: httpx.Client) -> None:
    for names in ({"series_id": pa.array([], pa.string())}, {}):
        rows = batch_of(**names, timestamp=pa.array([], pa.float64()), value=pa.array([], pa.float64()))
        table = detect_rows(client, rows)
        assert (table.num_rows, table.column_names) == (0, COLUMNS)


# ---- faults --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service that takes little."""
    with serve_tidemark(tmp_path_factory.mktemp("small"), {"MAX_POINTS": "200", "MAX_BODY_MB": "1"}) as running:
        yield running


def test_too_few_and_too_many_points_are_refused(small: Tidemark) -> None:
    for length in (0, 2, 201):
        answer = small.client.post("/detect", json=points(last=length))
        assert ("body", "/values") in refused(answer)
    detect(small.client, points(last=3))
    detect(small.client, points(last=200))
    rows = batch_of(timestamp=TIMES[:201], value=SENSOR.series.values[:201])
    assert refused(small.client.post("/detect", content=stream_of(rows), headers=AS_ARROW)) == [("body", "")]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("detector=magic", "/detector"),
        ("detector=", "/detector"),
        ("detector=auto&detector=auto", "/detector"),
        ("params={", "/params"),
        ("params=[]", "/params"),
        ('detector=auto&params={"k":1}', "/params/k"),
        ('detector=mean_std&params={"k":-1}', "/params/k"),
        ('params={"false_alarm_rate":0.6}', "/params/false_alarm_rate"),
        ('params={"false_alarm_rate":0.1,"max_false_alarms_per_week":1}', "/params"),
        ("version=1", "/version"),
        ("lookahead_points=1", "/lookahead_points"),
    ],
)
def test_a_query_that_has_a_fault_is_refused_in_every_format(client: httpx.Client, query: str, place: str) -> None:
    rows = stream_of(batch_of(timestamp=TIMES[:9], value=NOISE[:9]))
    line = json.dumps({"series_id": "a"} | FEW).encode()
    for body, content_type in ((json.dumps(FEW).encode(), "application/json"), (line, NDJSON), (rows, ARROW)):
        answer = client.post(f"/detect?{query}", content=body, headers={"Content-Type": content_type})
        assert refused(answer) == [("query", place)]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (b"", [""]),
        (b"[]", [""]),
        (b"{}", ["/timestamps", "/values"]),
        (b'{"timestamps": [3, 2, 1], "values": [1, "2", null]}', ["/timestamps/1", "/values/1", "/values/2"]),
        (b'{"timestamps": [1, 2, 3], "values": [1, 2, 4], "detector": 1, "params": {}}', ["/detector"]),
    ],
    ids=str,
)
def test_faults_of_a_body_are_named_with_their_places(client: httpx.Client, body: bytes, places: list[str]) -> None:
    found = refused(client.post("/detect", content=body, headers={"Content-Type": "application/json"}))
    assert {place for where, place in found if where == "body"} >= set(places)


def test_a_table_that_is_none_or_lacks_columns_is_refused(client: httpx.Client) -> None:
    for body in (b"", b"no stream", stream_of(batch_of(timestamp=[1.0], value=[1.0]))[:90]):
        assert refused(client.post("/detect", content=body, headers=AS_ARROW)) == [("body", "")]
    lacking = stream_of(batch_of(series_id=["a"], value=[1.0]))
    assert refused(client.post("/detect", content=lacking, headers=AS_ARROW)) == [("body", "/timestamp")]


def test_the_page_of_another_site_is_refused_as_elsewhere(client: httpx.Client) -> None:
    answer = client.post("/detect", json=FEW, headers={"Origin": "http://elsewhere"})
    assert answer.status_code == 403
