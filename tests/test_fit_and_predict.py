"""The contract of POST /fit and POST /predict, over HTTP."""

import asyncio
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from app.bootstrap import Services
from app.detectors import DETECTORS
from app.detectors.base import Detector, DetectorParams, Verdict
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.main import create_app
from app.series import Series
from tests.servers import Tidemark
from tests.streaming import PARAMS, VERDICT

FOUR_POINTS = {"timestamps": [1705000000, 1705000001, 1705000002, 1705000003], "values": [10.0, 10.5, 9.5, 10.0]}
OTHER_POINTS = {"timestamps": [1705000000, 1705000001, 1705000002], "values": [100.0, 105.0, 95.0]}
A_POINT = {"timestamp": "1705000010", "value": 13.0}


def fit(client: httpx.Client, series_id: str, body: object = FOUR_POINTS, **headers: str) -> dict[str, Any]:
    answer = client.post(f"/fit/{series_id}", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


def predict(client: httpx.Client, series_id: str, body: object = A_POINT, **query: str) -> dict[str, Any]:
    answer = client.post(f"/predict/{series_id}", json=body, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response) -> set[tuple[str, str]]:
    """The places of a refused request that are at fault."""
    assert answer.status_code == 422, answer.text
    return {(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]}


def test_four_points_make_version_1_and_13_is_an_anomaly(client: httpx.Client, series_id: str) -> None:
    fitted = client.post(f"/fit/{series_id}", json=FOUR_POINTS)
    assert fitted.status_code == 200
    assert {"series_id": series_id, "version": "1", "points_used": 4}.items() <= fitted.json().items()
    judged = client.post(f"/predict/{series_id}", json={"timestamp": "1705000010", "value": 13.0})
    assert judged.status_code == 200
    assert {"anomaly": True, "model_version": "1"}.items() <= judged.json().items()


def test_a_fit_answers_with_its_provenance(client: httpx.Client, series_id: str) -> None:
    fitted = fit(client, series_id)
    assert fitted["detector"] == "mean_std"
    assert re.fullmatch("[0-9a-f]{64}", fitted["model_digest"])
    assert re.fullmatch("[0-9a-f]{64}", fitted["data_digest"])
    version = client.get(f"/series/{series_id}/versions/1").json()
    shared = ("series_id", "version", "detector", "model_digest", "data_digest", "created_at")
    assert {name: version[name] for name in shared} == {name: fitted[name] for name in shared}
    assert version["points"] == fitted["points_used"]


def test_a_point_within_the_band_is_normal(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id)
    verdict = predict(client, series_id, {"timestamp": 1705000010, "value": 10.2})
    assert verdict["anomaly"] is False
    assert verdict["expected"] == 10.0
    assert verdict["lower"] < 10.2 < verdict["upper"]
    assert 0 < verdict["score"] <= 1
    assert verdict["severity"] == 0


def test_fitting_a_series_twice_makes_version_2(client: httpx.Client, series_id: str) -> None:
    assert [fit(client, series_id)["version"], fit(client, series_id)["version"]] == ["1", "2"]


def test_equal_fits_share_their_artifacts_and_other_data_does_not(client: httpx.Client, series_id: str) -> None:
    first, same, other_k, other = (
        fit(client, series_id, body)
        for body in (FOUR_POINTS, FOUR_POINTS, FOUR_POINTS | {"params": {"k": 4}}, OTHER_POINTS)
    )
    assert (same["model_digest"], same["data_digest"]) == (first["model_digest"], first["data_digest"])
    assert other_k["data_digest"] == first["data_digest"]
    assert other_k["model_digest"] != first["model_digest"]
    assert other["data_digest"] != first["data_digest"]
    assert [v["version"] for v in (first, same, other_k, other)] == ["1", "2", "3", "4"]


def test_series_do_not_disturb_each_other(client: httpx.Client, series_id: str) -> None:
    fit(client, f"{series_id}-a")
    assert fit(client, f"{series_id}-b", OTHER_POINTS)["version"] == "1"
    assert predict(client, f"{series_id}-a")["expected"] == 10.0
    assert predict(client, f"{series_id}-b")["expected"] == 100.0


@pytest.mark.parametrize("form", ["{}.x", "{}_A-9", ".{}", "-{}", "{:x<200}"])
def test_a_series_id_of_every_form_is_served(client: httpx.Client, series_id: str, form: str) -> None:
    name = form.format(series_id)
    assert fit(client, name)["series_id"] == name
    assert predict(client, name)["model_version"] == "1"
    assert client.get(f"/series/{name}").json()["series_id"] == name


def test_blanks_around_a_series_id_are_stripped(client: httpx.Client, series_id: str) -> None:
    assert fit(client, f"%20{series_id}%20%09")["series_id"] == series_id
    assert predict(client, f"{series_id}%20")["model_version"] == "1"
    assert fit(client, series_id)["version"] == "2"


@pytest.mark.parametrize("form", ["{}..a", "{:x<201}", "{} a", "{}é", "{}:a", "{}\0", "{}\n.", "@{}", "{}%41", "{}?"])
def test_any_other_series_id_is_refused(client: httpx.Client, series_id: str, form: str) -> None:
    name = quote(form.format(series_id))
    for answer in (
        client.post(f"/fit/{name}", json=FOUR_POINTS),
        client.post(f"/predict/{name}", json=A_POINT),
        client.get(f"/series/{name}"),
        client.delete(f"/series/{name}"),
    ):
        assert refused(answer) == {("path", "/series_id")}


@pytest.mark.parametrize(
    "timestamps",
    [
        [1705000000, 1705000001, 1705000002],
        [1705000000.0, 1705000001.0, 1705000002.0],
        ["1705000000", "1705000001", "1705000002"],
        ["2024-01-11T19:06:40Z", "2024-01-11T20:06:41+01:00", "2024-01-11t19:06:42.000z"],
        [1705000000, "1705000001", "2024-01-11T19:06:42Z"],
    ],
    ids=["integers", "decimals", "digits", "rfc3339", "mixed"],
)
def test_every_form_of_timestamps_fits_the_same_model(
    client: httpx.Client, series_id: str, timestamps: list[Any]
) -> None:
    fitted = fit(client, series_id, {"timestamps": timestamps, "values": [1.0, 2.0, 3.0]})
    plain = fit(client, series_id, {"timestamps": [1705000000, 1705000001, 1705000002], "values": [1, 2, 3]})
    assert fitted["data_digest"] == plain["data_digest"]
    version = client.get(f"/series/{series_id}/versions/1").json()
    assert (version["first_timestamp"], version["last_timestamp"]) == ("2024-01-11T19:06:40Z", "2024-01-11T19:06:42Z")


@pytest.mark.parametrize(
    "timestamp", ["1705000010", 1705000010, 1705000010.5, "2024-01-11T19:06:50Z", "2024-01-11T20:06:50.5+01:00", 0]
)
def test_every_form_of_timestamp_is_judged(client: httpx.Client, series_id: str, timestamp: object) -> None:
    fit(client, series_id)
    assert predict(client, series_id, {"timestamp": timestamp, "value": 13})["anomaly"] is True


@pytest.mark.parametrize("timestamp", [-1, "soon", None, True, "", 1e12, "2024-01-11", ["1705000010"]])
def test_any_other_timestamp_is_not_judged(client: httpx.Client, series_id: str, timestamp: object) -> None:
    fit(client, series_id)
    answer = client.post(f"/predict/{series_id}", json={"timestamp": timestamp, "value": 13})
    assert refused(answer) == {("body", "/timestamp")}


@pytest.mark.parametrize("value", ["13", "", None, True, [13], {}])
def test_a_value_that_is_no_number_is_not_judged(client: httpx.Client, series_id: str, value: object) -> None:
    fit(client, series_id)
    for body, pointer in (
        ({"timestamp": 1, "value": value}, "/value"),
        ({"timestamps": [1], "values": [value]}, "/values/0"),
    ):
        assert refused(client.post(f"/predict/{series_id}", json=body)) == {("body", pointer)}


def test_many_points_are_judged_bit_for_bit_like_each_alone(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id)
    rng = np.random.default_rng(5)
    values = [*rng.normal(10, 2, 40).tolist(), 0.0, -0.0, 10, 1e300, -1e300, 5e-324, 1.7976931348623157e308, 2**63]
    timestamps = [1705000000 + i for i in range(len(values))]
    bulk = predict(client, series_id, {"timestamps": timestamps, "values": values})
    assert bulk["model_version"] == "1"
    assert {len(bulk[name]) for name in VERDICT} == {len(values)}
    for i, (timestamp, value) in enumerate(zip(timestamps, values, strict=True)):
        alone = predict(client, series_id, {"timestamp": timestamp, "value": value})
        # JSON carries a float in as many digits as it takes to tell it from all others.
        assert json.dumps([alone[name] for name in VERDICT]) == json.dumps([bulk[name][i] for name in VERDICT])


def test_a_hundred_thousand_points_are_judged_at_once(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id)
    count = 100_000
    judged = predict(client, series_id, {"timestamps": list(range(count)), "values": [10.0, 13.0] * (count // 2)})
    assert judged["anomaly"] == [False, True] * (count // 2)


def test_points_may_come_in_any_order_and_none_get_no_verdicts(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id)
    assert predict(client, series_id, {"timestamps": [9, 1, 1], "values": [10, 10, 99]})["anomaly"] == [0, 0, 1]
    assert predict(client, series_id, {"timestamps": [], "values": []})["anomaly"] == []


def test_a_direction_leaves_the_other_bound_open(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, FOUR_POINTS | {"params": {"direction": "above"}})
    verdict = predict(client, series_id, {"timestamp": 1, "value": -1000})
    assert (verdict["anomaly"], verdict["lower"]) == (False, None)
    assert predict(client, series_id)["anomaly"] is True
    assert predict(client, series_id, {"timestamps": [1, 2], "values": [-1000, 13]})["lower"] == [None, None]


def test_k_is_taken_and_kept_with_the_version(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, FOUR_POINTS | {"detector": "mean_std", "params": {"k": 10}})
    assert predict(client, series_id)["anomaly"] is False
    version = client.get(f"/series/{series_id}/versions/1").json()
    assert version["params"] == {**PARAMS, "k": 10.0}


def test_null_stands_for_the_default_detector_and_parameters(client: httpx.Client, series_id: str) -> None:
    fitted = fit(client, series_id, FOUR_POINTS | {"detector": None, "params": None})
    assert fitted["model_digest"] == fit(client, series_id)["model_digest"]


@pytest.mark.parametrize(
    ("choice", "pointer", "advice"),
    [
        ({"detector": "no_such"}, "/detector", "mean_std"),
        ({"detector": 3}, "/detector", "mean_std"),
        ({"params": {"k": 0}}, "/params/k", "greater than 0"),
        ({"params": {"k": -1}}, "/params/k", "greater than 0"),
        ({"params": {"k": 1e7}}, "/params/k", "1000000"),
        ({"params": {"k": "3"}}, "/params/k", "number"),
        ({"params": {"k": True}}, "/params/k", "number"),
        ({"params": {"k": None}}, "/params/k", "number"),
        ({"params": {"direction": "up"}}, "/params/direction", "above"),
        ({"params": {"sigma": 3}}, "/params/sigma", "are: direction"),
        ({"params": [3]}, "/params", "are: direction"),
        ({"params": 3}, "/params", "are: direction"),
        ({"params": {"k": 3, "sigma": 3}}, "/params/sigma", "k, direction"),
        ({"detector": "mean_std", "params": {"sigma": 3}}, "/params/sigma", "k, direction"),
        ({"detector": "mean_std", "params": [3]}, "/params", "k, direction"),
        ({"detector": "mean_std", "params": 3}, "/params", "k, direction"),
        ({"detector": "auto", "params": {"k": 3}}, "/params/k", "are: direction"),
    ],
    ids=str,
)
def test_a_detector_or_parameter_that_there_is_not_is_refused_with_what_would_be_right(
    client: httpx.Client, series_id: str, choice: dict[str, Any], pointer: str, advice: str
) -> None:
    answer = client.post(f"/fit/{series_id}", json=FOUR_POINTS | choice)
    assert refused(answer) == {("body", pointer)}
    assert advice in answer.json()["errors"][0]["detail"]


def test_forty_fits_of_one_series_at_once_give_exactly_1_to_40(client: httpx.Client, series_id: str) -> None:
    with ThreadPoolExecutor(40) as pool:
        fitted = list(pool.map(lambda i: fit(client, series_id, FOUR_POINTS | {"params": {"k": i + 1}}), range(40)))
    assert sorted(int(f["version"]) for f in fitted) == list(range(1, 41))
    listed = client.get(f"/series/{series_id}/versions").json()["versions"]
    assert [int(v["version"]) for v in listed] == list(range(40, 0, -1))
    asked_for = {f["version"]: i + 1 for i, f in enumerate(fitted)}
    assert {v["version"]: v["params"]["k"] for v in listed} == asked_for, "each answer names the version that it made"


class Noted(MeanStd):
    """Notes which thread fits it, and judges by it."""

    __slots__ = ()

    name = "noted"
    threads: ClassVar[list[int]] = []

    @classmethod
    def fit(cls, history: Series, params: DetectorParams) -> Detector:
        cls.threads.append(threading.get_ident())
        return super().fit(history, params)

    def score_one(
        self, timestamp_s: float, value: float, context: Series | None = None, false_alarm_rate: float | None = None
    ) -> Verdict:
        self.threads.append(threading.get_ident())
        return super().score_one(timestamp_s, value, context, false_alarm_rate)


class Slow(Noted):
    """The same, as a detector that takes its time."""

    __slots__ = ()

    name = "slow"
    is_quick_to_judge = False

    @classmethod
    def is_quick_to_fit(cls, params: DetectorParams) -> bool:  # noqa: ARG003
        return False


@pytest.mark.parametrize(
    ("detector", "headers", "is_inline"),
    [(Noted, {}, True), (Noted, {"Idempotency-Key": "k"}, False), (Slow, {}, False)],
    ids=["quick", "keyed", "slow"],
)
def test_only_what_is_quick_to_fit_is_fitted_on_the_event_loop(
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    *,
    detector: type[Noted],
    headers: dict[str, str],
    is_inline: bool,
) -> None:
    monkeypatch.setitem(cast("dict[str, str]", DETECTORS), Noted.name, f"{__name__}:{detector.__name__}")
    app = create_app(services)
    Noted.threads.clear()

    async def post(body: object) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as own:
            return await own.post("/fit/s", json=body, headers=headers)

    answer = asyncio.run(post(FOUR_POINTS | {"detector": Noted.name}))
    assert (answer.status_code, answer.json()["version"]) == (200, "1"), answer.text
    assert len(Noted.threads) == 1
    assert (Noted.threads[0] == threading.get_ident()) == is_inline
    refused = asyncio.run(post(FOUR_POINTS | {"detector": Noted.name, "params": {"k": 0}}))
    assert (refused.status_code, len(refused.json()["errors"])) == (422, 1), "no fault is named twice"
    assert len(Noted.threads) == 1


@pytest.mark.parametrize("detector", [Noted, Slow])
def test_only_what_is_quick_to_judge_is_judged_on_the_event_loop(
    services: Services, monkeypatch: pytest.MonkeyPatch, detector: type[Noted]
) -> None:
    monkeypatch.setitem(cast("dict[str, str]", DETECTORS), detector.name, f"{__name__}:{detector.__name__}")
    app = create_app(services)

    async def post(path: str, body: object) -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as own:
            return (await own.post(path, json=body)).raise_for_status().json()

    asyncio.run(post("/fit/s", FOUR_POINTS | {"detector": detector.name}))
    Noted.threads.clear()
    first, again = (asyncio.run(post("/predict/s", A_POINT)) for _ in range(2))
    assert first == again
    assert [thread == threading.get_ident() for thread in Noted.threads] == [detector is Noted] * 2


@pytest.mark.parametrize("params", [{}, {"false_alarm_rate": 0.01}, {"max_false_alarms_per_week": 5.0}], ids=str)
def test_mean_and_std_are_fitted_in_no_time_unless_a_budget_is_to_be_calibrated(params: dict[str, float]) -> None:
    assert MeanStd.is_quick_to_fit(MeanStdParams(**params)) == (not params)


def test_a_fit_is_seen_by_the_next_prediction(client: httpx.Client, series_id: str) -> None:
    for i in range(1, 21):
        fit(client, series_id)
        assert predict(client, series_id)["model_version"] == str(i)


def test_a_version_answers_the_same_bytes_after_later_fits_and_a_restart(
    serve: Callable[..., Tidemark], database_url: str, series_id: str
) -> None:
    many = {"timestamps": list(range(50)), "values": np.random.default_rng(3).normal(10, 3, 50).tolist()}
    questions = [(query, body) for query in ("1", "v2") for body in (A_POINT, many)]
    predict_url = f"/predict/{series_id}"

    def ask(client: httpx.Client) -> list[bytes]:
        return [client.post(predict_url, params={"version": v}, json=body).content for v, body in questions]

    first = serve(DATABASE_URL=database_url)
    fit(first.client, series_id)
    fit(first.client, series_id, FOUR_POINTS | {"params": {"k": 1 / 3}})
    before = ask(first.client)
    for _ in range(3):
        fit(first.client, series_id, OTHER_POINTS)
    assert ask(first.client) == before
    first.process.terminate()
    first.process.wait(15)

    second = serve(DATABASE_URL=database_url)
    assert ask(second.client) == before
    assert predict(second.client, series_id)["model_version"] == "5"
    assert fit(second.client, series_id)["version"] == "6"


def test_a_repeated_key_and_body_answer_the_same_version(client: httpx.Client, series_id: str) -> None:
    first = fit(client, series_id, Idempotency_Key="k1")
    assert first["version"] == "1"
    assert fit(client, series_id, OTHER_POINTS)["version"] == "2"
    assert fit(client, series_id, Idempotency_Key="k1") == first
    assert fit(client, series_id, Idempotency_Key="k2")["version"] == "3"


def test_a_repeated_key_with_another_body_is_refused(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, Idempotency_Key="k1")
    for other in (OTHER_POINTS, FOUR_POINTS | {"params": {"k": 2}}, FOUR_POINTS | {"timestamps": [1, 2, 3, 4]}):
        answer = client.post(f"/fit/{series_id}", json=other, headers={"Idempotency-Key": "k1"})
        assert refused(answer) == {("header", "/Idempotency-Key")}
        assert answer.json()["type"] == "/problems/idempotency-key-reused"
    assert fit(client, series_id)["version"] == "2"


def test_a_body_is_the_same_however_its_json_is_laid_out(client: httpx.Client, series_id: str) -> None:
    first = fit(client, series_id, Idempotency_Key="k1")
    layouts = [
        json.dumps(FOUR_POINTS, indent=4),
        json.dumps(dict(reversed(FOUR_POINTS.items()))),
        '{"values":[10,1.05e1,9.50,10.0],"timestamps":[1705000000,1705000001.0,"1705000002","2024-01-11T19:06:43Z"]}',
        json.dumps(FOUR_POINTS | {"detector": "auto", "params": {"direction": "both", "seed": 0}}),
    ]
    for layout in layouts:
        answer = client.post(f"/fit/{series_id}", content=layout, headers={"Idempotency-Key": "k1"})
        assert answer.json() == first


def test_a_key_belongs_to_its_series(client: httpx.Client, series_id: str) -> None:
    assert fit(client, f"{series_id}-a", Idempotency_Key="k1")["version"] == "1"
    assert fit(client, f"{series_id}-b", OTHER_POINTS, Idempotency_Key="k1")["version"] == "1"


def test_twenty_fits_with_one_key_at_once_make_one_version(client: httpx.Client, series_id: str) -> None:
    with ThreadPoolExecutor(40) as pool:
        keyed = [pool.submit(fit, client, series_id, Idempotency_Key="k1") for _ in range(20)]
        plain = [pool.submit(fit, client, series_id) for _ in range(10)]
    versions = {future.result()["version"] for future in keyed}
    assert len(versions) == 1
    assert versions | {future.result()["version"] for future in plain} == {str(i) for i in range(1, 12)}


def test_one_key_with_two_bodies_at_once_makes_one_version_and_bothers_nobody_else(
    client: httpx.Client, series_id: str
) -> None:
    def post(body: object) -> httpx.Response:
        return client.post(f"/fit/{series_id}", json=body, headers={"Idempotency-Key": "k1"})

    with ThreadPoolExecutor(40) as pool:
        keyed = [pool.submit(post, body) for body in [FOUR_POINTS, OTHER_POINTS] * 10]
        others = [pool.submit(fit, client, f"{series_id}-{i % 3}") for i in range(20)]
    assert sorted(future.result().status_code for future in keyed) == [200] * 10 + [422] * 10
    assert {future.result().json().get("version") for future in keyed} == {"1", None}
    assert client.get(f"/series/{series_id}").json()["versions"] == 1
    assert len({(f["series_id"], f["version"]) for f in (future.result() for future in others)}) == 20


def test_the_key_of_a_deleted_version_makes_no_new_one(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, Idempotency_Key="k1")
    fit(client, series_id)
    client.delete(f"/series/{series_id}/versions/1")
    answer = client.post(f"/fit/{series_id}", json=FOUR_POINTS, headers={"Idempotency-Key": "k1"})
    assert answer.status_code == 410
    assert client.get(f"/series/{series_id}").json()["latest_version"] == "2"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_key_that_is_none_is_refused(client: httpx.Client, series_id: str, key: str) -> None:
    answer = client.post(f"/fit/{series_id}", json=FOUR_POINTS, headers={"Idempotency-Key": key})
    assert refused(answer) == {("header", "/Idempotency-Key")}


REFUSED_FITS: list[dict[str, Any]] = [
    {},
    FOUR_POINTS | {"values": None},
    FOUR_POINTS | {"values": [10.0] * 4},
    FOUR_POINTS | {"values": [10.0, "11", 12.0, 13.0]},
    FOUR_POINTS | {"timestamps": [3, 2, 1, 0]},
    FOUR_POINTS | {"detector": "no_such"},
    FOUR_POINTS | {"params": {"k": 0}},
]


@pytest.mark.parametrize("body", REFUSED_FITS, ids=lambda body: json.dumps(body)[:60])
def test_a_refused_fit_leaves_nothing_behind(client: httpx.Client, series_id: str, body: object) -> None:
    headers = {"Idempotency-Key": "k1"}
    assert client.post(f"/fit/{series_id}", json=body, headers=headers).status_code == 422
    assert client.get(f"/series/{series_id}").status_code == 404
    assert client.post(f"/predict/{series_id}", json=A_POINT).status_code == 404
    assert client.get("/series", params={"search": series_id}).json()["series"] == []
    assert fit(client, series_id, Idempotency_Key="k1")["version"] == "1"
    assert client.post(f"/fit/{series_id}", json=body).status_code == 422
    assert client.get(f"/series/{series_id}").json()["latest_version"] == "1"
    assert fit(client, series_id)["version"] == "2"


def test_refused_fits_store_no_file(serve: Callable[..., Tidemark], tmp_path: Path, series_id: str) -> None:
    client = serve().client

    def files() -> set[Path]:
        return {path for folder in ("models", "training") for path in (tmp_path / "data" / folder).rglob("*.*et*")}

    fit(client, series_id)
    stored = files()
    assert len(stored) == 2
    for body in REFUSED_FITS:
        assert client.post(f"/fit/{series_id}", json=body).status_code == 422
    fit(client, series_id, Idempotency_Key="k1")
    assert client.post(f"/fit/{series_id}", json=OTHER_POINTS, headers={"Idempotency-Key": "k1"}).status_code == 422
    assert files() == stored


def test_a_series_that_was_never_fitted_is_not_found(client: httpx.Client, series_id: str) -> None:
    for body in (A_POINT, {"timestamps": [1], "values": [1.0]}):
        answer = client.post(f"/predict/{series_id}", json=body)
        assert answer.status_code == 404
        assert series_id in answer.json()["detail"]
