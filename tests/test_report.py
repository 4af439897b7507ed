"""The report of a version: what it says, that it is the same each time, and made once."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
from playwright.sync_api import Browser, expect

from app.bootstrap import Services
from app.detectors import find_detector
from app.detectors.base import Candidate, Choice, DetectorParams, Fitted
from app.detectors.judging import DEFAULT_FALSE_ALARM_RATE
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.detectors.robust_z import RobustZ
from app.detectors.trials import SIZELESS, SIZES, try_refitted
from app.injection import ANOMALY_KINDS
from app.series import Series
from app.services.reporting import FEWEST_POINTS_TRIED, make_report
from app.services.training import FitJob
from app.versions import Version
from tests.browsing import Watched, in_chromium, open_browser, watch
from tests.servers import Tidemark

START_S = 1_755_820_800.0
STEP_S = 300.0
CHOICE = Choice("it found the most", (Candidate("robust_z", 0.75, 0.001, 0.25), Candidate("mean_std", 0.5, 0.0, 0.125)))


class Choosing(RobustZ):
    """A detector that a fit takes for reasons."""

    budgets_s: list[float]

    @classmethod
    def fit_within(cls, history: Series, params: DetectorParams, budget_s: float) -> Fitted:
        cls.budgets_s.append(budget_s)
        return Fitted(RobustZ.fit(history, params), CHOICE)


@pytest.fixture
def choosing() -> type[Choosing]:
    Choosing.budgets_s = []
    return Choosing


def daily(n: int = 2000, seed: int = 0) -> Series:
    steps = np.arange(n)
    values = 20 + 3 * np.sin(2 * np.pi * steps / 288) + np.random.default_rng(seed).normal(0, 0.4, n)
    return Series(START_S + STEP_S * steps, values)


def spiked(n: int = 2000) -> Series:
    history = daily(n)
    history.values[[300, 900]] += 60
    return history


def body(history: Series, **more: object) -> bytes:
    fields = {"timestamps": history.timestamps_s, "values": history.values, **more}
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def fit(client: httpx.Client, series_id: str, history: Series, **more: object) -> str:
    """Fits over HTTP; the path of the version."""
    answer = client.post(f"/fit/{series_id}", content=body(history, **more))
    assert answer.status_code == 200, answer.text
    return f"/series/{series_id}/versions/{answer.json()['version']}"


# ---- the choice ------------------------------------------------------------------------------------------------


def test_a_choice_is_kept_with_its_version_however_it_is_fitted(services: Services, choosing: type[Choosing]) -> None:
    params = choosing.Params()
    alone = services.training.fit("a", daily(), choosing, params)
    begun = services.training.begin_fit("a", daily(), choosing, params).result()
    keyed = services.training.fit("a", daily(), choosing, params, "key")
    replayed = services.training.fit("a", daily(), choosing, params, "key")
    jobs = [FitJob(name, daily(), choosing, params) for name in ("a", "b")]
    packed = services.training.publish(services.training.prepare(jobs))
    assert replayed == keyed
    for version in (alone, begun, keyed, *packed):
        assert isinstance(version, Version)
        assert version.choice == CHOICE
        assert services.registry.catalog.get_version(version.series_id, version.version) == version
    assert set(choosing.budgets_s) == {4.0}
    assert [version.choice for version in services.registry.catalog.list_versions("a", 9, None)] == [CHOICE] * 4


def test_a_fit_within_the_budget_of_the_settings(
    build_services: Callable[..., Services], database_url: str, choosing: type[Choosing]
) -> None:
    build_services(database_url=database_url, fit_budget_s=0.25).training.fit("s", daily(), choosing, choosing.Params())
    assert choosing.budgets_s == [0.25]


def test_a_detector_that_the_user_named_has_no_choice(services: Services) -> None:
    assert services.training.fit("s", daily(), RobustZ, RobustZ.Params()).choice is None


# ---- what it says ----------------------------------------------------------------------------------------------


def test_a_report_says_what_was_found_in_the_training_data() -> None:
    history = spiked()
    report = make_report(RobustZ.fit(history, RobustZ.Params()), history)
    assert (report.period_points, report.period_s) == (288, 86_400.0)
    assert report.quality.outliers.count == 2
    assert [list(stretch) for stretch in report.set_aside] == [[history.timestamps_s[i]] * 2 for i in (300, 900)]
    assert report.context_points == RobustZ.fit(history, RobustZ.Params()).context_points
    assert report.false_alarm_rate == DEFAULT_FALSE_ALARM_RATE
    assert report.false_alarms_per_week == pytest.approx(DEFAULT_FALSE_ALARM_RATE * 7 * 288)


@pytest.mark.parametrize(
    ("params", "rate"),
    [
        ({}, 0.0026997960632601965),
        ({"k": 2.0}, 0.04550026389635842),
        ({"k": 2.0, "direction": "above"}, 0.02275013194817921),
        ({"false_alarm_rate": 0.01}, 0.01),
        ({"max_false_alarms_per_week": 1.0}, 1 / (7 * 288)),
    ],
)
def test_false_alarms_are_those_of_the_budget_or_of_the_normal_tail(params: dict[str, object], rate: float) -> None:
    history = daily(50)
    report = make_report(MeanStd.fit(history, MeanStdParams(**params)), history)
    assert report.false_alarm_rate == pytest.approx(rate)
    assert report.false_alarms_per_week == pytest.approx(rate * 7 * 288)


@pytest.mark.parametrize("name", ["mean_std", "robust_z", "seasonal"])
@pytest.mark.parametrize("params", [{}, {"false_alarm_rate": 0.01}])
def test_detectability_is_that_of_the_same_detector_fitted_to_the_first_part(
    name: str, params: dict[str, object]
) -> None:
    history, detector = daily(), find_detector(name)
    fitted = detector.fit(history, detector.Params(**params))
    found = make_report(fitted, history).detectability
    expected = try_refitted(detector, history, fitted.params, rounds=3)
    assert found is not None
    assert np.array_equal(found.found, expected.found)
    assert np.array_equal(found.tried, expected.tried)


def test_detectability_takes_a_hundred_points() -> None:
    for n in (FEWEST_POINTS_TRIED - 1, FEWEST_POINTS_TRIED):
        history = daily(n)
        report = make_report(MeanStd.fit(history, MeanStdParams()), history)
        assert (report.detectability is None) == (n < FEWEST_POINTS_TRIED)


# ---- the service -----------------------------------------------------------------------------------------------


def test_a_report_is_made_once_for_all_who_ask_and_for_all_versions_of_the_same_content(services: Services) -> None:
    first, second = (services.training.fit("s", daily(), MeanStd, MeanStdParams()) for _ in range(2))
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda _: services.reporting.begin(first), range(8)))
    assert len(set(map(id, futures))) == 1
    assert services.reporting.begin(second).result() is futures[0].result()


def test_a_report_that_failed_is_made_anew(services: Services, tmp_path: Path) -> None:
    version = services.training.fit("s", daily(), MeanStd, MeanStdParams())
    training, away = tmp_path / "data/training", tmp_path / "away"
    training.rename(away)
    assert services.reporting.begin(version).exception() is not None
    away.rename(training)
    assert services.reporting.begin(version).result().quality.points == 2000


# ---- the route -------------------------------------------------------------------------------------------------


def test_a_version_answers_with_its_report(client: httpx.Client, series_id: str) -> None:
    path = fit(client, series_id, spiked(), detector="robust_z")
    answer = client.get(path)
    version = answer.json()
    assert version["no_report_because"] is None
    report = version["report"]
    assert report["choice"] is None
    assert report["period"] == {"points": 288, "seconds": 86_400.0}
    assert report["quality"]["outliers"]["count"] == 2
    assert report["quality"]["outliers"]["worst"][0]["timestamp"].endswith("Z")
    assert report["quality"]["gaps"] == {
        "count": 0,
        "missing_points": 0,
        "missing_share": 0.0,
        "longest_s": 0.0,
        "first": [],
    }
    assert report["set_aside"]["count"] == len(report["set_aside"]["first"]) == 2
    assert client.get(path).content == answer.content


def test_detectability_is_a_table_of_kinds_and_sizes(client: httpx.Client, series_id: str) -> None:
    trial = client.get(fit(client, series_id, daily(), detector="robust_z")).json()["report"]["detectability"]
    assert trial["sizes"] == list(SIZES)
    assert [row["kind"] for row in trial["kinds"]] == list(ANOMALY_KINDS)
    for row in trial["kinds"]:
        assert len(row["recall"]) == len(row["tried"]) == len(SIZES)
        for share, tried in zip(row["recall"], row["tried"], strict=True):
            assert (share is None) == (tried == 0)
        if row["kind"] in SIZELESS:
            assert row["recall"][1:] == [None] * (len(SIZES) - 1)
    assert 0 <= trial["flagged_points"] <= trial["points"]
    spikes = trial["kinds"][0]["recall"]
    assert spikes[-1] >= spikes[0]


def test_a_short_history_has_a_report_without_detectability(client: httpx.Client, series_id: str) -> None:
    report = client.get(fit(client, series_id, daily(4))).json()["report"]
    assert report["detectability"] is None
    assert report["period"] is None
    assert report["false_alarm_rate"] == pytest.approx(math.erfc(3 / math.sqrt(2)))


def test_what_auto_chose_is_in_the_report(client: httpx.Client, series_id: str) -> None:
    version = client.get(fit(client, series_id, daily(), detector="auto")).json()
    choice = version["report"]["choice"]
    assert version["detector"] != "auto"
    assert choice["reason"]
    assert (
        version["detector"] in {candidate["detector"] for candidate in choice["candidates"]} or not choice["candidates"]
    )


def test_lists_of_versions_make_no_reports(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, daily(4))
    [listed] = client.get(f"/series/{series_id}/versions").json()["versions"]
    assert "report" not in listed


def test_a_reader_that_is_up_to_date_waits_for_no_report(client: httpx.Client, series_id: str) -> None:
    path = fit(client, series_id, daily(4))
    tag = client.get(path).headers["ETag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert client.delete(path, headers={"If-Match": tag}).status_code == 204


@pytest.mark.parametrize("folder", ["models", "training"])
def test_without_an_artifact_a_version_is_answered_without_its_report_and_without_a_tag(
    serve: Callable[..., Tidemark], tmp_path: Path, folder: str
) -> None:
    fit(serve().client, "s", daily(200))
    client = serve(DATA_DIR=str(tmp_path / "data")).client  # with nothing in memory
    whole = client.get("/series/s/versions/1")
    client = serve(DATA_DIR=str(tmp_path / "data")).client
    folder_of_it = tmp_path / "data" / folder
    folder_of_it.rename(tmp_path / "away")
    folder_of_it.mkdir()
    answer = client.get("/series/s/versions/1")
    assert answer.status_code == 200
    assert "ETag" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"
    version = answer.json()
    assert version.pop("report") is None
    assert version.pop("no_report_because")
    assert version.items() <= whole.json().items()
    folder_of_it.rmdir()
    (tmp_path / "away").rename(folder_of_it)
    assert client.get("/series/s/versions/1").json() == whole.json()


# ---- the page --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def watched(browser: Browser, tidemark: Tidemark) -> Iterator[Watched]:
    with watch(browser, tidemark) as watched:
        yield watched


@in_chromium
def test_the_page_shows_the_report(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, spiked(4000), detector="robust_z")
    page = watched.open_plot(series_id)
    report = page.locator("#report")
    report.scroll_into_view_if_needed()
    expect(report).to_have_attribute("data-state", "ready")
    expect(report).to_contain_text("About 2 false alarms a week")
    expect(report).to_contain_text("robust_z, as the request has it")
    expect(report).to_contain_text("2 outliers beyond doubt")
    expect(report).to_contain_text("2 stretches")
    heat = report.get_by_role("table", name="Share of injected anomalies that was found, by kind and size")
    expect(heat.get_by_role("rowheader")).to_have_text([kind.replace("_", " ") for kind in ANOMALY_KINDS])
    expect(heat.get_by_role("row").nth(1).get_by_role("cell")).to_have_count(len(SIZES))


@in_chromium
def test_the_page_says_why_there_is_no_report(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, daily(200))
    reason = '{"detector": "mean_std", "report": null, "no_report_because": "The file is <b>gone</b>."}'
    address = f"**/series/{series_id}/versions/1"
    watched.page.route(address, lambda route: route.fulfill(body=reason, content_type="application/json"))
    page = watched.open_plot(series_id)
    page.locator("#report").scroll_into_view_if_needed()
    failure = page.locator("#report [role=alert]")
    expect(failure).to_contain_text("There is no report. The file is <b>gone</b>.")
    page.unroute(address)
    failure.get_by_role("button", name="Try again").click()
    expect(page.locator("#report")).to_have_attribute("data-state", "ready")
    expect(failure).to_be_hidden()
